package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/node"
)

const goodConfig = `{
  "cluster": "test",
  "secret": "0123456789abcdef",
  "members": [
    {"id": 2, "address": "127.0.0.1:7022"},
    {"id": 1, "address": "127.0.0.1:7021"},
    {"id": 3, "address": "[::1]:7023"}
  ],
  "leader": 2,
  "election_timeout_ms": [200, 400],
  "heartbeat_ms": 60,
  "store_bytes": 8192,
  "data_dir": "data",
  "fsync": false
}
`

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "my.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoadReadsEveryFieldAndSortsTheMembers(t *testing.T) {
	path := writeConfig(t, goodConfig)
	got, err := Load(path)
	require.NoError(t, err)
	want := File{
		Config: node.Config{
			Cluster: "test",
			Secret:  "0123456789abcdef",
			Members: []node.Member{
				{ID: 1, Address: "127.0.0.1:7021"},
				{ID: 2, Address: "127.0.0.1:7022"},
				{ID: 3, Address: "[::1]:7023"},
			},
			Leader:          2,
			ElectionTimeout: [2]time.Duration{200 * time.Millisecond, 400 * time.Millisecond},
			Heartbeat:       60 * time.Millisecond,
			StoreBytes:      8192,
		},
		DataDir: "data",
	}
	require.Empty(t, cmp.Diff(want, got))
	require.Equal(t, filepath.Join(filepath.Dir(path), "data"), got.Data(path))
}

// A server's listen address may differ from its public address.
func TestListen(t *testing.T) {
	got, err := Load(writeConfig(t, members(`{"id":1,"address":"h:1"},{"listen":"0.0.0.0:7021","id":2,"address":"h:2"}`)))
	require.NoError(t, err)
	require.Equal(t, "h:1", got.Config.ListenAddress(1))
	require.Equal(t, "0.0.0.0:7021", got.Config.ListenAddress(2))
	require.Equal(t, "h:2", got.Config.Address(2))
	path := filepath.Join(t.TempDir(), ConfigName)
	require.NoError(t, got.Save(path))
	again, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, got.Config, again.Config)
}

// Who may do what survives a save.
func TestAccess(t *testing.T) {
	hash := strings.Repeat("0f", 32)
	got, err := Load(writeConfig(t, with(`"access":{"tokens":[{"name":"app","role":"write","sha256":"`+hash+`"}],"anonymous":"read"}`)))
	require.NoError(t, err)
	require.Equal(t, access.Read, got.Config.Access.Anonymous)
	require.Equal(t, "app", got.Config.Access.Tokens[0].Name)
	require.Equal(t, access.Write, got.Config.Access.Tokens[0].Role)
	path := filepath.Join(t.TempDir(), ConfigName)
	require.NoError(t, got.Save(path))
	again, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, got.Config, again.Config)

	_, err = Load(writeConfig(t, with("\n"+`"access":{"anonymous":"admin"}`)))
	require.ErrorContains(t, err, `line 2: field "anonymous": "admin" is not a role; the roles are read, write and operate`)
}

func TestLoadHasDefaults(t *testing.T) {
	got, err := Load(writeConfig(t, `{"cluster":"c","secret":"0123456789abcdef","members":[{"id":1,"address":"localhost:7021"}]}`))
	require.NoError(t, err)
	require.True(t, got.Config.Fsync, "fsync must be on unless somebody turns it off")
	require.Equal(t, defaultElectionTimeout, got.Config.ElectionTimeout)
	require.Equal(t, defaultHeartbeat, got.Config.Heartbeat)
	require.Zero(t, got.Config.Leader)
}

// members returns a configuration with a list of members.
func members(list string) string {
	return `{"cluster":"c","secret":"0123456789abcdef","members":[` + list + `]}`
}

// with returns a configuration with additional fields.
func with(fields string) string {
	return `{"cluster":"c","secret":"0123456789abcdef","members":[{"id":1,"address":"h:1"}],` + fields + `}`
}

func TestLoadRefusesBadConfigurations(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", ``, `, line 1: want an object, found the end of the text`},
		{"not JSON", "{\n  cluster: 1\n}", `, line 2: want a field name in double quotes, found 'c'`},
		{"an array", `[]`, `want an object, found an array`},
		{"two values", `{} {}`, `something follows the end of the JSON value`},
		{"unknown field", with(`"elction_timeout_ms":[1,2]`), `field "elction_timeout_ms": unknown field; the fields are cluster, secret`},
		{"unknown field of a member", members(`{"id":1,"adress":"h:1"}`), `field "adress": unknown field; the fields of a server are id, address and listen`},
		{"the line of a field", "{\n\n\"cluster\":\"c\",\n\"port\":1}", `my.json, line 4: field "port": unknown field`},
		{"field twice", with(`"fsync":true,"fsync":false`), `field "fsync": this field appears twice`},
		{"compact_bytes too small", with(`"compact_bytes":1`), `field "compact_bytes": 1 bytes; it must be from 4096 to 1099511627776; leave the field out for the default`},
		{"compact_bytes too large", with(`"compact_bytes":1099511627777`), `field "compact_bytes": 1099511627777 bytes; it must be from 4096`},
		{"an empty host name", with(`"http_hosts":["kv.example.org",""]`), `field "http_hosts": "" is not a host name`},
		{"a host name with a port", with(`"http_hosts":["kv:80"]`), `field "http_hosts": "kv:80" is not a host name, such as kv.example.org: without a port and without *`},
		{"a pattern of host names", with(`"http_hosts":["*.example.org"]`), `"*.example.org" is not a host name`},
		{"too many host names", with(`"http_hosts":[` + strings.Repeat(`"a",`, 100) + `"a"]`), `field "http_hosts": more than 100 names`},
		{"store_bytes too small", with(`"store_bytes":1`), `field "store_bytes": 1 bytes; it must be from 4096 to 1099511627776; leave the field out for the default`},
		{"unknown transport", with(`"transport":"pigeons"`), `field "transport": there is no transport "pigeons"; choose one of tcp, udp, grpc, or leave the field out for tcp`},
		{"negative compact_bytes", with(`"compact_bytes":-5`), `field "compact_bytes": want a whole number`},
		{"wrong type", with(`"fsync":"yes"`), `field "fsync": want true or false, found a string`},
		{"not UTF-8", "{\"cluster\":\"\xff\"}", `not valid UTF-8`},
		{"no cluster", `{}`, `: field "cluster" is missing`},
		{"control character in the name", `{"cluster":"a\u001b[31m"}`, `field "cluster": a name has at most 128 bytes and no control characters`},
		{"no secret", `{"cluster":"c"}`, `field "secret" is missing`},
		{"short secret", `{"cluster":"c","secret":"1234"}`, `field "secret" has 4 characters, so it can be guessed; use at least 16`},
		{"one letter", `{"cluster":"c","secret":"aaaaaaaaaaaaaaaaaaaaaaaa"}`, `field "secret" has only 1 different characters, so it can be guessed`},
		{"two letters", `{"cluster":"c","secret":"abababababababab"}`, `field "secret" has only 2 different characters`},
		{"no members", `{"cluster":"c","secret":"0123456789abcdef"}`, `field "members" is missing or empty`},
		{"empty members", members(``), `field "members" is missing or empty`},
		{"id 0", members(`{"id":0,"address":"h:1"}`), `field "members[0].id" is missing or 0; IDs start at 1`},
		{"no id", members(`{"id":1,"address":"h:1"},{"address":"h:2"}`), `field "members[1].id" is missing or 0`},
		{"negative id", members(`{"id":-1,"address":"h:1"}`), `field "id": want a whole number, found`},
		{"huge id", members(`{"id":18446744073709551615,"address":"h:1"}`), `field "members[0].id" is 18446744073709551615; at most 2^53 is allowed`},
		{"id is a string", members(`{"id":"1","address":"h:1"}`), `field "id": want a whole number, found a string`},
		{"id twice", members(`{"id":3,"address":"h:1"},{"id":3,"address":"h:2"}`), `field "members[1].id": the id 3 is taken by members[0]`},
		{"address twice", members(`{"id":1,"address":"h:1"},{"id":2,"address":"h:1"}`), `field "members[1].address": the address h:1 is taken by n1`},
		{"no address", members(`{"id":1}`), `field "members[0].address" is missing: it is host:port`},
		{"no port", members(`{"id":1,"address":"localhost"}`), `field "members[0].address": "localhost" is not host:port`},
		{"no host", members(`{"id":1,"address":":7021"}`), `":7021" has no usable host`},
		{"blank in the host", members(`{"id":1,"address":"a b:7021"}`), `"a b:7021" has no usable host`},
		{"every address", members(`{"id":1,"address":"0.0.0.0:7021"}`), `field "members[0].address": nobody can reach a server at "0.0.0.0:7021"`},
		{"every address, v6", members(`{"id":1,"address":"[::]:7021"}`), `nobody can reach a server at "[::]:7021"`},
		{"every address, mapped", members(`{"id":1,"address":"[::ffff:0.0.0.0]:7021"}`), `nobody can reach a server at`},
		{"multicast", members(`{"id":1,"address":"239.1.2.3:7021"}`), `"239.1.2.3:7021" is not the address of one machine`},
		{"multicast, v6", members(`{"id":1,"address":"[ff02::1]:7021"}`), `is not the address of one machine`},
		{"broadcast", members(`{"id":1,"address":"255.255.255.255:7021"}`), `is not the address of one machine`},
		{"listen without a port", members(`{"id":1,"address":"h:1","listen":"0.0.0.0"}`), `field "listen": "0.0.0.0" is not host:port`},
		{"port 0", members(`{"id":1,"address":"h:0"}`), `"h:0" has no usable port; ports go from 1 to 65535`},
		{"port too high", members(`{"id":1,"address":"h:65536"}`), `"h:65536" has no usable port`},
		{"port is a name", members(`{"id":1,"address":"h:http"}`), `"h:http" has no usable port`},
		{"unknown field of a joiner", with(`"joiners":[{"id":2,"port":1}]`), `field "port": unknown field; the fields of a server are id, address and listen`},
		{"joiner without id", with(`"joiners":[{"address":"h:2"}]`), `field "joiners[0].id" is missing or 0; IDs start at 1`},
		{"joiner without address", with(`"joiners":[{"id":2}]`), `field "joiners[0].address" is missing`},
		{"joiner is a member", with(`"joiners":[{"id":2,"address":"h:2"},{"id":1,"address":"h:3"}]`), `field "joiners[1].id": the id 1 is taken by members[0]; each server has its own`},
		{"joiner twice", with(`"joiners":[{"id":2,"address":"h:2"},{"id":2,"address":"h:3"}]`), `field "joiners[1].id": the id 2 is taken by joiners[0]`},
		{"address of a member", with(`"joiners":[{"id":2,"address":"h:1"}]`), `field "joiners[0].address": the address h:1 is taken by n1; each server has its own`},
		{"leader is a joiner", with(`"leader":2,"joiners":[{"id":2,"address":"h:2"}]`), `field "leader" is 2, which is not a member; the members are n1 (h:1)`},
		{"leader 0", with(`"leader":0`), `field "leader": 0 is not a server`},
		{"leader no member", with(`"leader":7`), `field "leader" is 7, which is not a member; the members are n1 (h:1)`},
		{"low above high", with(`"election_timeout_ms":[300,150]`), `field "election_timeout_ms": the lowest, 300, is above the highest, 150; write [150, 300]`},
		{"one timeout", with(`"election_timeout_ms":[300]`), `field "election_timeout_ms": 1 numbers; it must be [lowest, highest]`},
		{"three timeouts", with(`"election_timeout_ms":[1,2,3]`), `field "election_timeout_ms": more than two numbers`},
		{"timeout 0", with(`"election_timeout_ms":[0,300]`), `field "election_timeout_ms": 0 milliseconds; it must be at least 1`},
		{"timeout is a fraction", with(`"heartbeat_ms":1.5`), `field "heartbeat_ms": want a whole number, found a fraction`},
		{"timeout too long", with(`"heartbeat_ms":99999999999`), `field "heartbeat_ms": 99999999999 milliseconds; it must be at most 3600000`},
		{"heartbeat too slow", with(`"heartbeat_ms":150`), `field "heartbeat_ms" is 150, but must be less than the lowest election timeout, 150`},
		{"both are one step", with(`"heartbeat_ms":1,"election_timeout_ms":[2,3]`), `field "heartbeat_ms" is 1, but must be less than the lowest election timeout, 2, in steps of 10 ms`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeConfig(t, tt.text)
			_, err := Load(path)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, path)
		})
	}
}

func TestLoadRefusesFoldersAndPipes(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "missing.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "missing.json")
	_, err = Load(dir)
	require.ErrorContains(t, err, "is a folder; name the file")
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, "/dev/zero"} {
		_, err = Load(path)
		require.ErrorContains(t, err, path+" is not a file but a pipe or a device")
	}
	_, err = Load(writeConfig(t, string(make([]byte, maxFile+1))))
	require.ErrorContains(t, err, "a configuration has at most 1048576")
}

// A stage accepts only the fields that it uses.
func TestCheckStage(t *testing.T) {
	appointed, compacts := File{Config: node.Config{Leader: 1}}, File{Config: node.Config{CompactBytes: 1 << 20}}
	named := File{Config: node.Config{HTTPHosts: []string{"kv"}}}
	carried := File{Config: node.Config{Transport: grpc}}
	joined := File{Config: node.Config{Joiners: []node.Member{{ID: 4, Address: "h:4"}}}}
	for _, c := range []struct {
		file  File
		needs Needs
		want  string
	}{
		{File{}, Needs{}, ""},
		{appointed, Needs{Appointed: true}, ""},
		{compacts, Needs{Compacts: true}, ""},
		{File{}, Needs{Compacts: true, Changes: true}, ""},
		{joined, Needs{Changes: true}, ""},
		{named, Needs{HTTP: true}, ""},
		{File{}, Needs{Appointed: true}, `field "leader" is missing`},
		{appointed, Needs{}, "the servers elect their leader; leave the field out"},
		{compacts, Needs{}, "the log is not compacted; leave the field out"},
		{named, Needs{Changes: true}, `field "http_hosts": in this stage the servers do not speak HTTP; leave the field out`},
		{carried, Needs{}, `field "transport": this program has no transport "grpc"; it has tcp`},
		{carried, Needs{GRPC: "go run -tags grpc ./07"}, `field "transport": this program was built without grpc; run it as go run -tags grpc ./07 …`},
		{joined, Needs{Compacts: true}, "the members are fixed, so no server can join them; leave the field out"},
	} {
		if err := c.file.CheckStage(c.needs); c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
		}
	}
}

func TestSaveAndLoadAllFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), ConfigName)
	made, err := New("06-test", 3, 7020, 0)
	require.NoError(t, err)
	made.Config.CompactBytes = MinCompact
	made.Config.HTTPHosts = []string{"kv.example.org"}
	made.Config.Transport = "udp"
	made.TLS = TLSIn(TLSFolder)
	made.Config.Joiners = []node.Member{{ID: 4, Address: "127.0.0.1:7024"}, {ID: 9, Address: "127.0.0.1:7029"}}
	require.NoError(t, made.Save(path))
	got, err := Load(path)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(made, got))
}

func TestSaveAndLoadAgree(t *testing.T) {
	f, err := New("02-test", 5, 7020, 1)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), ConfigName)
	require.NoError(t, f.Save(path))
	got, err := Load(path)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(f, got))

	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "the file holds the secret")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(text), "\n  \"members\": [\n    {\n      \"id\": 1,\n      \"address\": \"127.0.0.1:7021\"\n    },\n")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file stays behind")
}

func TestNewGivesEachClusterItsOwnNameAndSecret(t *testing.T) {
	a, err := New("05-x", 3, 7050, 0)
	require.NoError(t, err)
	b, err := New("05-x", 3, 7050, 0)
	require.NoError(t, err)
	require.NotEqual(t, a.Config.Secret, b.Config.Secret)
	require.NotEqual(t, a.Config.Cluster, b.Config.Cluster)
	require.Len(t, a.Config.Secret, 64)
	require.NoError(t, a.Check())

	_, err = New("05-x", 0, 7050, 0)
	require.ErrorContains(t, err, "1 to 99 servers, not 0")
	_, err = New("05-x", 100, 7050, 0)
	require.ErrorContains(t, err, "1 to 99 servers, not 100")
	_, err = New("05-x", 5, 65533, 0)
	require.ErrorContains(t, err, "leaves no room for 5 servers")
}
