package raft

import (
	"fmt"
	"strings"
)

// Rule is a rule that decides something. The rules below are a closed set.
type Rule struct {
	// Code names the rule, for tests and for programs that read traces.
	Code string

	// Section is where the paper states it.
	Section string

	// sentence describes the decision in words. In it, 1 is the server that
	// decides, 2 the peer, 3 the term, 4 and 5 the own and the peer's position
	// in the log, 6 the index, 7 another server, 8 several servers.
	sentence string
}

// The rules.
var NewerTerm = &Rule{"newer-term", "§5.1", "%[1]s moves to term %[3]d: %[2]s is already in it"}
var OlderTerm = &Rule{"older-term", "§5.1", "%[1]s ignores a message from %[2]s: term %[3]d is over"}
var SteppedDown = &Rule{"stepped-down", "§5.1", "%[1]s becomes a follower in term %[3]d"}
var TimedOut = &Rule{"timed-out", "§5.2", "%[1]s starts an election in term %[3]d: %[1]s has heard from no leader for an election timeout, and its log ends at %[4]v"}
var Voted = &Rule{"voted", "§5.4.1", "%[1]s votes for %[2]s in term %[3]d: %[2]s's log ends at %[5]v, %[1]s's at %[4]v"}
var AlreadyVoted = &Rule{"already-voted", "§5.2", "%[1]s refuses its vote to %[2]s: %[1]s has voted for %[7]s in term %[3]d"}
var OldLog = &Rule{"old-log", "§5.4.1", "%[1]s refuses its vote to %[2]s in term %[3]d: %[2]s's log ends at %[5]v, %[1]s's at %[4]v"}
var Elected = &Rule{"elected", "§5.2", "%[1]s becomes the leader of term %[3]d with the votes of %[8]s"}
var TwoLeaders = &Rule{"two-leaders", "§5.2", "%[1]s refuses what %[2]s sends as the leader of term %[3]d: %[7]s leads that term, so a voter has forgotten its vote"}
var Contradicts = &Rule{"contradicts", "§5.4.3", "%[1]s refuses the leader %[2]s of term %[3]d: %[2]s has %[5]v where %[4]v is committed, so its voters have lost entries"}
var Refused = &Rule{"refused", "§5.3", "%[1]s refuses the entries of %[2]s: they follow %[5]v, which %[1]s lacks; %[1]s's log ends at %[4]v"}
var Truncated = &Rule{"truncated", "§5.3", "%[1]s removes its entries from %[4]v on: the leader %[2]s has %[5]v there"}
var FellBack = &Rule{"fell-back", "§5.3", "%[1]s will send %[2]s entries from %[6]d on: %[2]s refused the later ones"}
var Committed = &Rule{"committed", "§5.4.2", "%[1]s commits entries up to %[6]d: a majority has them on disk, and entry %[6]d is of the current term"}
var LearnedCommit = &Rule{"learned-commit", "§5.3", "%[1]s learns that entries up to %[6]d are committed"}
var ReadConfirmed = &Rule{"read-confirmed", "§8", "%[1]s answers reads of %[2]s at index %[6]d: a majority confirmed that %[1]s leads term %[3]d"}
var Compacted = &Rule{"compacted", "§7", "%[1]s has a snapshot that ends at %[4]v, and discards the entries up to %[6]d"}
var SentSnapshot = &Rule{"sent-snapshot", "§7", "%[1]s sends %[2]s its snapshot, which ends at %[4]v: %[1]s has discarded entry %[6]d, which %[2]s needs"}
var Restored = &Rule{"restored", "§7", "%[1]s installs the leader's snapshot, which ends at %[4]v"}

// Position is an entry's term and index, written term@index.
type Position struct {
	Term  Term
	Index Index
}

func (p Position) String() string { return fmt.Sprintf("%d@%d", p.Term, p.Index) }

// before reports whether a log that ends in p is less up to date than one that
// ends in q: the later term wins, and in the same term the longer log (§5.4.1).
func (p Position) before(q Position) bool {
	return p.Term < q.Term || p.Term == q.Term && p.Index < q.Index
}

// last returns the position of this server's last entry.
func (r *Raft) last() Position { return Position{r.log.term(r.log.lastIndex()), r.log.lastIndex()} }

// Reason is a decision and the facts it was made on.
type Reason struct {
	// Rule is what decided, and so says which of the fields matter.
	Rule *Rule

	// Self is the server that decided.
	Self ID

	// Peer is whose message it was about, Other a third server.
	Peer, Other ID

	// Alarm is true if no correct server would have sent the message.
	Alarm bool

	Term         Term
	Mine, Theirs Position
	Index        Index
	Votes        []ID
}

// String describes the reason in words.
func (r Reason) String() string {
	return fmt.Sprintf(r.Rule.sentence, r.Self, r.Peer, r.Term, r.Mine, r.Theirs, r.Index, r.Other, strings.Trim(strings.ReplaceAll(fmt.Sprint(r.Votes), " ", ", "), "[]"))
}

// String returns the name of a server, such as n1.
func (id ID) String() string { return fmt.Sprintf("n%d", uint64(id)) }

// explain keeps a reason if somebody asked for it, or if an operator must see it.
func (r *Raft) explain(why Reason) {
	if why.Self = r.options.ID; r.options.Explain || why.Alarm {
		r.out.Reasons = append(r.out.Reasons, why)
	}
}
