package server

import (
	"container/list"
	"fmt"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// The state machine that the log drives: the key-value store and the sessions of
// its clients.

// command is a command of the store, and the session it belongs to; it is what
// the log holds.
type command struct {
	kv.Command

	// session is the number that the client has drawn, 0 for none.
	session uint64

	// since is an index: the log has no command of the session before it.
	since uint64

	// seq numbers the commands of a session from 1.
	seq uint64

	// ack says that the client has the results of all commands up to it.
	ack uint64
}

// appendJSON appends the command to b as a JSON object.
func (c command) appendJSON(b []byte) []byte {
	b = c.Command.AppendJSON(b)
	if c.session == 0 {
		return b
	}
	b = strict.AppendNumber(b[:len(b)-1], "session", c.session)
	b = strict.AppendNumber(b, "since", c.since)
	b = strict.AppendNumber(b, "seq", c.seq)
	b = strict.AppendNumber(b, "ack", c.ack)
	return append(b, '}')
}

func decodeCommand(text []byte) (command, error) {
	var c command
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "session":
			c.session = d.Uint()
		case "since":
			c.since = d.Uint()
		case "seq":
			c.seq = d.Uint()
		case "ack":
			c.ack = d.Uint()
		default:
			if !c.DecodeField(&d, field) {
				d.Unknown()
			}
		}
	})
	err := d.End()
	if err == nil && c.Op != api.Open {
		err = c.Check()
	}
	if err != nil {
		return command{}, fmt.Errorf("a command: %w", err)
	}
	return c, nil
}

// machine is the state machine: the store and the sessions.
type machine struct {
	store    *kv.Store
	sessions map[uint64]*list.Element

	// byUse has the sessions in the order of their last use, the oldest first.
	byUse *list.List

	// remembered is how many bytes the sessions hold.
	remembered int

	// ended is the highest index at which a session was used that has ended.
	ended uint64
}

func newMachine() *machine {
	return &machine{store: kv.NewStore(), sessions: make(map[uint64]*list.Element), byUse: list.New()}
}

// result is the result of a command, and the index at which the command is in
// the log.
type result struct {
	kv.Result
	index uint64

	// refused is why the command was not carried out, or nil.
	refused *api.Error
}

func refuse(index uint64, code api.Code, format string, args ...any) result {
	return result{index: index, refused: &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Definite: true}}
}

// response tells a client the result of its request.
func (r result) response(q api.Request) api.Response {
	if r.refused != nil {
		return api.Failed(q.ID, r.refused)
	}
	response := api.Result(q.ID, q.Op, r.Result)
	response.Index = r.index
	return response
}

// addStatus adds to a status what is in the machine.
func (m *machine) addStatus(to *api.ServerStatus) {
	to.Keys, to.Sessions = new(m.store.Len()), new(len(m.sessions))
}

// command returns the entry for a client's request, or says what is wrong with it.
func (m *machine) command(r api.Request) ([]byte, *api.Error) {
	if err := checkSession(r); err != nil {
		return nil, err
	}
	c := command{Command: r.Command(), session: r.Session, since: r.Since, seq: r.Seq, ack: r.Ack}
	return c.appendJSON(nil), nil
}

// check says why a command that comes from a leader cannot be applied, or returns
// nil.
func (m *machine) check(text []byte) error {
	_, err := decodeCommand(text)
	return err
}

// read answers a request that changes nothing.
func (m *machine) read(r api.Request) api.Response {
	return api.Read(r, m.store)
}

// hash sums up the state; see node.Hasher. It adds up the sessions in any order: used
// says in which order they end.
func (m *machine) hash() uint64 {
	sum := kv.HashNumber(m.store.Hash(), m.ended)
	for _, e := range m.sessions {
		session := e.Value.(*session)
		h := kv.HashNumber(kv.HashNumber(session.id, session.ack), session.used)
		for seq, r := range session.results {
			h += kv.HashText(kv.HashText(kv.HashNumber(kv.HashNumber(seq, r.index), uint64(r.Length)), string(r.Outcome)), r.Value)
		}
		sum += kv.HashNumber(h, session.id)
	}
	return sum
}
