package bench

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// share is one operation of a mix and its number of parts.
type share struct {
	op    string
	parts int
}

// parseMix parses "put=90,get=10", or "put" for puts only.
func parseMix(text string) ([]share, error) {
	var mix []share
	seen := make(map[string]bool)
	total := 0
	for item := range strings.SplitSeq(text, ",") {
		op, parts, weighted := strings.Cut(strings.TrimSpace(item), "=")
		n := 1
		if weighted {
			var err error
			if n, err = strconv.Atoi(parts); err != nil || n < 0 || n > 1000 {
				return nil, fmt.Errorf("--mix: %q is not a number of parts for %s; it must be from 0 to 1000", parts, op)
			}
		}
		switch {
		case op != kv.Get && !kv.Writes(op):
			return nil, fmt.Errorf(`--mix: unknown operation %q; the operations are put, create, get, append, cas and delete, as in "put=90,get=10"`, op)
		case seen[op]:
			return nil, fmt.Errorf("--mix names %s twice", op)
		}
		seen[op] = true
		total += n
		mix = append(mix, share{op, n})
	}
	if total == 0 {
		return nil, fmt.Errorf("--mix %q has no operation: all its parts are 0", text)
	}
	return mix, nil
}

// mixSource draws operations and keys at random. The clients share keys, value
// and wheel, which are never modified.
type mixSource struct {
	random *rand.PCG
	keys   []string
	value  string

	// wheel has each operation as often as its number of parts.
	wheel []string

	// key is the key of the request in progress. full is the key whose value
	// has become too long; the next request deletes it. "" if there is none.
	key  string
	full string
}

func newMixSources(o Options) []source {
	mix, _ := parseMix(o.Mix) // Options.Check has checked it
	var wheel []string
	for _, s := range mix {
		for range s.parts {
			wheel = append(wheel, s.op)
		}
	}
	keys := make([]string, o.Keys)
	for i := range keys {
		keys[i] = keyName(i)
	}
	value := randomText(o.Seed, o.ValueSize)
	sources := make([]source, o.Clients)
	for i := range sources {
		sources[i] = &mixSource{random: rand.NewPCG(o.Seed, uint64(i)), keys: keys, value: value, wheel: wheel}
	}
	return sources
}

// keyName is the i-th key. The prefix separates the load from other data in the
// same store.
func keyName(i int) string { return "bench-" + strconv.Itoa(i) }

// randomText returns n random letters and digits.
func randomText(seed uint64, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	random := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[random.IntN(len(letters))]
	}
	return string(b)
}

// below draws a number in [0, n). The high half of the product is uniform up to
// an error of n in 2^64, which is negligible.
func (s *mixSource) below(n int) int {
	high, _ := bits.Mul64(s.random.Uint64(), uint64(n))
	return int(high)
}

func (s *mixSource) next() api.Request {
	if s.full != "" {
		r := api.Request{Op: kv.Delete, Key: s.full}
		s.full = ""
		return r
	}
	s.key = s.keys[s.below(len(s.keys))]
	r := api.Request{Op: s.wheel[s.below(len(s.wheel))], Key: s.key}
	switch r.Op {
	case kv.Cas:
		r.Old = s.value
		fallthrough
	case kv.Put, kv.Create, kv.Append:
		r.Value = s.value
	}
	return r
}

func (s *mixSource) answered(_ api.Response, err *api.Error) {
	if err != nil && err.Code == api.TooLarge {
		s.full = s.key
	}
}
