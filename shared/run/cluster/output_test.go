package cluster

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
)

func TestLinesAreShownBehindTheirServersName(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(&b, false, node.Member{ID: 1}, node.Member{ID: 10})
	go o.run()
	o.server(1, "hello")
	o.server(10, "world")
	o.say("%d words", 2)
	o.plain("plain\n")
	o.close()
	o.server(1, "too late")
	require.Equal(t, "n1  | hello\nn10 | world\n--  | 2 words\nplain\n", b.String())
}

func TestColoursTellServersApart(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(&b, true, node.Member{ID: 1}, node.Member{ID: 2})
	go o.run()
	o.server(1, "a")
	o.server(2, "b")
	o.close()
	require.Equal(t, "\x1b[36mn1 |\x1b[0m a\n\x1b[33mn2 |\x1b[0m b\n", b.String())
}

func TestSettleWaitsForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		o := newOutput(&b, false)
		go o.run()
		defer o.close()
		start := time.Now()
		o.settle(t.Context(), 0)
		o.settle(t.Context(), time.Second)
		require.Zero(t, time.Since(start), "nothing was said at all")
		o.say("one")
		time.AfterFunc(600*time.Millisecond, func() { o.say("two") })
		o.settle(t.Context(), time.Second)
		require.Equal(t, 1600*time.Millisecond, time.Since(start))

		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second / 2):
					o.say("on and on")
				}
			}
		}()
		start = time.Now()
		o.settle(t.Context(), time.Second)
		close(stop)
		require.Less(t, time.Since(start), 11*time.Second)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start = time.Now()
		o.say("last")
		o.settle(ctx, time.Hour)
		require.Zero(t, time.Since(start))
	})
}

// stuck is a terminal that somebody holds.
type stuck struct {
	free chan struct{}
	b    bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.b.Write(p)
}

func TestATerminalThatIsHeldLosesLinesAndIsTold(t *testing.T) {
	w := &stuck{free: make(chan struct{})}
	o := newOutput(w, false, node.Member{ID: 1})
	go o.run()
	for range maxQueue + 10 {
		o.server(1, "x")
	}
	close(w.free)
	for o.waiting() > 0 {
	}
	o.server(1, "back")
	o.close()
	text := w.b.String()
	require.Regexp(t, `-- \| (9|10) lines were dropped: the terminal was too slow\nn1 \| back\n$`, text)
	require.GreaterOrEqual(t, strings.Count(text, "n1 | x\n"), maxQueue)
}

func (o *output) waiting() int { return len(o.lines) }

func TestLineWriterCutsLines(t *testing.T) {
	var got []string
	w := &lineWriter{emit: func(s string) { got = append(got, s) }}
	for _, piece := range []string{"one\ntw", "o\r\n\nthr", "ee"} {
		n, err := w.Write([]byte(piece))
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
	}
	require.Equal(t, []string{"one", "two", ""}, got)
	w.flush()
	w.flush()
	require.Equal(t, []string{"one", "two", "", "three"}, got)

	got = nil
	w.Write(bytes.Repeat([]byte("x"), 2*maxLine+5))
	w.flush()
	require.Len(t, got, 3)
	require.Len(t, got[2], 5)
}
