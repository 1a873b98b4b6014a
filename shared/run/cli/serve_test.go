package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestServeSaysWhereItListensAndWhatToTry(t *testing.T) {
	address := freeAddress(t)
	t.Chdir(t.TempDir())
	t.Setenv(stageVariable, "90-raw")
	b := start(t, stages["90-raw"], "--listen", address)
	b.shows("^C stops the server.")
	require.Contains(t, b.out.String(), " INFO  listening address="+address+"\n")
	require.Contains(t, b.out.String(), "    go run ./90-raw talk "+address+"\n    {\"op\":\"put\",\"key\":\"x\",\"value\":\"1\"}\n")
	require.Zero(t, b.stop())
	require.Contains(t, b.out.String(), " INFO  stopped\n")
	require.Empty(t, b.errors.String())

	t.Setenv(stageVariable, "91-single")
	b = start(t, stages["91-single"], "--listen", address, "--log-level", "error")
	b.shows("^C stops the server.")
	require.Contains(t, b.out.String(), "    go run ./91-single put x 1 --endpoints "+address+"\n")
	require.NotContains(t, b.out.String(), "listening")
	require.Equal(t, "ok\n", run(t, stages["91-single"], "put", "x", "1", "--endpoints", address).out)
	require.Zero(t, b.stop())
}

func TestServeOnItsOwnPortNeedsNoEndpoints(t *testing.T) {
	a := &app{stage: stages["91-single"]}
	a.flags.basePort = 7910
	require.Contains(t, a.serveHints("127.0.0.1:7910"), "    go run ./91-single get x\n")
}

func TestServeRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["91-single"]
	busy := startSingle(t, s)
	got := run(t, s, "--listen", busy)
	require.Equal(t, result{1, "", "error: cannot listen on " + busy + ": another program uses that port; stop that program, or name another address with --listen\n"}, got)
	got = run(t, s, "--listen", "192.0.2.1:7000")
	require.Equal(t, result{1, "", "error: cannot listen on 192.0.2.1:7000: that is not an address of this machine; name another address with --listen\n"}, got)
	for _, bad := range []string{"7000", ":0:0", "", "localhost:99999"} {
		got = run(t, s, "--listen", bad)
		require.Equal(t, 2, got.code, bad)
		require.Contains(t, got.errors, "error: --listen: ")
	}
}

// A server that other machines can reach starts only if the user says that they are
// trusted, and warns at each start.
func TestAServerForOtherMachines(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["91-single"]
	got := run(t, s, "--listen", "0.0.0.0:0")
	require.Equal(t, 2, got.code)
	require.Regexp(t, `^error: other machines can reach (0\.0\.0\.0|\[::\]):\d+, and anyone there could read and write; leave --listen out, or add --open if everyone there is trusted\n$`, got.errors)
	got = run(t, s, "--listen", "127.0.0.1:0", "--"+supervisedFlag)
	require.Zero(t, got.code)
	require.NotContains(t, got.out, "WARN")

	t.Setenv(stageVariable, s.Name)
	b := start(t, s, "--listen", "0.0.0.0:0", "--open")
	b.shows("^C stops the server.")
	require.Contains(t, b.out.String(), "WARN  anyone who can reach this server may read and write address=")
	require.Zero(t, b.stop())
}

func TestAServerThatFailsIsAnError(t *testing.T) {
	s := stages["91-single"]
	s.Serve = func(context.Context, net.Listener, *slog.Logger) error { return errors.New("the disk is on fire") }
	got := run(t, s, "--listen", "127.0.0.1:0", "--log-level", "error", "--"+supervisedFlag)
	require.Equal(t, 1, got.code)
	require.Equal(t, "error: the disk is on fire\n", got.errors)
}

// A single server is paused, killed and restarted from another terminal, as the
// servers of a cluster are.
func TestASingleServerIsKilledAndRestarted(t *testing.T) {
	s := stages["91-single"]
	t.Chdir(t.TempDir())
	t.Setenv(stageVariable, s.Name)
	address := freeAddress(t)
	t.Setenv(endpointsVariable, address)
	got := run(t, s, "kill")
	require.Equal(t, result{5, "", "error: the server at " + address + " was not started from this folder; start it with: go run ./91-single --listen " + address + "\n"}, got)
	b := start(t, s, "--listen", address)
	b.shows("^C stops the server.")
	require.Equal(t, "ok\n", run(t, s, "put", "x", "1").out)

	require.Equal(t, result{0, "the server is paused\n", ""}, run(t, s, "pause"))
	got = run(t, s, "append", "x", "2", "--timeout", "100ms")
	require.Equal(t, exitUnknown, got.code)
	got = run(t, s, "status", "--timeout", "100ms")
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "; the server is paused; resume it with: go run ./91-single resume "+address+"\n")
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.Equal(t, result{0, "the server is running\n", ""}, run(t, s, "resume", "localhost:"+port), "another address of the same server")
	require.Eventually(t, func() bool { return run(t, s, "get", "x").out == "12\n" }, 10*time.Second, time.Millisecond)

	require.Equal(t, result{0, `[{"id":1,"state":"killed"}]` + "\n", ""}, run(t, s, "kill", "-o", "json"))
	got = run(t, s, "get", "x")
	require.Contains(t, got.errors, "(unavailable); the server is not running (killed); bring it back with: go run ./91-single restart "+address+"\n")
	got = run(t, s, "kill")
	require.Equal(t, result{1, "", "error: the server is not running (killed); bring it back with: go run ./91-single restart " + address + "\n"}, got)
	got = run(t, s, "--listen", address)
	require.Equal(t, result{1, "", "error: another terminal has started the server at " + address + ", which is down; restart it, or press ^C in that terminal\n"}, got)
	require.Equal(t, result{0, "the server is running\n", ""}, run(t, s, "restart"))
	require.Equal(t, 3, run(t, s, "get", "x").code)

	require.Zero(t, b.stop())
	require.NotContains(t, b.out.String(), "n1")
	require.Contains(t, b.out.String(), "-- | the server was killed\n")
	require.Contains(t, b.out.String(), "-- | the server is back\n")
	require.Equal(t, exitUnavailable, run(t, s, "pause").code)
}

// The hints work for a server that listens on all addresses.
func TestHintsOfAServerThatListensEverywhere(t *testing.T) {
	for _, address := range []string{"0.0.0.0:7015", "[::]:7015"} {
		require.Equal(t, "127.0.0.1:7015", reachable(address))
	}
	require.Equal(t, "[::1]:7015", reachable("[::1]:7015"))
	require.Equal(t, "localhost:7015", reachable("localhost:7015"))
}

// talk does what nc does, for users without nc.
func TestTalk(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	lines := `{"op":"put","key":"x","value":"1"}` + "\n" + `{"op":"get","key":"x"}` + "\n"
	require.Equal(t, result{0, `{"ok":true}` + "\n" + `{"ok":true,"value":"1"}` + "\n", ""}, runWith(t, s, lines, "talk", live))
	require.Equal(t, `{"ok":true,"value":"1"}`+"\n", runWith(t, s, `{"op":"get","key":"x"}`+"\n", "talk", "--endpoints", live).out)
	require.Equal(t, `{"ok":true,"value":"1"}`+"\n", runWith(t, s, `{"op":"get","key":"x"}`, "talk", live).out, "the last line may have no newline")
	dead := freeAddress(t)
	got := run(t, s, "talk", dead)
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "error: cannot reach a server at "+dead+": connect: connection refused (unavailable); is the server running? (")

	in, typed := io.Pipe()
	defer typed.Close()
	b := startWith(t, s, in, "talk", live)
	_, err := io.WriteString(typed, lines)
	require.NoError(t, err)
	b.shows(`{"ok":true,"value":"1"}`)
	require.Zero(t, b.stop(), "^C must end the connection")
}
