package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/run/cluster"
)

// hashing are servers by address, that answer with one list of hashes after another;
// the last one is given again and again.
type hashing struct {
	mu      sync.Mutex
	answers map[string][]api.StateHashes
}

type hashingClient struct {
	h       *hashing
	address string
}

func (c hashingClient) Close() error { return nil }

func (c hashingClient) Do(_ context.Context, r api.Request) (api.Response, error) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	answers := c.h.answers[c.address]
	switch {
	case answers == nil:
		return api.Response{}, &api.Error{Code: api.Unavailable, Definite: true, Message: "it does not answer"}
	case r.Op == api.Status:
		return api.Response{Data: []byte(`{"role":"follower"}`)}, nil
	case answers[0].ID == 9:
		return api.Response{}, &api.Error{Code: api.BadRequest, Definite: true, Message: `unknown op "hash"`}
	}
	if len(answers) > 1 {
		c.h.answers[c.address] = answers[1:]
	}
	return api.Response{Data: answers[0].AppendJSON(nil)}, nil
}

// unchecked and damaged are what else a server may say.
func unchecked(s api.StateHashes) api.StateHashes {
	s.Checked = false
	return s
}

func damaged(s api.StateHashes) api.StateHashes {
	s.Damaged = true
	return s
}

// kept are the hashes of a server: pairs of an index and a hash.
func kept(pairs ...uint64) (s api.StateHashes) {
	s.Checked = true
	for i := 0; i < len(pairs); i += 2 {
		s.Applied = pairs[i]
		s.Hashes = append(s.Hashes, api.StateHash{Index: pairs[i], Hash: pairs[i+1]})
	}
	return s
}

func TestVerify(t *testing.T) {
	const why = "; they have applied the same entries, so a disk or a memory is damaged, or they run different programs: keep their folders\n"
	old := api.StateHashes{ID: 9}
	for _, test := range []struct {
		name       string
		answers    [4][]api.StateHashes
		code       int
		out, error string
	}{
		{"all the same", [4][]api.StateHashes{{kept(7, 1)}, {kept(7, 1)}, {kept(7, 1)}, {kept(6, 5, 7, 1)}}, 0,
			"n1, n2, n3, n4 hold the same at index 7 (hash 0000000000000001)\n", ""},
		{"the highest common index", [4][]api.StateHashes{{kept(7, 1, 8, 2)}, {kept(7, 1, 8, 2, 9, 4)}, {kept(7, 1, 8, 2)}, {kept(6, 5, 7, 1, 8, 2)}}, 0,
			"n1, n2, n3, n4 hold the same at index 8 (hash 0000000000000002)\n", ""},
		{"under load", [4][]api.StateHashes{{kept(7, 1), kept(9, 3)}, {kept(8, 2), kept(9, 3)}, {kept(9, 3)}, {kept(6, 5), kept(7, 1), kept(8, 2, 9, 3)}}, 0,
			"n1, n2, n3, n4 hold the same at index 9 (hash 0000000000000003)\n", ""},
		{"one differs", [4][]api.StateHashes{{kept(7, 1)}, {kept(7, 1)}, {kept(7, 2)}, {kept(7, 1)}}, 1, "",
			"error: the servers differ at index 7: n1, n2, n4 hold one state, n3 holds another" + why},
		{"all differ", [4][]api.StateHashes{{kept(7, 3)}, {kept(7, 1)}, {kept(7, 2)}, {kept(7, 3)}}, 1, "",
			"error: the servers differ at index 7: n1, n4 hold one state, n2 holds another, n3 holds another" + why},
		{"a memory is large", [4][]api.StateHashes{{unchecked(kept(7, 1)), unchecked(kept(8, 2)), kept(9, 3)}, {kept(7, 1)}, {kept(7, 1)}, {kept(7, 1)}}, 0,
			"n1, n2, n3, n4 hold the same at index 7 (hash 0000000000000001)\n", ""},
		{"a memory is too large", [4][]api.StateHashes{{unchecked(kept(7, 1))}, {kept(7, 1)}, {kept(7, 1)}, {kept(7, 1)}}, 0,
			"n1 has not looked at all of its memory in time; give it more with --timeout\nn1, n2, n3, n4 hold the same at index 7 (hash 0000000000000001)\n", ""},
		{"a memory is damaged", [4][]api.StateHashes{{kept(7, 1)}, {kept(7, 1)}, {damaged(kept(7, 1))}, {kept(7, 1)}}, 1, "",
			"error: the memory of n3 is damaged: it does not hold what the entries have led to; restart each of them, so that it reads its disk again, and have the machine's memory tested\n"},
		{"some do not answer", [4][]api.StateHashes{{kept(7, 1)}, nil, {kept(7, 1)}, {old}}, 0,
			"n2 was not compared: it does not answer\nn4 was not compared: unknown op \"hash\"\nn1, n3 hold the same at index 7 (hash 0000000000000001)\n", ""},
		{"one is behind", [4][]api.StateHashes{{kept(7, 1)}, {kept(7, 1)}, {kept(7, 1)}, {kept(2, 5)}}, 0,
			"n4 was not compared: it has applied 2 entries, and had no hash at the index of the others\nn1, n2, n3 hold the same at index 7 (hash 0000000000000001)\n", ""},
		{"only one answers", [4][]api.StateHashes{{kept(7, 1)}, nil, nil, nil}, 5,
			"n1 was not compared: it has applied 7 entries, and had no hash at the index of the others\n" +
				"n2 was not compared: it does not answer\nn3 was not compared: it does not answer\nn4 was not compared: it does not answer\n",
			"error: fewer than two servers could be compared (unavailable)\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			h := &hashing{answers: make(map[string][]api.StateHashes)}
			ops := commandsAndStatus()
			ops[api.Hash] = api.Op{}
			s := Stage{Name: "99-hash", About: "Hashes.", Ops: ops, New: newForTest,
				Dial: func(endpoints []string, _ ...DialOption) Client { return hashingClient{h, endpoints[0]} }}
			dir := filepath.Join(".raftsteps", s.Name)
			require.NoError(t, os.MkdirAll(dir, 0o700))
			file, err := cluster.New(s.Name, 4, 7990, 0)
			require.NoError(t, err)
			require.NoError(t, file.Save(filepath.Join(dir, cluster.ConfigName)))
			play := func() {
				for i, answers := range test.answers {
					h.answers[net.JoinHostPort("127.0.0.1", fmt.Sprint(7991+i))] = answers
				}
			}
			timeout := "1m" // enough for servers that can be compared
			if strings.Contains(test.out, "had no hash") || strings.Contains(test.out, "in time") {
				timeout = "200ms"
			}
			play()
			got := run(t, s, "status", "--verify", "--timeout", timeout)
			require.Equal(t, test.code, got.code)
			require.Contains(t, got.out, "SERVER  ADDRESS")
			require.Contains(t, got.out+"\x00", "\n"+test.out+"\x00")
			require.Equal(t, test.error, got.errors)

			play()
			got = run(t, s, "status", "--verify", "--timeout", timeout, "-o", "json")
			require.Equal(t, test.code, got.code)
			if test.code == 0 {
				require.Regexp(t, `^\[\{"server":"n1",.*"hash":"[0-9a-f]{16}","hash_index":\d\}`, got.out)
			}
		})
	}
	require.Equal(t, 2, run(t, stages["92-cluster"], "status", "--verify").code, "these servers have no hashes")
}
