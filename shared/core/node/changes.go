package node

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// Changes follows one server and writes how it differs from what was written
// before. Its zero value knows nothing yet.
type Changes struct {
	// Most is how many bytes of entries one text may have, with one entry more; 0
	// means that there is no limit.
	Most int

	state   State
	entries []Entry

	// now is memory for the next state.
	now State
}

// Append appends the fields in which a server differs from what is known, as
// members of a JSON object:
//
//	role, term, vote         Figure 2, as far as the stage has them
//	snapshot                 [index, term] that its snapshot covers
//	commit, applied          indexes
//	config                   {"now":[…],"next":[…],"learners":[…]}
//	votes                    the servers that voted for a candidate
//	progress                 [[server, nextIndex, matchIndex], …] of a leader
//	log                      {"from":i,"entries":[[term,"content"],…]}: the
//	                         entries from i on are now these
//
// from is the first entry that was not there before. more is true if the log goes
// on in the next text, because this one is full.
func (c *Changes) Append(b []byte, in Inspector) (text []byte, from uint64, more bool) {
	in.Inspect(&c.now)
	was, now := &c.state, &c.now
	number := func(name string, a, b2 uint64) {
		if a != b2 {
			b = strconv.AppendUint(strict.AppendName(b, name), b2, 10)
		}
	}
	if was.Role != now.Role {
		b = strict.AppendString(strict.AppendName(b, "role"), now.Role)
	}
	number("term", was.Term, now.Term)
	number("vote", was.Vote, now.Vote)
	if was.SnapIndex != now.SnapIndex || was.SnapTerm != now.SnapTerm {
		b = fmt.Appendf(strict.AppendName(b, "snapshot"), "[%d,%d]", now.SnapIndex, now.SnapTerm)
	}
	number("commit", was.Commit, now.Commit)
	number("applied", was.Applied, now.Applied)
	if !sameVoters(was.Config, now.Config) {
		b = append(strict.AppendName(b, "config"), '{')
		b = strict.AppendNumbers(b, "now", now.Config.Now)
		b = strict.AppendNumbers(b, "next", now.Config.Next)
		b = append(strict.AppendNumbers(b, "learners", now.Config.Learners), '}')
	}
	if !slices.Equal(was.Votes, now.Votes) {
		b = strict.AppendNumbers(b, "votes", now.Votes)
	}
	if !slices.Equal(was.Progress, now.Progress) {
		b = strict.AppendArray(b, "progress", now.Progress, func(b []byte, p Progress) []byte {
			return fmt.Appendf(b, "[%d,%d,%d]", p.ID, p.Next, p.Match)
		})
	}
	b, from, more = c.log(b, in)
	was.Role, was.Term, was.Vote, was.SnapIndex, was.SnapTerm = now.Role, now.Term, now.Vote, now.SnapIndex, now.SnapTerm
	was.Commit, was.Applied, was.Last = now.Commit, now.Applied, now.Last
	was.Config.Now = append(was.Config.Now[:0], now.Config.Now...)
	was.Config.Next = append(was.Config.Next[:0], now.Config.Next...)
	was.Config.Learners = append(was.Config.Learners[:0], now.Config.Learners...)
	was.Votes = append(was.Votes[:0], now.Votes...)
	was.Progress = append(was.Progress[:0], now.Progress...)
	return b, from, more
}

// State is the server's state as it was in the last Append. It must not be changed.
func (c *Changes) State() *State { return &c.now }

func sameVoters(a, b Voters) bool {
	return slices.Equal(a.Now, b.Now) && slices.Equal(a.Next, b.Next) && slices.Equal(a.Learners, b.Learners)
}

// log appends what is new in a log. entries[i] is the entry at SnapIndex+1+i of the
// state that is known.
func (c *Changes) log(b []byte, in Inspector) (text []byte, from uint64, more bool) {
	start, now := c.state.SnapIndex, &c.now
	if now.SnapIndex > start {
		c.entries = c.entries[min(now.SnapIndex-start, uint64(len(c.entries))):]
	} else if now.SnapIndex < start {
		c.entries = c.entries[:0] // it came back with an older snapshot
	}
	old := now.SnapIndex + uint64(len(c.entries))
	// Two logs that have the same entry at an index have the same before it (§5.3).
	from = min(old, now.Last) + 1
	for ; from > now.SnapIndex+1; from-- {
		if a, e := c.entries[from-now.SnapIndex-2], in.Entry(from-1); a.Term == e.Term && same(a.Data, e.Data) {
			break
		}
	}
	if from > now.Last && old <= now.Last {
		return b, from, false
	}
	c.entries = c.entries[:from-now.SnapIndex-1]
	b = strconv.AppendUint(append(strict.AppendName(b, "log"), `{"from":`...), from, 10)
	b = append(b, `,"entries":[`...)
	i, empty := from, len(b)
	for ; i <= now.Last && (c.Most == 0 || len(b)-empty < c.Most); i++ {
		e := in.Entry(i)
		c.entries = append(c.entries, e)
		b = append(strconv.AppendUint(append(strict.AppendComma(b), '['), e.Term, 10), ',')
		b = append(strict.AppendString(b, bytes.ToValidUTF8(e.Data, []byte("�"))), ']')
	}
	return append(b, "]}"...), from, i <= now.Last
}

// same reports whether two entries hold the same, without reading them if they
// share their memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}
