package udp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/loglimit"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/version"
)

// certificates are files with the CA and with certificates for everybody.
type certificates struct {
	t   *testing.T
	a   *trust.Authority
	dir string
}

func newCertificates(t *testing.T) certificates {
	a, ca, err := trust.NewAuthority("north", time.Hour)
	require.NoError(t, err)
	c := certificates{t, a, t.TempDir()}
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "ca"), ca.Cert, 0o600))
	return c
}

// issue returns the files of a certificate and of its key.
func (c certificates) issue(who trust.Identity) (cert, key string) {
	pair, err := c.a.Issue(who, []string{"127.0.0.1"}, time.Hour)
	require.NoError(c.t, err)
	cert = filepath.Join(c.dir, strings.ReplaceAll(who.URI(), "/", "-"))
	key = cert + ".key"
	require.NoError(c.t, os.WriteFile(cert, pair.Cert, 0o600))
	require.NoError(c.t, os.WriteFile(key, pair.Key, 0o600))
	return cert, key
}

func (c certificates) keys(id uint64) *trust.Keys {
	cert, key := c.issue(trust.Identity{Cluster: "north", Server: id})
	k, err := trust.Open(trust.Options{Cluster: "north", Server: id, CA: filepath.Join(c.dir, "ca"), Cert: cert, Key: key})
	require.NoError(c.t, err)
	return k
}

// bare is a connection of which the first bytes have been read.
type bare struct{ *tls.Conn }

func (b bare) NetConn() net.Conn { return b.Conn }

// ask connects somebody with a server over TLS, and asks it for keys. It returns
// whether the server has agreed, and how often it has called proved.
func ask(t *testing.T, server *Transport, client *tls.Config) (agreed bool, proofs int) {
	t.Helper()
	near, far := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c := tls.Server(far, server.tls.Accept())
		defer far.Close()
		if c.Handshake() == nil {
			server.Serve(bare{c}, func() { proofs++ })
		}
	}()
	c := tls.Client(near, client)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err := io.WriteString(c, agreement)
	require.NoError(t, err)
	answer, _ := io.ReadAll(c)
	require.NoError(t, near.Close())
	<-ended
	return string(answer) == "\n", proofs
}

// Only the certificate of another server makes keys, and they are for that server.
func TestWhoMayAgree(t *testing.T) {
	c := newCertificates(t)
	n := newInternet()
	server := n.start(t, 1, func(o *transport.Options) { o.Keys = c.keys(1) })
	other := c.keys(2)
	agreed, proofs := ask(t, server.Transport, other.Dial(1))
	require.True(t, agreed)
	require.Equal(t, 1, proofs)
	require.Len(t, server.peers, 1)
	require.Len(t, server.peers[2].keys, 1)

	refused := func(client *tls.Config, why string) {
		t.Helper()
		agreed, proofs := ask(t, server.Transport, client)
		require.False(t, agreed)
		require.Zero(t, proofs)
		require.Contains(t, server.log.String(), why)
		require.Len(t, server.peers, 1)
		server.refusals = loglimit.Limit{} // the log says it again
	}
	refused(c.keys(1).Dial(1), "raftsteps://north/server/1 is not another server of the cluster")
	nobody, err := trust.Client(filepath.Join(c.dir, "ca"), "", "")
	require.NoError(t, err)
	refused(trust.ClientOf(nobody, "north", 1), "is not another server of the cluster")
	client, err := trust.Client(filepath.Join(c.dir, "ca"), "", "")
	require.NoError(t, err)
	cert, key := c.issue(trust.Identity{Cluster: "north", Role: "operate"})
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	client.Certificates = []tls.Certificate{pair}
	refused(trust.ClientOf(client, "north", 1), "raftsteps://north/client/operate is not another server of the cluster")

	// Both sides have the same keys, and each pair of servers has others.
	for range keptKeys + 2 {
		agreed, _ = ask(t, server.Transport, other.Dial(1))
		require.True(t, agreed)
	}
	require.Len(t, server.peers[2].keys, keptKeys)
	require.NotEqual(t, server.peers[2].keys[0].hello, server.peers[2].keys[1].hello)

	// A server that uses no TLS agrees on nothing.
	server.tls, other = nil, c.keys(1)
	near, far := net.Pipe()
	server.Serve(bare{tls.Server(far, other.Accept())}, func() { require.Fail(t, "proved") })
	require.NoError(t, near.Close())
}

// In a cluster that uses TLS, one who has the secret and no certificate gets no answer.
func TestTheSecretIsNotEnough(t *testing.T) {
	c := newCertificates(t)
	n := newInternet()
	server := n.start(t, 1, func(o *transport.Options) { o.Keys = c.keys(1) }).run()
	agreed, _ := ask(t, server.Transport, c.keys(2).Dial(1))
	require.True(t, agreed)
	stranger := n.start(t, 2, nil)
	hello := func(k keys) []byte {
		return hello{can: version.Between(protocol, protocol), from: 2, to: 1, start: 1, number: stranger.hellos.Add(1), cluster: stranger.cluster}.encode(k)
	}
	stranger.arrivedAt(server, hello(stranger.keys))
	stranger.arrivedAt(server, append(hello(stranger.keys), make([]byte, 100)...))
	require.Zero(t, count(n.record(), kindAnswer)+count(n.record(), kindRefusal))
	var agreedKeys keys
	server.look(func() { agreedKeys = server.peers[2].keys[0] })
	stranger.arrivedAt(server, hello(agreedKeys))
	require.Equal(t, 1, count(n.record(), kindAnswer))
	server.end()
}

// arrivedAt makes a datagram of s arrive at another server.
func (s *station) arrivedAt(other *station, b []byte) {
	other.arrived(b, place(s.id), func(uint64, []byte) {})
}

// A link says what is wrong while servers cannot agree.
func TestNoAgreement(t *testing.T) {
	c := newCertificates(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var answer atomic.Value
	answer.Store("")
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s := tls.Server(nc, c.keys(1).Accept())
			if text := answer.Load().(string); text != "" {
				_, _ = io.ReadFull(s, make([]byte, len(agreement)))
				_, _ = io.WriteString(s, text)
			} else {
				_ = s.Handshake()
			}
			_ = s.Close()
		}
	}()
	n := newInternet()
	s := n.start(t, 3, func(o *transport.Options) { o.Keys = c.keys(3) })
	try := func(to uint64, want string) {
		t.Helper()
		l := newLink(s.Transport, to)
		l.place(ln.Addr().String(), place(0))
		l.away = time.Now().Add(-time.Hour)
		l.proved = place(0)
		l.resolve(context.Background())
		l.targets = l.targets[1:] // without the invented one
		l.agree(t.Context(), time.Now())
		require.Nil(t, l.keys)
		require.Contains(t, s.log.String(), want)
		require.Positive(t, l.agreeTries)
	}
	try(2, "it belongs to raftsteps://north/server/1, and must belong to raftsteps://north/server/2")
	answer.Store(`{"ok":false,"error":{"code":"bad_request","message":"no such thing","definite":true}}` + "\n")
	try(1, "the peer refuses: bad_request: no such thing")
	answer.Store("{}\n")
	try(1, "the server there does not receive messages over UDP")
}
