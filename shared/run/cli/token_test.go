package cli

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/run/cluster"
)

func TestTokenCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["96-disk"]
	config := configFor(t, 1, 1)
	got := run(t, s, "token")
	require.Equal(t, result{1, "", "error: there is no file .raftsteps/96-disk/cluster.json; \"go run ./96-disk cluster\" creates one, or name another with --config\n"}, got)
	require.Equal(t, got, run(t, s, "token", "app", "write"))
	got = run(t, s, "token", "--config", config)
	require.Equal(t, result{0, config + " does not say who may do what: everyone who can reach the servers may do everything.\n", ""}, got)

	got = run(t, s, "token", "app", "write", "--config", config)
	require.Zero(t, got.code)
	app := strings.TrimSuffix(got.out, "\n")
	require.NoError(t, access.CheckToken(app))
	require.Equal(t, "This is the token of app. It is shown only now: "+config+" has only its hash.\n"+
		"TOKEN              ROLE\napp                write\n(without a token)  none\n", got.errors)
	file, err := cluster.Load(config)
	require.NoError(t, err)
	require.Equal(t, &access.Policy{Tokens: []access.Token{{Name: "app", Role: access.Write, Hash: guard.Hash(app)}}}, file.Config.Access)

	for words, want := range map[string]string{
		"app read":             `there is a token with the name "app" already`,
		"a/b read":             `"a/b" is not a name for a token`,
		"ops admin":            `"admin" is not a role; the roles are read, write and operate`,
		"ops none":             `"none" is not a role; the roles are read, write and operate`,
		"ops":                  "token needs the role as well: read, write or operate; see",
		"--anonymous all":      `--anonymous: "all" is not a role`,
		"--remove ops":         `--remove: there is no token "ops"`,
		"app write -o json":    "token has no results to write as JSON",
		"a read --endpoints h": "token asks no running server",
	} {
		got := run(t, s, append(strings.Fields("token --config "+config), strings.Fields(words)...)...)
		require.Equal(t, 2, got.code, words)
		require.Contains(t, got.errors, "error: "+want, words)
	}
	got = run(t, s, "token", "app", "read", "--remove", "app", "--anonymous", "read", "--config", config)
	require.Zero(t, got.code)
	require.NotEqual(t, app+"\n", got.out)
	require.Equal(t, result{0, "TOKEN              ROLE\napp                read\n(without a token)  read\n", ""}, run(t, s, "token", "--config", config))
	require.Equal(t, result{0, "", "TOKEN              ROLE\n(without a token)  none\n"}, run(t, s, "token", "--remove", "app", "--anonymous", "none", "--config", config))
}

// A server demands tokens: on the command line, in the shell, in talk and over HTTP.
// Commands that can read the cluster.json need none. A token that is removed while the
// server runs counts no longer.
func TestTokensOfAServer(t *testing.T) {
	s := stages["96-disk"]
	config := configFor(t, 1, 1)
	data := filepath.Dir(config)
	require.NoError(t, os.Rename(config, filepath.Join(data, cluster.ConfigName)))
	config = filepath.Join(data, cluster.ConfigName)
	file, err := cluster.Load(config)
	require.NoError(t, err)
	address := file.Config.Address(1)
	t.Chdir(t.TempDir()) // another folder: its commands cannot read the cluster.json
	reader := strings.TrimSpace(run(t, s, "token", "reader", "read", "--config", config).out)
	writer := strings.TrimSpace(run(t, s, "token", "writer", "write", "--config", config).out)
	server := start(t, s, "node", "--id", "1", "--config", config)
	server.shows("listening")

	put := []string{"put", "x", "1", "--endpoints", address}
	require.Equal(t, result{1, "", "error: put needs the role write, and a client that shows no token may do nothing here (denied); show a token with --token or KV_TOKEN\n"}, run(t, s, put...))
	require.Equal(t, result{1, "", "error: put needs the role write, and the token \"reader\" has the role read (denied); the token came from --token\n"}, run(t, s, append(put, "--token", reader)...))
	require.Equal(t, result{1, "", "error: this server does not know the token that was shown (denied); the token came from --token\n"}, run(t, s, append(put, "--token", "guess")...))
	got := run(t, s, append(put, "--token", "a b")...)
	require.Equal(t, result{2, "", "error: --token: the token has a character that tokens do not have; they have letters, digits and . _ ~ + / - =\n"}, got)
	require.Equal(t, "ok\n", run(t, s, append(put, "--token", writer)...).out)
	got = run(t, s, "status", "--endpoints", address)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.out, "no: status needs the role read, and a client that shows no token may do nothing here\n")
	require.Contains(t, got.errors, "may do nothing here (denied); show a token with --token or KV_TOKEN\n")
	got = run(t, s, append(put, "-o", "json")...)
	require.Equal(t, `{"ok":false,"error":{"code":"denied","message":"put needs the role write, and a client that shows no token may do nothing here","definite":true}}`+"\n", got.out)

	t.Setenv(tokenVariable, reader)
	require.Equal(t, "1\n", run(t, s, "get", "x", "--endpoints", address).out)
	require.Contains(t, run(t, s, put...).errors, "the token came from KV_TOKEN\n")
	require.Equal(t, `{"id":1,"ok":true,"value":"1"}`+"\n", runWith(t, s, `{"id":1,"op":"get","key":"x"}`+"\n", "talk", "--endpoints", address).out)
	got = runWith(t, s, "get x\nput x 2\nput x 3 --token "+writer+"\nget x\n", "shell", "--endpoints", address)
	require.Equal(t, 1, got.code)
	require.Equal(t, "1\nok\n3\n", got.out)
	require.Equal(t, 1, strings.Count(got.errors, "error: put needs the role write"), got.errors)
	t.Setenv(tokenVariable, "")

	require.Equal(t, "ok\n", run(t, s, "put", "x", "4", "--data", data).out, "the cluster.json is enough")
	require.Equal(t, "ok\n", run(t, s, "put", "x", "4", "--data", data, "--endpoints", "n1").out)
	require.Contains(t, run(t, s, "put", "x", "5", "--data", data, "--token", reader).errors, "the role read")

	web := func(method, path, token string) int {
		r, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(strings.Repeat("7", map[string]int{"PUT": 1}[method])))
		require.NoError(t, err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		a, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, a.Body)
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		return a.StatusCode
	}
	defer http.DefaultClient.CloseIdleConnections()
	require.Equal(t, 401, web("PUT", "/v1/kv/x", ""))
	require.Equal(t, 401, web("GET", "/metrics", "guess"))
	require.Equal(t, 403, web("PUT", "/v1/kv/x", reader))
	require.Equal(t, 200, web("PUT", "/v1/kv/x", writer))
	require.Equal(t, 200, web("GET", "/livez", ""))

	require.Zero(t, run(t, s, "token", "--remove", "writer", "--config", config).code)
	server.shows("who may do what has changed")
	require.Contains(t, run(t, s, append(put, "--token", writer)...).errors, "this server does not know the token")
	require.Zero(t, server.stop())
}

// A server of a cluster that other machines can reach must be told what they may do.
func TestANodeForOtherMachines(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["96-disk"]
	config := configFor(t, 1, 1)
	file, err := cluster.Load(config)
	require.NoError(t, err)
	_, port, _ := strings.Cut(file.Config.Address(1), ":")
	words := []string{"node", "--id", "1", "--config", config, "--listen", "0.0.0.0:" + port}
	got := run(t, s, words...)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, `which other machines can reach: the configuration must say what their clients may do`)
	require.Contains(t, got.errors, "; create a token with: go run ./96-disk token NAME ROLE --config "+config+"\n")
	require.Zero(t, run(t, s, "token", "--anonymous", "operate", "--config", config).code)
	b := start(t, s, words...)
	b.shows("listening")
	require.Contains(t, b.errors.String(), "WARN  n1: anyone who can reach this server may do anything: access.anonymous is operate")
	require.Equal(t, "ok\n", run(t, s, "put", "x", "1", "--endpoints", file.Config.Address(1)).out)
	// The way back is refused while it runs: nothing would protect it.
	file.Config.Access = nil
	require.NoError(t, file.Save(config))
	b.shows("who may do what stays as it was")
	require.Zero(t, b.stop())
}
