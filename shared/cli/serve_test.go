package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServeSaysWhereItListensAndWhatToTry(t *testing.T) {
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)

	b := start(t, stages["90-raw"], "--listen", address)
	b.shows("^C stops the server.")
	require.Contains(t, b.errors.String(), " INFO  listening address="+address+"\n")
	require.Contains(t, b.out.String(), "    nc "+host+" "+port+"\n    {\"op\":\"put\",\"key\":\"x\",\"value\":\"1\"}\n")
	require.Zero(t, b.stop())
	require.Contains(t, b.errors.String(), " INFO  stopped\n")

	b = start(t, stages["91-single"], "--listen", address, "--log-level", "error")
	b.shows("^C stops the server.")
	require.Contains(t, b.out.String(), "    go run ./91-single put x 1 --endpoints "+address+"\n")
	require.Empty(t, b.errors.String())
	require.Equal(t, "ok\n", run(t, stages["91-single"], "put", "x", "1", "--endpoints", address).out)
	require.Zero(t, b.stop())
}

func TestServeOnItsOwnPortNeedsNoEndpoints(t *testing.T) {
	a := &app{stage: stages["91-single"]}
	a.flags.basePort = 7910
	require.Contains(t, a.serveHints("127.0.0.1:7910"), "    go run ./91-single get x\n")
}

func TestServeRefusals(t *testing.T) {
	s := stages["91-single"]
	busy := startSingle(t, s)
	got := run(t, s, "--listen", busy)
	require.Equal(t, result{1, "", "error: cannot listen on " + busy + ": another program uses that port; stop that program, or name another address with --listen\n"}, got)
	got = run(t, s, "--listen", "192.0.2.1:7000")
	require.Equal(t, result{1, "", "error: cannot listen on 192.0.2.1:7000: that is not an address of this machine\n"}, got)
	for _, bad := range []string{"7000", ":0:0", "", "localhost:99999"} {
		got = run(t, s, "--listen", bad)
		require.Equal(t, 2, got.code, bad)
		require.Contains(t, got.errors, "error: --listen: ")
	}
}

func TestAServerThatFailsIsAnError(t *testing.T) {
	s := stages["91-single"]
	s.Serve = func(context.Context, net.Listener, *slog.Logger) error { return errors.New("the roof is on fire") }
	got := run(t, s, "--listen", "127.0.0.1:0", "--log-level", "error")
	require.Equal(t, 1, got.code)
	require.Equal(t, "error: the roof is on fire\n", got.errors)
}
