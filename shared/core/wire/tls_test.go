package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/trust"
)

// authority is a CA with its files in a folder.
type authority struct {
	t   *testing.T
	dir string
	a   *trust.Authority
}

func newAuthority(t *testing.T) *authority {
	a, pair, err := trust.NewAuthority("north", 100*24*time.Hour)
	require.NoError(t, err)
	c := &authority{t, t.TempDir(), a}
	c.write("ca.crt", pair.Cert)
	return c
}

func (c *authority) path(name string) string { return filepath.Join(c.dir, name) }

func (c *authority) write(name string, text []byte) {
	require.NoError(c.t, os.WriteFile(c.path(name), text, 0o600))
}

// issue writes a certificate and its key under a name.
func (c *authority) issue(name string, who trust.Identity, lifetime time.Duration) {
	pair, err := c.a.Issue(who, []string{"127.0.0.1"}, lifetime)
	require.NoError(c.t, err)
	c.write(name+".crt", pair.Cert)
	c.write(name+".key", pair.Key)
}

// keys returns the keys of a server.
func (c *authority) keys(id uint64) *trust.Keys {
	name := fmt.Sprintf("n%d", id)
	c.issue(name, trust.Identity{Cluster: "north", Server: id}, 50*24*time.Hour)
	k, err := trust.Open(trust.Options{Cluster: "north", Server: id, CA: c.path("ca.crt"), Cert: c.path(name + ".crt"), Key: c.path(name + ".key")})
	require.NoError(c.t, err)
	return k
}

// client returns the configuration of a client, which has the certificate with this
// name, or none.
func (c *authority) client(name string) *tls.Config {
	var cert, key string
	if name != "" {
		cert, key = c.path(name+".crt"), c.path(name+".key")
	}
	config, err := trust.Client(c.path("ca.crt"), cert, key)
	require.NoError(c.t, err)
	return config
}

// secure makes the TLS handshake of the other end.
func (e *peerEnd) secure(config *tls.Config) {
	e.t.Helper()
	c := tls.Client(e.c, config)
	require.NoError(e.t, c.Handshake())
	e.c, e.in = unannounced{c}, bufReader(c)
}

// unannounced is a connection that ends without a message of TLS, which the other end
// of a net.Pipe may no longer read.
type unannounced struct{ *tls.Conn }

func (c unannounced) Close() error { return c.NetConn().Close() }

// putOnce connects, and puts a key.
func putOnce(t *testing.T, address string, how ...DialOption) error {
	c, err := Dial(t.Context(), address, Limits{}, how...)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "1"})
	return err
}

// A client that speaks TLS verifies the server's certificate before it sends
// anything.
func TestClientsOverTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), TLS: ca.keys(1)}, listen(t))
	address := r.ln.Addr().String()
	require.NoError(t, putOnce(t, address, WithTLS(ca.client(""))))

	err := putOnce(t, address, WithTLS(other.client("")))
	var e *api.Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, api.Handshake, e.Code)
	require.True(t, e.Definite)
	require.EqualError(t, err, "handshake: no TLS connection to the server at "+address+`: the certificate of raftsteps://north/server/1 was signed by "CA of north", which this client does not trust; name the CA of the cluster with --cacert (KV_CACERT)`)

	elsewhere := ca.client("")
	elsewhere.ServerName = "kv.example.org"
	require.EqualError(t, putOnce(t, address, WithTLS(elsewhere)), "handshake: no TLS connection to the server at "+address+": the certificate of raftsteps://north/server/1 is for 127.0.0.1, and not for kv.example.org; use one of these names, or create a certificate that has this one, too, with the command certs")

	err = putOnce(t, address)
	require.True(t, errors.As(err, &e))
	require.Equal(t, api.Handshake, e.Code)
	require.True(t, e.Definite, "the server did not begin the request")
	require.Equal(t, "the server at "+address+" refused the connection: this server speaks only TLS; name the CA of the cluster with --cacert (KV_CACERT), or write https://", e.Message)
	require.NoError(t, r.end())
}

// A client that speaks TLS to a server that does not is told so.
func TestTLSToAPlainServer(t *testing.T) {
	ca := newAuthority(t)
	for _, web := range []http.Handler{nil, http.NotFoundHandler()} {
		r := serve(t, &Server{Ops: api.Commands(), Handler: store(), HTTP: web}, listen(t))
		address := r.ln.Addr().String()
		require.EqualError(t, putOnce(t, address, WithTLS(ca.client(""))), "handshake: no TLS connection to the server at "+address+": it speaks no TLS; leave --cacert (KV_CACERT) out, and write http:// instead of https://")
		require.NoError(t, r.end())
	}
	r := serve(t, member1(&received{}, &logged{}), listen(t))
	o := LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7", Keys: ca.keys(2)}, To: 1, Address: r.ln.Addr().String()}
	require.EqualError(t, Probe(t.Context(), o), `the peer speaks no TLS: write the same "tls" into the cluster.json of every server`)
	require.NoError(t, r.end())
}

// Somebody without TLS is answered in the language that he speaks, on one line.
func TestPlainTextToAServerWithTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		var got received
		var log logged
		s := member1(&got, &log)
		s.TLS, s.HTTP = ca.keys(1), http.NotFoundHandler()
		r := serve(t, s, newPipes())
		const text = `{"ok":false,"error":{"code":"handshake","message":"this server speaks only TLS; name the CA of the cluster with --cacert (KV_CACERT), or write https://","definite":true}}`
		for _, send := range []string{put1, "\n" + put1, " "} {
			e := r.dial()
			e.send(send)
			require.Equal(t, text, e.line())
			e.over()
		}
		e := r.dial()
		e.send("GET /v1/status HTTP/1.1\r\nHost: h\r\n\r\n")
		answer, err := http.ReadResponse(e.in, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, answer.StatusCode)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, text+"\n", string(body))
		e.over()

		e = r.dial()
		e.send(string(fromN2().appendJSON(nil)) + "\n")
		e.refused(`this server speaks only TLS: write the same "tls" into the cluster.json of every server`)
		require.Contains(t, log.String(), "it speaks no TLS")
		require.Empty(t, got.met())
		require.NoError(t, r.end())
	})
}

// HTTP comes over TLS, too, and the handler learns who the client is.
func TestHTTPS(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("app", trust.Identity{Cluster: "north", Role: "write", Name: "app"}, time.Hour)
	s := &Server{Ops: api.Commands(), Handler: store(), TLS: ca.keys(1), HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Proto, trust.Role(r.TLS))
	})}
	r := serve(t, s, listen(t))
	for name, want := range map[string]string{"": "HTTP/1.1 ", "app": "HTTP/1.1 write"} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: ca.client(name), ForceAttemptHTTP2: true}}
		answer, err := client.Get("https://" + r.ln.Addr().String())
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		client.CloseIdleConnections()
	}
	require.NoError(t, r.end())
}

// A client with the certificate of another CA is told so, over HTTP as well; and one
// without a certificate, if the server wants one.
func TestClientCertificatesThatAreRefused(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	other.issue("app", trust.Identity{Cluster: "north", Role: "operate"}, time.Hour)
	ca.issue("old", trust.Identity{Cluster: "north", Role: "operate"}, -time.Minute)
	ca.issue("app", trust.Identity{Cluster: "north", Role: "read"}, time.Hour)
	foreign := ca.client("")
	foreign.Certificates = other.client("app").Certificates
	strictKeys, err := trust.Open(trust.Options{Cluster: "north", Server: 1, CA: ca.path("ca.crt"), Cert: ca.path("n1.crt"), Key: ca.path("n1.key"), RequireClients: true})
	require.Error(t, err)
	free := ca.keys(1)
	strictKeys, err = trust.Open(trust.Options{Cluster: "north", Server: 1, CA: ca.path("ca.crt"), Cert: ca.path("n1.crt"), Key: ca.path("n1.key"), RequireClients: true})
	require.NoError(t, err)
	for _, c := range []struct {
		keys   *trust.Keys
		client *tls.Config
		want   string
	}{
		{free, foreign, `this server does not accept the certificate of raftsteps://north/client/operate: it was signed by "CA of north", and not by the CA of the cluster`},
		{free, ca.client("old"), "this server does not accept the certificate of raftsteps://north/client/operate: it ended on "},
		{strictKeys, ca.client(""), "this server accepts only clients with a certificate of its CA; give one with --cert and --key"},
		{strictKeys, ca.client("app"), ""},
	} {
		began := false
		s := &Server{Ops: api.Commands(), TLS: c.keys, Handler: func(r api.Request, reply func(api.Response)) {
			began = true
			reply(api.Response{ID: r.ID})
		}, HTTP: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { began = true })}
		r := serve(t, s, listen(t))
		err := putOnce(t, r.ln.Addr().String(), WithTLS(c.client))
		if c.want == "" {
			require.NoError(t, err)
			require.NoError(t, r.end())
			continue
		}
		var e *api.Error
		require.True(t, errors.As(err, &e))
		require.Contains(t, e.Message, "the server at "+r.ln.Addr().String()+" refused the connection: "+c.want)
		require.Equal(t, api.Handshake, e.Code)
		require.True(t, e.Definite)
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: c.client}}
		answer, err := web.Get("https://" + r.ln.Addr().String())
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusForbidden, answer.StatusCode)
		failed, err := api.DecodeResponse(text)
		require.NoError(t, err)
		require.Contains(t, failed.Error.Message, c.want)
		require.NoError(t, r.end())
		require.False(t, began)
	}
}

// Servers that speak TLS carry their messages as before.
func TestPeersOverTLS(t *testing.T) {
	ca := newAuthority(t)
	var got received
	s := member1(&got, &logged{})
	s.TLS = ca.keys(1)
	r := serve(t, s, listen(t))
	k := NewLink(LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7", Keys: ca.keys(2)}, To: 1, Address: r.ln.Addr().String(), Log: slog.New(slog.DiscardHandler)})
	long := strings.Repeat("x", 3<<20)
	var want []string
	for i := range 10 {
		text := fmt.Sprintf(`{"i":%d,"long":%q}`, i, long)
		require.True(t, k.Send([]byte(text)))
		want = append(want, "n2 "+text)
	}
	end := runLink(t, k)
	require.Eventually(t, func() bool { return len(got.all()) == 10 }, time.Minute, time.Millisecond)
	require.True(t, strings.Join(want, "") == strings.Join(got.all(), ""), "whole and in order")
	end()
	require.Eventually(t, func() bool { return len(got.met()) == 2 }, time.Minute, time.Millisecond)

	// A program that is no server only probes, and needs no certificate.
	probe := LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7"}, To: 1, Address: r.ln.Addr().String(), TLS: trust.ClientOf(ca.client(""), "north", 1)}
	require.NoError(t, Probe(t.Context(), probe))
	probe.TLS, probe.To = trust.ClientOf(ca.client(""), "north", 3), 3
	require.ErrorContains(t, Probe(t.Context(), probe), "it belongs to raftsteps://north/server/1, and must belong to raftsteps://north/server/3")
	require.Equal(t, []string{"met n2 at n2:7", "left n2"}, got.met())
	require.NoError(t, r.end())
}

// The secret is not enough to be a peer: the certificate must be the one of the server
// that the hello claims to be. That of a client makes no peer, whatever its role is.
func TestHelloWithAnotherCertificate(t *testing.T) {
	for name, c := range map[string]struct {
		who  trust.Identity
		want string
	}{
		"none":             {trust.Identity{}, "n2 has shown no certificate that says who it is; a server needs one"},
		"another server's": {trust.Identity{Cluster: "north", Server: 3}, "n2 has shown the certificate of raftsteps://north/server/3; give each server its own"},
		"a client's":       {trust.Identity{Cluster: "north", Role: "operate"}, "n2 has shown the certificate of raftsteps://north/client/operate; give each server its own"},
		"its own":          {trust.Identity{Cluster: "north", Server: 2}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newAuthority(t)
				var got received
				s := member1(&got, &logged{})
				s.TLS = ca.keys(1)
				r := serve(t, s, newPipes())
				e := r.dial()
				config := ca.client("")
				if c.who != (trust.Identity{}) {
					ca.issue("who", c.who, time.Hour)
					config = ca.client("who")
				}
				config.ServerName = "127.0.0.1"
				e.secure(config)
				if c.want == "" {
					e.becomePeer(fromN2())
					e.message(`{"a":1}`)
					synctest.Wait()
					require.Equal(t, []string{`n2 {"a":1}`}, got.all())
					require.NoError(t, e.c.Close())
					require.NoError(t, r.end())
					return
				}
				e.send(string(fromN2().appendJSON(nil)) + "\n")
				e.refused(c.want)
				require.Empty(t, got.met())
				require.NoError(t, r.end())
			})
		})
	}
}

// Somebody between two servers, with everything but their keys: the secret, and a
// certificate of the CA, that of a client or of another server. He can be in the middle
// of nothing.
func TestTheManInTheMiddleOfTLS(t *testing.T) {
	soon := func(f func() bool, what string) {
		t.Helper()
		require.Eventually(t, f, time.Minute, time.Millisecond, what)
	}
	for _, his := range []trust.Identity{{Cluster: "north", Role: "operate"}, {Cluster: "north", Server: 3}} {
		ca := newAuthority(t)
		ca.issue("his", his, time.Hour)
		var got received
		var log logged
		s := member1(&got, &logged{})
		s.TLS = ca.keys(1)
		front, r := listen(t), serve(t, s, listen(t))
		k := NewLink(LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7", Keys: ca.keys(2)}, To: 1, Address: front.Addr().String(), Log: log.logger()})
		end := runLink(t, k)

		// n2 does not talk to him, since he is not n1.
		near, err := front.Accept()
		require.NoError(t, err)
		require.Error(t, tls.Server(near, &tls.Config{Certificates: ca.client("his").Certificates}).Handshake())
		_ = near.Close()
		soon(func() bool {
			return strings.Contains(log.String(), "the certificate of the server there cannot be accepted")
		}, "n2 says so")

		// n1 does not take what he says for n2's.
		far := r.dial()
		config := ca.client("his")
		config.ServerName = "127.0.0.1"
		far.secure(config)
		far.send(string(fromN2().appendJSON(nil)) + "\n")
		far.refused("n2 has shown the certificate of " + his.URI() + "; give each server its own")
		require.Empty(t, got.met())

		// He passes the bytes of TLS on, and changes one after the handshakes. The
		// connection ends, and what arrived before is what n2 has sent.
		near, err = front.Accept()
		require.NoError(t, err)
		raw, err := net.Dial("tcp", r.ln.Addr().String())
		require.NoError(t, err)
		go func() { _, _ = io.Copy(near, raw) }()
		var change atomic.Bool
		go func() {
			b := make([]byte, 1<<10)
			for {
				n, err := near.Read(b)
				if err != nil {
					return
				}
				if change.Swap(false) {
					b[n-1] ^= 1
				}
				if _, err := raw.Write(b[:n]); err != nil {
					return
				}
			}
		}()
		soon(func() bool { return len(got.met()) == 1 }, "the two servers meet")
		message := `{"m":"` + strings.Repeat("m", 100) + `"}`
		k.Send([]byte(message))
		soon(func() bool { return len(got.all()) == 1 }, "a message arrives")
		change.Store(true)
		for range 100 {
			k.Send([]byte(message))
		}
		soon(func() bool { return len(got.met()) == 2 }, "the connection ends")
		require.Equal(t, []string{"met n2 at n2:7", "left n2"}, got.met())
		for _, line := range got.all() {
			require.Equal(t, "n2 "+message, line)
		}
		require.NoError(t, front.Close())
		_, _ = near.Close(), raw.Close()
		end()
		require.NoError(t, r.end())
	}
}

// A stranger has a short time and few bytes for a handshake.
func TestHandshakesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		s := member1(&received{}, &logged{})
		s.TLS, s.Limits = ca.keys(1), Limits{HalfLine: 2 * time.Second}
		r := serve(t, s, newPipes())
		silent, half := r.dial(), r.dial()
		half.send("\x16\x03\x01\x02\x00\x01")
		began := time.Now()
		silent.over()
		half.over()
		require.Equal(t, 2*time.Second, time.Since(began))

		require.NoError(t, r.end())
	})
	ca := newAuthority(t)
	var log logged
	s := member1(&received{}, &log)
	s.TLS = ca.keys(1)
	r := serve(t, s, listen(t))
	config := ca.client("")
	config.NextProtos = []string{ALPN}
	for range 200 {
		config.NextProtos = append(config.NextProtos, strings.Repeat("x", 255))
	}
	_, err := tls.Dial("tcp", r.ln.Addr().String(), config)
	require.Error(t, err)
	require.NoError(t, r.end())
	require.Contains(t, log.String(), "the TLS handshake is longer than 16384 bytes")
}

// A server that stops does not wait for handshakes.
func TestStopDuringAHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		var log logged
		s := member1(&received{}, &log)
		s.TLS = ca.keys(1)
		r := serve(t, s, newPipes())
		silent, half := r.dial(), r.dial()
		half.send("\x16\x03\x01\x02\x00\x01")
		synctest.Wait()
		began := time.Now()
		require.NoError(t, r.end())
		require.Less(t, time.Since(began), time.Second)
		silent.over()
		half.over()
		require.NotContains(t, log.String(), "handshake failed")
	})
}

// A peer finds room, also with TLS, when clients fill the server; and a further client
// learns why it is refused.
func TestNewcomersOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		var got received
		s := member1(&got, &logged{})
		s.TLS, s.Limits, s.HTTP = ca.keys(1), Limits{Conns: 1, PerAddress: 1, Newcomers: 2}, http.NotFoundHandler()
		r := serve(t, s, newPipes())
		first := r.dial()
		config := ca.client("")
		config.ServerName = "127.0.0.1"
		first.secure(config)

		next := r.dial()
		next.secure(config)
		next.send(put1)
		require.Contains(t, next.line(), "this server accepts 1 clients")
		next.over()
		web := r.dial()
		web.secure(config)
		web.send("GET / HTTP/1.1\r\n\r\n")
		answer, err := http.ReadResponse(web.in, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
		_ = web.c.Close()

		k := link(r.ln.(*pipes), &logged{}, Limits{})
		k.o.Self.Keys = ca.keys(2)
		k.Send([]byte(`{"a":1}`))
		end := runLink(t, k)
		for len(got.all()) == 0 { // the first attempt may find the place still taken
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		require.Equal(t, []string{`n2 {"a":1}`}, got.all())
		end()
		_ = first.c.Close()
		require.NoError(t, r.end())
	})
}

// The other protocol of the port gets its connections out of TLS. A client that could
// also speak HTTP/1.1 is not meant for it.
func TestSharedPortOverTLS(t *testing.T) {
	ca := newAuthority(t)
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), HTTP: http.NotFoundHandler(), Shared: other{}, TLS: ca.keys(1)}, listen(t))
	for want, offer := range map[string][]string{"h2": {"h2"}, "http/1.1": {"h2", "http/1.1"}, "": nil} {
		config := ca.client("")
		config.NextProtos = offer
		c, err := tls.Dial("tcp", r.ln.Addr().String(), config)
		require.NoError(t, err)
		require.Equal(t, want, c.ConnectionState().NegotiatedProtocol)
		if want == "h2" {
			e := &peerEnd{t: t, c: c, in: bufReader(c)}
			e.echoed(string(other{}.Preface()) + "and more")
		}
		require.NoError(t, c.Close())
	}
	require.NoError(t, r.end())
}

// New certificates are used by the next handshake, without a restart; those that are
// connected stay connected.
func TestCertificatesAreReplaced(t *testing.T) {
	ca := newAuthority(t)
	var got received
	s := member1(&got, &logged{})
	s.TLS = ca.keys(1)
	r := serve(t, s, listen(t))
	address := r.ln.Addr().String()
	keys, err := trust.OpenClient(trust.ClientOptions{CA: ca.path("ca.crt")})
	require.NoError(t, err)
	lives := WithTLSFrom(keys.Config)
	stays, err := Dial(t.Context(), address, Limits{}, lives)
	require.NoError(t, err)
	defer stays.Close()

	next := newAuthority(t)
	next.issue("n1", trust.Identity{Cluster: "north", Server: 1}, time.Hour)
	for _, name := range []string{"ca.crt", "n1.crt", "n1.key"} {
		text, err := os.ReadFile(next.path(name))
		require.NoError(t, err)
		ca.write(name, text)
	}
	require.NoError(t, putOnce(t, address, WithTLS(next.client(""))))
	old := newAuthority(t).client("")
	require.ErrorContains(t, putOnce(t, address, WithTLS(old)), "which this client does not trust")
	require.NoError(t, putOnce(t, address, lives), "a client that lives long follows its files, too")
	_, err = stays.Do(t.Context(), api.Request{Op: kv.Get, Key: "x"})
	require.NoError(t, err)
	require.NoError(t, r.end())
}

// A connection that waits for an answer is not idle, and works after that.
func TestWaitingOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		p := newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, TLS: ca.keys(1), Limits: Limits{Idle: time.Second}}, newPipes())
		e := r.dial()
		config := ca.client("")
		config.ServerName = "127.0.0.1"
		e.secure(config)
		for range 3 {
			e.send(put1)
			request, reply := p.next()
			later(10 * time.Second)
			reply(api.Response{ID: request.ID})
			require.Equal(t, `{"id":1,"ok":true}`, e.line())
		}
		later(5 * time.Second) // less than Limits.Write, which the end of the connection needs in this pipe
		require.Contains(t, e.line(), "the connection was idle for 1s and is closed")
		e.over()
		require.NoError(t, r.end())
	})
}
