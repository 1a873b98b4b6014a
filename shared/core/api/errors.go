package api

import (
	"errors"
	"fmt"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// Code tells programs what went wrong.
type Code string

// The codes. Each says in its comment whether the operation happened.
const (
	// BadRequest: the request breaks the protocol or a limit. It did not
	// happen and never will.
	BadRequest Code = "bad_request"

	// NotFound: the key has no value. Nothing changed.
	NotFound Code = "not_found"

	// Mismatch: cas found another value. Nothing changed.
	Mismatch Code = "mismatch"

	// Exists: the key of a create has a value. Nothing changed.
	Exists Code = "exists"

	// TooLarge: a key, a value or a line is longer than its limit, or an append
	// would make the value so. Nothing changed.
	TooLarge Code = "too_large"

	// Full: the store would hold more than it may. It did not happen this time;
	// the server does not know whether an earlier try did. A delete still works,
	// and so does a write that makes nothing longer.
	Full Code = "full"

	// NotLeader: this server is not the leader; Error.Leader is the address of
	// the leader, if it is known. It did not happen.
	NotLeader Code = "not_leader"

	// Refused: the cluster cannot do this in its present state, such as adding a
	// server that is a member, or a second change during a change. It did not
	// happen.
	Refused Code = "refused"

	// Denied: the client may not do this: its token is wrong, or its role is too
	// small. It did not happen, and asking another server does not help.
	Denied Code = "denied"

	// Handshake: the client and the server cannot talk. Only one of them speaks TLS,
	// or one does not accept the certificate of the other. It did not happen. Another
	// server may accept it; this one will not, until a configuration has changed.
	Handshake Code = "handshake"

	// NoSession: the session of the command is no longer known, or its Seq was
	// answered and forgotten. It did not happen this time; the server does not
	// know whether an earlier try did.
	NoSession Code = "no_session"

	// Compacted: the log no longer has the entries that were asked for. A snapshot
	// has what they did.
	Compacted Code = "compacted"

	// Busy: the server has too much to do. It did not happen; try again later.
	Busy Code = "busy"

	// Unavailable: no server could be asked, or the one asked cannot serve
	// now. It did not happen; try again later.
	Unavailable Code = "unavailable"

	// Unknown: the request was sent and its outcome was lost. It may or may
	// not have happened, or may yet happen.
	Unknown Code = "unknown"
)

// FromStore reports whether an operation that ended with this code was carried out
// as far as what is in the store allows: the code is its result.
func (c Code) FromStore() bool {
	switch c {
	case NotFound, Mismatch, Exists, TooLarge:
		return true
	}
	return false
}

// Error says that an operation did not happen, or that its outcome is unknown.
type Error struct {
	// Code is for programs.
	Code Code

	// Message says to people what went wrong. It does not say whether the operation
	// happened: Definite does, and Text says it in words.
	Message string

	// Leader is the address of the server to ask instead, or "".
	Leader string

	// Definite is true if the operation certainly did not happen and will not.
	// If false, it may have happened or may yet happen.
	Definite bool

	// Cause is the local error that led to this one; nil if there is none or a
	// server has sent the error. It is not part of the JSON.
	Cause error
}

// CompactedLog is the refusal of a log request for an entry up to base, the last
// one that a snapshot has replaced.
func CompactedLog(base uint64) *Error {
	return &Error{Code: Compacted, Definite: true, Message: fmt.Sprintf("the log begins at %d: a snapshot has replaced entries 1 to %d", base+1, base)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Text() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Text is the message, and what it means for the operation if that is not
// certain.
func (e *Error) Text() string {
	if e.Definite {
		return e.Message
	}
	return e.Message + "; the request may or may not have happened, or may yet happen"
}

// Wrap adds before an error what it is about. It turns an *Error into another
// *Error.
func Wrap(what string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", what, err)
	}
	wrapped := *e
	wrapped.Message = what + ": " + e.Message
	return &wrapped
}

// Lost is the error of a request that was sent and whose answer will not come.
func Lost(why string) *Error { return &Error{Code: Unknown, Message: why} }

// OfRead is the error of an operation that only reads: it changed nothing, even if
// its answer was lost.
func (e *Error) OfRead(op string) *Error {
	if e.Definite {
		return e
	}
	return &Error{Code: Unavailable, Message: e.Message + "; nothing was changed, since " + op + " only reads", Leader: e.Leader, Definite: true, Cause: e.Cause}
}

func (e *Error) appendJSON(b []byte) []byte {
	b = strict.AppendString(strict.AppendName(append(b, '{'), "code"), e.Code)
	b = strict.AppendString(strict.AppendName(b, "message"), e.Message)
	b = strict.AppendText(b, "leader", e.Leader)
	b = strconv.AppendBool(strict.AppendName(b, "definite"), e.Definite)
	return append(b, '}')
}

func decodeError(d *strict.Decoder) *Error {
	e := &Error{}
	d.Object(func(field []byte) {
		switch string(field) {
		case "code":
			e.Code = Code(d.String())
		case "message":
			e.Message = d.String()
		case "leader":
			e.Leader = d.String()
		case "definite":
			e.Definite = d.Bool()
		default:
			d.Unknown()
		}
	})
	return e
}
