package cli

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// noDemoLeft checks that every demo has removed its folder.
func noDemoLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestADemoFollowsItsStory(t *testing.T) {
	for _, name := range []string{"91-single", "92-cluster"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			t.Setenv(stageVariable, name)
			got := run(t, stages[name], "demo")
			require.Zero(t, got.code, got.errors)
			require.Empty(t, got.errors)
			for _, want := range []string{
				"\nA story.\n",
				"\n$ put x 1\nok\n",
				"\n$ talk\n",
				"\n{\"op\":\"get\",\"key\":\"x\"}\n{\"ok\":true,\"value\":\"1\"}\n",
				"\n$ get x\nerror: ",
				"(exit code 5)\n",
				"\n$ get x\nerror: the key has no value (not_found)\n(exit code 3)\n",
			} {
				require.Contains(t, got.out, want)
			}
			if name == "92-cluster" {
				require.Contains(t, got.out, "\n$ cluster -n 1\n")
				require.Contains(t, got.out, "\n$ kill 1\nn1 killed\n")
			} else {
				require.Contains(t, got.out, "\n$ go run ./91-single\n")
				require.Contains(t, got.out, "\n$ kill\nthe server is killed\n\n$ get x\nerror: ")
				require.Contains(t, got.out, "; the server is not running (killed); bring it back with: restart\n(exit code 5)\n")
			}
			noDemoLeft(t)
		})
	}
}

// demoOf runs the demo of a stage with this story.
func demoOf(t *testing.T, story func(*Demo) error) result {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(stageVariable, "91-single")
	s := stages["91-single"]
	s.Demo = story
	got := run(t, s, "demo")
	noDemoLeft(t)
	return got
}

func TestADemoThatFailsIsAnError(t *testing.T) {
	t.Run("the wrong exit code", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Run("get", "x")
			d.Say("This must not be printed.")
			return d.Err()
		})
		require.Equal(t, 1, got.code)
		require.Equal(t, "error: the demo failed: \"get x\" should end with exit code 0, but ended with 3\n", got.errors)
		require.NotContains(t, got.out, "must not be printed")
	})
	t.Run("the wrong output", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Run("put", "x", "a b")
			d.Shows("no")
			return nil
		})
		require.Equal(t, 1, got.code)
		require.Equal(t, "error: the demo failed: \"ok\" does not show \"no\"\n", got.errors)
		require.Contains(t, got.out, "$ put x 'a b'\n")
	})
	t.Run("a server that does not answer", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Kill(1)
			d.Talk(`{}`)
			return nil
		})
		require.Equal(t, 1, got.code)
		require.Contains(t, got.errors, "connection refused")
	})
}

func TestADemoRunsACommandAlongsideIt(t *testing.T) {
	bench := []string{"bench", "--mix", "put", "--keys", "1", "--clients", "1", "--duration", "1h", "--warmup", "0s"}
	t.Run("a ^C ends it", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Meanwhile(bench...)
			d.Until(`"keys":1`, "status", "-o", "json")
			d.Interrupt()
			d.Shows("interrupted")
			require.Empty(t, d.Interrupt(), "no command may be running any longer")
			return d.Err()
		})
		require.Zero(t, got.code, got.errors)
		require.Regexp(t, `(?s)\$ bench .* &\n.*\$ status .*\$ fg; \^C\nload .*interrupted`, got.out)
	})
	t.Run("it fails", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Meanwhile("get", "one", "two")
			d.Interrupt()
			return nil
		})
		require.Equal(t, 1, got.code)
		require.Contains(t, got.out, "error: ")
		require.Contains(t, got.errors, `the demo failed: "get one two" should end with exit code 130, but ended with 2`)
	})
	t.Run("it ends with the story", func(t *testing.T) {
		got := demoOf(t, func(d *Demo) error {
			d.Start(1)
			d.Meanwhile(bench...)
			d.Run("get", "none")
			return nil
		})
		require.Equal(t, 1, got.code)
	})
}

func TestInterruptEndsADemoCleanly(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(stageVariable, "91-single")
	ctx, cancel := context.WithCancel(context.Background())
	s := stages["91-single"]
	s.Demo = func(d *Demo) error {
		d.Start(1)
		d.Run("put", "x", "1")
		cancel()
		d.Run("get", "none")
		d.Say("This must not be printed.")
		return d.Err()
	}
	var out, errors buffer
	require.Equal(t, exitInterrupted, Run(ctx, s, []string{"demo"}, strings.NewReader(""), &out, &errors))
	require.Empty(t, errors.String())
	require.NotContains(t, out.String(), "must not be printed")
	noDemoLeft(t)
}

// The servers run until the command alongside the story has ended, because a
// bench reads back what was acknowledged.
func TestInterruptEndsTheCommandAlongsideADemoFirst(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(stageVariable, "91-single")
	ctx, cancel := context.WithCancel(context.Background())
	s := stages["91-single"]
	s.Demo = func(d *Demo) error {
		d.Start(1)
		d.Meanwhile("bench", "--verify", "--clients", "1", "--duration", "1h", "--warmup", "0s")
		d.Until(`"keys":1`, "status", "-o", "json")
		cancel()
		return d.Err()
	}
	var out, errors buffer
	require.Equal(t, exitInterrupted, Run(ctx, s, []string{"demo"}, strings.NewReader(""), &out, &errors))
	require.Empty(t, errors.String())
	require.Contains(t, out.String(), "every promise was kept\n")
	require.NotContains(t, out.String(), "about the checked tokens")
	require.Contains(t, out.String(), "\nThe story was interrupted; its servers have stopped.\n")
	noDemoLeft(t)
}

func TestWrap(t *testing.T) {
	require.Equal(t, "", wrap("", 10))
	require.Equal(t, "one two\nthree", wrap(" one  two\nthree ", 10))
	require.Equal(t, "a\nlongwordindeed\nb", wrap("a longwordindeed b", 5))
	require.Equal(t, "äöü äöü\näöü", wrap("äöü äöü äöü", 7))
}

func TestBenchReports(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	args := []string{"bench", "--endpoints", live, "--clients", "2", "--duration", "60ms", "--warmup", "0s"}
	got := run(t, s, args...)
	require.Zero(t, got.code, got.errors)
	require.Contains(t, got.out, "ops/s")
	got = run(t, s, append(args, "--verify", "--mix", "get")...)
	require.Equal(t, 2, got.code)
	require.Contains(t, got.errors, "leave --mix out")
	got = run(t, s, append(args, "-o", "json", "--verify")...)
	require.Zero(t, got.code, got.errors)
	require.Regexp(t, `^\{"clients":2,.*\}\n$`, got.out)
	got = run(t, s, append(args, "--endpoints", freeAddress(t))...)
	require.Equal(t, 5, got.code, got.errors)
	require.Contains(t, got.errors, string(api.Unavailable))
}
