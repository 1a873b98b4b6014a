package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func server(id uint64) Identity   { return Identity{Cluster: "north", Server: id} }
func client(role string) Identity { return Identity{Cluster: "north", Role: role} }

// ca is a CA whose files are in a folder.
type ca struct {
	t   *testing.T
	dir string
	a   *Authority
}

func newCA(t *testing.T) *ca {
	t.Helper()
	a, pair, err := NewAuthority("north", time.Hour)
	require.NoError(t, err)
	c := &ca{t, t.TempDir(), a}
	c.write("ca.crt", pair.Cert)
	return c
}

func (c *ca) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ca) write(name string, text []byte) {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(c.path(name), text, 0o600))
}

// issue writes a certificate and its key under a name.
func (c *ca) issue(name string, who Identity, lifetime time.Duration, hosts ...string) {
	c.t.Helper()
	pair, err := c.a.Issue(who, hosts, lifetime)
	require.NoError(c.t, err)
	c.write(name+".crt", pair.Cert)
	c.write(name+".key", pair.Key)
}

func (c *ca) options(id uint64, name string) Options {
	return Options{Cluster: "north", Server: id, CA: c.path("ca.crt"), Cert: c.path(name + ".crt"), Key: c.path(name + ".key")}
}

// keys opens the keys of a server, which are issued first.
func (c *ca) keys(id uint64, name string) *Keys {
	c.t.Helper()
	c.issue(name, server(id), time.Hour, "127.0.0.1", "kv.example.org")
	k, err := Open(c.options(id, name))
	require.NoError(c.t, err)
	return k
}

// shake makes a handshake. It returns who the accepting side found at the other end,
// and the errors of both sides.
func shake(t *testing.T, accept *Keys, dial *tls.Config) (who Identity, accepted, dialed error) {
	t.Helper()
	a, d := net.Pipe()
	defer a.Close()
	defer d.Close()
	done := make(chan error, 1)
	go func() {
		c := tls.Client(d, dial)
		err := c.Handshake()
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		if err != nil {
			d.Close() // after the alert, which a pipe passes on at once
		}
		done <- err
	}()
	s := tls.Server(a, accept.Accept("http/1.1"))
	accepted = s.Handshake()
	if accepted == nil {
		_, err := io.ReadFull(s, make([]byte, 1))
		require.NoError(t, err)
		who, accepted = accept.Verify(s.ConnectionState())
	}
	return who, accepted, <-done
}

func TestIdentities(t *testing.T) {
	for _, test := range []struct {
		uri  string
		want Identity
	}{
		{"raftsteps://north/server/2", server(2)},
		{"raftsteps://07-membership-6e2c51/server/9007199254740992", Identity{Cluster: "07-membership-6e2c51", Server: 1 << 53}},
		{"raftsteps://north/client/operate", client("operate")},
		{"raftsteps://north/client/write/app", Identity{Cluster: "north", Role: "write", Name: "app"}},
	} {
		got, err := parse(test.uri)
		require.NoError(t, err, test.uri)
		require.Equal(t, test.want, got)
		require.Equal(t, test.uri, got.URI())
	}
	for _, uri := range []string{
		"raftsteps://north", "raftsteps://north/server/0", "raftsteps://north/server/02", "raftsteps://north/server/-2",
		"raftsteps://north/server/2/x", "raftsteps://north/server", "raftsteps:///server/2", "raftsteps://north/client/admin",
		"raftsteps://north/client/server/2", "raftsteps://north/client/read/", "raftsteps://nor%20th/server/2", "raftsteps:north/server/2",
		"raftsteps://north/server/18446744073709551616", "raftsteps://north/client/read/a%2Fb", "raftsteps://north/Server/2",
	} {
		got, err := parse(uri)
		require.ErrorContains(t, err, "is not an identity, such as raftsteps://CLUSTER/server/2", uri)
		require.Zero(t, got)
	}
	require.ErrorContains(t, CheckCluster("north cluster"), `the name "north cluster" cannot stand in a certificate`)
}

// Two servers of a cluster accept each other, under their numbers only.
func TestPeers(t *testing.T) {
	c := newCA(t)
	n1, n2 := c.keys(1, "n1"), c.keys(2, "n2")
	who, accepted, dialed := shake(t, n1, n2.Dial(1))
	require.NoError(t, errors.Join(accepted, dialed))
	require.Equal(t, server(2), who)

	_, _, dialed = shake(t, n1, n2.Dial(3))
	require.ErrorContains(t, dialed, "the certificate of the server there cannot be accepted: it belongs to raftsteps://north/server/1, and must belong to raftsteps://north/server/3")

	// A client's certificate is none of a server, also not for a server's usage.
	o := c.options(2, "app")
	c.issue("app", client("operate"), time.Hour, "127.0.0.1")
	_, err := Open(o)
	require.ErrorContains(t, err, "app.crt cannot be used: its extended key usage does not allow this")
	c.issue("n9", server(9), time.Hour)
	o = c.options(2, "n9")
	_, err = Open(o)
	require.ErrorContains(t, err, "n9.crt cannot be used: it belongs to raftsteps://north/server/9, and must belong to raftsteps://north/server/2")
}

// A peer of another CA is not accepted, by either side.
func TestAnotherCA(t *testing.T) {
	c, other := newCA(t), newCA(t)
	n1, n2 := c.keys(1, "n1"), other.keys(2, "n2")
	_, _, dialed := shake(t, n1, n2.Dial(1))
	require.ErrorContains(t, dialed, `it was signed by "CA of north", and not by the CA of the cluster`)

	fooled := n2.Dial(1)
	fooled.VerifyConnection = nil
	_, accepted, dialed := shake(t, n1, fooled)
	require.NoError(t, dialed, "the answer comes inside of TLS")
	require.EqualError(t, accepted, `this server does not accept the certificate of raftsteps://north/server/2: it was signed by "CA of north", and not by the CA of the cluster`)

	o := c.options(2, "n2")
	o.Cert, o.Key = other.path("n2.crt"), other.path("n2.key")
	_, err := Open(o)
	require.ErrorContains(t, err, `n2.crt cannot be used: it was signed by "CA of north", and not by the CA of the cluster`)
}

// A certificate of the same CA for another cluster is worth nothing here.
func TestAnotherCluster(t *testing.T) {
	c := newCA(t)
	n1 := c.keys(1, "n1")
	for _, who := range []Identity{{Cluster: "south", Server: 2}, {Cluster: "south", Role: "operate"}} {
		c.issue("other", who, time.Hour)
		config, err := Client(c.path("ca.crt"), c.path("other.crt"), c.path("other.key"))
		require.NoError(t, err)
		config.ServerName = "kv.example.org"
		got, accepted, dialed := shake(t, n1, config)
		require.NoError(t, dialed)
		require.Zero(t, got)
		require.ErrorContains(t, accepted, "it belongs to "+who.URI()+`, and this is a server of cluster "north"`)
	}
}

func TestClients(t *testing.T) {
	c := newCA(t)
	n1 := c.keys(1, "n1")
	c.issue("app", client("write"), time.Hour)
	dial := func(host, ca, cert string) (Identity, error, error) {
		key := strings.TrimSuffix(cert, ".crt") + ".key"
		if cert == "" {
			key = ""
		}
		config, err := Client(ca, cert, key)
		require.NoError(t, err)
		config.ServerName = host
		who, accepted, dialed := shake(t, n1, config)
		return who, accepted, Explain(dialed)
	}
	who, accepted, dialed := dial("127.0.0.1", c.path("ca.crt"), "")
	require.NoError(t, errors.Join(accepted, dialed))
	require.Zero(t, who)
	who, accepted, dialed = dial("kv.example.org", c.path("ca.crt"), c.path("app.crt"))
	require.NoError(t, errors.Join(accepted, dialed))
	require.Equal(t, client("write"), who)

	_, _, dialed = dial("10.0.0.9", c.path("ca.crt"), "")
	require.EqualError(t, dialed, "the certificate of raftsteps://north/server/1 is for kv.example.org, 127.0.0.1, and not for 10.0.0.9; use one of these names, or create a certificate that has this one, too, with the command certs")
	_, _, dialed = dial("127.0.0.1", newCA(t).path("ca.crt"), "")
	require.EqualError(t, dialed, `the certificate of raftsteps://north/server/1 was signed by "CA of north", which this client does not trust; name the CA of the cluster with --cacert (KV_CACERT)`)
	_, _, dialed = dial("127.0.0.1", "", "")
	require.ErrorContains(t, dialed, "which this client does not trust")

	n1.o.RequireClients = true
	_, accepted, dialed = dial("127.0.0.1", c.path("ca.crt"), "")
	require.NoError(t, dialed)
	require.EqualError(t, accepted, "this server accepts only clients with a certificate of its CA; give one with --cert and --key (KV_CERT, KV_KEY)")
	who, accepted, dialed = dial("127.0.0.1", c.path("ca.crt"), c.path("app.crt"))
	require.NoError(t, errors.Join(accepted, dialed))
	require.Equal(t, client("write"), who)
	_, err := Client(c.path("ca.crt"), c.path("app.crt"), "")
	require.EqualError(t, err, "a certificate needs its key, and a key its certificate")
}

// Nothing older than TLS 1.3 is spoken.
func TestOldVersions(t *testing.T) {
	c := newCA(t)
	config, err := Client(c.path("ca.crt"), "", "")
	require.NoError(t, err)
	config.ServerName, config.MinVersion, config.MaxVersion = "127.0.0.1", tls.VersionTLS12, tls.VersionTLS12
	_, accepted, dialed := shake(t, c.keys(1, "n1"), config)
	require.ErrorContains(t, accepted, "unsupported versions")
	require.ErrorContains(t, dialed, "protocol version not supported")
}

// A certificate with two identities has none.
func TestTwoIdentities(t *testing.T) {
	one, two := &url.URL{Scheme: "raftsteps", Host: "north", Path: "/server/1"}, &url.URL{Scheme: "raftsteps", Host: "north", Path: "/client/read"}
	who, err := Of(&x509.Certificate{URIs: []*url.URL{one, two}})
	require.EqualError(t, err, "it has 2 identities, [raftsteps://north/server/1 raftsteps://north/client/read]; a certificate has one")
	require.Zero(t, who)
	who, err = Of(&x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "north"}, one}})
	require.NoError(t, err)
	require.Equal(t, server(1), who)
}

// A certificate that has ended, or has not begun, is refused with its time.
func TestTime(t *testing.T) {
	c := newCA(t)
	n1 := c.keys(1, "n1")
	c.issue("old", server(2), -time.Minute)
	o := c.options(2, "old")
	_, err := Open(o)
	require.ErrorContains(t, err, "old.crt cannot be used: it ended on "+moment(time.Now().Add(-time.Minute)))
	require.ErrorContains(t, err, "put a new one in its place")

	config, err := Client(c.path("ca.crt"), o.Cert, o.Key)
	require.NoError(t, err)
	config.ServerName = "127.0.0.1"
	_, accepted, dialed := shake(t, n1, config)
	require.NoError(t, dialed)
	require.ErrorContains(t, accepted, "this server does not accept the certificate of raftsteps://north/server/2: it ended on ")

	early := &x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}
	require.ErrorContains(t, explain(x509.CertificateInvalidError{Cert: early, Reason: x509.Expired}), "it begins on "+moment(early.NotBefore))
}

// New files are used at the next handshake. Files that cannot be used are logged, once,
// and change nothing.
func TestFilesThatChange(t *testing.T) {
	c := newCA(t)
	c.issue("n1", server(1), time.Hour, "127.0.0.1")
	var log bytes.Buffer
	o := c.options(1, "n1")
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	k, err := Open(o)
	require.NoError(t, err)
	serial := func() string { return k.current().cert.Leaf.SerialNumber.String() }
	first := serial()

	for name, change := range map[string]func(){
		"is malformed":    func() { c.write("n1.crt", []byte("no certificate")) },
		"is gone":         func() { require.NoError(t, os.Remove(o.Cert)) },
		"another's":       func() { c.issue("n2", server(2), time.Hour); copyFile(t, c.path("n2.crt"), o.Cert) },
		"of another host": func() { c.issue("n1", server(7), time.Hour) },
		"too long":        func() { c.write("n1.crt", bytes.Repeat([]byte("x"), maxFile+1)) },
		"CA without any":  func() { c.write("ca.crt", nil) },
	} {
		log.Reset()
		keep := map[string][]byte{}
		for _, path := range k.files() {
			keep[path], err = os.ReadFile(path)
			require.NoError(t, err)
		}
		change()
		for range 3 {
			require.Equal(t, first, serial(), name)
		}
		require.Equal(t, 1, strings.Count(log.String(), "the files for TLS have changed and cannot be used; what they had before stays in use"), name)
		for path, text := range keep {
			require.NoError(t, os.WriteFile(path, text, 0o600))
		}
		require.Equal(t, first, serial(), name)
	}

	log.Reset()
	c.issue("n1", server(1), 2*time.Hour, "127.0.0.1")
	require.NotEqual(t, first, serial())
	require.Equal(t, 1, strings.Count(log.String(), "the files for TLS have changed, and are in use now"))
	require.Contains(t, log.String(), "this server's certificate ends soon")
}

// A client that lives long does the same for its next connection.
func TestFilesOfAClientThatChange(t *testing.T) {
	c, next := newCA(t), newCA(t)
	c.issue("app", client("write"), time.Hour)
	next.issue("app", client("read"), time.Hour)
	var log bytes.Buffer
	k, err := OpenClient(ClientOptions{CA: c.path("ca.crt"), Cert: c.path("app.crt"), Key: c.path("app.key"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	has := func(want *ca, text string) {
		t.Helper()
		log.Reset()
		for range 3 {
			config := k.Config()
			block, _ := pem.Decode(read(t, want.path("app.crt")))
			require.Equal(t, block.Bytes, config.Certificates[0].Certificate[0])
			roots, err := readRoots(want.path("ca.crt"))
			require.NoError(t, err)
			require.True(t, roots.Equal(config.RootCAs))
		}
		require.Equal(t, min(1, len(text)), strings.Count(log.String(), "TLS"), log.String())
		require.Contains(t, log.String(), text)
	}
	own := &ca{t, t.TempDir(), nil} // what the client's files have at first
	for _, name := range []string{"ca.crt", "app.crt", "app.key"} {
		copyFile(t, c.path(name), own.path(name))
	}
	has(own, "")
	copyFile(t, next.path("app.crt"), c.path("app.crt"))
	has(own, "the client's files for TLS have changed and cannot be used; what they had before stays in use")
	copyFile(t, next.path("app.key"), c.path("app.key"))
	copyFile(t, next.path("ca.crt"), c.path("ca.crt"))
	has(next, "the client's files for TLS have changed, and are in use now")
	require.NoError(t, os.Remove(c.path("ca.crt")))
	has(next, "cannot be used")
	_, err = OpenClient(ClientOptions{CA: c.path("ca.crt")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The log says once a day that the certificate ends soon, and when it has ended. A CA
// that ends first counts, too.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const days = 24 * time.Hour
		began := time.Now().UTC()
		a, pair, err := NewAuthority("north", 60*days)
		require.NoError(t, err)
		c := &ca{t, t.TempDir(), a}
		c.write("ca.crt", pair.Cert)
		c.issue("n1", server(1), 50*days, "127.0.0.1")
		var log bytes.Buffer
		o := c.options(1, "n1")
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		k, err := Open(o)
		require.NoError(t, err)
		said := func(text string) int {
			defer log.Reset()
			for range 3 {
				k.End()
			}
			return strings.Count(log.String(), text)
		}
		require.Equal(t, began.Add(50*days), k.End())
		require.Empty(t, log.String())

		again := *a.cert
		again.NotAfter = began.Add(20 * days)
		pair, err = a.sign(&again, a.key.(*ecdsa.PrivateKey))
		require.NoError(t, err)
		c.write("ca.crt", pair.Cert)
		require.Equal(t, began.Add(20*days), k.End())
		require.Contains(t, log.String(), "until=2000-01-21")
		require.Zero(t, said("ends soon"))

		time.Sleep(7 * days)
		for range 3 {
			require.Equal(t, 1, said("level=WARN msg=\"the CA of this server's certificate ends soon; put a new CA"))
			require.Zero(t, said("ends soon"))
			time.Sleep(days)
		}
		time.Sleep(10*days - time.Hour)
		require.Equal(t, 1, said("ends soon"))
		time.Sleep(2 * time.Hour)
		require.Equal(t, 1, said("level=ERROR msg=\"the CA of this server's certificate has ended"), "also within a day after the last reminder")
		require.Zero(t, said("certificate"))
		time.Sleep(days)
		require.Equal(t, 1, said("has ended"))

		c.write("ca.crt", read(t, filepath.Join(c.dir, "ca.crt")))
		require.Equal(t, began.Add(20*days), k.End(), "a file that cannot be used changes nothing")
	})
}

func copyFile(t *testing.T, from, to string) {
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}

// The CA is replaced without a moment in which servers do not accept each other: both
// are trusted for a while.
func TestTwoCAs(t *testing.T) {
	c, next := newCA(t), newCA(t)
	n1, n2 := c.keys(1, "n1"), c.keys(2, "n2")
	both := append(read(t, next.path("ca.crt")), read(t, c.path("ca.crt"))...)
	c.write("ca.crt", both)
	next.issue("n2", server(2), time.Hour)
	copyFile(t, next.path("n2.crt"), c.path("n2.crt"))
	copyFile(t, next.path("n2.key"), c.path("n2.key"))
	for _, dial := range []func() (Identity, error, error){
		func() (Identity, error, error) { return shake(t, n1, n2.Dial(1)) },
		func() (Identity, error, error) { return shake(t, n2, n1.Dial(2)) },
	} {
		_, accepted, dialed := dial()
		require.NoError(t, errors.Join(accepted, dialed))
	}
}

func read(t *testing.T, path string) []byte {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

func TestAuthorityFiles(t *testing.T) {
	a, pair, err := NewAuthority("north", time.Hour)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	require.NoError(t, errors.Join(os.WriteFile(cert, pair.Cert, 0o600), os.WriteFile(key, pair.Key, 0o600)))
	again, err := OpenAuthority(cert, key)
	require.NoError(t, err)
	require.Equal(t, a.Until(), again.Until())

	long, err := again.Issue(server(1), nil, 100*time.Hour)
	require.NoError(t, err)
	require.Equal(t, again.Until(), long.Until, "no certificate is valid for longer than its CA")
	block, _ := pem.Decode(long.Cert)
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.False(t, c.IsCA)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, c.ExtKeyUsage)

	_, err = again.Issue(Identity{Cluster: "north", Role: "admin"}, nil, time.Hour)
	require.EqualError(t, err, `"admin" is not a role; the roles are read, write, operate`)
	_, err = ParseAuthority(long.Cert, long.Key)
	require.EqualError(t, err, "it is not the certificate of a CA")
	_, other, err := NewAuthority("north", time.Hour)
	require.NoError(t, err)
	_, err = ParseAuthority(pair.Cert, other.Key)
	require.EqualError(t, err, "the key is not the one of the certificate")
}
