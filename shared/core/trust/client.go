package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// ClientOptions are the options of ClientKeys.
type ClientOptions struct {
	// CA is the file with the CA that the client trusts; "" means those that this
	// machine trusts.
	CA string

	// Cert and Key are the client's own files, "" if it has none.
	Cert, Key string

	// Log receives what an operator should know; nil means that nothing is logged.
	Log *slog.Logger
}

// ClientKeys are the CA that a client trusts, and its certificate and key, if it has
// them. When the files change, the next connection uses them; if they cannot be used
// then, the previous ones stay in use. ClientKeys is safe for concurrent use.
type ClientKeys struct {
	o ClientOptions

	mu sync.Mutex

	// inUse is what the files had when they were last usable; looked is their state
	// when they were last read.
	inUse  *tls.Config
	looked [3]stamp
}

// OpenClient reads the files of a client. An error says which of them cannot be used,
// and why.
func OpenClient(o ClientOptions) (*ClientKeys, error) {
	k := &ClientKeys{o: o}
	if k.o.Log == nil {
		k.o.Log = slog.New(slog.DiscardHandler)
	}
	k.looked = look(k.files())
	var err error
	if k.inUse, err = o.read(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *ClientKeys) files() [3]string { return [3]string{k.o.CA, k.o.Cert, k.o.Key} }

// Config returns the configuration for one connection. A later one may need new files,
// so ask again for each.
func (k *ClientKeys) Config() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	// It looks before it reads: what changes in between is seen the next time.
	if now := look(k.files()); now != k.looked {
		k.looked = now
		if c, err := k.o.read(); err != nil {
			k.o.Log.Error("the client's files for TLS have changed and cannot be used; what they had before stays in use", "error", err)
		} else {
			k.inUse = c
			k.o.Log.Info("the client's files for TLS have changed, and are in use now")
		}
	}
	return k.inUse.Clone()
}

// read reads the files.
func (o ClientOptions) read() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	if o.CA != "" {
		roots, err := readRoots(o.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = roots
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	if o.Cert != "" {
		pair, err := readPair(o.Cert, o.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Client returns the configuration for a client that does not live long: what the files
// have now. ClientOptions says what they are.
func Client(ca, cert, key string) (*tls.Config, error) {
	return ClientOptions{CA: ca, Cert: cert, Key: key}.read()
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
