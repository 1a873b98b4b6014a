package api

import (
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// Event is one change of a key.
type Event struct {
	// Index is the index of the command in the log; a command changes at most one
	// key.
	Index uint64

	// Key is the key, and Value its value after the change. Deleted is true if it
	// has none any longer.
	Key     string
	Value   string
	Deleted bool
}

// AppendJSON appends the event to b as a JSON object on one line.
func (e Event) AppendJSON(b []byte) []byte {
	b = strict.AppendNumber(append(b, '{'), "index", e.Index)
	b = strict.AppendBytes(b, "key", e.Key)
	if e.Deleted {
		return append(strict.AppendFlag(b, "deleted", true), '}')
	}
	return append(strict.AppendBytes(b, "value", e.Value), '}')
}

// Events is the answer to a watch: the Data of the Response.
//
//	{"events":[{"index":118,"key":"x","value":"1"},{"index":120,"key":"x","deleted":true}],"next":121}
type Events struct {
	// Events are in the order of their indexes.
	Events []Event

	// Next is the index from which the client should watch next: these are all
	// changes before it.
	Next uint64
}

// AppendJSON appends the events to b as a JSON object on one line.
func (e Events) AppendJSON(b []byte) []byte {
	b = strict.AppendArray(append(b, '{'), "events", e.Events, func(b []byte, e Event) []byte { return e.AppendJSON(b) })
	return append(strconv.AppendUint(strict.AppendName(b, "next"), e.Next, 10), '}')
}

// fewBytes is how long keys and values may be, in all, that Response encodes at once.
const fewBytes = 1 << 10

// Response returns the answer to a watch. It encodes a few events at once: a change
// may be told to thousands of clients, and the answer to each would count for LongData.
func (e Events) Response(id uint64) Response {
	bytes := 0
	for _, event := range e.Events {
		bytes += 64 + len(event.Key) + len(event.Value)
	}
	if bytes <= fewBytes {
		return Response{ID: id, Data: e.AppendJSON(nil)}
	}
	return Response{ID: id, Later: e.AppendJSON}
}

// DecodeEvents reads what AppendJSON wrote.
func DecodeEvents(text []byte) (e Events, err error) {
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "events":
			d.Array(func() { e.Events = append(e.Events, decodeEvent(&d)) })
		case "next":
			e.Next = d.Uint()
		default:
			d.Raw() // of a later version
		}
	})
	return e, d.End()
}

func decodeEvent(d *strict.Decoder) (e Event) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "index":
			e.Index = d.Uint()
		case "key":
			e.Key = d.String()
		case "key_b64":
			e.Key = d.Base64()
		case "value":
			e.Value = d.String()
		case "value_b64":
			e.Value = d.Base64()
		case "deleted":
			e.Deleted = d.Bool()
		default:
			d.Raw()
		}
	})
	return e
}
