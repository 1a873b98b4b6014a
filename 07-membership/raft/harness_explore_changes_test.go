package raft

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/explore"
	"example.com/raftsteps/shared/lab/rules"
)

// What the explorer has of changes of the members, and of how leaders come and go
// with them.

// changeBounds are those of changes. Without them the members stay, and servers
// start an election without asking first: who asks first does nothing that one
// who does not could not do.
type changeBounds struct {
	// voters is how many servers are members at first; 0 is all. The others may
	// join.
	voters int

	// changes says which changes are tried: none, those that put one server in the
	// place of another, or all.
	changes changeKind

	// under says how far a change is from the start: not begun; begun, which all
	// voters know, and committed; or joint, which only the first server and the one
	// that joins know. It puts the last server in the place of the last voter.
	under changePhase

	// transfers, asks and alone say that leaders hand over, that servers ask before
	// they start an election, and that leaders find out that they have lost their
	// majority.
	transfers, asks, alone bool
}

type changeKind int

const (
	noChange changeKind = iota
	replacements
	allChanges
)

type changePhase int

const (
	notBegun changePhase = iota
	begun
	joint
)

func (b changeBounds) String() string {
	s := ""
	for _, x := range []struct {
		is   bool
		what string
	}{
		{b.voters > 0, fmt.Sprintf("%d of them voters", b.voters)}, {b.changes == replacements, "replacements"}, {b.changes == allChanges, "all changes"},
		{b.under == begun, "a change begun"}, {b.under == joint, "a joint change"},
		{b.transfers, "transfers"}, {b.asks, "pre-votes"}, {b.alone, "lost majorities"},
	} {
		if x.is {
			s += x.what + ", "
		}
	}
	return s
}

func init() {
	b := &explorer.Chosen.Stage.changeBounds
	flag.IntVar(&b.voters, "explore.voters", 0, "explore: how many servers are members at first; 0 is all")
	flag.IntVar((*int)(&b.changes), "explore.changes", 0, "explore: 1 replaces one server by another, 2 tries all changes")
	flag.IntVar((*int)(&b.under), "explore.under", 0, "explore: how far a change is from the start: 1 has begun, 2 is joint")
	flag.BoolVar(&b.transfers, "explore.transfers", false, "explore: leaders hand over")
	flag.BoolVar(&b.asks, "explore.asks", false, "explore: servers ask before they start an election")
	flag.BoolVar(&b.alone, "explore.alone", false, "explore: leaders lose their majority")
}

func votersOf(b bounds) int { return cmp.Or(b.Stage.voters, b.Servers) }

// namesShow: a snapshot has the names of servers in it, so they cannot be folded.
func namesShow(b stageBounds) bool { return b.pieces > 0 && b.voters > 0 }

func firstVoters(p *model) []ID {
	var ids []ID
	for _, id := range p.Members {
		ids = append(ids, ID(id))
	}
	return ids
}

// given are the entries that a server has at the start, and of which all but a
// joint configuration are committed.
func given(p *model, id ID) []Entry {
	first, last := firstVoters(p), ID(p.Servers)
	next := append(slices.Clone(first[:len(first)-1]), last)
	log := []Entry{
		{Index: 1, Term: 1, Kind: NoOp},
		{Index: 2, Term: 1, Kind: ConfigEntry, Config: &Config{Voters: first, Next: next, Index: 2}},
	}
	switch {
	case p.Stage.under == notBegun || p.Stage.under == begun && id == last:
		return nil
	case p.Stage.under == joint && (id == 1 || id == last):
		return append(log, Entry{Index: 3, Term: 1, Kind: ConfigEntry, Config: &Config{Voters: first, Next: next, Joint: true, Index: 3}})
	}
	return log
}

func givenCommitted(p *model) []Entry { return given(p, ID(len(p.Members))) }

func givenDisk(p *model, id rules.ID) rules.Disk[Entry] {
	if p.Stage.under == notBegun {
		return rules.Disk[Entry]{}
	}
	return rules.Disk[Entry]{State: rules.State{CurrentTerm: 1}, Log: given(p, ID(id))}
}

// configsOf returns the configurations that a server starts with.
func configsOf(p *model, id ID, d rules.Disk[Entry]) (config, covers Config) {
	if int(id) <= len(p.Members) {
		config = Config{Voters: firstVoters(p)}
	}
	covers = config
	if d.Base.Index > 0 {
		config = d.Config.(Config)
	}
	if len(d.Snapshot) > 0 {
		covers = d.Covers.(Config)
	}
	return config, covers
}

// mayDoubt: whether a server has not heard from its leader for long, decides about
// requests for votes.
func mayDoubt(m *machine, arrived Message) bool {
	request, is := arrived.Body.(RequestVote)
	return is && !request.Transfer && m.Raft.leader != 0 && m.Raft.role != Leader
}

func exploreArrive(r *Raft, arg uint16) { r.elapsed = int(arg) * r.options.ElectionTicks[0] }

// The inputs about changes.
const (
	// inputChange has the voters to come as its argument, a bit for each.
	inputChange = changeKinds + iota

	// inputTransfer asks a leader to hand over to its argument.
	inputTransfer

	// inputGiveUp is the heartbeat at which a leader gives up handing over to its
	// argument.
	inputGiveUp

	// inputAlone is the heartbeat at which a leader steps down, because it
	// has not heard from a majority.
	inputAlone
)

func changeInputs(p *model, in []explore.Input, r *Raft) []explore.Input {
	if r.role != Leader {
		return in
	}
	if now := r.config(); p.Stage.changes != noChange && uint64(r.log.lastIndex()) < p.Log {
		for mask := 1; mask < 1<<p.Servers; mask++ {
			if wanted(p, now, unmask(mask)) {
				in = append(in, explore.Input{Kind: inputChange, Arg: uint16(mask)})
			}
		}
	}
	for id := ID(1); p.Stage.transfers && int(id) <= p.Servers; id++ {
		if id != r.options.ID && r.successor != id {
			in = append(in, explore.Input{Kind: inputTransfer, Arg: uint16(id)})
		}
	}
	if r.successor != 0 {
		in = append(in, explore.Input{Kind: inputGiveUp, Arg: uint16(r.successor)})
	}
	if p.Stage.alone {
		in = append(in, explore.Input{Kind: inputAlone})
	}
	return in
}

// wanted reports whether a change is among those that are tried, and not already
// under way.
func wanted(p *model, now Config, next []ID) bool {
	same := slices.Equal(now.Voters, next)
	if same && len(now.Next) == 0 || slices.Equal(now.Next, next) {
		return false
	}
	stays := func(id ID) bool { return slices.Contains(now.Voters, id) }
	news := slices.DeleteFunc(slices.Clone(next), stays)
	return p.Stage.changes == allChanges || same || len(next) == len(now.Voters) && len(news) == 1
}

func unmask(mask int) (ids []ID) {
	for id := ID(1); mask > 0; id, mask = id+1, mask>>1 {
		if mask&1 == 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

func mask(ids []ID) (m byte) {
	for _, id := range ids {
		m |= 1 << (id - 1)
	}
	return m
}

// passTimeout lets a server that has heard of no leader ask who would vote for it, or
// start an election at once.
func passTimeout(do *doing) {
	r := do.Now.Raft
	switch {
	case do.Model.Stage.asks:
		r.elapsed = r.timeout - 1
		r.Tick()
	case r.role == Candidate:
		r.becomeFollower(r.currentTerm)
		fallthrough
	default:
		forceElection(r)
	}
}

func changeInput(do *doing, in explore.Input) {
	r := do.Now.Raft
	switch in.Kind {
	case inputChange:
		changeVoters(do, unmask(int(in.Arg)))
	case inputTransfer:
		_ = r.Transfer(ID(in.Arg))
	case inputGiveUp:
		r.silence(r.successor)
		r.Heartbeat()
		do.Happened("given up")
	case inputAlone:
		r.silence()
		r.Heartbeat()
	}
}

// changeVoters asks a leader to change the voters; see change.
func changeVoters(do *doing, next []ID) {
	r := do.Now.Raft
	now := r.config()
	known := now.Index <= r.commitIndex && r.log.term(r.commitIndex) == r.currentTerm
	idle := len(now.Next) == 0 || !now.Joint && slices.Equal(next, now.Voters)
	_, _, err := r.Change(next, nil)
	do.Ensure(err != nil || known && idle, configStep, "%v begins a change when %v is committed, and it goes by %s", r.options.ID, r.Position(r.commitIndex), configWords(now))
}

// checkConfigs: in force is the newest configuration in the log. A leader appends
// one when the one before is committed, and an entry of its own term. Any two
// quorums of neighbours share a server.
func checkConfigs(p *model, err *error, a, b *machine) {
	was, is := a.Raft, b.Raft
	id := is.options.ID
	newest := *is.log.entries[0].Config
	for _, e := range is.log.entries[1:] {
		if e.Config == nil {
			continue
		}
		before := newest
		newest = *e.Config
		if len(before.Voters) == 0 {
			before = Config{Voters: firstVoters(p)} // it joined, and does not know them
		}
		p.Ensure(err, follows(before, newest), configStep, "%s follows %s in the log of %v", configWords(newest), configWords(before), id)
		p.Ensure(err, overlap(before, newest), configOverlap, "%s and %s can decide without each other", configWords(newest), configWords(before))
		if e.Index > was.log.lastIndex() && is.role == Leader && e.Term == is.currentTerm {
			ready := before.Index <= is.commitIndex && is.log.term(is.commitIndex) == e.Term
			p.Ensure(err, ready, configStep, "%v appends %s when %v is committed", id, rules.EntryWords(e), is.Position(is.commitIndex))
		}
	}
	in := is.config()
	p.Ensure(err, sameConfig(&in, &newest), configTrue, "%v goes by %s, and its log says %s", id, configWords(in), configWords(newest))
	whole := rules.Whole(&b.Disk, is)
	for _, e := range slices.Backward(whole[:is.log.base()]) {
		if e.Config != nil {
			p.Ensure(err, sameConfig(e.Config, is.log.entries[0].Config), configTrue, "the log of %v begins with %s, and it is %s", id, configWords(*is.log.entries[0].Config), rules.EntryWords(e))
			break
		}
	}
}

// checkElection: a server that is elected has the votes of a quorum.
func checkElection(do *doing) {
	r := do.Before.Raft
	for _, reason := range do.Reasons {
		if why := reason.Words.(Reason); why.Rule == Elected {
			elected := quorum(r.config(), func(id ID) bool { return slices.Contains(why.Votes, id) })
			do.Ensure(elected, rules.CandidateVotes, "%v is elected in %s by %v", r.options.ID, configWords(r.config()), why.Votes)
		}
	}
}

// checkDecided: a configuration that is committed is on the disks of a quorum.
func checkDecided(p *model, err *error, w worlds) {
	for _, c := range w.History.Committed {
		if c.Entry.Config != nil {
			has := func(id ID) bool { return w.Servers[id-1].Disk.Holds(c.Entry) }
			p.Ensure(err, quorum(*c.Entry.Config, has), rules.CommitRule, "%s is committed, and on too few disks", rules.EntryWords(c.Entry))
		}
	}
}

// checkAllKnown: a server whose vote counts knows the voters, so none refuses its vote
// because it does not.
func checkAllKnown(p *model, err *error, w worlds, a *machine) {
	c := a.Raft.config()
	for _, voter := range w.Servers {
		id := voter.Raft.options.ID
		knows := !c.IsVoter(id) || len(voter.Raft.config().Voters) > 0
		p.Ensure(err, knows, votersKnown, "%v goes by %s, and %v knows no voters", a.Raft.options.ID, configWords(c), id)
	}
}

// checkOpen: at most one configuration in a log is not committed.
func checkOpen(p *model, err *error, g past, a *machine) {
	open := 0
	for _, e := range a.Raft.log.entries[1:] {
		if e.Config != nil && (int(e.Index) > len(g.Committed) || !g.Committed[e.Index-1].Entry.Same(e)) {
			open++
		}
	}
	p.Ensure(err, open <= 1, configStep, "the log of %v has %d configurations that are not committed", a.Raft.options.ID, open)
}

// countChanges moves the counters that no reason moves.
func countChanges(do *doing) {
	was, is := do.Before.Raft, do.Now.Raft
	if is.config().Index < was.config().Index {
		do.Happened("rolled back")
	}
	if is.role == Leader && !is.config().IsVoter(is.options.ID) {
		do.Happened("outside")
	}
}

func tellChange(id rules.ID, in explore.Input) string {
	switch in.Kind {
	case inputChange:
		return fmt.Sprintf("%v changes the members to %v", id, unmask(int(in.Arg)))
	case inputTransfer:
		return fmt.Sprintf("%v should transfer its leadership to %v", id, ID(in.Arg))
	case inputGiveUp:
		return fmt.Sprintf("%v has not heard for long from whom it is to hand over to, %v", id, ID(in.Arg))
	}
	return fmt.Sprintf("%v has not heard from anybody for long", id)
}

func writeBegin(w *writer) {
	if w.Stage.voters > 0 {
		w.Line("- first %s", names(membersOf(w)))
	}
	if w.Stage.under != notBegun {
		w.Line("# Here a change is to be under way.")
	}
}

func membersOf(w *writer) (ids []ID) {
	for id := range w.Stage.voters {
		ids = append(ids, ID(id+1))
	}
	return ids
}

func names(ids []ID) string { return strings.Trim(fmt.Sprint(ids), "[]") }

func timeoutCommand(w *writer) string {
	if w.Stage.asks {
		return "ask"
	}
	return "timeoutnow"
}

func writeChange(w *writer, id rules.ID, in explore.Input) {
	switch in.Kind {
	case inputChange:
		w.Line("> change %v %s", id, names(unmask(int(in.Arg))))
	case inputTransfer:
		w.Line("> transfer %v %v", id, ID(in.Arg))
	case inputGiveUp:
		w.Line("> silence %v %v", id, ID(in.Arg))
		w.Line("> tick %v 3", id)
	case inputAlone:
		w.Line("> silence %v", id)
		w.Line("> tick %v 3", id)
	}
}

// packEntry and packConfig write what a snapshot holds, in a few bytes.
func packEntry(file []byte, e Entry) []byte {
	switch {
	case e.Config != nil:
		return packConfig(append(file, byte(e.Term)<<2|2), *e.Config)
	case e.Kind == NoOp:
		return append(file, byte(e.Term)<<2|1)
	}
	return append(file, byte(e.Term)<<2)
}

func packConfig(file []byte, c Config) []byte {
	joint := byte(0)
	if c.Joint {
		joint = 1
	}
	return append(file, mask(c.Voters), mask(c.Next), joint, byte(c.Index))
}

func unpackConfig(b []byte) Config {
	return Config{Voters: unmask(int(b[0])), Next: unmask(int(b[1])), Joint: b[2] == 1, Index: Index(b[3])}
}

// unpack reads what packConfig and packEntry have written.
func unpack(b []byte) (config Config, content []Entry) {
	config, b = unpackConfig(b), b[4:]
	for len(b) > 0 {
		e := Entry{Index: Index(len(content) + 1), Term: Term(b[0] >> 2)}
		kind := b[0] & 3
		b = b[1:]
		switch kind {
		case 0:
			e.Command = []byte("x")
		case 1:
			e.Kind = NoOp
		case 2:
			c := unpackConfig(b)
			e.Kind, e.Config, b = ConfigEntry, &c, b[4:]
		}
		content = append(content, e)
	}
	return config, content
}
