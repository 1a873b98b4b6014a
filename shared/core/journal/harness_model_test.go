package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

var header = Header{Stage: "03-log-replication", Cluster: "c1", ID: 2}

// content is the content that a test expects in a journal.
type content struct {
	State   State
	Base    Base
	Entries []string
}

func contentOf(r Recovered) content {
	c := content{State: r.State, Base: r.Base}
	for _, e := range r.Entries {
		c.Entries = append(c.Entries, string(e.JSON))
	}
	return c
}

func (c content) equal(d content) bool {
	return c.State == d.State && c.Base == d.Base && slices.Equal(c.Entries, d.Entries)
}

func (c content) clone() content {
	c.Entries = slices.Clone(c.Entries)
	return c
}

func (c content) last() uint64 { return c.Base.Index + uint64(len(c.Entries)) }

// change is one record of a round: it changes the journal, and the content that
// the test expects.
type change struct {
	write  func(j *Journal)
	expect func(c *content)
}

func setState(s State) change {
	return change{func(j *Journal) { j.SetState(s) }, func(c *content) { c.State = s }}
}

func add(e Entry) change {
	text := string(e.AppendJSON(nil))
	return change{func(j *Journal) { j.Append(e) }, func(c *content) { c.Entries = append(c.Entries, text) }}
}

func truncate(from uint64) change {
	return change{func(j *Journal) { j.Truncate(from) }, func(c *content) { c.Entries = c.Entries[:from-c.Base.Index-1] }}
}

// round draws a random round that fits the content of the journal: a state, a
// truncation and some entries, some of them larger than a sector or a page.
func round(rng *rand.Rand, c content) []change {
	var out []change
	state, last := c.State, c.last()
	if state.Term == 0 || rng.IntN(3) == 0 {
		state = State{Term: state.Term + uint64(1+rng.IntN(3)), Vote: uint64(rng.IntN(4))}
		out = append(out, setState(state))
	}
	if n := uint64(len(c.Entries)); n > 0 && rng.IntN(4) == 0 {
		last -= 1 + rng.Uint64N(min(n, 4))
		out = append(out, truncate(last+1))
	}
	for range rng.IntN(8) {
		last++
		e := Entry{Index: last, Term: state.Term, Command: command(rng)}
		if rng.IntN(10) == 0 {
			e.Kind, e.Command = "noop", nil
		}
		if rng.IntN(2) == 0 {
			e.JSON = e.AppendJSON(nil)
		}
		out = append(out, add(e))
	}
	return out
}

func command(rng *rand.Rand) []byte {
	size := rng.IntN(60)
	if rng.IntN(4) == 0 {
		size = rng.IntN(5000)
	}
	return fmt.Appendf(nil, `{"op":"put","key":"k","value":"%s"}`, strings.Repeat("a b", size/3))
}

// life is a server's life on a disk: it writes rounds, and tracks what a crash
// may leave of them.
type life struct {
	t   *testing.T
	d   *disk.Sim
	rng *rand.Rand
	j   *Journal

	// certain is what was synced. after is the content of the file after each
	// record of the round that was being written, in order: a crash may leave any
	// of these.
	certain content
	after   []content
}

// round writes and syncs one round.
func (r *life) round() error {
	c := r.certain.clone()
	r.after = nil
	for _, ch := range round(r.rng, r.certain) {
		ch.write(r.j)
		ch.expect(&c)
		r.after = append(r.after, c.clone())
	}
	if err := r.j.Sync(); err != nil {
		return err
	}
	r.certain, r.after = c, nil
	return nil
}

// rewrite compacts the journal: it drops the first half of the log.
func (r *life) rewrite() error {
	n := len(r.certain.Entries) / 2
	c := content{State: r.certain.State, Base: r.certain.Base, Entries: r.certain.Entries[n:]}
	entries := decodeEntries(r.t, r.certain.Entries)
	if n > 0 {
		c.Base = Base{Index: entries[n-1].Index, Term: entries[n-1].Term, Config: fmt.Sprintf(`{"voters":[%d]}`, n)}
	}
	r.after = []content{c}
	if err := r.j.Rewrite(c.State, c.Base, entries[n:]); err != nil {
		return err
	}
	r.certain, r.after = c, nil
	return nil
}

// reopen closes the journal and opens it again.
func (r *life) reopen() error {
	if err := r.j.Close(); err != nil {
		return err
	}
	return r.open()
}

// open opens the journal and checks that its content is one of the possible ones.
// From then on this content is certain.
func (r *life) open() error {
	j, rec, err := Open(r.d, "journal", header)
	if err != nil {
		return err
	}
	r.j = j
	r.certain = r.expect(rec)
	r.after = nil
	return nil
}

// expect fails the test unless the journal holds what is certain or one of the
// other possible contents, and returns it.
func (r *life) expect(rec Recovered) content {
	r.t.Helper()
	got := contentOf(rec)
	for _, c := range append([]content{r.certain}, r.after...) {
		if c.equal(got) {
			return got
		}
	}
	require.Failf(r.t, "the journal has none of the possible contents", "the certain content (-) and the content of the journal (+):\n%s", cmp.Diff(r.certain, got))
	return content{}
}

// live is a whole life: rounds, rewrites, restarts and seconds that pass. It ends
// with the first error.
func (r *life) live() error {
	steps := []func() error{
		r.open, r.round, r.second, r.round, r.second, r.round, r.reopen, r.round, r.round, r.rewrite, r.round, r.second, r.second, r.reopen,
		r.rewrite, r.second, r.reopen, r.round, r.rewrite, r.round, r.second, r.round,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if err := r.j.Close(); err != nil {
		return err
	}
	return r.d.Sync() // an error of the disk in the last note is ignored, so this checks the disk
}

// second lets one second pass, so that the length is noted.
func (r *life) second() error {
	for range noteTicks {
		r.j.Tick()
	}
	return nil
}

func newLife(t *testing.T, seed uint64) *life {
	return &life{t: t, d: disk.NewSim("n2"), rng: rand.New(rand.NewPCG(seed, 0))}
}

// operations returns the number of disk operations in a life with this seed.
func operations(t *testing.T, seed uint64) int {
	r := newLife(t, seed)
	require.NoError(t, r.live())
	return r.d.Stats().Ops
}

func decodeEntries(t *testing.T, texts []string) []Entry {
	t.Helper()
	var out []Entry
	for _, text := range texts {
		out = append(out, decodeEntry(t, text))
	}
	return out
}

func open(t *testing.T, d disk.Disk) (*Journal, Recovered) {
	t.Helper()
	j, r, err := Open(d, "journal", header)
	require.NoError(t, err)
	return j, r
}

// fileOf returns the content of the journal's file.
func fileOf(t *testing.T, d disk.Disk) []byte {
	t.Helper()
	text, err := disk.ReadFile(d, "journal")
	require.NoError(t, err)
	return text
}

// onDisk returns a disk with a journal file of this content, synced.
func onDisk(t *testing.T, text []byte) *disk.Sim {
	t.Helper()
	d := disk.NewSim("n2")
	f, err := disk.Replace(d, "journal", text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return d
}

func trimmed(text []byte) []byte { return bytes.TrimRight(text, "\t") }
