package api

import (
	"fmt"
	"math"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// What a server answers to Status and Members: the Data of its Response. Fields
// that have their zero value are not written. A field that this program does not
// know is skipped, since the server may be of a later version.

// ServerStatus is the answer to Status: how a server sees itself and the
// cluster. A stage fills the fields that it knows.
type ServerStatus struct {
	// ID is the server's own.
	ID uint64

	// Role is "leader", "follower" or "candidate".
	Role string

	// Term is the highest term that the server has heard of, and Leader the leader
	// of that term, 0 if the server knows none.
	Term   uint64
	Leader uint64

	// Last is the index of the last entry of the server's log. Entries up to
	// Commit are committed, those up to Applied are applied, and those up to
	// Snapshot are in its snapshot.
	Snapshot uint64
	Last     uint64
	Commit   uint64
	Applied  uint64

	// Ready says whether clients should be sent to this server, and Unready why
	// not. Ready is nil if the server does not say.
	Ready   *bool
	Unready string

	// Keys and Sessions are how many the store holds; nil if the server does not
	// say.
	Keys     *int
	Sessions *int

	// Phase is the phase of the change of the members at this server; "" where
	// members do not change.
	Phase string

	// Voters are the IDs of the servers that vote now, nil where members do not
	// change. Next are those that will vote when the change is done; there are none
	// if there is no change.
	Voters []uint64
	Next   []uint64

	// Removed is true if the server was removed from the cluster.
	Removed bool

	// Learners are the servers that catch up before they vote, as the leader sees
	// them; nil elsewhere.
	Learners []Learner
}

// Learner is a server that receives the log and does not vote yet.
type Learner struct {
	ID uint64

	// Match is the last entry of the leader's log that the server is known to have.
	Match uint64
}

// The phases of a change of the members.
const (
	// Stable: no change is in progress.
	Stable = "stable"

	// Learning: servers that will be added receive the log and do not vote yet.
	Learning = "learning"

	// Joint: decisions need a majority of the old members and one of the new.
	Joint = "joint"
)

// AppendJSON appends the status to b as a JSON object on one line.
func (s ServerStatus) AppendJSON(b []byte) []byte {
	return append(s.AppendFields(append(b, '{')), '}')
}

// AppendFields appends the fields of the status to an object that may have
// others.
func (s ServerStatus) AppendFields(b []byte) []byte {
	b = strict.AppendNumber(b, "id", s.ID)
	b = strict.AppendText(b, "role", s.Role)
	b = strict.AppendNumber(b, "term", s.Term)
	b = strict.AppendNumber(b, "leader", s.Leader)
	b = strict.AppendNumber(b, "snapshot", s.Snapshot)
	b = strict.AppendNumber(b, "last", s.Last)
	b = strict.AppendNumber(b, "commit", s.Commit)
	b = strict.AppendNumber(b, "applied", s.Applied)
	if s.Ready != nil {
		b = strconv.AppendBool(strict.AppendName(b, "ready"), *s.Ready)
	}
	b = strict.AppendText(b, "unready", s.Unready)
	b = appendCount(b, "keys", s.Keys)
	b = appendCount(b, "sessions", s.Sessions)
	b = strict.AppendText(b, "phase", s.Phase)
	if s.Voters != nil {
		b = strict.AppendNumbers(b, "voters", s.Voters)
	}
	if len(s.Next) > 0 {
		b = strict.AppendNumbers(b, "next", s.Next)
	}
	b = strict.AppendFlag(b, "removed", s.Removed)
	if s.Learners != nil {
		b = strict.AppendArray(b, "learners", s.Learners, appendLearner)
	}
	return b
}

// appendCount appends a field, unless it is nil.
func appendCount(b []byte, name string, n *int) []byte {
	if n == nil {
		return b
	}
	return strconv.AppendInt(strict.AppendName(b, name), int64(*n), 10)
}

// appendLearner writes the match even if it is 0, which means that nothing is
// known about the server's log.
func appendLearner(b []byte, l Learner) []byte {
	b = strict.AppendNumber(append(b, '{'), "id", l.ID)
	b = strconv.AppendUint(strict.AppendName(b, "match"), l.Match, 10)
	return append(b, '}')
}

// DecodeStatus reads what AppendJSON wrote.
func DecodeStatus(text []byte) (s ServerStatus, err error) {
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			s.ID = d.Uint()
		case "role":
			s.Role = d.String()
		case "term":
			s.Term = d.Uint()
		case "leader":
			s.Leader = d.Uint()
		case "snapshot":
			s.Snapshot = d.Uint()
		case "last":
			s.Last = d.Uint()
		case "commit":
			s.Commit = d.Uint()
		case "applied":
			s.Applied = d.Uint()
		case "ready":
			s.Ready = new(d.Bool())
		case "unready":
			s.Unready = d.String()
		case "keys":
			s.Keys = decodeCount(&d)
		case "sessions":
			s.Sessions = decodeCount(&d)
		case "phase":
			s.Phase = d.String()
		case "voters":
			s.Voters = decodeIDs(&d)
		case "next":
			s.Next = decodeIDs(&d)
		case "removed":
			s.Removed = d.Bool()
		case "learners":
			s.Learners = decodeLearners(&d)
		default:
			d.Raw()
		}
	})
	if err := d.End(); err != nil {
		return ServerStatus{}, fmt.Errorf("a status: %w", err)
	}
	return s, nil
}

func decodeCount(d *strict.Decoder) *int {
	n := d.Uint()
	if n > math.MaxInt {
		d.Fail("a count above 2^63-1")
	}
	return new(int(n))
}

func decodeLearners(d *strict.Decoder) []Learner {
	learners := []Learner{}
	d.Array(func() {
		var l Learner
		d.Object(func(field []byte) {
			switch string(field) {
			case "id":
				l.ID = d.Uint()
			case "match":
				l.Match = d.Uint()
			default:
				d.Raw()
			}
		})
		learners = append(learners, l)
	})
	return learners
}

// Membership is the answer to Members: the configuration as a server knows it.
type Membership struct {
	// ID is the server's ID. Role, Term, Leader, Last and Commit are as in
	// ServerStatus.
	ID     uint64
	Role   string
	Term   uint64
	Leader uint64
	Last   uint64
	Commit uint64

	// Config is the entry of the log that holds the configuration, 0 for the first
	// one, and Committed says whether it is committed.
	Config    uint64
	Committed bool

	// Phase is the phase of the change, Stable if there is none.
	Phase string

	// Removed is true if the server was removed from the cluster.
	Removed bool

	// Members are in the order of their IDs. There are none at a server that was
	// not added to a cluster yet.
	Members []MemberStatus
}

// MemberStatus is one server in a Membership.
type MemberStatus struct {
	Member

	// Voter is true if the server votes now, Next if it will vote when the change
	// is done.
	Voter bool
	Next  bool

	// Match is the last entry of the log that the server is known to have, at the
	// leader; 0 if that is not known.
	Match uint64
}

// AppendJSON appends the membership to b as a JSON object on one line.
func (m Membership) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	b = strict.AppendNumber(b, "id", m.ID)
	b = strict.AppendText(b, "role", m.Role)
	b = strict.AppendNumber(b, "term", m.Term)
	b = strict.AppendNumber(b, "leader", m.Leader)
	b = strict.AppendNumber(b, "last", m.Last)
	b = strict.AppendNumber(b, "commit", m.Commit)
	b = strict.AppendNumber(b, "config", m.Config)
	b = strict.AppendFlag(b, "committed", m.Committed)
	b = strict.AppendText(b, "phase", m.Phase)
	b = strict.AppendFlag(b, "removed", m.Removed)
	b = strict.AppendArray(b, "members", m.Members, appendMemberStatus)
	return append(b, '}')
}

func appendMemberStatus(b []byte, m MemberStatus) []byte {
	b = strict.AppendNumber(append(b, '{'), "id", m.ID)
	b = strict.AppendString(strict.AppendName(b, "address"), m.Address)
	b = strict.AppendFlag(b, "voter", m.Voter)
	b = strict.AppendFlag(b, "next", m.Next)
	return append(strict.AppendNumber(b, "match", m.Match), '}')
}

// DecodeMembership reads what AppendJSON wrote.
func DecodeMembership(text []byte) (m Membership, err error) {
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			m.ID = d.Uint()
		case "role":
			m.Role = d.String()
		case "term":
			m.Term = d.Uint()
		case "leader":
			m.Leader = d.Uint()
		case "last":
			m.Last = d.Uint()
		case "commit":
			m.Commit = d.Uint()
		case "config":
			m.Config = d.Uint()
		case "committed":
			m.Committed = d.Bool()
		case "phase":
			m.Phase = d.String()
		case "removed":
			m.Removed = d.Bool()
		case "members":
			d.Array(func() { m.Members = append(m.Members, decodeMemberStatus(&d)) })
		default:
			d.Raw()
		}
	})
	if err := d.End(); err != nil {
		return Membership{}, fmt.Errorf("the members: %w", err)
	}
	return m, nil
}

func decodeMemberStatus(d *strict.Decoder) (m MemberStatus) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "id":
			m.ID = d.Uint()
		case "address":
			m.Address = d.String()
		case "voter":
			m.Voter = d.Bool()
		case "next":
			m.Next = d.Bool()
		case "match":
			m.Match = d.Uint()
		default:
			d.Raw()
		}
	})
	return m
}
