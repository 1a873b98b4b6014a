package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Client returns the configuration for a client of a server. ca is the file with the
// CA that the client trusts; "" means those that this machine trusts. cert and key
// are the client's own files, "" if it has none.
func Client(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	if ca != "" {
		roots, err := readRoots(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = roots
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	if cert != "" {
		pair, err := readPair(cert, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Explain returns the error of a client's handshake with a server in the words of
// this project, if it is about the server's certificate.
func Explain(err error) error {
	var wrong *tls.CertificateVerificationError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case !errors.As(err, &wrong):
		return err
	case errors.As(err, &host):
		return fmt.Errorf("the certificate of %s is for %s, and not for %s; use one of these names, or create a certificate that has this one, too, with the command certs", name(host.Certificate), hosts(host.Certificate), host.Host)
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate of %s was signed by %q, which this client does not trust; name the CA of the cluster with --cacert (KV_CACERT)", name(unknown.Cert), unknown.Cert.Issuer.CommonName)
	}
	return fmt.Errorf("the certificate of %s cannot be accepted: %w", name(wrong.UnverifiedCertificates[0]), explain(wrong.Err))
}

// hosts lists the hosts that a certificate is for.
func hosts(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no host"
	}
	return strings.Join(names, ", ")
}

// ClientOf returns the configuration of a client that wants one server of a cluster,
// wherever that is: the number in its certificate counts, and not its host.
func ClientOf(client *tls.Config, cluster string, server uint64) *tls.Config {
	c := client.Clone()
	c.InsecureSkipVerify = true // VerifyConnection checks everything
	c.VerifyConnection = verifyServer(&material{roots: client.RootCAs}, Identity{Cluster: cluster, Server: server})
	return c
}

// Role returns the role of the client at the other end of a connection that Verify has
// accepted; "" if it has none, or if s is nil.
func Role(s *tls.ConnectionState) string {
	if s == nil || len(s.PeerCertificates) == 0 {
		return ""
	}
	who, _ := Of(s.PeerCertificates[0]) // Verify has found no error
	return who.Role
}
