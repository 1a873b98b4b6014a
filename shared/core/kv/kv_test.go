package kv

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

var (
	longest = strings.Repeat("v", MaxValue)
	full    = Result{Outcome: TooLarge}
	none    = Result{Outcome: NotFound}
	exists  = Result{Outcome: Exists}
)

// The table has each command on a key that has no value, on one whose value is
// empty, and on one whose value is "a".
func TestApply(t *testing.T) {
	missing, empty, a := "missing", "", "a"
	for _, c := range []struct {
		before  string
		command Command
		result  Result
		after   string
	}{
		{missing, Command{Op: Get}, none, missing},
		{empty, Command{Op: Get}, Result{}, empty},
		{a, Command{Op: Get}, Result{Value: "a"}, a},

		{missing, Command{Op: Put, Value: "b"}, Result{}, "b"},
		{a, Command{Op: Put, Value: "b"}, Result{}, "b"},
		{a, Command{Op: Put, Value: ""}, Result{}, empty},

		{missing, Command{Op: Create, Value: "b"}, Result{}, "b"},
		{missing, Command{Op: Create, Value: ""}, Result{}, empty},
		{empty, Command{Op: Create, Value: "b"}, exists, empty},
		{a, Command{Op: Create, Value: "a"}, exists, a},

		{missing, Command{Op: Append, Value: "b"}, Result{Length: 1}, "b"},
		{missing, Command{Op: Append, Value: ""}, Result{}, empty},
		{a, Command{Op: Append, Value: "b"}, Result{Length: 2}, "ab"},
		{a, Command{Op: Append, Value: longest[1:]}, Result{Length: MaxValue}, "a" + longest[1:]},
		{a, Command{Op: Append, Value: longest}, full, a},

		{missing, Command{Op: Cas, Old: "", Value: "b"}, none, missing},
		{empty, Command{Op: Cas, Old: "", Value: "b"}, Result{}, "b"},
		{a, Command{Op: Cas, Old: "a", Value: "b"}, Result{}, "b"},
		{a, Command{Op: Cas, Old: "b", Value: "c"}, Found("a"), a},
		{longest, Command{Op: Cas, Old: "b", Value: "c"}, Result{Outcome: Mismatch, Value: longest[:MaxQuoted], Length: MaxValue}, longest},

		{missing, Command{Op: Delete}, none, missing},
		{empty, Command{Op: Delete}, Result{}, missing},
		{a, Command{Op: Delete}, Result{}, missing},
	} {
		name := fmt.Sprintf("%s on %q, old %q", c.command.Op, c.before, c.command.Old)
		s := NewStore()
		if c.before != missing {
			s.Apply(Command{Op: Put, Key: "k", Value: c.before})
		}
		c.command.Key = "k"
		require.NoError(t, c.command.Check(), name)
		require.Equal(t, c.result, s.Apply(c.command), name)
		want := Result{Value: c.after}
		if c.after == missing {
			want = none
		}
		require.Equal(t, want, s.Get("k"), name)
		require.Equal(t, none, s.Get("another"), name)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		command Command
		want    string
	}{
		{Command{Op: Get, Key: "k"}, ""},
		{Command{Op: Put, Key: strings.Repeat("k", MaxKey), Value: longest}, ""},
		{Command{Op: Cas, Key: "k", Old: longest, Value: longest}, ""},
		{Command{Op: Put, Key: "k", Value: "a\x00b"}, ""},
		{Command{Key: "k"}, `unknown command ""`},
		{Command{Op: "increment", Key: "k"}, `unknown command "increment"`},
		{Command{Op: "GET", Key: "k"}, `unknown command "GET"`},
		{Command{Op: Get}, "the key is empty"},
		{Command{Op: Get, Key: "a\x00b\xff"}, ""},
		{Command{Op: Get, Key: strings.Repeat("k", MaxKey+1)}, "the key has 1025 bytes; at most 1024 are allowed"},
		{Command{Op: Put, Key: "k", Value: longest + "v"}, "the value has 131073 bytes; at most 131072 are allowed"},
		{Command{Op: Cas, Key: "k", Old: longest + "v"}, "the old value has 131073 bytes; at most 131072 are allowed"},
	} {
		err := c.command.Check()
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, c.want)
	}
}

func TestApplyWithoutCheckPanics(t *testing.T) {
	require.PanicsWithValue(t, `kv: command "increment" was not checked before it was applied`, func() {
		NewStore().Apply(Command{Op: "increment", Key: "k"})
	})
}

// commands returns n random commands on a few keys.
func commands(seed uint64, n int) []Command {
	r := rand.New(rand.NewPCG(seed, 0))
	ops := []string{Get, Put, Create, Append, Append, Cas, Delete}
	all := make([]Command, n)
	for i := range all {
		all[i] = Command{
			Op:    ops[r.IntN(len(ops))],
			Key:   fmt.Sprintf("k%d", r.IntN(5)),
			Value: strings.Repeat("ab", r.IntN(3)),
			Old:   strings.Repeat("ab", r.IntN(3)),
		}
	}
	return all
}

func content(s *Store) map[string]string {
	all := make(map[string]string)
	s.Each(func(k, v string) bool {
		all[k] = v
		return true
	})
	return all
}

// The same commands in the same order give the same results and the same map,
// also if the commands were encoded as JSON and decoded, as in the log.
func TestApplyIsDeterministic(t *testing.T) {
	for seed := range uint64(20) {
		a, b := NewStore(), NewStore()
		for _, c := range commands(seed, 500) {
			copied, err := Decode(c.AppendJSON(nil))
			require.NoError(t, err)
			require.Equal(t, a.Apply(c), b.Apply(copied))
		}
		require.Empty(t, cmp.Diff(content(a), content(b)))
		require.Equal(t, len(content(a)), a.Len())
	}
}

// Commands from many goroutines are applied in an undefined order, but each is
// applied once, as a whole, and those of one goroutine stay in order.
func TestApplyIsAtomic(t *testing.T) {
	const workers, each = 8, 200
	s := NewStore()
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			for i := range each {
				s.Apply(Command{Op: Append, Key: "log", Value: fmt.Sprintf("<%d.%d>", w, i)})
				s.Get("log")
				s.Len()
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	log := s.Get("log").Value
	for w := range workers {
		last := -1
		for i := range each {
			at := strings.Index(log, fmt.Sprintf("<%d.%d>", w, i))
			require.Greater(t, at, last, "the appends of one goroutine must stay in order")
			last = at
		}
	}
	require.Equal(t, workers*each, strings.Count(log, "<"))
}

func TestEachStopsEarly(t *testing.T) {
	s := NewStore()
	for _, k := range []string{"a", "b", "c"} {
		s.Apply(Command{Op: Put, Key: k})
	}
	n := 0
	s.Each(func(_, _ string) bool {
		n++
		return n < 2
	})
	require.Equal(t, 2, n)
}

func TestCommandJSON(t *testing.T) {
	for _, c := range []struct {
		command Command
		want    string
	}{
		{Command{Op: Get, Key: "x"}, `{"op":"get","key":"x"}`},
		{Command{Op: Put, Key: "x"}, `{"op":"put","key":"x","value":""}`},
		{Command{Op: Append, Key: "é\n", Value: "\"\x00"}, `{"op":"append","key":"é\n","value":"\"\u0000"}`},
		{Command{Op: Create, Key: "x", Value: ""}, `{"op":"create","key":"x","value":""}`},
		{Command{Op: Cas, Key: "x", Old: "1", Value: "2"}, `{"op":"cas","key":"x","old":"1","value":"2"}`},
		{Command{Op: Delete, Key: "x"}, `{"op":"delete","key":"x"}`},
	} {
		text := c.command.AppendJSON(nil)
		require.Equal(t, c.want, string(text))
		have, err := Decode(text)
		require.NoError(t, err)
		require.Equal(t, c.command, have)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"op":"get"}`:                          "the key is empty",
		`{"op":"inc","key":"x"}`:                `unknown command "inc"`,
		`{"op":"get","key":"x","id":1}`:         `field "id": unknown field`,
		`{"op":"get","key":"x","key":"y"}`:      `this field appears twice`,
		`{"op":"get","key":"x"} {}`:             `something follows`,
		`{"op":"put","key":"x","value":17}`:     `want a string, found a number`,
		`{"op":"put","key":"x","value":"\ud8"}`: `four hexadecimal digits`,
		`[]`:                                    `want an object, found an array`,
	} {
		c, err := Decode([]byte(text))
		require.ErrorContains(t, err, want, text)
		require.Zero(t, c)
	}
}

// A command that Decode accepts can be applied, and does not change when it is
// encoded and decoded again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"op":"cas","key":"x","old":"1","value":"2"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Decode(text)
		if err != nil {
			require.Zero(t, c)
			return
		}
		require.NoError(t, c.Check())
		require.True(t, json.Valid(text))
		NewStore().Apply(c)
		written := c.AppendJSON(nil)
		again, err := Decode(written)
		require.NoError(t, err)
		require.Equal(t, string(written), string(again.AppendJSON(nil)))
	})
}
