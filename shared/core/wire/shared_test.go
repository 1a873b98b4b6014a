package wire

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// other is a Shared that sends back the bytes that it receives. A connection on
// which a "!" arrives has proved that it is a peer's.
type other struct{}

func (other) Preface() []byte { return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }

func (other) ALPN() []string { return []string{"h2"} }

func (other) Serve(c net.Conn, proved func()) {
	b := make([]byte, 64)
	for {
		n, err := c.Read(b)
		if n > 0 && b[0] == '!' {
			proved()
		}
		if _, failed := c.Write(b[:n]); err != nil || failed != nil {
			return
		}
	}
}

// echoed asserts that what is sent comes back.
func (e *peerEnd) echoed(text string) {
	e.t.Helper()
	e.send(text)
	e.back(text)
}

// back asserts that a text arrives.
func (e *peerEnd) back(text string) {
	e.t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(e.in, got)
	require.NoError(e.t, err)
	require.Equal(e.t, text, string(got))
}

// A connection that begins with the preface goes to the other protocol, preface
// included, in however many pieces it arrives. All others are what they were.
func TestSharedPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, &Server{Ops: api.Commands(), Handler: store(), HTTP: http.NotFoundHandler(), Shared: other{}}, newPipes())
		c := r.dial()
		c.echoed(string(other{}.Preface()) + "and more")
		c.echoed("again")
		slow := r.dial()
		for _, b := range (other{}).Preface() {
			slow.send(string(b))
			synctest.Wait()
		}
		slow.back(string(other{}.Preface()))
		web := r.dial()
		web.send("P")
		synctest.Wait()
		web.send("UT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
		require.Equal(t, "HTTP/1.1 404 Not Found\r", web.line())
		text := r.dial()
		text.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, text.line())
		require.NoError(t, text.c.Close())
		require.NoError(t, web.c.Close())
		require.NoError(t, r.end(), "the end of the server ends the connections")
		c.over()
		slow.over()
	})
}

// Clients cannot keep the other protocol's peers out: a connection beyond the
// limit may say its preface, and stays if it proves in time that it is a peer.
func TestSharedNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Conns: 1, PerAddress: 1, Newcomers: 2}
		s := &Server{Ops: api.Commands(), Handler: store(), Limits: limits, Shared: other{},
			Peers: &Peers{Self: Identity{Cluster: "north", Secret: "s", ID: 1}}}
		r := serve(t, s, newPipes())
		client := r.dial()
		client.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, client.line())
		known, stranger := r.dial(), r.dial()
		known.echoed(string(other{}.Preface()))
		known.echoed("!")
		stranger.echoed(string(other{}.Preface()))
		s.mu.Lock()
		require.Equal(t, 1, s.count[newcomer])
		require.Equal(t, 1, s.count[peer])
		s.mu.Unlock()
		later(2 * DefaultLimits().Dial)
		stranger.over()
		known.echoed("still here")
		require.NoError(t, client.c.Close())
		require.NoError(t, known.c.Close())
		require.NoError(t, r.end())
	})
}
