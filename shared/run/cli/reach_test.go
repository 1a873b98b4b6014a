package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/run/cluster"
)

// dialed records which servers are asked. The servers of the other cluster have
// the ports 9001 to 9003, and n1 is their leader; no other server answers.
type dialed struct {
	mu        sync.Mutex
	addresses []string
}

func (d *dialed) dial(endpoints []string, _ ...DialOption) Client {
	return &dialedClient{d, endpoints[0]}
}

type dialedClient struct {
	d       *dialed
	address string
}

func (c *dialedClient) Close() error { return nil }

func (c *dialedClient) Do(_ context.Context, r api.Request) (api.Response, error) {
	c.d.mu.Lock()
	c.d.addresses = append(c.d.addresses, c.address)
	c.d.mu.Unlock()
	var id uint64
	if n, err := fmt.Sscanf(c.address, "127.0.0.1:900%d", &id); n != 1 || err != nil {
		return api.Response{}, &api.Error{Code: api.Unavailable, Message: c.address + ": connection refused", Definite: true, Cause: syscall.ECONNREFUSED}
	}
	switch r.Op {
	case api.Status:
		role := "follower"
		if id == 1 {
			role = "leader"
		}
		return api.Response{Data: fmt.Appendf(nil, `{"id":%d,"role":%q,"term":2,"leader":1}`, id, role)}, nil
	case api.Members:
		v := view{Membership: api.Membership{ID: id, Role: "follower", Leader: 1, Phase: api.Stable, Committed: true}}
		if id == 1 {
			v.Role = "leader"
		}
		for i := range uint64(3) {
			v.Members = append(v.Members, api.MemberStatus{Member: api.Member{ID: i + 1, Address: fmt.Sprintf("127.0.0.1:900%d", i+1)}, Voter: true, Next: true})
		}
		return api.Response{Data: encode(v)}, nil
	case api.Log:
		return api.Response{Data: []byte(`{"last":0,"commit":0,"entries":[]}`)}, nil
	case api.List:
		return api.Response{Data: []byte(`{"keys":[]}`)}, nil
	case kv.Get, kv.Append:
		return api.Response{Value: "1", HasValue: true}, nil
	}
	return api.Response{}, nil
}

// everyCommand returns a stage with every feature, and so with every command. The
// current folder has a cluster that does not run; the cluster that answers is
// another one.
func everyCommand(t *testing.T) (Stage, *dialed) {
	t.Helper()
	t.Chdir(t.TempDir())
	d := &dialed{}
	ops := withMembers()
	ops[api.Cancel] = api.Op{}
	ops[api.Transfer] = api.Op{Needs: api.To}
	ops[api.Log] = api.Op{May: api.From}
	ops[api.Lead] = api.Op{Needs: api.Term}
	s := Stage{Name: "96-all", About: "All commands.", Ops: ops, New: newForTest, Dial: d.dial, Demo: demoForTest, Scenarios: &scenario.Stage{},
		direct: func(_ context.Context, address string) (Client, error) { return d.dial([]string{address}), nil }}
	dir := filepath.Join(".raftsteps", s.Name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	file, err := cluster.New(s.Name, 3, 7960, 0)
	require.NoError(t, err)
	require.NoError(t, file.Save(filepath.Join(dir, cluster.ConfigName)))
	return s, d
}

// arguments has a command line for every command.
var arguments = map[string]string{
	"get": "x", "list": "x", "put": "x 1", "create": "x 1", "append": "x 1", "cas": "x 1 2", "delete": "x", "status": "", "log": "2", "lead": "3",
	"members": "", "start": "4", "add": "4=127.0.0.1:9004 --no-wait", "remove": "leader --no-wait", "change": "--remove 3 --no-wait", "cancel": "", "transfer": "2",
	"kill": "leader", "pause": "1", "resume": "all", "restart": "2", "cut": "leader", "heal": "",
	"cluster": "", "certs": "", "node": "--id 1", "token": "", "shell": "", "demo": "", "scenario": "restart", "lab": "--engine", "version": "", "talk": "", "bench": "--clients 1 --duration 1ms --warmup 0s",
}

// Every command asks the servers in --endpoints or KV_ENDPOINTS, or refuses the
// flag.
func TestEveryCommandUsesItsEndpoints(t *testing.T) {
	const others = "127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003"
	s, d := everyCommand(t)
	for _, cmd := range (&app{stage: s}).root().Commands() {
		name := cmd.Name()
		if !cmd.Runnable() || slices.Contains([]string{"help", "completion"}, name) {
			continue
		}
		args, known := arguments[name]
		require.True(t, known, "%s needs a command line in this test", name)
		for _, source := range []string{"--endpoints", endpointsVariable} {
			t.Run(name+" "+source, func(t *testing.T) {
				words := append([]string{name}, strings.Fields(args)...)
				if source == endpointsVariable {
					if cmd.Annotations[reach] != "" && cmd.Annotations[reach] != reachFolder {
						t.Skip("this command asks no server, so the variable does not apply to it")
					}
					t.Setenv(endpointsVariable, others)
				} else {
					words = append(words, "--endpoints", others)
				}
				if name == "talk" {
					require.Contains(t, run(t, s, words...).errors, "cannot reach a server at 127.0.0.1:9001: ")
					return
				}
				d.addresses = nil
				got := runWith(t, s, "get x\nlog leader\n", words...)
				if got.code == exitUsage || cmd.Annotations[reach] == reachSimulator && got.code != 0 {
					require.Contains(t, got.errors, source)
					require.Empty(t, d.addresses, "a command that refuses --endpoints must ask no server")
					return
				}
				require.Zero(t, got.code, got.errors)
				require.NotEmpty(t, d.addresses, "the command must ask a server")
				for _, address := range d.addresses {
					require.Contains(t, others, address)
				}
			})
		}
	}
}

// With -o json, stdout gets JSON or nothing, also if the command fails.
func TestEveryCommandWritesJSON(t *testing.T) {
	s, _ := everyCommand(t)
	for _, cmd := range (&app{stage: s}).root().Commands() {
		name := cmd.Name()
		if !cmd.Runnable() || slices.Contains([]string{"help", "completion"}, name) {
			continue
		}
		for situation, flags := range map[string][]string{
			"done":               {"--endpoints", "127.0.0.1:9001"},
			"nobody answers":     {"--endpoints", "n1", "--timeout", "100ms"},
			"a wrong line":       {"--timeout", "soon"},
			"too many arguments": {"1", "2", "3", "4", "5", "--timeout", "100ms"},
		} {
			t.Run(name+", "+situation, func(t *testing.T) {
				words := append([]string{"-o", "json", name}, strings.Fields(arguments[name])...)
				got := runWith(t, s, "get x\nkill 1\nnonsense\n", append(words, flags...)...)
				for line := range strings.Lines(got.out) {
					require.True(t, json.Valid([]byte(line)), line)
				}
				switch {
				case name == "shell":
				case got.code == exitUsage:
					require.Contains(t, got.out, `{"ok":false,"error":{"code":"usage",`)
				case got.code != exitDone:
					require.NotEmpty(t, got.out, "the error is missing: %s", got.errors)
				}
			})
		}
	}
}

// A suggestion must do no harm: a command that changes something is suggested
// only for another name of it.
func TestSuggestionsAreHarmlessCommands(t *testing.T) {
	s, _ := everyCommand(t)
	for _, cmd := range (&app{stage: s}).root().Commands() {
		name := cmd.Name()
		for _, word := range []string{name + "x", name[1:], name[:len(name)-1], "x" + name[1:], "he" + name, name[:1] + "x" + name[2:]} {
			got := run(t, s, word)
			_, guess, found := strings.Cut(got.errors, "did you mean ")
			if !found {
				continue
			}
			for one := range strings.SplitSeq(strings.TrimSuffix(guess, "?\n"), " or ") {
				require.Contains(t, []string{"get", "list", "log", "status", "members", "cluster", "node", "shell", "demo", "scenario", "lab", "version", "help", "completion", "exit-codes"}, one, word)
			}
		}
	}
	for word, want := range map[string]string{"health": "status", "staus": "status", "set": "put", "del": "delete", "gt": "get"} {
		require.Contains(t, run(t, s, word).errors, "did you mean "+want+"?\n")
	}
	require.Contains(t, run(t, s, "res").errors, `there is no command "res"; see "`, "get differs in two of three letters")
}

func TestVersion(t *testing.T) {
	s, _ := everyCommand(t)
	got := run(t, s, "version")
	require.Zero(t, got.code)
	require.Regexp(t, `^96-all, module example\.com/raftsteps/shared, go1\.`, got.out)
	require.Regexp(t, `^\{"stage":"96-all","module":"example.com/raftsteps/shared","go":"go1\.[^"]*".*\}\n$`, run(t, s, "version", "-o", "json").out)
}

// A command that acts on the cluster in the folder accepts the endpoints of that
// cluster.
func TestAFolderCommandAcceptsEndpointsOfItsCluster(t *testing.T) {
	s, _ := everyCommand(t)
	for _, endpoints := range []string{"n1", "127.0.0.1:7961,127.0.0.1:7963"} {
		got := run(t, s, "kill", "2", "--endpoints", endpoints)
		require.Equal(t, exitUnavailable, got.code)
		require.Contains(t, got.errors, "no cluster is running on .raftsteps/96-all")
	}
	got := run(t, s, "kill", "2", "--endpoints", "n1,127.0.0.1:9001")
	require.Equal(t, result{2, "", "error: kill acts on the cluster in .raftsteps/96-all, but --endpoints names 127.0.0.1:9001, which is not one of its servers; " +
		"name the folder of that server's cluster with --data\n"}, got)
	got = run(t, s, "cluster", "--endpoints", "n1")
	require.Equal(t, result{2, "", "error: cluster asks no running server; leave --endpoints out\n"}, got)
}

// With --endpoints, the numbers are those of the servers that are asked, and the
// hints contain the same endpoints.
func TestServersThatAreNotInTheFolder(t *testing.T) {
	s, d := everyCommand(t)
	got := run(t, s, "log", "3", "--endpoints", "127.0.0.1:9001")
	require.Zero(t, got.code, got.errors)
	require.Equal(t, "127.0.0.1:9003", d.addresses[len(d.addresses)-1], "the address of n3 is known from the members")
	got = run(t, s, "log", "9", "--endpoints", "127.0.0.1:9001")
	require.Equal(t, result{2, "", "error: none of the servers in --endpoints is n9\n"}, got)
	delete(s.Ops, api.Members)
	got = run(t, s, "log", "3", "--endpoints", "127.0.0.1:9001")
	require.Equal(t, 2, got.code)
	require.Equal(t, "n3 leads term 3\n", run(t, s, "lead", "3", "--endpoints", "127.0.0.1:9003,127.0.0.1:9001").out)
	got = run(t, s, "add", "7", "--endpoints", "127.0.0.1:9001")
	require.Equal(t, result{2, "", "error: the address of n7 is unknown; write 7=HOST:PORT\n"}, got)
	a := &app{stage: s}
	a.flags.data, a.flags.endpoints = a.defaultData(), "127.0.0.1:9001"
	require.Equal(t, "go run ./96-all members --endpoints 127.0.0.1:9001", a.hintMembers())
}

// A --base-port that differs from the ports of the cluster is refused.
func TestAnotherBasePortIsRefused(t *testing.T) {
	s, d := everyCommand(t)
	got := run(t, s, "get", "x", "--base-port", "9000")
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.errors, "error: --base-port: the cluster in .raftsteps/96-all already has its ports (n1 (127.0.0.1:7961), ")
	require.Empty(t, d.addresses)
	require.Equal(t, exitUnavailable, run(t, s, "get", "x", "--base-port", "7960").code)
}

// A demo asks its own servers, even if KV_ENDPOINTS is set.
func TestADemoDoesNotAskTheServersOfTheVariable(t *testing.T) {
	t.Setenv(endpointsVariable, "127.0.0.1:9001")
	list, source := (&app{inDemo: true}).endpointList()
	require.Empty(t, list+source)
}
