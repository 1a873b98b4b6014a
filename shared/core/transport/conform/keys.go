package conform

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trust"
)

// authority issues the certificates of a group's servers.
type authority struct {
	*trust.Authority
	ca  trust.Pair
	dir string
}

func newAuthority(t *testing.T, cluster string) *authority {
	a, ca, err := trust.NewAuthority(cluster, time.Hour)
	require.NoError(t, err)
	return &authority{a, ca, t.TempDir()}
}

// keys returns the keys of a server.
func (a *authority) keys(t *testing.T, cluster string, id uint64) *trust.Keys {
	pair, err := a.Issue(trust.Identity{Cluster: cluster, Server: id}, []string{"127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	dir, err := os.MkdirTemp(a.dir, "")
	require.NoError(t, err)
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	k, err := trust.Open(trust.Options{Cluster: cluster, Server: id, CA: file("ca", a.ca.Cert), Cert: file("cert", pair.Cert), Key: file("key", pair.Key)})
	require.NoError(t, err)
	return k
}
