package journal

import (
	"fmt"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// MaxPage limits the bytes of the entries of a Page, unless its only entry has
// more.
const MaxPage = 128 << 10

// Page is a part of a server's log that fits into one answer. Nobody changes its
// entries, so any goroutine can encode it.
type Page struct {
	// First and Last are the first and the last index of the log: First is 1,
	// unless the log was compacted. Commit is the index of the last committed
	// entry.
	First, Last, Commit uint64

	// Entries are in the order of their indexes.
	Entries []Entry

	bytes int
}

// Add adds the next entry, or returns false if it does not fit.
func (p *Page) Add(e Entry) bool {
	const fields = 64
	n := fields + len(e.Command)
	if len(p.Entries) > 0 && p.bytes+n > MaxPage {
		return false
	}
	p.Entries = append(p.Entries, e)
	p.bytes += n
	return true
}

// AppendJSON appends the page to b as a JSON object on one line. If the log
// continues after the page, the field next has the index of the next entry. The
// field first is there only if the log does not begin at 1:
//
//	{"first":111,"last":505,"commit":505,"entries":[{"index":111,…},…],"next":240}
func (p *Page) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if p.First > 1 {
		b = strict.AppendNumber(b, "first", p.First)
	}
	b = strconv.AppendUint(strict.AppendName(b, "last"), p.Last, 10)
	b = strconv.AppendUint(strict.AppendName(b, "commit"), p.Commit, 10)
	b = strict.AppendArray(b, "entries", p.Entries, func(b []byte, e Entry) []byte { return e.AppendJSON(b) })
	if n := len(p.Entries); n > 0 && p.Entries[n-1].Index < p.Last {
		b = strict.AppendNumber(b, "next", p.Entries[n-1].Index+1)
	}
	return append(b, '}')
}

// DecodePage reads what AppendJSON wrote, and refuses entries that are not in
// order. The entries are parts of text. It skips unknown fields, since the server
// may be of a later version.
func DecodePage(text []byte) (Page, error) {
	p := Page{First: 1}
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "first":
			p.First = d.Uint()
		case "last":
			p.Last = d.Uint()
		case "commit":
			p.Commit = d.Uint()
		case "entries":
			d.Array(func() { p.Entries = append(p.Entries, DecodeEntry(&d)) })
		default:
			d.Raw()
		}
	})
	if err := d.End(); err != nil {
		return Page{}, err
	}
	for i := 1; i < len(p.Entries); i++ {
		if p.Entries[i].Index <= p.Entries[i-1].Index {
			return Page{}, fmt.Errorf("entry %d is out of order", p.Entries[i].Index)
		}
	}
	return p, nil
}
