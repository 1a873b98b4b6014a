package server

import (
	"fmt"
	"hash/fnv"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// The key-value store with its sessions, as the Machine that New replicates. A
// result goes to the client as it is: no text is made of it on the way.

// Apply carries out a command.
func (m *machine) Apply(index uint64, text []byte) any {
	c, err := decodeCommand(text)
	if err != nil {
		return foreign{err}
	}
	return m.apply(index, c)
}

// Snapshot returns a view of the store and the sessions.
func (m *machine) Snapshot() View { return m.freeze() }

// Save writes the view.
func (v *view) Save(line func(add func(b []byte) []byte)) error {
	v.save(line)
	return nil
}

// Close ends the view.
func (v *view) Close() { v.close() }

// Restore takes a line of a view.
func (m *machine) Restore(line []byte) error { return m.load(line) }

func (m *machine) command(r api.Request) ([]byte, *api.Error) {
	if err := checkSession(r); err != nil {
		return nil, err
	}
	c := command{Command: r.Command(), session: r.Session, since: r.Since, seq: r.Seq, ack: r.Ack}
	return c.appendJSON(nil), nil
}

func (m *machine) check(text []byte) error {
	_, err := decodeCommand(text)
	return err
}

// response is that of the result: a command that came twice has the index of
// the first time.
func (m *machine) response(r api.Request, _ uint64, given any) api.Response {
	return given.(result).response(r)
}

func (m *machine) read(r api.Request) api.Response {
	return api.Result(r.ID, r.Op, m.store.Get(r.Key))
}

func (m *machine) held() *kv.Store { return m.store }

func (m *machine) hash() uint64 {
	sum := fnv.New64a()
	fmt.Fprint(sum, m.store.Hash(), m.ended)
	for e := m.byUse.Front(); e != nil; e = e.Next() {
		session := e.Value.(*session)
		fmt.Fprint(sum, session.id, session.ack, session.used, session.results)
	}
	return sum.Sum64()
}
