package cli

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// deaf returns the address of a server that accepts requests and never answers.
func deaf(t *testing.T) string {
	t.Helper()
	address, _ := deafServer(t)
	return address
}

// deafServer also reports when a request has arrived.
func deafServer(t *testing.T) (address string, asked <-chan struct{}) {
	t.Helper()
	tell := make(chan struct{}, 16)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					tell <- struct{}{}
				}
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
		}
	}()
	return ln.Addr().String(), tell
}

func TestEachExitCode(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	require.Zero(t, run(t, s, "put", "x", "1", "--endpoints", live).code)
	tests := []struct {
		name      string
		endpoints string
		args      []string
		code      int
		errors    string
	}{
		{"done", live, []string{"get", "x"}, 0, ``},
		{"refused", live, []string{"get", ""}, 1, "error: the key is empty (bad_request)\n"},
		{"usage", live, []string{"get"}, 2, `error: get takes KEY, but got none; see `},
		{"not found", live, []string{"get", "y"}, 3, "error: the key has no value (not_found)\n"},
		{"not found by cas", live, []string{"cas", "y", "1", "2"}, 3, "error: the key has no value (not_found)\n"},
		{"mismatch", live, []string{"cas", "x", "7", "8"}, 4, "error: the value is \"1\", not the old one given (mismatch)\n"},
		{"exists", live, []string{"create", "x", "7"}, 4, "error: the key already has a value (exists)\n"},
		{"unavailable", freeAddress(t), []string{"put", "x", "2"}, 5, `connection refused (unavailable); is the server running? (`},
		{"unknown", deaf(t), []string{"put", "x", "2", "--timeout", "50ms"}, 6, ` (unknown); read the key before you try again`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, s, append(tt.args, "--endpoints", tt.endpoints)...)
			require.Equal(t, tt.code, got.code, got.errors)
			require.Contains(t, got.errors, tt.errors)
			if tt.code != 0 {
				require.Equal(t, 1, strings.Count(got.errors, "\n"), "an error must be one line")
				require.Empty(t, got.out, "errors must not go to stdout")
			}
		})
	}
}

func TestOutputOfTheCommands(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	for _, step := range []struct {
		args []string
		out  string
	}{
		{[]string{"put", "x", "1"}, "ok\n"},
		{[]string{"get", "x"}, "1\n"},
		{[]string{"append", "x", "2"}, "2\n"},
		{[]string{"create", "new", "1"}, "ok\n"},
		{[]string{"cas", "x", "12", ""}, "ok\n"},
		{[]string{"get", "x"}, "\n"},
		{[]string{"put", "--", "-k", "-1"}, "ok\n"},
		{[]string{"get", "-o", "text", "--", "-k"}, "-1\n"},
		{[]string{"delete", "x"}, "ok\n"},
		{[]string{"-o", "json", "put", "x", "<\"é\">"}, `{"ok":true}` + "\n"},
		{[]string{"get", "x", "-o", "json"}, `{"ok":true,"value":"<\"é\">"}` + "\n"},
		{[]string{"append", "y", "", "--output=json"}, `{"ok":true,"length":0}` + "\n"},
	} {
		got := run(t, s, step.args...)
		require.Equal(t, result{0, step.out, ""}, got, "%q", step.args)
	}
}

func TestAFailureAsJSON(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	got := run(t, s, "get", "none", "-o", "json")
	require.Equal(t, result{
		3,
		`{"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}` + "\n",
		"error: the key has no value (not_found)\n",
	}, got)
	got = run(t, s, "get", "-o", "json")
	require.Equal(t, 2, got.code)
	require.Equal(t, `{"ok":false,"error":{"code":"usage","message":"get takes KEY, but got none","definite":true}}`+"\n", got.out)
}

func TestPutReadsStandardInput(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	require.Equal(t, "ok\n", runWith(t, s, "two\nlines\n", "put", "x", "-").out)
	require.Equal(t, "two\nlines\n\n", run(t, s, "get", "x").out, "the value must have every byte of the input, and get must add a newline")
	require.Equal(t, "ok\n", runWith(t, s, "new", "cas", "x", "two\nlines\n", "-").out)
	require.Equal(t, "new\n", run(t, s, "get", "x").out)

	longest := strings.Repeat("\x01", kv.MaxValue)
	require.Equal(t, "ok\n", runWith(t, s, longest, "put", "x", "-").out)
	got := runWith(t, s, longest+"1", "put", "x", "-")
	require.Equal(t, result{1, "", "error: standard input holds more than 131072 bytes, the maximum length of a value (too_large)\n"}, got)
	require.Equal(t, longest+"\n", run(t, s, "get", "x").out, "a refused value must change nothing")
}

// Keys and values are any bytes: they come back as they went in, and in JSON they are
// base64.
func TestKeysAndValuesAreAnyBytes(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	const key, value = "k\x00\xff", "\xff\x00\xc3"
	require.Equal(t, "ok\n", runWith(t, s, value, "put", key, "-").out)
	require.Equal(t, value+"\n", run(t, s, "get", key).out)
	require.Equal(t, `{"ok":true,"value_b64":"/wDD"}`+"\n", run(t, s, "get", key, "-o", "json").out)
	require.Equal(t, "4\n", run(t, s, "append", key, "\xa9").out)
	require.Equal(t, "ok\n", run(t, s, "cas", key, value+"\xa9", "text").out)
	require.Equal(t, `{"ok":true,"value":"text"}`+"\n", run(t, s, "get", key, "-o", "json").out)
	got := run(t, s, "cas", key, "\xfe", "x")
	require.Equal(t, 4, got.code)
	require.Contains(t, got.errors, `the value is "text"`)
	require.Equal(t, "ok\n", run(t, s, "put", key, "\xfe").out)
	require.Contains(t, run(t, s, "cas", key, "x", "y").errors, `the value is "\xfe"`)
	require.Equal(t, 3, run(t, s, "get", "k\x00\uFFFD").code, "another key, which a careless encoder would confuse with it")
}

func TestInvalidRequestsAreRefusedBeforeSending(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, freeAddress(t))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"put", "", "1"}, "the key is empty"},
		{[]string{"get", strings.Repeat("k", 1025)}, "the key has 1025 bytes; at most 1024 are allowed (too_large)"},
		{[]string{"cas", "k", strings.Repeat("v", kv.MaxValue/2+1) + strings.Repeat("v", kv.MaxValue/2), "v"}, "the old value has 131073 bytes; at most 131072 are allowed (too_large)"},
	} {
		got := run(t, s, tt.args...)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.errors, tt.want)
	}
}

func TestUsageErrorsHaveAHintAndNoHelpPage(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	program := (&app{stage: s}).program()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"foo"}, `there is no command "foo"; see "` + program + ` --help"`},
		{[]string{"stats"}, `there is no command "stats"; did you mean status?`},
		{[]string{"help", "foo"}, `there is no help about "foo"; see "` + program + ` --help"`},
		{[]string{"put", "x"}, `put takes KEY VALUE, but got 1 argument; see "` + program + ` put --help"`},
		{[]string{"put", "x", "1", "2"}, `put takes KEY VALUE; remove the argument "2"; see "` + program + ` put --help"`},
		{[]string{"status", "2"}, `status takes no arguments, but got "2"; see`},
		{[]string{"put", "x", "-1"}, `there is no flag -1; write -- before keys and values that begin with a dash`},
		{[]string{"put", "--foo"}, `there is no flag --foo; see "` + program + ` put --help"`},
		{[]string{"--foo"}, `there is no flag --foo; see "` + program + ` --help"`},
		{[]string{"get", "x", "-o", "xml"}, `--output is "xml"; it must be text or json`},
		{[]string{"get", "x", "--timeout", "0s"}, `--timeout is 0s; it must be more than 0`},
		{[]string{"get", "x", "--timeout", "soon"}, `--timeout is "soon"; it must be a length of time, such as 500ms or 5s; see "` + program + ` get --help"`},
		{[]string{"node", "--id", "x"}, `--id is "x"; it must be a whole number of at least 0; see`},
		{[]string{"cluster", "-n", "99999999999999999999"}, `--servers is "99999999999999999999", which is out of range; see`},
		{[]string{"cluster", "-n", "x"}, `--servers is "x"; it must be a whole number; see`},
		{[]string{"cluster", "--fresh=maybe"}, `--fresh is "maybe"; it must be true or false; see`},
		{[]string{"get", "x", "--log-level", "loud"}, `--log-level: "loud" is not a level; the levels are debug, info, warn and error`},
		{[]string{"get", "x", "--endpoints", "localhost"}, `--endpoints: "localhost" is not host:port, such as "127.0.0.1:7021"`},
		{[]string{"get", "x", "--endpoints", "127.0.0.1:1,"}, `--endpoints: "" is not host:port`},
		{[]string{"get", "x", "--endpoints", "n9"}, `--endpoints: there is no server n9 in the cluster`},
		{[]string{"get", "x", "--data", ""}, `--data is empty; name a folder`},
		{[]string{"get", "x", "--data", "nowhere"}, `there is no cluster in nowhere; start one with: ` + program + ` cluster --data nowhere`},
		{[]string{"get", "x", "--base-port", "65500"}, `--base-port is 65500; it must be from 1 to 65436`},
		{[]string{"cluster", "-n", "0"}, `the number of servers is 0; a cluster has 1 to 99 servers`},
		{[]string{"node"}, `node needs --id, the number of the server to run, or the arguments CONFIG ID; see`},
		{[]string{"kill"}, `kill takes SERVER..., but got none; see`},
		{[]string{"kill", "x"}, `"x" does not name a server; write a number (2 or n2), leader, or all`},
		{[]string{"kill", "0"}, `"0" does not name a server`},
		{[]string{"cut"}, `cut takes A [B], but got none`},
		{[]string{"cut", "1", "2", "3"}, `cut takes A [B]; remove the argument "3"`},
		{[]string{"cut", "1,2", "2,3"}, `n2 is in both A and B; a link connects two different servers`},
		{[]string{"cut", "all"}, `A names all servers, so no server is left for B`},
		{[]string{"bench", "--clients", "0"}, `--clients is 0; it must be from 1 to 10000`},
		{[]string{"bench", "--mix", "dance"}, `dance`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got := run(t, s, tt.args...)
			require.Equal(t, 2, got.code, got.errors)
			require.Contains(t, got.errors, "error: "[:min(7, len(tt.want))])
			require.Contains(t, got.errors, tt.want)
			require.Equal(t, 1, strings.Count(got.errors, "\n"), "an error must be one line: %s", got.errors)
			require.Empty(t, got.out)
		})
	}
}

func TestBadVariablesAreNamed(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	for _, tt := range []struct{ name, value, want string }{
		{endpointsVariable, "nobody", `KV_ENDPOINTS: "nobody" is not host:port`},
		{basePortVariable, "high", `KV_BASE_PORT is "high", which is not a number`},
		{basePortVariable, "0", `KV_BASE_PORT is 0; it must be from 1 to 65436`},
		{logVariable, "loud", `RAFT_LOG: "loud" is not a level`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			got := run(t, s, "get", "x")
			require.Equal(t, 2, got.code)
			require.Contains(t, got.errors, tt.want)
		})
	}
}

func TestTheHelpHasTheCommandsThatTheStageHas(t *testing.T) {
	client := []string{"get", "put", "create", "append", "cas", "delete", "status", "shell", "bench"}
	breaks := []string{"kill", "pause", "resume", "restart"}
	servers := append([]string{"cluster", "node", "cut", "heal"}, breaks...)
	for _, tt := range []struct {
		stage     string
		has, none []string
	}{
		{"90-raw", append([]string{"--listen", "127.0.0.1:7900", "talk"}, breaks...), append([]string{"demo", "--endpoints", "--data", "cluster", "node", "cut", "heal"}, client...)},
		{"91-single", append(append([]string{"--listen", "demo", "127.0.0.1:7910", "talk"}, client...), breaks...), []string{"--data", "--base-port", "scenario", "cluster", "node", "cut", "heal"}},
		{"92-cluster", append(append([]string{"--data", "default 7920", "demo"}, client...), servers...), []string{"--listen", "scenario"}},
		{"93-log", append(append([]string{"log", "lead"}, client...), servers...), []string{"demo"}},
		{"95-elect", append(append([]string{}, client...), servers...), []string{"demo", "log", "lead"}},
	} {
		t.Run(tt.stage, func(t *testing.T) {
			got := run(t, stages[tt.stage], "--help")
			require.Zero(t, got.code)
			require.Empty(t, got.errors)
			require.Contains(t, got.out, stages[tt.stage].About)
			for _, word := range append(tt.has, "completion", "exit-codes", "--log-level") {
				require.Contains(t, got.out, word)
			}
			for _, word := range tt.none {
				require.NotRegexp(t, `(?m)^ +`+word+`\b`, got.out)
			}
		})
	}
}

func TestTheExitCodesHaveAHelpTopic(t *testing.T) {
	got := run(t, stages["91-single"], "help", "exit-codes")
	require.Equal(t, result{0, exitCodesHelp + exitCodesOfGoRun + "\n\n", ""}, got)
	for code := range 7 {
		require.Regexp(t, `(?m)^  `+string(rune('0'+code))+`  `, got.out)
	}
}

func TestNoCommandShowsTheHelp(t *testing.T) {
	s := stages["92-cluster"]
	require.Equal(t, run(t, s, "--help"), run(t, s))
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		got := run(t, stages["92-cluster"], "completion", shell)
		require.Zero(t, got.code)
		require.Contains(t, got.out, "complet")
	}
	require.Contains(t, run(t, stages["92-cluster"], "__complete", "kill", "").out, "n1\nn2\nn3\nn4\nn5\nleader\n")
	require.Contains(t, run(t, stages["92-cluster"], "__complete", "st").out, "status\t")

	got := run(t, stages["92-cluster"], "completion", "csh")
	require.Equal(t, result{2, "", "error: there is no completion for \"csh\"; there is one for bash, zsh, fish, powershell\n"}, got)
	require.Zero(t, run(t, stages["92-cluster"], "completion").code)
}

func TestCompletionOfFlags(t *testing.T) {
	_, s := newFake(t)
	s.Ops[kv.Get] = api.Op{Needs: api.Key, May: api.Consistency}
	for _, tt := range []struct{ words, want string }{
		{"transfer ", "n1\nn2\nn3\nn4\nn5\n:4\n"}, // the leader is already the leader
		{"members ", ":4\n"},
		{"status --output ", "text\njson\n:4\n"},
		{"get --consistency ", "linearizable\nstale\n:4\n"},
		{"node --log-level ", "debug\ninfo\nwarn\nerror\n:4\n"},
		{"status --timeout ", ":4\n"},
		{"status --data ", ":16\n"},
		{"cluster --config ", ":0\n"},
		{"node --config ", ":0\n"},
		{"node --trace ", ":0\n"},
	} {
		require.Equal(t, tt.want, run(t, s, append([]string{"__complete"}, strings.Split(tt.words, " ")...)...).out, tt.words)
	}
}

// ^C ends a put that waits for its value on standard input.
func TestInterruptEndsTheReadingOfAValue(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	in, typed := io.Pipe()
	defer typed.Close()
	b := startWith(t, s, in, "put", "x", "-", "--endpoints", live)
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(typed, "the beginning")
		wrote <- err
	}()
	select {
	case err := <-wrote:
		require.NoError(t, err)
	case code := <-b.code:
		require.FailNow(t, "put ends before it has read its value", "code %d: %s", code, b.errors.String())
	}
	require.Equal(t, exitInterrupted, b.stop())
}
