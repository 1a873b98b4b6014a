package readme

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shells runs a test with each shell that can run READMEs.
func shells(t *testing.T, test func(t *testing.T, shell string)) {
	for _, name := range []string{"bash", "sh"} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skip(err)
			}
			t.Parallel()
			test(t, path)
		})
	}
}

// The README in this test is correct and uses everything that the package comment
// describes.
func TestReadmeWithRightOutput(t *testing.T) {
	t.Setenv("KV_ENDPOINTS", "somewhere else")
	shells(t, func(t *testing.T, shell string) {
		r := repository(t, `# A stage

Text. '''sh
$ false
'''

'''text
$ exit 9
'''

'''console
$ go run ./00-fake echo hello world
hello world
$ echo one; echo two >&2; echo three
one
two
three
'''

What varies:

'''console
$ go run ./00-fake now
it took … ns
done
$ go run ./00-fake now
…
$ go run ./00-fake partial
no end
$ true
'''

A failure is seen:

'''console
$ go run ./00-fake fail 3
it failed
exit status 3
$ echo $?
1
$ go build -o kv ./00-fake
$ ./kv who
args ./kv false
$ go run ./00-fake who
args …/go-build/00-fake true
$ ./kv fail 3
it failed
$ echo "$?"
3
$ ./kv ask anybody; echo $?
dial tcp 127.0.0.1:7000: connect: connection refused
5
'''

One shell, in the root:

'''console
$ A=1
$ echo $A; cat 00-fake/go.mod
1
module example.com/00-fake

go 1.26.0
$ cat <<end | tr a-z A-Z
> shout
>
> loud
> end
SHOUT

LOUD
$ echo a \
> b && \
> echo c
a b
c
$ go run ./00-fake save; ls -d .raftsteps
saved
.raftsteps
'''

Two stages have ports of their own:

'''console
$ go run ./00-fake base
the base is 7000 and not 1…

$ go run 01-other/ base
the base is 7010 and not 1…

'''

'''console
# first terminal
$ go run ./00-fake serve
… listening on 127.0.0.1:7000
'''

'''console
# second terminal
$ go run ./01-other serve
… listening on 127.0.0.1:7010
'''

'''console
$ go run ./00-fake ask x
{"ok":true,"value":"x"}
$ go run ./01-other ask y
{"ok":true,"value":"y"}
$ nc 127.0.0.1 7000
{"id":7,"op":"put"}
{"ok":true,"value":"{\"id\":7,…
hello
there
…
{"ok":true,"value":"there"}
^C
$ nc 127.0.0.1 7000
not ended by a key
{"ok":true,"value":"not ended by a key"}
$ printf 'a\nb\n' | nc -N 127.0.0.1 7000
{"ok":true,"value":"a"}
{"ok":true,"value":"b"}
$ nc 127.0.0.1 7000
close
$ nc 127.0.0.1 7005
nc: connect to 127.0.0.1 port 7005 (tcp) failed: Connection refused
$ echo $?
1
'''

'''console
# first terminal
connection 1
…
^C
stopped
$ go run ./01-other serve
listen tcp 127.0.0.1:7010: bind: address already in use
exit status 1
'''

'''console
$ go run ./00-fake shell
> get x
you said get x
kv> put
>
you said put
…
^D
bye
$ go run ./00-fake shell
> this ends by itself
you said this ends by itself
bye
$ ./kv serve &
… listening on 127.0.0.1:7000
$ server=$!
$ ./kv ask z >/dev/null; true
connection 1
$ kill -STOP $server; (sleep 1; kill -CONT $server) &
$ kill $server
stopped
$ sleep 1000 &
[1] 4711
$ kill $!; wait $!; echo $?
[1]+  Terminated              sleep 1000
143
$ go env GOPATH | wc -l | tr -d ' '
1
$ go version
go version …
'''

'''console
# second terminal
connection 1
^C
…
'''
`)
		r.shell = shell
		require.NoError(t, r.run(t.Context()))

		// The run must write nothing into the repository, and leave nothing in
		// the temporary folder.
		_, err := os.Stat(filepath.Join(r.world.Root, ".raftsteps"))
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = os.Stat(r.world.dir)
		require.ErrorIs(t, err, os.ErrNotExist)
		for port := range r.world.documented {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			require.NoError(t, err, "a server is still running")
			l.Close()
		}
	})
}

// Every difference from the README is reported, with its place.
func TestReadmeWithWrongOutput(t *testing.T) {
	t.Parallel()
	const serve = "'''console\n# first terminal\n$ go run ./00-fake serve\n… listening on …\n'''\n"
	tests := map[string]struct {
		text string
		most time.Duration
		want []string
	}{
		"another output": {
			text: "# x\n\n'''console\n$ echo a\na\n$ go run ./00-fake echo hi 7003\nho 7003\n'''\n",
			want: []string{"README.md:6: it printed something else\n    $ go run ./00-fake echo hi 7003\nexpected:\n    ho 7003\ngot:\n    hi 7003\n"},
		},
		"more output": {
			text: "'''console\n$ echo a; echo b\na\n'''\n",
			want: []string{"expected:\n    a\ngot:\n    a\n    b\n"},
		},
		"less output": {
			text: "'''console\n$ true\na\n'''\n",
			want: []string{"expected:\n    a\ngot: nothing\n"},
		},
		"no output expected": {
			text: "'''console\n$ echo a\n'''\n",
			want: []string{"expected: nothing\ngot:\n    a\n"},
		},
		"a failure that is not shown": {
			text: "'''console\n$ echo a; false\na\n$ echo b\nb\n'''\n",
			want: []string{"README.md:2: it ended with exit code 1, but the README does not show that; if it is intended, show it with $ echo $? below it"},
		},
		"a failure that an ellipsis hides": {
			text: "'''console\n$ go run ./00-fake fail 3\n…\n'''\n",
			want: []string{"it ended with exit code 1"},
		},
		"another exit code": {
			text: "'''console\n$ go run ./00-fake fail 3\nit failed\nexit status 4\n'''\n",
			want: []string{"expected:\n    it failed\n    exit status 4\ngot:\n    it failed\n    exit status 3\n"},
		},
		"a command that does not end": {
			text: "'''console\n$ go run ./00-fake serve\n… listening on …\n'''\n",
			most: 2 * time.Second,
			want: []string{"README.md:2: it is still running after 2s", `block with its own terminal ("# first terminal"), or ^C`},
		},
		"a server that never says what it should": {
			text: strings.Replace(serve, "listening on …", "listening on …\nready", 1),
			most: 2 * time.Second,
			want: []string{"README.md:3: it did not print this within 2s\n    $ go run ./00-fake serve\nexpected:\n    … listening on …\n    ready\ngot:\n", "listening on 127.0.0.1:7000"},
		},
		"a server that ends at once": {
			text: serve + strings.Replace(serve, "first", "other", 1),
			want: []string{"README.md:8: it printed something else", "listen tcp 127.0.0.1:7000: bind: address already in use"},
		},
		"a server that says nothing and ends": {
			text: "'''console\n# first terminal\n$ go run ./00-fake\nready\n'''\n",
			want: []string{"README.md:3: it ended without printing this", "expected:\n    ready\ngot: nothing"},
		},
		"a job that prints something else": {
			text: "'''console\n$ (echo a; echo c) &\na\nb\n'''\n",
			want: []string{"README.md:2: it printed something else", "expected:\n    a\n    b\ngot:\n    a\n    c\n"},
		},
		"a job that prints too little": {
			text: "'''console\n$ (echo a) &\na\nb\n'''\n",
			most: time.Second,
			want: []string{"README.md:2: it printed something else", "expected:\n    a\n    b\ngot:\n    a\n"},
		},
		"a command in a terminal that prints more and ends": {
			text: "'''console\n# first terminal\n$ echo a; echo b\na\n'''\n'''console\n# first terminal\n$ echo c\nc\n'''\n",
			want: []string{"README.md:3: it printed something else", "expected: nothing\ngot:\n    b\n"},
		},
		"an answer that does not come": {
			text: serve + "'''console\n$ nc 127.0.0.1 7000\na\n{\"ok\":true,…\n{\"ok\":true,\"value\":\"b\"}\n^C\n'''\n",
			most: 2 * time.Second,
			want: []string{"README.md:7: it did not print this within 2s\n    $ nc 127.0.0.1 7000\nexpected:\n    {\"ok\":true,…\n    {\"ok\":true,\"value\":\"b\"}\ngot:\n    {\"ok\":true,\"value\":\"a\"}\n"},
		},
		"a line that is typed to nobody": {
			text: "'''console\n$ go run ./00-fake echo x\nx\n> more\nyou said more\n'''\n",
			want: []string{"it printed something else", "expected:\n    you said more\ngot: nothing\n"},
		},
		"output of a command that has ended": {
			text: "'''console\n# first terminal\n$ echo a\n'''\n'''console\n# first terminal\nmore\n'''\n",
			want: []string{"README.md:3: it printed something else"},
		},
		"a command that ends the shell": {
			text: "'''console\n$ exit 0\n'''\n",
			want: []string{"it ended the shell"},
		},
		"a program that ignores ^C at the end": {
			text: "'''console\n# first terminal\n$ go run ./00-fake hang\nhanging\n'''\n",
			want: []string{"README.md:3: $ go run ./00-fake hang: the command did not end within 100ms of ^C"},
		},
		"a stage that does not build": {
			text: "'''console\n$ go run ./02-broken\n'''\n",
			want: []string{"go run in 02-broken", "undefined: x"},
		},
		"nothing to run":      {text: "# x\n", want: []string{"holds no block fenced as console"}},
		"an open fence":       {text: "'''console\n$ true\n", want: []string{"line 1: the fence is never closed"}},
		"an indented block":   {text: " '''console\n $ true\n '''\n", want: []string{"line 1: the block is indented"}},
		"an empty block":      {text: "'''console\n'''\n", want: []string{"line 1: the block holds no command"}},
		"output without one":  {text: "'''console\na\n$ true\n'''\n", want: []string{`line 2: "a" is above the first command of the block`}},
		"^C without output":   {text: "'''console\n$ sleep 9\n…\n^C\n'''\n", want: []string{"line 4: ^C right after the command"}},
		"an ellipsis to wait": {text: strings.Replace(serve, "… listening on …", "…", 1), want: []string{"line 4: an ellipsis alone waits for nothing"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := repository(t, test.text)
			broken := filepath.Join(filepath.Dir(filepath.Dir(r.file)), "02-broken")
			require.NoError(t, os.MkdirAll(broken, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(broken, "go.mod"), []byte("module example.com/02-broken\n\ngo 1.26.0\n"), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(broken, "main.go"), []byte("package main\n\nfunc main() { x() }\n"), 0o644))
			work, err := os.ReadFile(filepath.Join(broken, "../go.work"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(broken, "../go.work"), []byte(strings.Replace(string(work), "./00-fake", "./00-fake\n\t./02-broken", 1)), 0o644))
			if test.most > 0 {
				r.most = test.most
			}
			r.closing = 100 * time.Millisecond
			before, err := os.ReadFile(r.file)
			require.NoError(t, err)
			err = r.run(t.Context())
			require.Error(t, err)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			after, err := os.ReadFile(r.file)
			require.NoError(t, err)
			require.Equal(t, string(before), string(after))
		})
	}
}

// -update writes the new output into the README, and keeps the parts that still
// match.
func TestReadmeIsRewritten(t *testing.T) {
	t.Parallel()
	r := repository(t, `# x

'''console
$ go run ./00-fake now
it took … ns
ready
$ echo nothing was shown
$ echo a; echo b; echo c
a
…
'''

Text.

'''console
# first terminal
$ go run ./00-fake serve
… listening on 127.0.0.1:7000
'''

'''console
$ nc 127.0.0.1 7000
hello
{"ok":true,"value":"goodbye"}
again
{"ok":true,…
^C
$ echo gone
gone
long gone
'''

The end.
`)
	r.update = true
	r.most = 3 * time.Second
	require.NoError(t, r.run(t.Context()))
	got, err := os.ReadFile(r.file)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(`# x

'''console
$ go run ./00-fake now
it took … ns
done
$ echo nothing was shown
nothing was shown
$ echo a; echo b; echo c
a
…
'''

Text.

'''console
# first terminal
$ go run ./00-fake serve
… listening on 127.0.0.1:7000
'''

'''console
$ nc 127.0.0.1 7000
hello
{"ok":true,"value":"hello"}
again
{"ok":true,…
^C
$ echo gone
gone
'''

The end.
`, "'''", "```"), string(got))

	r.update = false
	require.NoError(t, r.run(t.Context()))
}

// The commands of the top README run in the folder of that README, with the
// stages as they are built there.
func TestReadmeOfTheRepository(t *testing.T) {
	t.Parallel()
	r := repository(t, "'''console\n$ go run ./00-fake echo a\na\n'''\n")
	r.programs = nil
	root := filepath.Dir(filepath.Dir(r.file))
	text, err := os.ReadFile(r.file)
	require.NoError(t, err)
	r.file = filepath.Join(root, "README.md")
	require.NoError(t, os.WriteFile(r.file, text, 0o644))
	require.NoError(t, r.run(t.Context()))
}

// Test handles its flags, and skips within a README's own run.
func TestTest(t *testing.T) {
	r := repository(t, "'''console\n$ echo a\na\n'''\n")
	t.Run("runs", func(t *testing.T) { Test(t, r.file) })
	t.Setenv(worldVariable, r.file)
	t.Run("skips", func(t *testing.T) {
		Test(t, "missing.md")
		t.Error("Test did not skip")
	})
}

// In a README with two terminals, each block must name its terminal.
func TestEveryBlockNamesItsTerminal(t *testing.T) {
	t.Parallel()
	blocks, err := parse("```console\n$ a\n```\n```console\n# first terminal\n$ b\n```\n")
	require.NoError(t, err)
	require.EqualError(t, labeled(blocks), `line 1: the block does not name its terminal, and others do; begin it with "# second terminal", say`)
	require.NoError(t, labeled(blocks[:1]))
	require.NoError(t, labeled(blocks[1:]))
}
