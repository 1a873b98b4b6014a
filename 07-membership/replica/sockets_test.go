package replica_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/node"
	_ "example.com/raftsteps/shared/core/transport/udp"
	"example.com/raftsteps/shared/core/trust"
)

// keys returns the keys of a server whose certificate a CA has signed.
func keys(t *testing.T, ca *trust.Authority, signer []byte, who trust.Identity) *trust.Keys {
	t.Helper()
	pair, err := ca.Issue(who, []string{"127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"ca": signer, "cert": pair.Cert, "key": pair.Key} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	k, err := trust.Open(trust.Options{Cluster: who.Cluster, Server: who.Server,
		CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")})
	require.NoError(t, err)
	return k
}

// sockets are the ways in which replicas talk to each other over sockets.
var sockets = map[string]struct {
	transport string
	tls       bool
}{"tcp": {}, "tls": {tls: true}, "udp": {transport: "udp"}}

// Three replicas work together over sockets. Each of them takes commands, whichever
// leads.
func TestSockets(t *testing.T) {
	for name, o := range sockets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			block, err := freeport.Reserve()
			require.NoError(t, err)
			defer block.Close()
			config := node.Config{Cluster: "tally", Secret: "nobody knows it", Transport: o.transport}
			for id := range 3 {
				config.Members = append(config.Members, node.Member{ID: uint64(id + 1), Address: block.Address(id)})
			}
			ca, signer, err := trust.NewAuthority("tally", time.Hour)
			require.NoError(t, err)
			var replicas []*replica.Replica[*tally]
			for _, m := range config.Members {
				options := replica.Options[*tally]{ID: m.ID, Config: config, Machine: newTally, Dir: t.TempDir(), Forward: true}
				if o.tls {
					options.TLS = keys(t, ca, signer.Cert, trust.Identity{Cluster: "tally", Server: m.ID})
				}
				r, err := replica.Start(options)
				require.NoError(t, err)
				defer r.Close()
				replicas = append(replicas, r)
			}
			for i, r := range replicas {
				command := fmt.Sprintf("\xff %d", i)
				for {
					if _, err := r.Leader(ctx); err == nil {
						_, _, err = r.Propose(ctx, []byte(command))
						if err == nil {
							break
						}
					}
					require.NoError(t, ctx.Err(), "it is never done")
				}
				for _, other := range replicas {
					require.NoError(t, other.Read(ctx, func(c *tally) { require.Positive(t, c.Count[command]) }))
				}
			}
		})
	}
}
