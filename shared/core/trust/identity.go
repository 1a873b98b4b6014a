package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scheme begins the URI of an identity.
const scheme = "raftsteps"

// Roles are the roles that the certificate of a client can have.
var Roles = []string{"read", "write", "operate"}

// Identity is who a certificate belongs to: a server or a client of a cluster. Its
// zero value is nobody in particular: a certificate that does not say it, or none.
type Identity struct {
	// Cluster is the name of the cluster.
	Cluster string

	// Server is the number of a server; 0 for a client.
	Server uint64

	// Role is the role of a client, one of Roles. Name is its name, for people; ""
	// if it has none.
	Role string
	Name string
}

// URI returns the identity as it stands in a certificate.
func (i Identity) URI() string {
	text := scheme + "://" + i.Cluster
	switch {
	case i.Server != 0:
		return text + "/server/" + strconv.FormatUint(i.Server, 10)
	case i.Name != "":
		return text + "/client/" + i.Role + "/" + i.Name
	}
	return text + "/client/" + i.Role
}

// clusterForm is what a name must be to stand in a URI in the place of a host.
var clusterForm = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckCluster returns an error if a cluster's name cannot stand in a certificate.
func CheckCluster(name string) error {
	if !clusterForm.MatchString(name) {
		return fmt.Errorf("the name %q cannot stand in a certificate: with TLS, a cluster's name consists of letters, digits and -, _ and .", name)
	}
	return nil
}

// clientForm is the form of a client's name.
var clientForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Check returns an error if the identity cannot stand in a certificate.
func (i Identity) Check() error {
	switch err := CheckCluster(i.Cluster); {
	case err != nil:
		return err
	case i.Server != 0:
		return nil
	case !slices.Contains(Roles, i.Role):
		return fmt.Errorf("%q is not a role; the roles are %s", i.Role, strings.Join(Roles, ", "))
	case i.Name != "" && !clientForm.MatchString(i.Name):
		return fmt.Errorf("%q is not a name for a client; a name has 1 to 64 letters, digits, and . _ -", i.Name)
	}
	return nil
}

// Of returns who a certificate belongs to. It checks nothing else.
func Of(c *x509.Certificate) (Identity, error) {
	var found []*url.URL
	for _, u := range c.URIs {
		if u.Scheme == scheme {
			found = append(found, u)
		}
	}
	switch len(found) {
	case 0:
		return Identity{}, nil
	case 1:
		return parse(found[0].String())
	}
	return Identity{}, fmt.Errorf("it has %d identities, %v; a certificate has one", len(found), found)
}

// parse is the inverse of URI.
func parse(uri string) (Identity, error) {
	bad := fmt.Errorf("%.200q is not an identity, such as %s or %s", uri, Identity{Cluster: "CLUSTER", Server: 2}.URI(), Identity{Cluster: "CLUSTER", Role: "write"}.URI())
	parts := strings.Split(strings.TrimPrefix(uri, scheme+"://"), "/")
	if len(parts) < 3 || len(parts) > 4 {
		return Identity{}, bad
	}
	i := Identity{Cluster: parts[0]}
	switch {
	case parts[1] == "server":
		i.Server, _ = strconv.ParseUint(parts[2], 10, 64) // compared with its text below
	case parts[1] == "client" && len(parts) == 4:
		i.Role, i.Name = parts[2], parts[3]
	default:
		i.Role = parts[2]
	}
	if i.URI() != uri || i.Check() != nil {
		return Identity{}, bad
	}
	return i, nil
}

// errNobody says that a certificate has no identity.
var errNobody = errors.New("it has no URI that says who it belongs to")
