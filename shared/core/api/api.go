// Package api is the language between clients and servers: requests, responses
// and errors, each one line of JSON.
//
//	{"id":7,"op":"put","key":"x","value":"1"}
//	{"id":7,"ok":true,"index":118}
//	{"id":8,"ok":false,"error":{"code":"not_leader","message":"n2 leads","leader":"127.0.0.1:7002","definite":true}}
//
// A client may have many requests in flight on one connection; a response
// carries the id of its request and may come in any order.
package api

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// Operations that are not commands of the store.
const (
	// Status asks one server how it sees itself and the cluster.
	Status = "status"

	// Hash asks one server for hashes of its state machine. Servers that have applied
	// the same entries have the same hash.
	Hash = "hash"

	// Log asks one server for entries of its log, committed or not.
	Log = "log"

	// Lead appoints the server that receives it as leader, in the stages in which
	// an operator does that.
	Lead = "lead"

	// Open asks the leader for the index since which a new session can be used;
	// it is the Index of the response. Open writes nothing: the client draws the
	// session's number, and the session begins with its first command.
	Open = "open"

	// Members asks one server who the members are, as it sees them.
	Members = "members"

	// Change asks the leader to add servers, to remove some, or both at once. The
	// answer comes when the first entry of the change is committed. The change
	// then continues by itself, whichever server leads.
	Change = "change"

	// Cancel asks the leader to cancel the change in progress, which is possible
	// as long as the new servers do not count.
	Cancel = "cancel"

	// Transfer asks the leader to transfer leadership to another member.
	Transfer = "transfer"

	// Propose gives the leader a command of a state machine that is not the
	// store; its value is the command.
	Propose = "propose"

	// List asks for keys in the order of their bytes, with their values: those
	// that begin with Prefix and come after After. The answer is a Listing, which
	// is a page: the next one is a list after its last key.
	List = "list"

	// Watch asks for changes of the keys that begin with Prefix, at the index From
	// and after it, 0 for the next one. The answer is an Events: it comes when there
	// is one, and after a short time in any case.
	Watch = "watch"

	// Barrier is answered when the server that receives it has applied everything
	// that was acknowledged before.
	Barrier = "barrier"
)

// Fields is a set of the fields a request may have, apart from id and op.
type Fields uint32

// The fields of a request.
const (
	// Key is the key that a command is about.
	Key Fields = 1 << iota

	// Value is what a command writes.
	Value

	// Old is the value that cas expects.
	Old

	// From is the first index of a log request.
	From

	// Term is the term of an appointment.
	Term

	// Session, Since, Seq and Ack make a command happen once, however often it
	// is sent.
	Session
	Since
	Seq
	Ack

	// Consistency says how fresh a read must be.
	Consistency

	// Add and Remove are the servers that a change adds and removes.
	Add
	Remove

	// To is the server that should become leader.
	To

	// Prefix, After, Limit and KeysOnly say which keys a list has, and how many.
	Prefix
	After
	Limit
	KeysOnly
)

var fieldNames = []struct {
	field Fields
	name  string
}{
	{Key, "key"},
	{Value, "value"},
	{Old, "old"},
	{From, "from"},
	{Term, "term"},
	{Session, "session"},
	{Since, "since"},
	{Seq, "seq"},
	{Ack, "ack"},
	{Consistency, "consistency"},
	{Add, "add"},
	{Remove, "remove"},
	{To, "to"},
	{Prefix, "prefix"},
	{After, "after"},
	{Limit, "limit"},
	{KeysOnly, "keys_only"},
}

func (f Fields) String() string {
	var names []string
	for _, n := range fieldNames {
		if f&n.field != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// Op is the shape of one operation.
type Op struct {
	// Needs are the fields that a request must have.
	Needs Fields

	// May are the fields that it can also have.
	May Fields
}

// Ops are the operations that a server understands, by name.
type Ops map[string]Op

// Commands returns the commands of the store, and List.
func Commands() Ops {
	return Ops{
		kv.Get:    {Needs: Key},
		kv.Put:    {Needs: Key | Value},
		kv.Create: {Needs: Key | Value},
		kv.Append: {Needs: Key | Value},
		kv.Cas:    {Needs: Key | Old | Value},
		kv.Delete: {Needs: Key},
		List:      {May: Prefix | After | Limit | KeysOnly},
	}
}

// Names lists the operations, sorted, for an error message.
func (o Ops) Names() string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Request is one request of a client.
type Request struct {
	// ID is chosen by the client and comes back in the response. 0 means that
	// the request had none; then the response has none either.
	ID uint64

	// Op names the operation.
	Op string

	// Key, Value and Old are the parts of a command of the store.
	Key   string
	Value string
	Old   string

	// From is the first log index wanted; 0 means the first there is.
	From uint64

	// Term is the term in which a server should lead.
	Term uint64

	// Session is a number that the client has drawn for its session, and Seq
	// numbers the commands in it from 1. Since is the index that the answer to
	// Open gave before the session was first used. Ack says that the client has
	// the answers to all commands up to that Seq. They are 0 for a command outside
	// any session.
	Session uint64
	Since   uint64
	Seq     uint64
	Ack     uint64

	// Consistency is "linearizable", "stale" or "" for the default.
	Consistency string

	// Add are the servers that a change adds, Remove the IDs of those that it
	// removes. A change has at least one of them, and no server twice.
	Add    []Member
	Remove []uint64

	// To is the ID of the server that should become leader.
	To uint64

	// Prefix is how the keys of a list begin, After the key after which it begins,
	// and Limit how many keys it has at most, 0 for as many as fit. KeysOnly leaves
	// the values out.
	Prefix   string
	After    string
	Limit    uint64
	KeysOnly bool
}

// Command returns the command of the store that a request carries.
func (r Request) Command() kv.Command {
	return kv.Command{Op: r.Op, Key: r.Key, Value: r.Value, Old: r.Old}
}

// Decode reads a request. It refuses a text that is not JSON, an operation that
// is not in o, a field that the operation does not have, a missing field, and a
// command that fails CheckCommand. The error is a *Error, with code BadRequest or
// TooLarge; the request then has the ID of the line if it could be read, so that
// the client can match the refusal.
func (o Ops) Decode(line []byte) (Request, error) {
	var r Request
	var has Fields
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			r.ID = d.Uint()
		case "op":
			r.Op = o.name(d.Bytes())
		case "key":
			r.Key, has = d.String(), has|Key
		case "value":
			r.Value, has = d.String(), has|Value
		case "old":
			r.Old, has = d.String(), has|Old
		case "key_b64":
			r.Key, has = d.Base64(), has|Key
		case "value_b64":
			r.Value, has = d.Base64(), has|Value
		case "old_b64":
			r.Old, has = d.Base64(), has|Old
		case "from":
			r.From, has = d.Uint(), has|From
		case "term":
			r.Term, has = d.Uint(), has|Term
		case "session":
			r.Session, has = d.Uint(), has|Session
		case "since":
			r.Since, has = d.Uint(), has|Since
		case "seq":
			r.Seq, has = d.Uint(), has|Seq
		case "ack":
			r.Ack, has = d.Uint(), has|Ack
		case "consistency":
			r.Consistency, has = d.String(), has|Consistency
		case "add":
			r.Add, has = decodeMembers(&d), has|Add
		case "remove":
			r.Remove, has = decodeIDs(&d), has|Remove
		case "to":
			r.To, has = d.Uint(), has|To
		case "prefix":
			r.Prefix, has = d.String(), has|Prefix
		case "prefix_b64":
			r.Prefix, has = d.Base64(), has|Prefix
		case "after":
			r.After, has = d.String(), has|After
		case "after_b64":
			r.After, has = d.Base64(), has|After
		case "limit":
			r.Limit, has = d.Uint(), has|Limit
		case "keys_only":
			r.KeysOnly, has = d.Bool(), has|KeysOnly
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		if r.ID == 0 {
			r.ID = idOf(line)
		}
		return r, refuse("%s%v", hint(line), err)
	}
	op, err := o.find(r.Op)
	switch {
	case err != nil:
		return r, err
	case op.Needs&^has != 0:
		return r, refuse("%s needs the field %s", r.Op, op.Needs&^has)
	case has&^(op.Needs|op.May) != 0:
		return r, refuse("%s does not take the field %s", r.Op, has&^(op.Needs|op.May))
	}
	return r, r.check(op)
}

func (o Ops) find(name string) (Op, error) {
	if name == "" {
		return Op{}, refuse(`field "op" is missing; this server knows %s`, o.Names())
	}
	op, known := o[name]
	if !known {
		return op, refuse("unknown op %s; this server knows %s", quote(name), o.Names())
	}
	return op, nil
}

// Check returns what is wrong with a request that was not decoded but created by
// this program, or nil: every error that Decode would find in its line. A field
// that has its zero value counts as missing if it is optional, and as given if it
// is required.
func (o Ops) Check(r Request) error {
	op, err := o.find(r.Op)
	if err != nil {
		return err
	}
	var has Fields
	for _, f := range []struct {
		field Fields
		given bool
	}{
		{Key, r.Key != ""}, {Value, r.Value != ""}, {Old, r.Old != ""}, {From, r.From != 0}, {Term, r.Term != 0},
		{Session, r.Session != 0}, {Since, r.Since != 0}, {Seq, r.Seq != 0}, {Ack, r.Ack != 0}, {Consistency, r.Consistency != ""},
		{Add, len(r.Add) > 0}, {Remove, len(r.Remove) > 0}, {To, r.To != 0},
		{Prefix, r.Prefix != ""}, {After, r.After != ""}, {Limit, r.Limit != 0}, {KeysOnly, r.KeysOnly},
	} {
		if f.given {
			has |= f.field
		}
	}
	if extra := has &^ (op.Needs | op.May); extra != 0 {
		return refuse("%s does not take the field %s", r.Op, extra)
	}
	return r.check(op)
}

// check returns what is wrong with the values of the fields, or nil. The error is
// a *Error.
func (r Request) check(op Op) error {
	fields := op.Needs | op.May
	switch {
	case op.Needs&Key != 0:
		if e := CheckCommand(r.Command()); e != nil {
			return e
		}
	case fields&(Add|Remove) != 0:
		if err := r.CheckChange(); err != nil {
			return refuse("%v", err)
		}
	case len(r.Prefix) > kv.MaxKey || len(r.After) > kv.MaxKey:
		return &Error{Code: TooLarge, Message: fmt.Sprintf("a prefix and a key have at most %d bytes", kv.MaxKey), Definite: true}
	case op.Needs&To != 0 && r.To == 0:
		return refuse(`field "to" is 0; IDs start at 1`)
	}
	return nil
}

// CheckCommand is kv.Command.Check, as the refusal that a client gets, or nil.
func CheckCommand(c kv.Command) *Error {
	err := c.Check()
	if err == nil {
		return nil
	}
	e := refuse("%v", err)
	var long *kv.TooLongError
	if errors.As(err, &long) {
		e.Code = TooLarge
	}
	return e
}

// idOf looks for the id in a line that is not a request, so that the client can
// tell which of its requests was refused. 0 means that there is none.
func idOf(line []byte) (id uint64) {
	d := strict.NewDecoder(bytes.ToValidUTF8(line, []byte("?")))
	d.Object(func(field []byte) {
		if string(field) == "id" {
			id = d.Uint()
		} else {
			d.Raw()
		}
	})
	return id
}

// hint describes the form of a request to a client that does not seem to know it.
func hint(line []byte) string {
	if start := bytes.TrimLeft(line, " \t\r"); len(start) > 0 && start[0] == '{' {
		return ""
	}
	return `a request is a JSON object on one line, such as {"id":1,"op":"get","key":"x"}: `
}

// name is string(b) without an allocation for known operations.
func (o Ops) name(b []byte) string {
	switch string(b) {
	case kv.Get:
		return kv.Get
	case kv.Put:
		return kv.Put
	}
	return string(b)
}

func refuse(format string, args ...any) *Error {
	return &Error{Code: BadRequest, Message: fmt.Sprintf(format, args...), Definite: true}
}

// AppendJSON appends the request to b as one line, without the newline. It writes
// the fields that the operation has, so that an empty value is written and a get
// has none.
func (r Request) AppendJSON(b []byte) []byte {
	b = strict.AppendNumber(append(b, '{'), "id", r.ID)
	b = strict.AppendString(strict.AppendName(b, "op"), r.Op)
	if r.Key != "" {
		b = strict.AppendBytes(b, "key", r.Key)
	}
	if r.Op == kv.Cas {
		b = strict.AppendBytes(b, "old", r.Old)
	}
	if r.Op == kv.Put || r.Op == kv.Create || r.Op == kv.Append || r.Op == kv.Cas || r.Op == Propose {
		b = strict.AppendBytes(b, "value", r.Value)
	}
	b = strict.AppendNumber(b, "from", r.From)
	b = strict.AppendNumber(b, "term", r.Term)
	b = strict.AppendNumber(b, "session", r.Session)
	b = strict.AppendNumber(b, "since", r.Since)
	b = strict.AppendNumber(b, "seq", r.Seq)
	b = strict.AppendNumber(b, "ack", r.Ack)
	b = strict.AppendText(b, "consistency", r.Consistency)
	if len(r.Add) > 0 {
		b = strict.AppendArray(b, "add", r.Add, appendMember)
	}
	if len(r.Remove) > 0 {
		b = strict.AppendNumbers(b, "remove", r.Remove)
	}
	b = strict.AppendNumber(b, "to", r.To)
	if r.Prefix != "" {
		b = strict.AppendBytes(b, "prefix", r.Prefix)
	}
	if r.After != "" {
		b = strict.AppendBytes(b, "after", r.After)
	}
	b = strict.AppendNumber(b, "limit", r.Limit)
	return append(strict.AppendFlag(b, "keys_only", r.KeysOnly), '}')
}

// Size returns about how many bytes of memory the request holds.
func (r Request) Size() int {
	const fields = 256
	n := fields + len(r.Key) + len(r.Value) + len(r.Old) + len(r.Consistency) + 8*len(r.Remove) + len(r.Prefix) + len(r.After)
	for _, m := range r.Add {
		n += 32 + len(m.Address)
	}
	return n
}

// Response is the answer to one request.
type Response struct {
	// ID is the ID of the request.
	ID uint64

	// Value is the value of a get. It is written only if HasValue is set: an
	// empty value is not a missing one.
	Value    string
	HasValue bool

	// Length is how many bytes the value has after an append. It is written only
	// if HasLength is set.
	Length    uint64
	HasLength bool

	// Index is the index of the command in the log; 0 if there is none.
	Index uint64

	// Data is the answer to an operation that is not a command: any JSON
	// value, on one line.
	Data []byte

	// Later, if not nil, appends the data in place of Data. Long data is passed
	// like this, so that the goroutine that answers does not have to encode it.
	// Any goroutine may call Later.
	Later func(b []byte) []byte

	// Error is nil if the operation was done.
	Error *Error
}

// LongData is how many bytes count for the data of Later before it is written.
const LongData = 128 << 10

// WithData returns the response with Data in place of Later.
func (r Response) WithData() Response {
	if r.Later != nil {
		r.Data, r.Later = r.Later(nil), nil
	}
	return r
}

// Size returns about how many bytes of memory the response holds.
func (r Response) Size() int {
	const fields = 128
	n := fields + len(r.Value) + len(r.Data)
	if r.Later != nil {
		n += LongData
	}
	if r.Error != nil {
		n += fields + len(r.Error.Message)
	}
	return n
}

// Result returns the response to a command, from the result of the store.
func Result(id uint64, op string, r kv.Result) Response {
	switch r.Outcome {
	case kv.OK:
		if op == kv.Append {
			return Response{ID: id, Length: uint64(r.Length), HasLength: true}
		}
		return Response{ID: id, Value: r.Value, HasValue: op == kv.Get}
	case kv.NotFound:
		return Failed(id, &Error{Code: NotFound, Message: "the key has no value", Definite: true})
	case kv.Exists:
		return Failed(id, &Error{Code: Exists, Message: "the key already has a value", Definite: true})
	case kv.Mismatch:
		return Failed(id, &Error{Code: Mismatch, Message: "the value is " + found(r) + ", not the old one given", Definite: true})
	default:
		return Failed(id, &Error{Code: TooLarge, Message: fmt.Sprintf("the value would be longer than %d bytes", kv.MaxValue), Definite: true})
	}
}

// found quotes the value that a cas found.
func found(r kv.Result) string {
	if r.Length > len(r.Value) {
		return strconv.Quote(r.Value) + "…"
	}
	return strconv.Quote(r.Value)
}

// quote shortens a text of a request for a message.
func quote(s string) string {
	if len(s) > kv.MaxQuoted {
		return strconv.Quote(strings.ToValidUTF8(s[:kv.MaxQuoted], "")) + "…"
	}
	return strconv.Quote(s)
}

// Failed returns the response to a request that was not done.
func Failed(id uint64, err *Error) Response {
	return Response{ID: id, Error: err}
}

// AppendJSON appends the response to b as one line, without the newline.
func (r Response) AppendJSON(b []byte) []byte {
	b = strict.AppendNumber(append(b, '{'), "id", r.ID)
	b = strconv.AppendBool(strict.AppendName(b, "ok"), r.Error == nil)
	if r.Error != nil {
		return append(r.Error.appendJSON(strict.AppendName(b, "error")), '}')
	}
	if r.HasValue {
		b = strict.AppendBytes(b, "value", r.Value)
	}
	if r.HasLength {
		b = strconv.AppendUint(strict.AppendName(b, "length"), r.Length, 10)
	}
	b = strict.AppendNumber(b, "index", r.Index)
	switch {
	case r.Later != nil:
		b = r.Later(strict.AppendName(b, "data"))
	case r.Data != nil:
		b = append(strict.AppendName(b, "data"), r.Data...)
	}
	return append(b, '}')
}

// DecodeResponse reads a response.
func DecodeResponse(line []byte) (Response, error) {
	var r Response
	var ok bool
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			r.ID = d.Uint()
		case "ok":
			ok = d.Bool()
		case "value":
			r.Value, r.HasValue = d.String(), true
		case "value_b64":
			r.Value, r.HasValue = d.Base64(), true
		case "length":
			r.Length, r.HasLength = d.Uint(), true
		case "index":
			r.Index = d.Uint()
		case "data":
			r.Data = append([]byte(nil), d.Raw()...)
		case "error":
			r.Error = decodeError(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return Response{ID: r.ID}, fmt.Errorf("a response: %w", err)
	}
	if ok == (r.Error != nil) {
		return Response{ID: r.ID}, fmt.Errorf(`a response: it needs either "ok":true or an error`)
	}
	return r, nil
}
