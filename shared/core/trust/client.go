package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
		return fmt.Errorf("the server's certificate is for other names (%w)", host)
	case errors.As(err, &unknown):
		return fmt.Errorf("the server's certificate was signed by %q, which this client does not trust; name the CA of the cluster with --cacert", unknown.Cert.Issuer.CommonName)
	}
	return fmt.Errorf("the server's certificate cannot be accepted: %w", explain(wrong.Err))
}
