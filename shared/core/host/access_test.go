package host

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// at is a listener that says that it listens on another address.
type at struct {
	net.Listener
	address net.Addr
}

func (l at) Addr() net.Addr { return l.address }

// openAt creates a host that believes that it listens on an address.
func openAt(t *testing.T, address string, p *access.Policy, with func(*Options)) (h *Host, log string, err error) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	tcp, err := net.ResolveTCPAddr("tcp", address)
	require.NoError(t, err)
	var out bytes.Buffer
	o := Options{
		ID: 1, Ops: api.Commands(), Listener: at{ln, tcp}, Log: slog.New(slog.NewTextHandler(&out, nil)),
		Config: node.Config{Cluster: "c", Secret: "s", Members: []node.Member{{ID: 1, Address: "192.0.2.1:7071"}}, Access: p},
		New:    func(node.World) (node.Server, error) { return &recorder{}, nil },
	}
	if with != nil {
		with(&o)
	}
	h, err = New(o)
	return h, out.String(), err
}

// A server that other machines can reach must have been told what they may do.
func TestAServerThatOthersCanReach(t *testing.T) {
	nobody, reads, writes := &access.Policy{}, &access.Policy{Anonymous: access.Read}, &access.Policy{Anonymous: access.Write}
	for _, address := range []string{"127.0.0.1:7071", "127.9.9.9:7071", "[::1]:7071"} {
		_, log, err := openAt(t, address, nil, nil)
		require.NoError(t, err)
		require.Empty(t, log)
		_, log, err = openAt(t, address, writes, nil)
		require.NoError(t, err)
		require.Empty(t, log, "only this machine can reach it")
	}
	for _, address := range []string{"0.0.0.0:7071", "[::]:7071", "192.0.2.1:7071"} {
		_, _, err := openAt(t, address, nil, nil)
		require.ErrorIs(t, err, access.ErrNoPolicy)
		require.EqualError(t, err, "n1 would listen on "+address+`, which other machines can reach: the configuration must say what their clients may do: it needs "access" with tokens, or "access": {"anonymous": "operate"} if everyone who can reach the server may do anything`)
		_, _, err = openAt(t, address, nil, func(o *Options) { o.NoClients = true })
		require.NoError(t, err, "peers prove that they know the secret")
		for _, p := range []*access.Policy{nobody, reads} {
			_, log, err := openAt(t, address, p, nil)
			require.NoError(t, err)
			require.Empty(t, log)
		}
		_, log, err := openAt(t, address, writes, nil)
		require.NoError(t, err)
		require.Contains(t, log, `level=WARN msg="anyone who can reach this server may write: access.anonymous is write"`)
		_, log, err = openAt(t, address, &access.Policy{Anonymous: access.Operate}, nil)
		require.NoError(t, err)
		require.Contains(t, log, `level=WARN msg="anyone who can reach this server may do anything: access.anonymous is operate"`)
	}
}

// A policy can be replaced while the server runs, but not taken away from a server
// that other machines can reach.
func TestSetAccess(t *testing.T) {
	app := &access.Policy{Tokens: []access.Token{{Name: "app", Role: access.Write, Hash: guard.Hash("app")}}}
	h, _, err := openAt(t, "0.0.0.0:7071", app, nil)
	require.NoError(t, err)
	require.ErrorIs(t, h.SetAccess(nil), access.ErrNoPolicy)
	require.False(t, h.guard.Open())
	require.NoError(t, h.SetAccess(&access.Policy{}))
	h, _, err = openAt(t, "127.0.0.1:7071", app, nil)
	require.NoError(t, err)
	require.NoError(t, h.SetAccess(nil))
	require.True(t, h.guard.Open())
}

// A client of a host needs a token, the one of the secret is the operator's, and a
// request of the process itself needs none.
func TestAHostChecksTokens(t *testing.T) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	h, err := New(Options{
		ID: 1, Ops: api.Commands(), Listener: ln,
		Config: node.Config{
			Cluster: "c", Secret: "s", Members: []node.Member{{ID: 1, Address: ln.Addr().String()}},
			Access: &access.Policy{Tokens: []access.Token{{Name: "r", Role: access.Read, Hash: guard.Hash("r")}}},
		},
		New: func(w node.World) (node.Server, error) {
			return &gossip{w: w, store: kv.NewStore(), fails: &atomic.Bool{}, closed: &atomic.Bool{}}, nil
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	put := api.Request{Op: kv.Put, Key: "x", Value: "1"}
	for token, want := range map[string]string{
		"":                                "denied: put needs the role write, and a client that shows no token may do nothing here",
		"r":                               `denied: put needs the role write, and the token "r" has the role read`,
		"guess":                           "denied: this server does not know the token that was shown",
		guard.OperatorToken("c", "s"):     "",
		guard.OperatorToken("other", "s"): "denied: this server does not know the token that was shown",
		guard.OperatorToken("c", "guess"): "denied: this server does not know the token that was shown",
	} {
		c, err := wire.Dial(ctx, ln.Addr().String(), wire.Limits{}, wire.WithToken(token))
		require.NoError(t, err)
		short, cancel := context.WithTimeout(ctx, time.Minute)
		if _, err = c.Do(short, put); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
		cancel()
		require.NoError(t, c.Close())
	}
	_, err = h.Do(ctx, put)
	require.NoError(t, err)
}
