package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trust"
)

// TLS is the field "tls" of cluster.json: the files for TLS. A relative path is
// relative to the folder of cluster.json. In Cert and Key, {id} stands for the number
// of a server.
type TLS struct {
	CA, Cert, Key string

	// RequireClients is true if clients need a certificate, too.
	RequireClients bool
}

// placeholder stands for the number of a server in a path.
const placeholder = "{id}"

// The values of "client_auth".
const (
	clientAuthNone    = "none"
	clientAuthRequire = "require"
)

// Certificates that this program creates.
const (
	// TLSFolder is the folder of the files for TLS in a data folder.
	TLSFolder = "tls"

	// caLifetime is how long a new CA is valid, and Lifetime a new certificate.
	caLifetime = 10 * 365 * 24 * time.Hour
	Lifetime   = 365 * 24 * time.Hour

	// renewal is how long before its end a certificate is replaced, when a cluster
	// starts and the key of its CA is there.
	renewal = 30 * 24 * time.Hour
)

// TLSIn returns the usual names of the files for TLS, in a folder.
func TLSIn(folder string) *TLS {
	name := "n" + placeholder
	return &TLS{CA: filepath.Join(folder, "ca.crt"), Cert: filepath.Join(folder, name+".crt"), Key: filepath.Join(folder, name+".key")}
}

// decodeTLS reads the field "tls".
func decodeTLS(d *strict.Decoder) *TLS {
	t := &TLS{}
	d.Object(func(field []byte) {
		switch string(field) {
		case "ca":
			t.CA = d.String()
		case "cert":
			t.Cert = d.String()
		case "key":
			t.Key = d.String()
		case "client_auth":
			switch auth := d.String(); {
			case d.Failed():
			case auth == clientAuthRequire:
				t.RequireClients = true
			case auth != clientAuthNone:
				d.Fail("%q is neither %s nor %s", auth, clientAuthNone, clientAuthRequire)
			}
		default:
			d.Fail("unknown field; tls has ca, cert, key and client_auth")
		}
	})
	return t
}

// check returns an error if the field is wrong for a cluster.
func (t *TLS) check(c node.Config) error {
	if t == nil {
		return nil
	}
	for _, f := range []struct{ name, path string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
		if f.path == "" {
			return fmt.Errorf(`field "tls.%s" is missing: it is the path of a file, such as %q`, f.name, TLSFolder+"/n{id}.crt")
		}
	}
	if err := trust.CheckCluster(c.Cluster); err != nil {
		return fmt.Errorf(`field "cluster": %w`, err)
	}
	return nil
}

// tlsOnDisk defines the names and the order of the fields.
type tlsOnDisk struct {
	CA         string `json:"ca"`
	Cert       string `json:"cert"`
	Key        string `json:"key"`
	ClientAuth string `json:"client_auth"`
}

func (t *TLS) onDisk() *tlsOnDisk {
	if t == nil {
		return nil
	}
	out := &tlsOnDisk{filepath.ToSlash(t.CA), filepath.ToSlash(t.Cert), filepath.ToSlash(t.Key), clientAuthNone}
	if t.RequireClients {
		out.ClientAuth = clientAuthRequire
	}
	return out
}

// of returns the files of one server, for a cluster.json in a folder.
func (t *TLS) of(folder string, id uint64) *TLS {
	path := func(p string) string {
		p = filepath.FromSlash(strings.ReplaceAll(p, placeholder, strconv.FormatUint(id, 10)))
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(folder, p)
	}
	return &TLS{CA: path(t.CA), Cert: path(t.Cert), Key: path(t.Key), RequireClients: t.RequireClients}
}

// from returns the field for a copy of a cluster.json that was in a folder: with
// absolute paths.
func (t *TLS) from(folder string) (*TLS, error) {
	if t == nil {
		return nil, nil
	}
	out := *t
	for _, path := range []*string{&out.CA, &out.Cert, &out.Key} {
		if filepath.IsAbs(filepath.FromSlash(*path)) {
			continue
		}
		whole, err := filepath.Abs(filepath.Join(folder, filepath.FromSlash(*path)))
		if err != nil {
			return nil, err
		}
		*path = whole
	}
	return &out, nil
}

// Files returns the paths of the files of a server, for a cluster.json at path, whose
// servers speak TLS.
func (f File) Files(path string, id uint64) *TLS { return f.TLS.of(filepath.Dir(path), id) }

// CAFile returns the path of the CA of the cluster, for a cluster.json at path; "" if
// its servers speak no TLS.
func (f File) CAFile(path string) string {
	if f.TLS == nil {
		return ""
	}
	return f.TLS.of(filepath.Dir(path), 0).CA
}

// KeyFile returns the path of the key of a server, for a cluster.json at path; "" if
// its servers speak no TLS.
func (f File) KeyFile(path string, id uint64) string {
	if f.TLS == nil {
		return ""
	}
	return f.TLS.of(filepath.Dir(path), id).Key
}

// Keys returns the keys of a server, for a cluster.json at path; nil if its servers
// speak no TLS. If the server has no certificate and the key of the CA is there, it
// gets one first.
func (f File) Keys(path string, id uint64, log *slog.Logger) (*trust.Keys, error) {
	if f.TLS == nil {
		return nil, nil
	}
	if err := f.certify(filepath.Dir(path), id); err != nil {
		return nil, err
	}
	files := f.TLS.of(filepath.Dir(path), id)
	return trust.Open(trust.Options{Cluster: f.Config.Cluster, Server: id, CA: files.CA, Cert: files.Cert, Key: files.Key,
		RequireClients: files.RequireClients, Log: log})
}

// certify creates the certificate of a server, if it has none or if its own ends soon,
// and the key of the CA is next to the CA. It changes nothing if it is not.
func (f File) certify(folder string, id uint64) error {
	files := f.TLS.of(folder, id)
	end, err := trust.End(files.Cert)
	if err == nil && time.Until(end) > renewal || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // one that is malformed is not ours; trust.Open says what is wrong
	}
	key := CAKey(files.CA)
	if _, failed := os.Stat(key); failed != nil {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s has no certificate: there is no %s, and no %s to create it with; create it where the key of the CA is, with the command certs", node.Name(id), files.Cert, key)
	}
	a, err := trust.OpenAuthority(files.CA, key)
	if err != nil {
		return err
	}
	who := trust.Identity{Cluster: f.Config.Cluster, Server: id}
	pair, err := a.Issue(who, HostNames(f.Config.Address(id)), Lifetime)
	if err != nil {
		return err
	}
	return WritePair(pair, files.Cert, files.Key)
}

// ExposedKey returns a warning if users other than its owner can read or change the key
// of a server; "" if they cannot, or if there is no such file.
func ExposedKey(path string, id uint64) string {
	if !exposed(path) {
		return ""
	}
	return fmt.Sprintf("other users of this machine can read or change %s, with which they can pretend to be %s; protect it with: chmod 600 %[1]s", path, node.Name(id))
}

// CAKey returns the path of the key of a CA: next to it, with another extension.
func CAKey(ca string) string { return strings.TrimSuffix(ca, filepath.Ext(ca)) + ".key" }

// HostNames returns the names by which clients reach a server at an address. For one
// on this machine these are all that this machine has.
func HostNames(address string) []string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	names := []string{host}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return names
	}
	for _, other := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(names, other) {
			names = append(names, other)
		}
	}
	return names
}

// WritePair writes a certificate and its key, readable only by their owner.
func WritePair(pair trust.Pair, cert, key string) error {
	for _, path := range []string{cert, key} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	// The key first: a certificate without its key would look complete after a crash.
	if err := writeFile(key, pair.Key); err != nil {
		return err
	}
	return writeFile(cert, pair.Cert)
}

// NewCA creates a CA for a cluster: its certificate at path, and its key next to it.
func NewCA(cluster, path string) error {
	_, pair, err := trust.NewAuthority(cluster, caLifetime)
	if err != nil {
		return err
	}
	return WritePair(pair, path, CAKey(path))
}

// certifyAll creates what the servers of the folder lack for TLS: the CA of a cluster
// that was made here, and certificates.
func (f *Folder) certifyAll(made bool) error {
	t := f.File.TLS
	if t == nil {
		return nil
	}
	if ca := t.of(f.Dir, 0).CA; made {
		if _, err := os.Stat(ca); errors.Is(err, fs.ErrNotExist) {
			if err := NewCA(f.File.Config.Cluster, ca); err != nil {
				return err
			}
		}
	}
	for _, m := range slices.Concat(f.File.Config.Members, f.File.Config.Joiners) {
		if err := f.File.certify(f.Dir, m.ID); err != nil {
			return err
		}
	}
	return nil
}

// clearTLS removes the files for TLS that were created in the folder, and nothing else.
func (f *Folder) clearTLS() error {
	folder := filepath.Join(f.Dir, TLSFolder)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := false
	for _, e := range entries {
		name, end := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), filepath.Ext(e.Name())
		if (end != ".crt" && end != ".key") || (name != "ca" && !serverFolder.MatchString(name)) {
			left = true
			continue
		}
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
			return err
		}
	}
	if left {
		return nil
	}
	return os.Remove(folder)
}
