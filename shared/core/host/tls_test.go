package host

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
)

// certificates are those of servers n1 to n3, and the CA, in one folder.
type certificates struct {
	t   *testing.T
	dir string
}

func (c certificates) path(name string) string { return filepath.Join(c.dir, name) }

func (c certificates) write(name string, text []byte) {
	require.NoError(c.t, os.WriteFile(c.path(name), text, 0o600))
}

// renew issues all certificates by a new CA. The servers trust the old CA, too.
func (c certificates) renew() {
	a, ca, err := trust.NewAuthority("north", time.Hour)
	require.NoError(c.t, err)
	old, err := os.ReadFile(c.path("ca.crt"))
	if err == nil {
		ca.Cert = append(ca.Cert, old...)
	}
	c.write("ca.crt", ca.Cert)
	for id := range uint64(3) {
		pair, err := a.Issue(trust.Identity{Cluster: "north", Server: id + 1}, []string{"127.0.0.1"}, time.Hour)
		require.NoError(c.t, err)
		c.write(fmt.Sprintf("n%d.crt", id+1), pair.Cert)
		c.write(fmt.Sprintf("n%d.key", id+1), pair.Key)
	}
}

func (c certificates) keys(id uint64) *trust.Keys {
	k, err := trust.Open(trust.Options{Cluster: "north", Server: id, CA: c.path("ca.crt"),
		Cert: c.path(fmt.Sprintf("n%d.crt", id)), Key: c.path(fmt.Sprintf("n%d.key", id))})
	require.NoError(c.t, err)
	return k
}

// Three servers replicate over TLS. Then all certificates are replaced, by those of
// another CA, while the servers run: a server that starts again uses the new ones, and
// the others accept it.
func TestClusterOverTLS(t *testing.T) {
	c := certificates{t, t.TempDir()}
	c.renew()
	config := node.Config{Cluster: "north", Secret: "s", Leader: 1}
	lns := make([]net.Listener, 3)
	for i := range lns {
		ln, err := wire.Listen("127.0.0.1:0")
		require.NoError(t, err)
		lns[i] = ln
		config.Members = append(config.Members, node.Member{ID: uint64(i + 1), Address: ln.Addr().String()})
	}
	disks := []disk.Disk{disk.NewSim("n1"), disk.NewSim("n2"), disk.NewSim("n3")}
	start := func(i int) (stop func()) {
		h, err := New(Options{ID: uint64(i + 1), Config: config, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Listener: lns[i],
			TLS: c.keys(uint64(i + 1)), Disk: disks[i], Limits: wire.Limits{Backoff: [2]time.Duration{time.Millisecond, 10 * time.Millisecond}}})
		require.NoError(t, err)
		lns[i] = nil
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		return func() {
			cancel()
			require.NoError(t, <-done)
		}
	}
	stops := []func(){start(0), start(1), start(2)}

	// Appends are acknowledged only when a majority has them.
	add := func() {
		t.Helper()
		tls, err := trust.Client(c.path("ca.crt"), "", "")
		require.NoError(t, err)
		client, err := wire.Dial(t.Context(), config.Members[0].Address, wire.Limits{}, wire.WithTLS(tls))
		require.NoError(t, err)
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = client.Do(ctx, api.Request{Op: kv.Append, Key: "x", Value: "1"})
		require.NoError(t, err)
	}
	add()
	c.renew()
	stops[2]()
	add() // n2 is the majority
	stops[2] = start(2)
	stops[1]()
	add() // n3 is the majority: it and n1 have accepted each other again
	stops[0]()
	stops[2]()
}

// A transport that knows nothing of TLS is refused with it: what cluster.json promises
// would not be true.
func TestTransportWithoutTLS(t *testing.T) {
	c := certificates{t, t.TempDir()}
	c.renew()
	config := node.Config{Cluster: "north", Secret: "s", Transport: "memory", Members: []node.Member{{ID: 1, Address: "127.0.0.1:0"}}}
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	config.Members[0].Address = ln.Addr().String()
	_, err = New(Options{ID: 1, Config: config, TLS: c.keys(1), Listener: ln, Limits: wire.Limits{PeerLine: 1 << 20}})
	require.EqualError(t, err, `n1 cannot start: the transport memory does not use TLS, so with "tls" its messages would be less protected than cluster.json says; leave "transport" out`)
}
