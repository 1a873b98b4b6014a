package film

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/sim"
)

// puppet is a server whose state a test sets.
type puppet struct {
	node.Server
	node.State
	log   []node.Entry
	store *kv.Store
}

func (p *puppet) Inspect(s *node.State)     { *s = p.State }
func (p *puppet) Entry(i uint64) node.Entry { return p.log[i-1-p.SnapIndex] }
func (p *puppet) Store() *kv.Store          { return p.store }

// stepped returns the frames that one step of a server gives.
func stepped(t *testing.T, r *recorder, p *puppet, flushed bool) string {
	t.Helper()
	before := len(r.film.Frames)
	require.NoError(t, r.Stepped(1, p, flushed))
	var texts []string
	for _, f := range r.film.Frames[before:] {
		texts = append(texts, strings.TrimPrefix(string(f.JSON), `{"step":0,"server":1,`))
	}
	return strings.Join(texts, "\n")
}

func entry(term uint64, text string) node.Entry { return node.Entry{Term: term, Data: []byte(text)} }

func TestFramesSayWhatIsOnlyInMemory(t *testing.T) {
	r := newRecorder(&Film{})
	r.Started(1)
	p := &puppet{State: node.State{Term: 1, Last: 2}, log: []node.Entry{entry(1, "a"), entry(1, "b")}}
	require.NotContains(t, stepped(t, r, p, false), "unsynced", "it was read from the disk")

	p.log, p.Last = append(p.log, entry(1, "c")), 3
	require.Equal(t, `"log":{"from":3,"entries":[[1,"c"]]},"unsynced":[3,0]}`, stepped(t, r, p, false))
	p.Term, p.Vote = 2, 3
	require.Equal(t, `"term":2,"vote":3,"unsynced":[3,1]}`, stepped(t, r, p, false))
	require.Equal(t, `"unsynced":[0,0]}`, stepped(t, r, p, true))

	// Another leader replaces entries that were on disk.
	p.log, p.Term = []node.Entry{entry(1, "a"), entry(3, "x"), entry(3, "y")}, 3
	require.Equal(t, `"term":3,"log":{"from":2,"entries":[[3,"x"],[3,"y"]]},"unsynced":[2,1]}`, stepped(t, r, p, false))
	require.Equal(t, `"unsynced":[0,0]}`, stepped(t, r, p, true))
	p.log, p.Last = p.log[:1], 1
	require.Equal(t, `"log":{"from":2,"entries":[]}}`, stepped(t, r, p, false), "no entry is only in memory")
}

func TestTheTimerNeedsAFrameOnlyIfItDoesNotGoByItself(t *testing.T) {
	w, err := sim.New(sim.Options{Seed: 1, Servers: 1, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Config: node.Config{Leader: 1}})
	require.NoError(t, err)
	r := newRecorder(&Film{})
	r.world = w
	r.Started(1)
	p := &puppet{State: node.State{Timeout: 20}}
	require.Contains(t, stepped(t, r, p, true), `"timer":[0,0,20]`)
	pass := func(ticks int, speed uint64) string {
		t.Helper()
		before := len(r.film.Frames)
		for range ticks {
			w.RunFor(node.TickInterval * 100 / time.Duration(speed))
			p.Elapsed++
			stepped(t, r, p, true)
		}
		return strings.Repeat("frame ", len(r.film.Frames)-before)
	}
	require.Empty(t, pass(10, 100))
	p.Elapsed = 0
	require.Equal(t, `"timer":[100000000,0,20]}`, stepped(t, r, p, true), "a heartbeat came")
	require.Empty(t, pass(5, 100))
	r.Clocked(1, 300)
	require.Equal(t, `{"step":0,"server":1,"clock":300,"timer":[150000000,5,20]}`, string(r.film.Frames[len(r.film.Frames)-1].JSON))
	require.Empty(t, pass(12, 300))
	require.NotEmpty(t, pass(3, 1000), "nobody said that the clock is faster")
	r.event(trace.Event{Node: 1, Kind: trace.Pause})
	require.Contains(t, string(r.film.Frames[len(r.film.Frames)-1].JSON), `"paused":true,"timer":[192999996,20,20]`)
	p.Elapsed, p.Timeout = 0, 0
	require.Contains(t, stepped(t, r, p, true), `"timer":[192999996,0,0]`, "it leads")
}

func TestTheStoreIsCut(t *testing.T) {
	r := newRecorder(&Film{})
	r.Started(1)
	p := &puppet{store: kv.NewStore()}
	long := strings.Repeat("ä", mostValue)
	p.store.Apply(kv.Command{Op: kv.Put, Key: "x", Value: long})
	text := stepped(t, r, p, true)
	require.Contains(t, text, `"store":{"x":"`+long[:mostValue]+`…"}`)
	for i := range mostKeys {
		c := kv.Command{Op: kv.Put, Key: "k" + strings.Repeat("i", i), Value: "1"}
		p.store.Apply(c)
		r.event(trace.Event{Node: 1, Kind: trace.Apply, Message: string(c.AppendJSON(nil))})
		text = stepped(t, r, p, true)
	}
	require.Equal(t, `"keys":301}`, text)
	require.Len(t, r.servers[1].store, mostKeys)

	// A key that is written again with the same value after a delete.
	for _, c := range []kv.Command{{Op: kv.Delete, Key: "x"}, {Op: kv.Put, Key: "x", Value: long}} {
		p.store.Apply(c)
		r.event(trace.Event{Node: 1, Kind: trace.Apply, Message: string(c.AppendJSON(nil))})
		text = stepped(t, r, p, true)
	}
	require.Contains(t, text, `"store":{"x":"ä`)
}
