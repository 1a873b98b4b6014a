package backup

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/watch"
)

// server is a store whose clients write while a backup is taken.
type server struct {
	store   *kv.Store
	changes watch.Changes
	index   uint64
	random  *rand.Rand

	// states has the store as of each index.
	states []map[string]string

	// writes is how many writes there are between two requests, at most.
	writes int
}

func newServer(seed uint64, keys, writes int) *server {
	s := &server{store: kv.NewStore(), random: rand.New(rand.NewPCG(seed, 1)), states: []map[string]string{{}}, writes: writes}
	for i := range keys {
		s.apply(kv.Command{Op: kv.Put, Key: fmt.Sprintf("k%04d", i), Value: "first"})
	}
	return s
}

func (s *server) apply(c kv.Command) {
	s.index++
	s.changes.Follow(s.store, 0)
	s.changes.At(s.index)
	s.store.Apply(c)
	state := make(map[string]string)
	s.store.Each(func(key, value string) bool { state[key] = value; return true })
	s.states = append(s.states, state)
}

func (s *server) ask(r api.Request) (api.Response, error) {
	for range s.random.IntN(s.writes + 1) {
		key := fmt.Sprintf("k%04d", s.random.IntN(30))
		switch s.random.IntN(3) {
		case 0:
			s.apply(kv.Command{Op: kv.Delete, Key: key})
		case 1:
			s.apply(kv.Command{Op: kv.Append, Key: key, Value: "\xff"})
		default:
			s.apply(kv.Command{Op: kv.Put, Key: key, Value: fmt.Sprint(s.index)})
		}
	}
	if r.Op == api.List {
		r.Limit = uint64(1 + s.random.IntN(5)) // small pages
		a := api.Read(r, s.store).WithData()
		a.Index = s.index
		return a, nil
	}
	events, next, e := s.changes.Since(r.From, s.index, r.Prefix)
	if e != nil {
		return api.Response{}, e
	}
	return api.Response{Data: api.Events{Events: events, Next: next}.AppendJSON(nil)}, nil
}

// read reads a backup into a map.
func read(t *testing.T, text []byte) (Info, map[string]string) {
	got := make(map[string]string)
	i, err := Read(bytes.NewReader(text), func(item kv.Item) error {
		require.NotContains(t, got, item.Key, "each key comes once")
		got[item.Key] = item.Value
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, len(got), i.Keys)
	return i, got
}

// A backup is the store as of its index, whatever is written while it is taken.
func TestABackupIsOneMoment(t *testing.T) {
	for seed := range uint64(60) {
		s := newServer(seed, 25, 3)
		var file bytes.Buffer
		_, err := Take(s.ask, &file, Info{Stage: "s", Cluster: "c"})
		require.NoError(t, err)
		i, got := read(t, file.Bytes())
		require.Equal(t, s.states[i.Index], got, "seed %d", seed)
		require.Equal(t, "c", i.Cluster)
	}
}

// Pages that do not say as of which entry they are cannot be put together.
func TestPagesWithoutAnIndex(t *testing.T) {
	s := newServer(1, 3, 0)
	_, err := Take(func(r api.Request) (api.Response, error) {
		a, err := s.ask(r)
		a.Index = 0
		return a, err
	}, new(bytes.Buffer), Info{})
	require.ErrorContains(t, err, "as of which entry")
}

func TestABackupOfNothing(t *testing.T) {
	var file bytes.Buffer
	_, err := Take(newServer(1, 0, 0).ask, &file, Info{Stage: "s"})
	require.NoError(t, err)
	_, got := read(t, file.Bytes())
	require.Empty(t, got)
}

func TestSave(t *testing.T) {
	s := newServer(1, 0, 0)
	want := make(map[string]string)
	for i := range 2500 {
		key := fmt.Sprintf("k%04d", i)
		want[key] = "v"
		s.store.Apply(kv.Command{Op: kv.Put, Key: key, Value: "v"})
	}
	var file bytes.Buffer
	_, err := Save(s.store, 77, &file, Info{Stage: "s"})
	require.NoError(t, err)
	i, got := read(t, file.Bytes())
	require.Equal(t, want, got)
	require.Equal(t, Info{Stage: "s", Index: 77, Keys: 2500}, i)
}

// Of a file that is damaged or not whole, nothing is used.
func TestADamagedBackupIsRefused(t *testing.T) {
	s := newServer(1, 20, 3)
	var whole bytes.Buffer
	_, err := Take(s.ask, &whole, Info{Stage: "s"})
	require.NoError(t, err)
	refused := func(text []byte) error {
		_, err := Read(bytes.NewReader(text), func(kv.Item) error {
			require.Fail(t, "a key of a file that is not whole")
			return nil
		})
		require.Error(t, err)
		return err
	}
	for n := range whole.Len() - 1 {
		refused(whole.Bytes()[:n])
		flipped := bytes.Clone(whole.Bytes())
		flipped[n] ^= 1
		refused(flipped)
	}
	lines := bytes.SplitAfter(whole.Bytes(), []byte("\n"))
	without := func(n int) []byte { return bytes.Join(append(append([][]byte{}, lines[:n]...), lines[n+1:]...), nil) }
	require.ErrorContains(t, refused(without(0)), "line 1 is not in its place")
	require.ErrorContains(t, refused(without(3)), "was written with")
	require.ErrorContains(t, refused(without(len(lines)-2)), "its end is missing")
	require.ErrorContains(t, refused(append(whole.Bytes(), lines[1]...)), "is not in its place")
	require.ErrorContains(t, refused(nil), "it is empty")
	require.ErrorContains(t, refused([]byte("hello\n")), "line 1 is damaged")
}

// If the keys change faster than they can be read, the backup fails and says so.
func TestChangesThatAreForgotten(t *testing.T) {
	s := newServer(1, 20, 1)
	asked := 0
	_, err := Take(func(r api.Request) (api.Response, error) {
		if asked++; asked == 3 {
			for range 100 {
				s.apply(kv.Command{Op: kv.Put, Key: "long", Value: string(make([]byte, kv.MaxValue))})
			}
		}
		return s.ask(r)
	}, new(bytes.Buffer), Info{})
	require.ErrorContains(t, err, "the keys change faster than they can be read")
}

// A server that is cut off answers a watch, but never with what the others have
// applied. The backup does not wait for it forever.
func TestAServerThatStaysBehind(t *testing.T) {
	s := newServer(1, 20, 0)
	behind := s.index
	asked := 0
	_, err := Take(func(r api.Request) (api.Response, error) {
		if r.Op == api.List {
			s.apply(kv.Command{Op: kv.Put, Key: "x", Value: "1"})
			return s.ask(r)
		}
		if asked++; asked > 1000 {
			panic("it waits forever")
		}
		return api.Response{Data: api.Events{Next: max(r.From, behind+1)}.AppendJSON(nil)}, nil
	}, new(bytes.Buffer), Info{})
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unavailable, e.Code)
	require.ErrorContains(t, err, "a server is behind")
}
