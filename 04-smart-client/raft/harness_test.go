package raft

import (
	"testing"

	"example.com/raftsteps/shared/lab/rules"
)

// shared/lab/rules runs the scripts and the random runs. What it must know of this
// stage's types stands here; what only this stage has, in harness_stage_test.go.

type (
	cluster = rules.Cluster[*Raft, Entry, Message, stage]
	server  = rules.Server[*Raft, Entry, Message, stage]
	script  = rules.Script[*Raft, Entry, Message, stage]
	world   = rules.World[*Raft, Entry, Message, stage]
	output  = rules.Output[Entry, Message]
)

// TestScripts plays the scripts in testdata/scripts. shared/lab/rules/script.go says
// how to write one.
func TestScripts(t *testing.T) { harness.TestScripts(t) }

// TestRandom plays random runs. The same seed gives the same run.
func TestRandom(t *testing.T) { harness.TestRandom(t) }

// The methods of rules.Raft, rules.Entry and rules.Message.

func (r *Raft) View() rules.View {
	return rules.View{
		ID: rules.ID(r.options.ID), Role: string(r.role), Leads: r.role == Leader, Leader: rules.ID(r.leader), State: sharedState(r.Status().State),
		Commit: uint64(r.commitIndex), Applied: uint64(r.lastApplied), Last: r.last().shared(),
	}
}

func (r *Raft) LogEntries() []Entry { return r.log.entries[1:] }

func (r *Raft) Believed() (rules.Position, []Entry) { return rules.Position{}, r.LogEntries() }

func (r *Raft) ConfigAt(uint64) any { return nil }

func (r *Raft) Followers() []rules.ID { return sharedIDs(r.config().Members()) }

func (r *Raft) NextFor(id rules.ID) (match, next uint64) {
	m, n := r.Progress(ID(id))
	return uint64(m), uint64(n)
}

func (r *Raft) NextOutput() (output, bool) {
	out := r.Take()
	return sharedOutput(out), !out.Empty()
}

func sharedOutput(out Output) output {
	o := output{
		Early: out.Early, Truncate: uint64(out.Truncate), Append: out.Append, Messages: out.Messages, Committed: out.Committed,
		Reasons: sharedReasons(out.Reasons), Stage: out,
	}
	if out.State != nil {
		state := sharedState(*out.State)
		o.State = &state
	}
	return o
}

func sharedReasons(reasons []Reason) (shared []rules.Reason) {
	for _, why := range reasons {
		shared = append(shared, rules.Reason{Code: why.Rule.Code, Section: why.Rule.Section, Words: why})
	}
	return shared
}

func (r *Raft) ProposeCommand(command []byte) error {
	_, _, err := r.Propose(command)
	return err
}

func sharedIDs(ids []ID) []rules.ID {
	shared := make([]rules.ID, len(ids))
	for i, id := range ids {
		shared[i] = rules.ID(id)
	}
	return shared
}

func (c Contradiction) Contradiction() (bool, string) { return c.Forgot, c.Text }

func (p Position) shared() rules.Position {
	return rules.Position{Term: uint64(p.Term), Index: uint64(p.Index)}
}

func (e Entry) Place() rules.Position { return Position{e.Term, e.Index}.shared() }
func (e Entry) Payload() []byte       { return e.Command }

func newEntry(at rules.Position, command []byte) Entry {
	return Entry{Term: Term(at.Term), Index: Index(at.Index), Command: command}
}

func (m Message) Head() rules.Head {
	return rules.Head{From: rules.ID(m.From), To: rules.ID(m.To), Term: uint64(m.Term), Body: m.Body}
}

func (m Message) Append() (rules.Append[Entry], bool) {
	b, is := m.Body.(AppendEntries)
	return rules.Append[Entry]{Prev: Position{b.PrevLogTerm, b.PrevLogIndex}.shared(), Entries: b.Entries, Commit: uint64(b.LeaderCommit)}, is
}

func (m Message) AppendReply() (rules.AppendReply, bool) {
	b, is := m.Body.(AppendEntriesReply)
	return rules.AppendReply{
		Success: b.Success, MatchIndex: uint64(b.MatchIndex),
		Refused: uint64(b.Refused), ConflictIndex: uint64(b.ConflictIndex), ConflictTerm: uint64(b.ConflictTerm),
	}, is
}

func forge(head rules.Head, body rules.Append[Entry]) Message {
	return Message{From: ID(head.From), To: ID(head.To), Term: Term(head.Term), Body: AppendEntries{
		PrevLogTerm: Term(body.Prev.Term), PrevLogIndex: Index(body.Prev.Index), Entries: body.Entries, LeaderCommit: Index(body.Commit),
	}}
}

func sharedState(s State) rules.State { return rules.State{CurrentTerm: uint64(s.CurrentTerm)} }

func stateOf(d *rules.Disk[Entry]) State { return State{CurrentTerm: Term(d.State.CurrentTerm)} }
