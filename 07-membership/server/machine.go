package server

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// view is the state machine as it was at one moment. It can be written to a
// snapshot while the state machine continues.
type view struct {
	store    *kv.View
	sessions []*session
	ended    uint64
}

// freeze returns a view of the state machine. It takes no time for the store,
// and for each session as long as it takes to mark it: from now on a change of
// a session works on a copy.
func (m *machine) freeze() *view {
	v := &view{store: m.store.Freeze(), sessions: make([]*session, 0, len(m.sessions)), ended: m.ended}
	for e := m.byUse.Front(); e != nil; e = e.Next() {
		s := e.Value.(*session)
		s.shared = true
		v.sessions = append(v.sessions, s)
	}
	return v
}

// close ends the view.
func (v *view) close() { v.store.Close() }

// save writes the view line by line: keys, then up to which index sessions have
// ended, then the sessions in the order of their last use, each followed by its
// results. line adds one to a snapshot, as snapshot.Writer.Line does.
//
//	{"key":"x","value":"1"}
//	{"ended":4}
//	{"session":5,"ack":2,"used":9}
//	{"result":3,"session":5,"index":9,"outcome":"mismatch","value":"1","length":1}
func (v *view) save(line func(add func(b []byte) []byte)) {
	v.store.Each(func(key, value string) bool {
		line(func(b []byte) []byte {
			b = strict.AppendBytes(append(b, '{'), "key", key)
			return append(strict.AppendBytes(b, "value", value), '}')
		})
		return true
	})
	line(func(b []byte) []byte {
		b = append(b, `{"ended":`...)
		b = strconv.AppendUint(b, v.ended, 10)
		return append(b, '}')
	})
	for _, s := range v.sessions {
		line(func(b []byte) []byte {
			b = append(b, `{"session":`...)
			b = strconv.AppendUint(b, s.id, 10)
			b = strict.AppendNumber(b, "ack", s.ack)
			b = strict.AppendNumber(b, "used", s.used)
			return append(b, '}')
		})
		for _, seq := range slices.Sorted(maps.Keys(s.results)) {
			r := s.results[seq]
			line(func(b []byte) []byte {
				b = append(b, `{"result":`...)
				b = strconv.AppendUint(b, seq, 10)
				b = strict.AppendNumber(b, "session", s.id)
				b = strict.AppendNumber(b, "index", r.index)
				b = strict.AppendString(strict.AppendName(b, "outcome"), string(r.Outcome))
				b = strict.AppendBytes(b, "value", r.Value)
				b = strict.AppendNumber(b, "length", uint64(r.Length))
				return append(b, '}')
			})
		}
	}
}

// load takes one line of a snapshot into an empty state machine.
func (m *machine) load(text []byte) error {
	var key, value string
	var id, ack, used, seq uint64
	var r result
	isKey, isEnded := false, false
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "key":
			key, isKey = d.String(), true
		case "key_b64":
			key, isKey = d.Base64(), true
		case "value":
			value = d.String()
		case "value_b64":
			value = d.Base64()
		case "ended":
			m.ended, isEnded = d.Uint(), true
		case "session":
			id = d.Uint()
		case "ack":
			ack = d.Uint()
		case "used":
			used = d.Uint()
		case "result":
			seq = d.Uint()
		case "index":
			r.index = d.Uint()
		case "length":
			r.Length = int(d.Uint())
		case "outcome":
			r.Outcome = kv.Outcome(d.String())
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return err
	}
	switch {
	case isKey:
		m.store.Apply(kv.Command{Op: kv.Put, Key: key, Value: value})
	case isEnded:
	case seq == 0:
		m.begin(id, used).Value.(*session).ack = ack
	case m.sessions[id] == nil:
		return fmt.Errorf("a result of session %d, which is not there", id)
	default:
		if r.Length == 0 {
			// Older snapshots have the whole value and no length.
			r.Length = len(value)
		}
		if r.Outcome == kv.Mismatch {
			r.Value = kv.Found(value).Value
		}
		m.remember(m.sessions[id].Value.(*session), seq, r)
	}
	return nil
}
