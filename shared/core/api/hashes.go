package api

import (
	"fmt"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// StateHashes is the answer to Hash.
type StateHashes struct {
	// ID is the server's own.
	ID uint64

	// Applied is the index of the last entry that the server has applied.
	Applied uint64

	// Checked is true if the server has computed the hash of its store again, from what
	// is in memory, since it was first asked. Damaged is true if that was another hash
	// than the one that its entries have led to.
	Checked bool
	Damaged bool

	// Hashes are those that the server has kept, the oldest first. Servers keep them
	// for some of the indexes only, and only for a while after somebody has asked.
	Hashes []StateHash
}

// StateHash is the hash of a state machine that has applied the entries up to an
// index.
type StateHash struct{ Index, Hash uint64 }

// AppendJSON appends the hashes to b as a JSON object on one line. A hash is a string
// of hexadecimal digits, since not every program reads such large numbers.
func (s StateHashes) AppendJSON(b []byte) []byte {
	b = strict.AppendNumber(append(b, '{'), "id", s.ID)
	b = strict.AppendNumber(b, "applied", s.Applied)
	b = strict.AppendFlag(b, "checked", s.Checked)
	b = strict.AppendFlag(b, "damaged", s.Damaged)
	b = strict.AppendArray(b, "hashes", s.Hashes, func(b []byte, h StateHash) []byte {
		return fmt.Appendf(b, `{"index":%d,"hash":"%016x"}`, h.Index, h.Hash)
	})
	return append(b, '}')
}

// DecodeHashes reads what AppendJSON wrote.
func DecodeHashes(text []byte) (s StateHashes, err error) {
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			s.ID = d.Uint()
		case "applied":
			s.Applied = d.Uint()
		case "checked":
			s.Checked = d.Bool()
		case "damaged":
			s.Damaged = d.Bool()
		case "hashes":
			d.Array(func() { s.Hashes = append(s.Hashes, decodeHash(&d)) })
		default:
			d.Raw()
		}
	})
	if err := d.End(); err != nil {
		return StateHashes{}, fmt.Errorf("hashes: %w", err)
	}
	return s, nil
}

func decodeHash(d *strict.Decoder) (h StateHash) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "index":
			h.Index = d.Uint()
		case "hash":
			n, err := strconv.ParseUint(d.String(), 16, 64)
			if err != nil && !d.Failed() {
				d.Fail("want 16 hexadecimal digits")
			}
			h.Hash = n
		default:
			d.Raw()
		}
	})
	return h
}
