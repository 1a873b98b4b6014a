package api

import (
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// A list is answered in pages.
const (
	// MaxList is how many keys a page has at most, and how many it has if the
	// request names no limit.
	MaxList = 1000

	// listBytes is how many bytes the keys and values of a page have together,
	// with one item more.
	listBytes = 64 << 10
)

// OnlyReads reports whether an operation changes nothing, so that it may be refused
// or asked again at any time.
func OnlyReads(op string) bool {
	switch op {
	case kv.Get, List, Watch, Log, Status, Hash, Members, Barrier:
		return true
	}
	return false
}

// Read answers a get or a list from a store.
func Read(r Request, s *kv.Store) Response {
	if r.Op != List {
		return Result(r.ID, r.Op, s.Get(r.Key))
	}
	limit := MaxList
	if r.Limit > 0 && r.Limit < MaxList {
		limit = int(r.Limit)
	}
	var l Listing
	l.Items, l.More = s.List(kv.Range{Prefix: r.Prefix, After: r.After, Limit: limit, Bytes: listBytes, KeysOnly: r.KeysOnly})
	return Response{ID: r.ID, Later: func(b []byte) []byte { return l.appendJSON(b, r.KeysOnly) }}
}

// Listing is a page of a list: the Data of the Response.
//
//	{"keys":[{"key":"a","value":"1"},{"key":"b","value":"2"}],"more":true}
type Listing struct {
	// Items are keys in the order of their bytes, with their values unless the
	// request wanted the keys only.
	Items []kv.Item

	// More is true if further keys follow the last one.
	More bool
}

func (l Listing) appendJSON(b []byte, keysOnly bool) []byte {
	b = strict.AppendArray(append(b, '{'), "keys", l.Items, func(b []byte, item kv.Item) []byte {
		b = strict.AppendBytes(append(b, '{'), "key", item.Key)
		if !keysOnly {
			b = strict.AppendBytes(b, "value", item.Value)
		}
		return append(b, '}')
	})
	return append(strict.AppendFlag(b, "more", l.More), '}')
}

// DecodeListing reads the answer to a list.
func DecodeListing(text []byte) (l Listing, err error) {
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "keys":
			d.Array(func() { l.Items = append(l.Items, decodeItem(&d)) })
		case "more":
			l.More = d.Bool()
		default:
			d.Raw() // of a later version
		}
	})
	return l, d.End()
}

func decodeItem(d *strict.Decoder) (item kv.Item) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "key":
			item.Key = d.String()
		case "key_b64":
			item.Key = d.Base64()
		case "value":
			item.Value = d.String()
		case "value_b64":
			item.Value = d.Base64()
		default:
			d.Raw()
		}
	})
	return item
}
