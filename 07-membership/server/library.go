package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
)

// Machine is a state machine: what a cluster replicates. The key-value store
// with its sessions is one, and With takes any other.
//
// Every server has a machine of its own and gives it the same commands in the
// same order, so it must be deterministic: no clock, no randomness, no order of
// a map. Its methods are called by one goroutine, one at a time.
type Machine interface {
	// Apply carries out the committed command at an index of the log and returns
	// its result, which is what encoding/json can write. The command is a JSON
	// value; it must not be changed, and may be kept. Not all of the indexes
	// come: some entries are the cluster's own.
	//
	// Apply cannot fail. A command that makes no sense, or cannot be done now,
	// changes nothing and has a result that says so. The log may bring a command
	// twice, if a client that got no answer has sent it again: where that must
	// not happen, let commands have names, and remember the results.
	Apply(index uint64, command []byte) any

	// Snapshot returns a view of the state as it is now. It should take next to
	// no time, for no command is applied meanwhile. No other view is asked for
	// until this one is closed.
	Snapshot() View

	// Restore takes one line that a View has written. It is called for each, in
	// their order, on a machine that is new. The line must not be kept. An error
	// says that the line is none of this machine's: the snapshot is not used.
	Restore(line []byte) error
}

// View is a state machine as it was at one moment, to be written to a snapshot
// while the machine goes on.
type View interface {
	// Save writes the view: it calls line for each of its lines, with a function
	// that appends the line to b, a JSON value without a line break. The same
	// state should give the same lines. It runs alongside the machine, so it must
	// touch nothing that Apply changes. An error ends the server: without
	// snapshots its disk would fill.
	Save(line func(add func(b []byte) []byte)) error

	// Close ends the view. It is called by the machine's goroutine, once Save has
	// returned.
	Close()
}

// maxText is the longest command that a Machine is given, and the longest line
// of its snapshot, in bytes.
const maxText = 1 << 20

// inMessage is how deep inside a message between servers a command stands:
// {"appendEntries":{"entries":[{"command":…}]}}.
const inMessage = 4

// LibraryOps is what a client can ask a server whose machine is not the store.
var LibraryOps = func() api.Ops {
	ops := api.Ops{api.Propose: {Needs: api.Value}, api.Barrier: {}}
	for _, name := range []string{api.Status, api.Log, api.Members, api.Change, api.Cancel, api.Transfer} {
		ops[name] = Ops[name]
	}
	return ops
}()

// With returns a factory of servers that replicate another state machine than
// the key-value store. newMachine returns one that has applied nothing; it is
// called at the start, and again when a snapshot comes from a leader.
//
// The server then takes LibraryOps. The answer to a propose is given when the
// command has been applied, with its index, and its result as data. The answer
// to a barrier says that this server has applied all that was acknowledged
// before the request came.
func With(newMachine func() Machine) node.Factory {
	return func(w node.World) (node.Server, error) {
		return open(w, func() service { return libraryMachine{newMachine()} })
	}
}

// Machine returns the state machine as it is now. It is another one after the
// server has taken a leader's snapshot. Only the goroutine that calls the other
// methods may look at it.
func (s *Server) Machine() Machine {
	if p, ok := s.machine.(libraryMachine); ok {
		return p.Machine
	}
	return s.machine
}

// Progress returns the index of the last entry that this server has applied,
// and the leader that it knows, 0 for none.
func (s *Server) Progress() (applied, leader uint64) {
	status := s.rules.Status()
	return uint64(status.Applied), uint64(status.Leader)
}

// service is a state machine and how clients speak to it.
type service interface {
	Machine

	// command returns the command that goes into the log for a request, or says
	// what is wrong with it.
	command(r api.Request) ([]byte, *api.Error)

	// check says why a command that comes from a leader cannot be applied, or
	// returns nil.
	check(command []byte) error

	// response tells a client what applying its command gave.
	response(r api.Request, index uint64, result any) api.Response

	// read answers a request that changes nothing.
	read(r api.Request) api.Response

	// held is the store whose size is bounded; nil if there is none.
	held() *kv.Store

	// addStatus adds to a status what is in the machine.
	addStatus(to *api.ServerStatus)

	// hash sums up the state; see node.Hasher.
	hash() uint64

	// session and numbers describe the sessions; see node.SessionHolder.
	session(id uint64) (node.Session, bool)
	numbers() []uint64
}

// unknownCommand is the result of a command that is none of this machine's. Another
// program than this one has written it, and what it does nobody here knows:
// the server stops before its state can differ from that of others.
type unknownCommand struct{ error }

// libraryMachine is the service of a Machine that knows nothing of clients.
type libraryMachine struct{ Machine }

func (p libraryMachine) command(r api.Request) ([]byte, *api.Error) {
	if len(r.Value) > maxText {
		return nil, &api.Error{Code: api.TooLarge, Definite: true, Message: fmt.Sprintf("the command has %d bytes; at most %d are allowed", len(r.Value), maxText)}
	}
	command := []byte(r.Value)
	if err := p.check(command); err != nil {
		return nil, &api.Error{Code: api.BadRequest, Definite: true, Message: fmt.Sprintf("a command is a JSON value on one line: %v", err)}
	}
	return command, nil
}

// check accepts any JSON value that a client could have proposed: what it means,
// only the machine knows, and its Apply cannot fail.
func (p libraryMachine) check(command []byte) error {
	if len(command) > maxText {
		return fmt.Errorf("a command of %d bytes; at most %d are allowed", len(command), maxText)
	}
	d := strict.NewDecoder(command)
	d.Inside(inMessage)
	d.Raw()
	if err := d.End(); err != nil {
		return err
	}
	return checkLine(command)
}

// checkLine says what keeps a text from being a part of a line, or nil.
func checkLine(text []byte) error {
	if i := bytes.IndexAny(text, "\n\r\t"); i >= 0 {
		return fmt.Errorf("there is a tab or a line break (at byte %d)", i)
	}
	return nil
}

func (p libraryMachine) response(r api.Request, index uint64, result any) api.Response {
	data, err := json.Marshal(result)
	if err != nil {
		return api.Failed(r.ID, &api.Error{Code: api.Unknown, Message: fmt.Sprintf("the result of entry %d cannot be written: %v", index, err)})
	}
	return api.Response{ID: r.ID, Index: index, Data: data}
}

func (p libraryMachine) read(r api.Request) api.Response { return api.Response{ID: r.ID} }

func (p libraryMachine) held() *kv.Store { return nil }

func (p libraryMachine) addStatus(*api.ServerStatus) {}

func (p libraryMachine) hash() uint64 { return 0 }

func (p libraryMachine) session(uint64) (node.Session, bool) { return node.Session{}, false }

func (p libraryMachine) numbers() []uint64 { return nil }

// lineName is what stands before a machine's line in a snapshot, so that none
// can be taken for one of the file's own.
const lineName = `{"line":`

// Snapshot returns a view that writes the machine's lines.
func (p libraryMachine) Snapshot() View { return libraryView{p.Machine.Snapshot()} }

type libraryView struct{ View }

// Save writes the lines of the machine, and makes sure that they can be sent
// and read again.
func (v libraryView) Save(line func(add func(b []byte) []byte)) error {
	var bad error
	err := v.View.Save(func(add func(b []byte) []byte) {
		line(func(b []byte) []byte {
			start := len(b) + len(lineName)
			b = add(append(b, lineName...))
			if err := checkSaved(b[start:]); err != nil {
				bad = fmt.Errorf("a line that the state machine wrote for its snapshot: %w", err)
			}
			return append(b, '}')
		})
	})
	return errors.Join(err, bad)
}

// checkSaved says what is wrong with a line of a machine, or nil. It is read by
// nobody but the machine, and may be what no command may be.
func checkSaved(text []byte) error {
	switch {
	case len(text) > maxText:
		return fmt.Errorf("it has %d bytes; at most %d are allowed", len(text), maxText)
	case !utf8.Valid(text):
		return errors.New("it is not valid UTF-8")
	case !json.Valid(text):
		return fmt.Errorf("it is not a JSON value: %.40q", text)
	}
	return checkLine(text)
}

// Restore gives the machine a line that it has written.
func (p libraryMachine) Restore(text []byte) error {
	line, found := bytes.CutPrefix(text, []byte(lineName))
	if !found || !bytes.HasSuffix(line, []byte("}")) {
		return errors.New("it is not a line of a state machine that was given to this server")
	}
	return p.Machine.Restore(line[:len(line)-1])
}

// The methods that make the store a service. A result goes to the client as it is:
// no text is made of it on the way.

// Apply carries out a command.
func (m *machine) Apply(index uint64, text []byte) any {
	c, err := decodeCommand(text)
	if err != nil {
		return unknownCommand{err}
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

// response is that of the result: a command that came twice has the index of the
// first time.
func (m *machine) response(r api.Request, _ uint64, given any) api.Response {
	return given.(result).response(r)
}

func (m *machine) held() *kv.Store { return m.store }
