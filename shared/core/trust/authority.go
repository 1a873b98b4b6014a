package trust

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// Authority is a CA: it signs the certificates of a cluster.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Pair is a certificate and its key, in the form PEM.
type Pair struct {
	Cert, Key []byte

	// Until is when the certificate ends.
	Until time.Time
}

// ahead is how far the beginning of a certificate lies in the past, because the
// clocks of machines differ.
const ahead = time.Hour

// NewAuthority creates a CA for a cluster.
func NewAuthority(cluster string, lifetime time.Duration) (*Authority, Pair, error) {
	if err := CheckCluster(cluster); err != nil {
		return nil, Pair{}, err
	}
	key, c, err := begin("CA of "+cluster, lifetime)
	if err != nil {
		return nil, Pair{}, err
	}
	c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero = true, true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	a := &Authority{cert: c, key: key}
	pair, err := a.sign(c, key)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err = ParseAuthority(pair.Cert, pair.Key)
	return a, pair, err
}

// OpenAuthority reads a CA from its files.
func OpenAuthority(cert, key string) (*Authority, error) {
	certText, err := readFile(cert)
	if err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	keyText, err := readFile(key)
	if err != nil {
		return nil, fmt.Errorf("the key of the CA: %w", err)
	}
	a, err := ParseAuthority(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("the CA %s with the key %s: %w", cert, key, err)
	}
	return a, nil
}

// ParseAuthority reads a CA. If cert has several certificates, the key belongs to the
// first of them.
func ParseAuthority(cert, key []byte) (*Authority, error) {
	certBlock, _ := pem.Decode(cert)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" {
		return nil, errors.New("there is no certificate in the form PEM")
	}
	c, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	keyBlock, _ := pem.Decode(key)
	if keyBlock == nil {
		return nil, errors.New("there is no key in the form PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	public, comparable := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !c.IsCA:
		return nil, errors.New("it is not the certificate of a CA")
	case !ok || !comparable || !public.Equal(signer.Public()):
		return nil, errors.New("the key is not the one of the certificate")
	}
	return &Authority{cert: c, key: signer}, nil
}

// Until returns when the certificate of the CA ends.
func (a *Authority) Until() time.Time { return a.cert.NotAfter }

// Issue creates a certificate for a server or a client. hosts are the names and IP
// addresses by which clients reach a server. The certificate ends with the CA, if that
// ends first.
func (a *Authority) Issue(who Identity, hosts []string, lifetime time.Duration) (Pair, error) {
	if err := who.Check(); err != nil {
		return Pair{}, err
	}
	uri, err := url.Parse(who.URI())
	if err != nil {
		return Pair{}, err
	}
	title := cmp.Or(who.Name, who.Role)
	if who.Server != 0 {
		title = fmt.Sprintf("n%d", who.Server)
	}
	key, c, err := begin(title+" of "+who.Cluster, lifetime)
	if err != nil {
		return Pair{}, err
	}
	if c.NotAfter.After(a.cert.NotAfter) {
		c.NotAfter = a.cert.NotAfter
	}
	c.URIs = []*url.URL{uri}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if who.Server != 0 {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, host)
		}
	}
	return a.sign(c, key)
}

// begin returns a new key, and what all certificates share.
func begin(name string, lifetime time.Duration) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	const longest = 64 // a common name has no more characters
	return key, &x509.Certificate{
		Subject:   pkix.Name{CommonName: name[:min(len(name), longest)]},
		NotBefore: now.Add(-ahead),
		NotAfter:  now.Add(lifetime),
	}, nil
}

// sign returns a certificate for a key, signed by the CA.
func (a *Authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("the certificate of %s: %w", c.Subject.CommonName, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("the key of %s: %w", c.Subject.CommonName, err)
	}
	return Pair{
		Cert:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		Until: c.NotAfter,
	}, nil
}
