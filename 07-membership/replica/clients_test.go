package replica_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
)

// Three replicas use TCP, and two of them accept clients.
func TestClients(t *testing.T) {
	testClients(t, func(uint64) *trust.Keys { return nil }, nil)
}

// The same, with TLS.
func TestClientsOverTLS(t *testing.T) {
	a, pair, err := trust.NewAuthority("bank", time.Hour)
	require.NoError(t, err)
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	ca := file("ca.crt", pair.Cert)
	config, err := trust.Client(ca, "", "")
	require.NoError(t, err)
	testClients(t, func(id uint64) *trust.Keys {
		own, err := a.Issue(trust.Identity{Cluster: "bank", Server: id}, []string{"127.0.0.1"}, time.Hour)
		require.NoError(t, err)
		keys, err := trust.Open(trust.Options{Cluster: "bank", Server: id, CA: ca, Cert: file(fmt.Sprintf("n%d.crt", id), own.Cert), Key: file(fmt.Sprintf("n%d.key", id), own.Key)})
		require.NoError(t, err)
		return keys
	}, config)
}

func testClients(t *testing.T, keys func(id uint64) *trust.Keys, client *tls.Config) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	config := node.Config{Cluster: "bank", Secret: "nobody knows it"}
	var listeners []net.Listener
	for id := uint64(1); id <= 3; id++ {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, ln)
		config.Members = append(config.Members, node.Member{ID: id, Address: ln.Addr().String()})
	}
	replicas := make(map[uint64]*replica.Replica[*bank])
	for i, m := range config.Members {
		r, err := replica.Start(replica.Options[*bank]{ID: m.ID, Config: config, Machine: newBank, Dir: t.TempDir(), Listener: listeners[i], TLS: keys(m.ID), Clients: m.ID < 3})
		require.NoError(t, err)
		require.Equal(t, m.Address, r.Addr().String())
		defer r.Close()
		replicas[m.ID] = r
	}
	ask := func(id uint64, r api.Request) (api.Response, error) {
		c, err := wire.Dial(ctx, config.Address(id), wire.DefaultLimits(), wire.WithTLS(client))
		require.NoError(t, err)
		defer c.Close()
		return c.Do(ctx, r)
	}
	rent := api.Request{Op: api.Propose, Value: `{"name":"rent","from":"ann","to":"bob","amount":70}`}
	a, err := ask(1, rent)
	for err != nil { // until the first leads; to pay the rent twice does no harm
		require.NoError(t, ctx.Err())
		lead, unknown := replicas[1].Leader(ctx)
		require.NoError(t, unknown)
		if lead != 1 {
			_ = replicas[lead].Transfer(ctx, 1) // if it fails, the next time may not
		}
		a, err = ask(1, rent)
	}
	require.Equal(t, `"done"`, string(a.Data))
	require.NotZero(t, a.Index)
	_, err = ask(2, api.Request{Op: api.Barrier})
	require.NoError(t, err)
	require.NoError(t, replicas[2].Read(ctx, func(b *bank) { require.Equal(t, 70, b.Balance["bob"]) }))
	_, err = ask(2, api.Request{Op: "get", Key: "x"})
	requireError(t, err, api.BadRequest, true, "this server knows barrier, cancel, change, log, members, propose, status, transfer")
	_, err = ask(3, rent)
	requireError(t, err, api.Unavailable, true, "accepts no requests over the network")
}
