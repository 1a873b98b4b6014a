package journal

import "strconv"

// MaxPage is how many bytes the entries of a Page have together, unless its only
// entry has more.
const MaxPage = 128 << 10

// Page is a part of a server's log, as large as one answer may be. Its entries
// must not be changed, so it can be put into words by any goroutine.
type Page struct {
	// First and Last are the ends of the log: First is 1, unless the log has
	// forgotten its beginning. Commit is the last entry that is committed.
	First, Last, Commit uint64

	entries []Entry
	bytes   int
}

// Add adds the next entry, or returns false if it does not fit.
func (p *Page) Add(e Entry) bool {
	const fields = 64
	n := fields + len(e.Command)
	if len(p.entries) > 0 && p.bytes+n > MaxPage {
		return false
	}
	p.entries = append(p.entries, e)
	p.bytes += n
	return true
}

// AppendJSON appends the page to b as a JSON object on one line. Where the log
// goes on after the page, next is where to ask again; first is there if the log
// does not begin at 1:
//
//	{"first":111,"last":505,"commit":505,"entries":[{"index":111,…},…],"next":240}
func (p *Page) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if p.First > 1 {
		b = append(strconv.AppendUint(append(b, `"first":`...), p.First, 10), ',')
	}
	b = strconv.AppendUint(append(b, `"last":`...), p.Last, 10)
	b = strconv.AppendUint(append(b, `,"commit":`...), p.Commit, 10)
	b = append(b, `,"entries":[`...)
	for i, e := range p.entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.AppendJSON(b)
	}
	b = append(b, ']')
	if n := len(p.entries); n > 0 && p.entries[n-1].Index < p.Last {
		b = strconv.AppendUint(append(b, `,"next":`...), p.entries[n-1].Index+1, 10)
	}
	return append(b, '}')
}
