package raft

import "fmt"

// Rule names the rule behind a decision. The set is closed; rules below says
// what each means and where the paper states it.
type Rule string

// The rules.
const (
	NewerTerm     Rule = "newer-term"
	OlderTerm     Rule = "older-term"
	SteppedDown   Rule = "stepped-down"
	TimedOut      Rule = "timed-out"
	Voted         Rule = "voted"
	AlreadyVoted  Rule = "already-voted"
	OldLog        Rule = "old-log"
	Elected       Rule = "elected"
	Refused       Rule = "refused"
	Truncated     Rule = "truncated"
	FellBack      Rule = "fell-back"
	Committed     Rule = "committed"
	LearnedCommit Rule = "learned-commit"
	ReadConfirmed Rule = "read-confirmed"
)

// rules gives each rule its section and its sentence. In the sentence, 1 is the
// server that decides, 2 the peer, 3 the term, 4 and 5 the own and the peer's
// position in the log, 6 the index, 7 another server, 8 the voters.
var rules = map[Rule]struct{ section, sentence string }{
	NewerTerm:     {"§5.1", "%[1]s moves to term %[3]d: %[2]s is there already"},
	OlderTerm:     {"§5.1", "%[1]s sets no store by a message of %[2]s from term %[3]d, which is over"},
	SteppedDown:   {"§5.1", "%[1]s becomes a follower in term %[3]d"},
	TimedOut:      {"§5.2", "%[1]s has heard of no leader for too long: it stands for election in term %[3]d with a log that ends in %[4]v"},
	Voted:         {"§5.4.1", "%[1]s votes for %[2]s in term %[3]d: its log ends in %[5]v, mine in %[4]v"},
	AlreadyVoted:  {"§5.2", "%[1]s refuses its vote to %[2]s: in term %[3]d it has gone to %[7]s"},
	OldLog:        {"§5.4.1", "%[1]s refuses its vote to %[2]s in term %[3]d: its log ends in %[5]v, mine in %[4]v"},
	Elected:       {"§5.2", "%[1]s leads term %[3]d: it has the votes of %[8]v"},
	Refused:       {"§5.3", "%[1]s refuses the entries of %[2]s: they follow %[5]v, which it lacks; its log ends in %[4]v"},
	Truncated:     {"§5.3", "%[1]s removes its entries from %[4]v on: the leader %[2]s has %[5]v there"},
	FellBack:      {"§5.3", "%[1]s will send %[2]s entries from %[6]d on: the logs part at %[5]v"},
	Committed:     {"§5.4.2", "%[1]s commits up to %[6]d: a majority has it on disk, and it is of the current term"},
	LearnedCommit: {"§5.3", "%[1]s learns that entries up to %[6]d are committed"},
	ReadConfirmed: {"§8", "%[1]s answers reads of %[2]s at index %[6]d: a majority confirmed that it leads term %[3]d"},
}

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
func (r *Raft) last() Position { return Position{r.log.lastTerm(), r.log.lastIndex()} }

// Reason is a decision and the facts it was made on.
type Reason struct {
	// Rule says which rule decided, and so which of the fields matter.
	Rule Rule

	// Self is the server that decided.
	Self ID

	// Peer is whose message it was about, Other a third server.
	Peer, Other ID

	Term         Term
	Mine, Theirs Position
	Index        Index
	Votes        []ID
}

// Section returns where the paper states the rule.
func (r Reason) Section() string { return rules[r.Rule].section }

// String tells the reason to a person.
func (r Reason) String() string {
	return fmt.Sprintf(rules[r.Rule].sentence, r.Self, r.Peer, r.Term, r.Mine, r.Theirs, r.Index, r.Other, r.Votes)
}

// String is how people call a server.
func (id ID) String() string { return fmt.Sprintf("n%d", uint64(id)) }

// explain keeps a reason if somebody asked for it.
func (r *Raft) explain(why Reason) {
	if r.options.Explain {
		why.Self = r.options.ID
		r.out.Reasons = append(r.out.Reasons, why)
	}
}
