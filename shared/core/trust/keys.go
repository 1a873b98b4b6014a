package trust

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// maxFile is how long a file may be, in bytes.
const maxFile = 1 << 20

// soon is how long before the end of a certificate the log begins to say so.
const soon = 14 * 24 * time.Hour

// Options are the options of Keys.
type Options struct {
	// Cluster and Server say whose certificate it must be.
	Cluster string
	Server  uint64

	// CA is a file with the certificates of those who sign, one or more. Cert is a
	// file with the server's own certificate, and perhaps those between it and the
	// CA after it. Key is the file with its key. All are in the form PEM.
	CA, Cert, Key string

	// RequireClients is true if clients must have a certificate.
	RequireClients bool

	// Log receives what an operator should know; nil means that nothing is logged.
	Log *slog.Logger
}

// Keys are the certificate of a server, its key, and the CA that it trusts. When the
// files change, the next handshake uses them; if they cannot be used then, the
// previous ones stay in use. Keys is safe for concurrent use.
type Keys struct {
	o   Options
	log *slog.Logger

	mu sync.Mutex

	// inUse is what the files had when they were last usable; looked is their state
	// when they were last read.
	inUse  *material
	looked [3]stamp

	// told is when the log last said that the certificate ends soon, or, if toldEnd
	// is true, that it has ended.
	told    time.Time
	toldEnd bool
}

// material is the content of the files. end is when the certificate ends, or an earlier
// one between it and the CA, or the CA itself: then nobody accepts it any more.
type material struct {
	cert  tls.Certificate
	roots *x509.CertPool
	end   time.Time
}

// stamp tells whether a file has changed.
type stamp struct {
	changed time.Time
	size    int64
}

// Open reads the files. An error says which of them cannot be used, and why.
func Open(o Options) (*Keys, error) {
	k := &Keys{o: o, log: o.Log}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if err := CheckCluster(o.Cluster); err != nil {
		return nil, err
	}
	k.looked = look(k.files())
	m, err := k.read()
	if err != nil {
		return nil, err
	}
	k.inUse = m
	k.remind(time.Now())
	return k, nil
}

func (k *Keys) files() [3]string { return [3]string{k.o.CA, k.o.Cert, k.o.Key} }

// look returns the state of files. That of a missing file is zero.
func look(files [3]string) (now [3]stamp) {
	for i, path := range files {
		if info, err := os.Stat(path); err == nil {
			now[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return now
}

// current returns what the files have, or had when they were last usable.
func (k *Keys) current() *material {
	k.mu.Lock()
	defer k.mu.Unlock()
	// It looks before it reads: what changes in between is seen the next time.
	if now := look(k.files()); now != k.looked {
		k.looked = now
		if m, err := k.read(); err != nil {
			k.log.Error("the files for TLS have changed and cannot be used; what they had before stays in use", "error", err)
		} else {
			k.inUse, k.told = m, time.Time{}
			k.log.Info("the files for TLS have changed, and are in use now", "certificate", k.o.Cert, "until", day(m.end))
		}
	}
	k.remind(time.Now())
	return k.inUse
}

// End returns when the server's certificate ends, or an earlier one between it and the
// CA, or the CA itself. It also does what a handshake does: it uses files that have
// changed, and reminds of the end.
func (k *Keys) End() time.Time { return k.current().end }

// remind logs, once a day, that the certificate ends soon or has ended. k.mu must be
// held, except in Open.
func (k *Keys) remind(now time.Time) {
	end := k.inUse.end
	ended := now.After(end)
	if end.Sub(now) > soon || now.Sub(k.told) < 24*time.Hour && ended == k.toldEnd {
		return
	}
	k.told, k.toldEnd = now, ended
	what, do := "this server's certificate", "put a new one in its place, which is used without a restart"
	if end.Before(k.inUse.cert.Leaf.NotAfter) {
		what, do = "the CA of this server's certificate", "put a new CA and a new certificate in their place, which are used without a restart"
	}
	if ended {
		k.log.Error(what+" has ended, so nobody accepts it; "+do, "certificate", k.o.Cert, "ended", moment(end))
		return
	}
	k.log.Warn(what+" ends soon; "+do, "certificate", k.o.Cert, "until", day(end))
}

// read reads and checks the files.
func (k *Keys) read() (*material, error) {
	roots, err := readRoots(k.o.CA)
	if err != nil {
		return nil, err
	}
	cert, err := readPair(k.o.Cert, k.o.Key)
	if err != nil {
		return nil, err
	}
	m := &material{cert: cert, roots: roots}
	chain := make([]*x509.Certificate, len(cert.Certificate))
	for i, der := range cert.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("the certificate %s is malformed: %w", k.o.Cert, err)
		}
	}
	who := Identity{Cluster: k.o.Cluster, Server: k.o.Server}
	// A server of a cluster accepts connections, and dials its peers.
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if m.end, err = m.verify(chain, use); err != nil {
			return nil, fmt.Errorf("the certificate %s cannot be used: %w", k.o.Cert, err)
		}
	}
	if err := belongs(cert.Leaf, who); err != nil {
		return nil, fmt.Errorf("the certificate %s cannot be used: %w", k.o.Cert, err)
	}
	return m, nil
}

// verify checks that certificates, the first of which is somebody's own, were signed
// by the CA and are valid now, and returns until when they are.
func (m *material) verify(chain []*x509.Certificate, use x509.ExtKeyUsage) (until time.Time, err error) {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	ways, err := chain[0].Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
	for _, way := range ways {
		end := slices.MinFunc(way, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
		if end.After(until) {
			until = end
		}
	}
	return until, explain(err)
}

// belongs checks whose certificate it is.
func belongs(c *x509.Certificate, want Identity) error {
	who, err := Of(c)
	if err == nil && who == (Identity{}) {
		err = errNobody
	}
	if err != nil {
		return fmt.Errorf("%w; it must have the URI %s", err, want.URI())
	}
	if who != want {
		return fmt.Errorf("it belongs to %s, and must belong to %s", who.URI(), want.URI())
	}
	return nil
}

// explain says in words of this project why a certificate is not valid.
func explain(err error) error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		c, verb := invalid.Cert, "ended"
		at := c.NotAfter
		if time.Now().Before(c.NotBefore) {
			verb, at = "begins", c.NotBefore
		}
		return fmt.Errorf("it %s on %s, and this machine's clock says %s; put a new one in its place", verb, moment(at), moment(time.Now()))
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return errors.New("its extended key usage does not allow this; a client needs clientAuth, a server clientAuth and serverAuth")
	case errors.As(err, &unknown):
		return fmt.Errorf("it was signed by %q, and not by the CA of the cluster", unknown.Cert.Issuer.CommonName)
	}
	return err
}

func day(t time.Time) string    { return t.UTC().Format(time.DateOnly) }
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// readFile reads a file that is not too long.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return text, nil
}

// readRoots reads the certificates of a CA.
func readRoots(path string) (*x509.CertPool, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	roots, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the CA %s has a part %q; it must have only certificates", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the CA %s has a malformed certificate: %w", path, err)
		}
		roots.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("the CA %s has no certificate in the form PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	return roots, nil
}

// readPair reads a certificate and its key.
func readPair(cert, key string) (tls.Certificate, error) {
	var none tls.Certificate
	certText, err := readFile(cert)
	if err != nil {
		return none, fmt.Errorf("the certificate: %w", err)
	}
	keyText, err := readFile(key)
	if err != nil {
		return none, fmt.Errorf("the key: %w", err)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return none, fmt.Errorf("the certificate %s and the key %s: %w", cert, key, err)
	}
	return pair, nil
}

// Accept returns the configuration for connections that this server accepts. names
// are the protocols that it speaks after the handshake (ALPN), the preferred ones
// first. The other side is asked for a certificate, but Verify checks it, after the
// handshake: it can then be told in words what is wrong.
func (k *Keys) Accept(names ...string) *tls.Config {
	c := k.common()
	c.NextProtos = names
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &k.current().cert, nil }
	return c
}

// Verify returns who is at the other end of a connection that this server has
// accepted. It must be called before anything is received on it. If the error is not
// nil, the connection must end.
func (k *Keys) Verify(s tls.ConnectionState) (Identity, error) {
	if len(s.PeerCertificates) == 0 {
		if k.o.RequireClients {
			return Identity{}, errors.New("this server accepts only clients with a certificate of its CA; give one with --cert and --key (KV_CERT, KV_KEY)")
		}
		return Identity{}, nil
	}
	own := s.PeerCertificates[0]
	var who Identity
	_, err := k.current().verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
	if err == nil {
		who, err = Of(own)
	}
	if err == nil && cmp.Or(who.Cluster, k.o.Cluster) != k.o.Cluster {
		err = fmt.Errorf("it belongs to %s, and this is a server of cluster %q", who.URI(), k.o.Cluster)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("this server does not accept the certificate of %s: %w", name(own), err)
	}
	return who, nil
}

// name returns the name of a certificate for people.
func name(c *x509.Certificate) string {
	if who, err := Of(c); err == nil && who != (Identity{}) {
		return who.URI()
	}
	return fmt.Sprintf("%.100q", c.Subject.CommonName)
}

// Dial returns the configuration for a connection to a peer.
func (k *Keys) Dial(server uint64) *tls.Config {
	m, c := k.current(), k.common()
	// The certificate must have the number of the server, not the name of its host,
	// so VerifyConnection checks everything.
	c.InsecureSkipVerify = true
	c.VerifyConnection = verifyServer(m, Identity{Cluster: k.o.Cluster, Server: server})
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.cert, nil }
	return c
}

// verifyServer returns a check that the other side is a server.
func verifyServer(m *material, want Identity) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		_, err := m.verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth)
		if err == nil {
			err = belongs(s.PeerCertificates[0], want)
		}
		if err != nil {
			return fmt.Errorf("the certificate of the server there cannot be accepted: %w", err)
		}
		return nil
	}
}

// common has what all connections of a server share.
func (k *Keys) common() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,

		// A session that continues without a handshake would continue with an old
		// certificate, too.
		SessionTicketsDisabled: true,

		// A record is one call of the system. The first records would be small, to
		// show web pages sooner.
		DynamicRecordSizingDisabled: true,
	}
}

// End returns when the certificate in a file ends. The error is an fs.ErrNotExist if
// there is no such file.
func End(path string) (time.Time, error) {
	text, err := readFile(path)
	if err != nil {
		return time.Time{}, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, fmt.Errorf("%s has no certificate in the form PEM (-----BEGIN CERTIFICATE-----)", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s has a malformed certificate: %w", path, err)
	}
	return c.NotAfter, nil
}
