package server

import (
	"bytes"
	"encoding/base64"
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
	// its result, which is what encoding/json can write. The command has the bytes
	// that were proposed; it must not be changed, and may be kept. Not all of the
	// indexes come: some entries are the cluster's own.
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
	// says that this machine did not write the line: the snapshot is not used.
	Restore(line []byte) error
}

// View is a state machine as it was at one moment, to be written to a snapshot
// while the machine goes on.
type View interface {
	// Save writes the view: it calls line for each of its lines, with a function
	// that appends the line to b. A line has any bytes, at most 1 MiB, and is
	// easiest to read in the file if it is a JSON value. The same state should give
	// the same lines. It runs alongside the machine, so it must touch nothing that
	// Apply changes. An error ends the server: without snapshots its disk would
	// fill.
	Save(line func(add func(b []byte) []byte)) error

	// Close ends the view. It is called by the machine's goroutine, once Save has
	// returned.
	Close()
}

// MaxText is the longest command that a Machine is given, and the longest line
// of its snapshot, in bytes.
const MaxText = 1 << 20

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
// the leader that it knows, 0 for none, and its current term.
func (s *Server) Progress() (applied, leader, term uint64) {
	status := s.rules.Status()
	return uint64(status.Applied), uint64(status.Leader), uint64(status.CurrentTerm)
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

// unknownCommand is the result of a command that this state machine does not
// understand. Another program has written it. The server stops before its state can
// differ from that of the others.
type unknownCommand struct{ error }

// libraryMachine is the service of a Machine that knows nothing of clients.
type libraryMachine struct{ Machine }

func (p libraryMachine) command(r api.Request) ([]byte, *api.Error) {
	if len(r.Value) > MaxText {
		return nil, &api.Error{Code: api.TooLarge, Definite: true, Message: fmt.Sprintf("the command has %d bytes; at most %d are allowed", len(r.Value), MaxText)}
	}
	command := []byte(r.Value)
	if asItIs(command, fitsInMessage) {
		return command, nil
	}
	return wrap(nil, command), nil
}

// check accepts any command that a client could have proposed: what it means, only
// the machine knows, and its Apply cannot fail.
func (p libraryMachine) check(text []byte) error {
	command := CommandBytes(text)
	if len(command) > MaxText {
		return fmt.Errorf("a command of %d bytes; at most %d are allowed", len(command), MaxText)
	}
	return nil
}

// Apply gives the machine a command as it was proposed.
func (p libraryMachine) Apply(index uint64, text []byte) any {
	return p.Machine.Apply(index, CommandBytes(text))
}

// CommandBytes returns the command that a client has proposed to a server that With
// created, given the command of its entry in the log.
func CommandBytes(text []byte) []byte { return originalBytes(text, fitsInMessage) }

// The log and the snapshot hold JSON, so that a person can read them. Bytes that are
// a JSON value stand there as they are. Other bytes stand in an object of their own:
// as text, or in base64 if they are not valid UTF-8, or mostly control characters:
//
//	{"amount":30}
//	{"proposed":"pay 30"}
//	{"proposed_b64":"/w=="}
//
// A JSON value that looks like such an object is put into one, too.

// proposed is the name of the only field of such an object.
const proposed = "proposed"

// asItIs reports whether bytes stand in the log or the snapshot as they are. fits
// reports whether they can.
func asItIs(original []byte, fits func([]byte) bool) bool {
	_, wrapped := unwrap(original)
	return !wrapped && fits(original)
}

// originalBytes returns the bytes that text stands for. An object as above for bytes
// that could stand there as they are stands for itself.
func originalBytes(text []byte, fits func([]byte) bool) []byte {
	original, wrapped := unwrap(text)
	if !wrapped || asItIs(original, fits) {
		return text
	}
	return original
}

// wrap appends an object that stands for other bytes. It is at most a little longer
// than twice the bytes.
func wrap(b, original []byte) []byte {
	start := len(b)
	b = append(strict.AppendBytes(append(b, '{'), proposed, string(original)), '}')
	if len(b)-start <= 2*(len(original)+len(proposed)) {
		return b
	}
	b = append(b[:start], `{"`+proposed+`_b64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, original), `"}`...)
}

// unwrap returns the bytes for which wrap has written text. It returns false if it
// has not.
func unwrap(text []byte) (original []byte, wrapped bool) {
	if !bytes.HasPrefix(text, []byte(`{"`+proposed)) {
		return nil, false
	}
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case proposed:
			original = d.Bytes()
		case proposed + "_b64":
			original = []byte(d.Base64())
		default:
			d.Unknown()
		}
	})
	return original, d.End() == nil && bytes.Equal(wrap(nil, original), text)
}

// fitsInMessage reports whether bytes can stand in a message between servers as they
// are: as a JSON value on one line that every server reads as the same bytes.
func fitsInMessage(text []byte) bool {
	d := strict.NewDecoder(text)
	d.Inside(inMessage)
	value := d.Raw()
	return d.End() == nil && len(value) == len(text) && fitsInLine(text)
}

// fitsInSnapshot reports whether bytes can stand in a snapshot as they are. Only the
// machine reads them there, and they may be what cannot stand in a message.
func fitsInSnapshot(text []byte) bool {
	return utf8.Valid(text) && json.Valid(text) && fitsInLine(text)
}

// fitsInLine reports whether a text is without tabs and line breaks.
func fitsInLine(text []byte) bool { return !bytes.ContainsAny(text, "\n\r\t") }

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

// lineName stands before a machine's line in a snapshot, so that none can be taken
// for one of the file's own.
const lineName = `{"line":`

// Snapshot returns a view that writes the machine's lines.
func (p libraryMachine) Snapshot() View { return libraryView{p.Machine.Snapshot()} }

type libraryView struct{ View }

// Save writes the lines of the machine.
func (v libraryView) Save(line func(add func(b []byte) []byte)) error {
	var long error
	err := v.View.Save(func(add func(b []byte) []byte) {
		line(func(b []byte) []byte {
			b = append(b, lineName...)
			start := len(b)
			b = add(b)
			text := b[start:]
			if len(text) > MaxText {
				long = fmt.Errorf("a line that the state machine wrote for its snapshot has %d bytes; at most %d are allowed", len(text), MaxText)
			}
			if !asItIs(text, fitsInSnapshot) {
				b = wrap(b[:start], bytes.Clone(text))
			}
			return append(b, '}')
		})
	})
	return errors.Join(err, long)
}

// Restore gives the machine a line that it has written.
func (p libraryMachine) Restore(text []byte) error {
	line, found := bytes.CutPrefix(text, []byte(lineName))
	if !found || !bytes.HasSuffix(line, []byte("}")) {
		return errors.New("it is not a line of a state machine that was given to this server")
	}
	return p.Machine.Restore(originalBytes(line[:len(line)-1], fitsInSnapshot))
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
