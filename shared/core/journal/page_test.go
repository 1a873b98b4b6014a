package journal

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPage(t *testing.T) {
	p := Page{First: 1}
	require.Equal(t, `{"last":0,"commit":0,"entries":[]}`, string(p.AppendJSON(nil)))
	p = Page{First: 5, Last: 6, Commit: 5}
	require.True(t, p.Add(Entry{Index: 5, Term: 1, Command: []byte(`{"op":"get"}`)}))
	require.Equal(t, `{"first":5,"last":6,"commit":5,"entries":[{"index":5,"term":1,"command":{"op":"get"}}],"next":6}`, string(p.AppendJSON(nil)))
	require.True(t, p.Add(Entry{Index: 6, Term: 1, Kind: "noop"}))
	require.Equal(t, `{"first":5,"last":6,"commit":5,"entries":[{"index":5,"term":1,"command":{"op":"get"}},{"index":6,"term":1,"kind":"noop"}]}`, string(p.AppendJSON(nil)))
}

// A page ends before it exceeds MaxPage, but has at least one entry.
func TestPageIsBounded(t *testing.T) {
	long := Entry{Index: 1, Term: 1, Command: []byte(`"` + strings.Repeat("v", 2*MaxPage) + `"`)}
	short := Entry{Index: 2, Term: 1, Command: []byte(`"` + strings.Repeat("v", MaxPage/4) + `"`)}
	p := Page{Last: 9}
	require.True(t, p.Add(long))
	require.False(t, p.Add(short))
	p = Page{Last: 9}
	n := 0
	for p.Add(short) {
		n++
	}
	require.Equal(t, 3, n)
	require.Less(t, len(p.AppendJSON(nil)), MaxPage)
}

func TestDecodePage(t *testing.T) {
	for _, text := range []string{
		`{"last":0,"commit":0,"entries":[]}`,
		`{"first":5,"last":7,"commit":5,"entries":[{"index":5,"term":1,"command":{"op":"get"}},{"index":6,"term":1,"kind":"noop"}],"next":7}`,
	} {
		p, err := DecodePage([]byte(text))
		require.NoError(t, err)
		require.Equal(t, text, string(p.AppendJSON(nil)))
	}
	p, err := DecodePage([]byte(`{"last":1,"commit":1,"entries":[],"weather":[]}`))
	require.NoError(t, err)
	require.Equal(t, Page{First: 1, Last: 1, Commit: 1}, p)
	for text, why := range map[string]string{
		`{"entries":[{"index":2,"term":1},{"index":2,"term":1}]}`: "entry 2 is out of order",
		`{"entries":[{"index":2,"term":0}]}`:                      "needs an index and a term",
		`{"entries":7}`:                                           "want an array",
		`[]`:                                                      "want an object",
	} {
		_, err := DecodePage([]byte(text))
		require.ErrorContains(t, err, why)
	}
}
