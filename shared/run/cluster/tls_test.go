package cluster

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trust"
)

func TestTLSField(t *testing.T) {
	path := writeConfig(t, with(`"tls":{"ca":"tls/ca.crt","cert":"/etc/n{id}/{id}.crt","key":"tls/n{id}.key","client_auth":"require"}`))
	got, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, &TLS{CA: "tls/ca.crt", Cert: "/etc/n{id}/{id}.crt", Key: "tls/n{id}.key", RequireClients: true}, got.TLS)
	require.Equal(t, filepath.Join(filepath.Dir(path), "tls", "ca.crt"), got.CAFile(path))
	require.Equal(t, filepath.Join(filepath.Dir(path), "tls", "n12.key"), got.KeyFile(path, 12))
	require.Equal(t, "/etc/n12/12.crt", got.TLS.of("anywhere", 12).Cert)
	again := filepath.Join(t.TempDir(), ConfigName)
	require.NoError(t, got.Save(again))
	loaded, err := Load(again)
	require.NoError(t, err)
	require.Equal(t, got.TLS, loaded.TLS)

	for text, want := range map[string]string{
		`"tls":{"ca":"a","cert":"b"}`:                              `field "tls.key" is missing: it is the path of a file, such as "tls/n{id}.crt"`,
		`"tls":{"ca":"a","cert":"b","key":"c","client_auth":"no"}`: `field "client_auth": "no" is neither none nor require`,
		`"tls":{"roots":"a"}`:                                      `field "roots": unknown field; tls has ca, cert, key and client_auth`,
		`"tls":true`:                                               `field "tls": want an object`,
	} {
		_, err := Load(writeConfig(t, with(text)))
		require.ErrorContains(t, err, want)
	}
	bad := File{Config: node.Config{Cluster: "my cluster"}, TLS: TLSIn("tls")}
	require.ErrorContains(t, bad.TLS.check(bad.Config), `field "cluster": the name "my cluster" cannot stand in a certificate`)
}

// leaf reads a certificate.
func leaf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return c
}

// A new cluster with TLS has all files that it needs, and only their owner can read
// them.
func TestOpenWithTLS(t *testing.T) {
	dir := leave(t, OpenOptions{TLS: true, Servers: 2})
	file, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	require.Equal(t, &TLS{CA: "tls/ca.crt", Cert: "tls/n{id}.crt", Key: "tls/n{id}.key"}, file.TLS)
	for _, name := range []string{"ca.crt", "ca.key", "n1.crt", "n1.key", "n2.crt", "n2.key"} {
		info, err := os.Stat(filepath.Join(dir, "tls", name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), name)
	}
	for id := uint64(1); id <= 2; id++ {
		_, err = file.Keys(filepath.Join(dir, ConfigName), id, nil)
		require.NoError(t, err)
	}
	c := leaf(t, filepath.Join(dir, "tls", "n1.crt"))
	require.Equal(t, []string{"localhost"}, c.DNSNames)
	require.Len(t, c.IPAddresses, 2)
	require.WithinDuration(t, time.Now().Add(Lifetime), c.NotAfter, time.Hour)

	// A second run changes nothing, with or without the flag.
	for _, flag := range []bool{false, true} {
		f, err := open(t, OpenOptions{Dir: dir, TLS: flag})
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Equal(t, c, leaf(t, filepath.Join(dir, "tls", "n1.crt")))
	}

	// --fresh removes them, and what is not ours stays.
	own := filepath.Join(dir, "tls", "app.crt")
	require.NoError(t, os.WriteFile(own, nil, 0o600))
	f, err := open(t, OpenOptions{Dir: dir, Fresh: true})
	require.NoError(t, err)
	require.Nil(t, f.File.TLS)
	require.NoError(t, f.Close())
	require.FileExists(t, own)
	require.NoFileExists(t, filepath.Join(dir, "tls", "ca.key"))
	require.NoError(t, os.Remove(own))
	f, err = open(t, OpenOptions{Dir: dir, Fresh: true})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoDirExists(t, filepath.Join(dir, "tls"))

	// A cluster that has spoken no TLS may begin to.
	f, err = open(t, OpenOptions{Dir: dir, TLS: true})
	require.NoError(t, err)
	require.False(t, f.Created)
	_, err = f.File.Keys(f.ConfigPath(), 1, nil)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	// The configuration of another folder is used with its own files.
	elsewhere := filepath.Join(t.TempDir(), "data")
	f, err = open(t, OpenOptions{Dir: elsewhere, Config: filepath.Join(dir, ConfigName)})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "tls", "ca.crt"), f.File.CAFile(f.ConfigPath()))
	_, err = f.File.Keys(f.ConfigPath(), 1, nil)
	require.NoError(t, err)
	_, err = open(t, OpenOptions{Dir: t.TempDir(), Config: filepath.Join(dir, ConfigName), TLS: true})
	require.EqualError(t, err, filepath.Join(dir, ConfigName)+" says whether the servers speak TLS; leave --tls out")
}

// A certificate that ends soon is replaced when the cluster starts, and a server that
// joins gets one; both only if the key of the CA is there.
func TestCertificatesAreCreatedWhereTheKeyOfTheCAIs(t *testing.T) {
	dir := leave(t, OpenOptions{TLS: true, Servers: 1, Needs: Needs{Changes: true}})
	in := func(name string) string { return filepath.Join(dir, "tls", name) }
	file, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	a, err := trust.OpenAuthority(in("ca.crt"), in("ca.key"))
	require.NoError(t, err)
	short, err := a.Issue(trust.Identity{Cluster: file.Config.Cluster, Server: 1}, nil, renewal-time.Hour)
	require.NoError(t, err)
	require.NoError(t, WritePair(short, in("n1.crt"), in("n1.key")))

	require.NoError(t, os.Rename(in("ca.key"), in("away")))
	f, err := open(t, OpenOptions{Dir: dir, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	require.WithinDuration(t, short.Until, leaf(t, in("n1.crt")).NotAfter, time.Second, "nothing can renew it")
	err = f.Join(node.Member{ID: 2, Address: "127.0.0.1:7777"})
	require.EqualError(t, err, "n2 has no certificate: there is no "+in("n2.crt")+", and no "+in("ca.key")+" to create it with; create it where the key of the CA is, with the command certs")
	require.Empty(t, f.File.Config.Joiners)
	require.NoError(t, f.Close())

	require.NoError(t, os.Rename(in("away"), in("ca.key")))
	f, err = open(t, OpenOptions{Dir: dir, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(Lifetime), leaf(t, in("n1.crt")).NotAfter, time.Hour)
	require.NoError(t, f.Join(node.Member{ID: 2, Address: "kv.example.org:7777"}))
	_, err = f.File.Keys(f.ConfigPath(), 2, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"kv.example.org"}, leaf(t, in("n2.crt")).DNSNames)
}
