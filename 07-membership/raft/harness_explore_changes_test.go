package raft

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/explore"
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
	b := &chosen.stage.changeBounds
	flag.IntVar(&b.voters, "explore.voters", 0, "explore: how many servers are members at first; 0 is all")
	flag.IntVar((*int)(&b.changes), "explore.changes", 0, "explore: 1 replaces one server by another, 2 tries all changes")
	flag.IntVar((*int)(&b.under), "explore.under", 0, "explore: how far a change is from the start: 1 has begun, 2 is joint")
	flag.BoolVar(&b.transfers, "explore.transfers", false, "explore: leaders hand over")
	flag.BoolVar(&b.asks, "explore.asks", false, "explore: servers ask before they start an election")
	flag.BoolVar(&b.alone, "explore.alone", false, "explore: leaders lose their majority")
}

// given are the entries that a server has at the start, and of which all but a
// joint configuration are committed.
func (p *model) given(id ID) []Entry {
	last := ID(p.Servers)
	next := append(slices.Clone(p.members[:len(p.members)-1]), last)
	log := []Entry{
		{Index: 1, Term: 1, Kind: NoOp},
		{Index: 2, Term: 1, Kind: ConfigEntry, Config: &Config{Voters: p.members, Next: next, Index: 2}},
	}
	switch {
	case p.stage.under == notBegun || p.stage.under == begun && id == last:
		return nil
	case p.stage.under == joint && (id == 1 || id == last):
		return append(log, Entry{Index: 3, Term: 1, Kind: ConfigEntry, Config: &Config{Voters: p.members, Next: next, Joint: true, Index: 3}})
	}
	return log
}

func (p *model) givenHistory() (g past) {
	for _, e := range p.given(p.members[len(p.members)-1]) {
		g.committed = append(g.committed, committed{e, 1})
	}
	return g
}

func (p *model) givenDisk(id ID) disk {
	if p.stage.under == notBegun {
		return disk{}
	}
	return disk{state: State{CurrentTerm: 1}, log: p.given(id)}
}

// first is the configuration that a server knows without a log.
func (p *model) first(id ID) Config {
	if slices.Contains(p.members, id) {
		return Config{Voters: p.members}
	}
	return Config{}
}

// configs returns the configurations that a server starts with.
func (p *model) configs(id ID, d disk) (config, covers Config) {
	config, covers = p.first(id), p.first(id)
	if d.base.Index > 0 {
		config = d.config
	}
	if len(d.snapshot) > 0 {
		covers = d.covers
	}
	return config, covers
}

// doubts is the note of a step in which a server has not heard from its leader for
// long. Whether it has, decides about requests for votes.
const doubts = "it has not heard from its leader for long"

func (m *machine) mayDoubt(arrived Message) bool {
	request, is := arrived.Body.(RequestVote)
	return is && !request.Transfer && m.raft.leader != 0 && m.raft.role != Leader
}

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

func (p *model) changeInputs(in []explore.Input, r *Raft) []explore.Input {
	if r.role != Leader {
		return in
	}
	if now := r.config(); p.stage.changes != noChange && r.log.lastIndex() < p.log {
		for mask := 1; mask < 1<<p.Servers; mask++ {
			if p.wanted(now, unmask(mask)) {
				in = append(in, explore.Input{Kind: inputChange, Arg: uint16(mask)})
			}
		}
	}
	for id := ID(1); p.stage.transfers && int(id) <= p.Servers; id++ {
		if id != r.options.ID && r.successor != id {
			in = append(in, explore.Input{Kind: inputTransfer, Arg: uint16(id)})
		}
	}
	if r.successor != 0 {
		in = append(in, explore.Input{Kind: inputGiveUp, Arg: uint16(r.successor)})
	}
	if p.stage.alone {
		in = append(in, explore.Input{Kind: inputAlone})
	}
	return in
}

// wanted reports whether a change is among those that are tried, and not already
// under way.
func (p *model) wanted(now Config, next []ID) bool {
	same := slices.Equal(now.Voters, next)
	if same && len(now.Next) == 0 || slices.Equal(now.Next, next) {
		return false
	}
	stays := func(id ID) bool { return slices.Contains(now.Voters, id) }
	news := slices.DeleteFunc(slices.Clone(next), stays)
	return p.stage.changes == allChanges || same || len(next) == len(now.Voters) && len(news) == 1
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

// timeout lets a server that has heard of no leader ask who would vote for it, or
// start an election at once.
func (do *doing) timeout() {
	r := do.now.raft
	switch {
	case do.stage.asks:
		r.elapsed = r.timeout - 1
		r.Tick()
	case r.role == Candidate:
		r.becomeFollower(r.currentTerm)
		fallthrough
	default:
		stand(r)
	}
}

func (do *doing) changeInput(in explore.Input) {
	r := do.now.raft
	switch in.Kind {
	case inputChange:
		do.change(unmask(int(in.Arg)))
	case inputTransfer:
		_ = r.Transfer(ID(in.Arg))
	case inputGiveUp:
		r.silence(r.successor)
		do.beat()
		do.happened(&do.e, "given up")
	case inputAlone:
		r.silence()
		do.beat()
	}
}

func (do *doing) beat() {
	r := do.now.raft
	r.elapsed = r.options.HeartbeatTicks - 1
	r.Tick()
}

// change asks a leader to change the voters; see cluster.change.
func (do *doing) change(next []ID) {
	r := do.now.raft
	now := r.config()
	known := now.Index <= r.commitIndex && r.log.term(r.commitIndex) == r.currentTerm
	idle := len(now.Next) == 0 || !now.Joint && slices.Equal(next, now.Voters)
	_, _, err := r.Change(next, nil)
	do.check(&do.e.Err, err != nil || known && idle, configStep, "%v begins a change when %v is committed, and it goes by %s", r.options.ID, r.Position(r.commitIndex), configWords(now))
}

// checkConfigs: in force is the newest configuration in the log. A leader appends
// one when the one before is committed, and an entry of its own term. Any two
// quorums of neighbours share a server.
func (p *model) checkConfigs(err *error, a, b *machine) {
	was, is := a.raft, b.raft
	id := is.options.ID
	newest := *is.log.entries[0].Config
	for _, e := range is.log.entries[1:] {
		if e.Config == nil {
			continue
		}
		before := newest
		newest = *e.Config
		if len(before.Voters) == 0 {
			before = Config{Voters: p.members} // it joined, and does not know them
		}
		p.check(err, follows(before, newest), configStep, "%s follows %s in the log of %v", configWords(newest), configWords(before), id)
		p.check(err, overlap(before, newest), configOverlap, "%s and %s can decide without each other", configWords(newest), configWords(before))
		if e.Index > was.log.lastIndex() && is.role == Leader && e.Term == is.currentTerm {
			ready := before.Index <= is.commitIndex && is.log.term(is.commitIndex) == e.Term
			p.check(err, ready, configStep, "%v appends %s when %v is committed", id, entryWords(e), is.Position(is.commitIndex))
		}
	}
	in := is.config()
	p.check(err, sameConfig(&in, &newest), configTrue, "%v goes by %s, and its log says %s", id, configWords(in), configWords(newest))
	whole := whole(&b.disk, is)
	for _, e := range slices.Backward(whole[:is.log.base()]) {
		if e.Config != nil {
			p.check(err, sameConfig(e.Config, is.log.entries[0].Config), configTrue, "the log of %v begins with %s, and it is %s", id, configWords(*is.log.entries[0].Config), entryWords(e))
			break
		}
	}
}

// checkElected: a server that is elected has the votes of a quorum.
func (do *doing) checkElected() {
	r := do.before.raft
	for _, why := range do.reasons {
		if why.Rule == Elected {
			elected := quorum(r.config(), func(id ID) bool { return slices.Contains(why.Votes, id) })
			do.check(&do.e.Err, elected, candidateVotes, "%v is elected in %s by %v", r.options.ID, configWords(r.config()), why.Votes)
		}
	}
}

// checkDecided: a configuration that is committed is on the disks of a quorum.
func (p *model) checkDecided(err *error, w explore.World[*machine, past]) {
	for _, c := range w.History.committed {
		if c.entry.Config != nil {
			has := func(id ID) bool { return w.Servers[id-1].disk.holds(c.entry) }
			p.check(err, quorum(*c.entry.Config, has), commitRule, "%s is committed, and on too few disks", entryWords(c.entry))
		}
	}
}

// checkKnown: a server whose vote counts knows the voters, so none refuses its vote
// because it does not.
func (p *model) checkKnown(err *error, w explore.World[*machine, past], a *machine) {
	c := a.raft.config()
	for _, voter := range w.Servers {
		id := voter.raft.options.ID
		knows := !c.IsVoter(id) || len(voter.raft.config().Voters) > 0
		p.check(err, knows, votersKnown, "%v goes by %s, and %v knows no voters", a.raft.options.ID, configWords(c), id)
	}
}

// checkOpen: at most one configuration in a log is not committed.
func (p *model) checkOpen(err *error, g past, a *machine) {
	open := 0
	for _, e := range a.raft.log.entries[1:] {
		if e.Config != nil && (int(e.Index) > len(g.committed) || !sameEntry(g.committed[e.Index-1].entry, e)) {
			open++
		}
	}
	p.check(err, open <= 1, configStep, "the log of %v has %d configurations that are not committed", a.raft.options.ID, open)
}

// countChanges moves the counters that no reason moves.
func (do *doing) countChanges() {
	was, is := do.before.raft, do.now.raft
	if is.config().Index < was.config().Index {
		do.happened(&do.e, "rolled back")
	}
	if is.role == Leader && !is.config().IsVoter(is.options.ID) {
		do.happened(&do.e, "outside")
	}
}

func (p *model) tellChange(id ID, in explore.Input) string {
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

func (w *scriptWriter) stageBegin() {
	if w.bounds.stage.voters > 0 {
		w.line("- first %s", names(w.members()))
	}
	if w.bounds.stage.under != notBegun {
		w.line("# Here a change is to be under way.")
	}
}

func (w *scriptWriter) members() (ids []ID) {
	for id := range w.bounds.stage.voters {
		ids = append(ids, ID(id+1))
	}
	return ids
}

func names(ids []ID) string { return strings.Trim(fmt.Sprint(ids), "[]") }

func (w *scriptWriter) timeout() string {
	if w.bounds.stage.asks {
		return "ask"
	}
	return "timeoutnow"
}

func (w *scriptWriter) changeStep(id ID, in explore.Input) {
	switch in.Kind {
	case inputChange:
		w.line("> change %v %s", id, names(unmask(int(in.Arg))))
	case inputTransfer:
		w.line("> transfer %v %v", id, ID(in.Arg))
	case inputGiveUp:
		w.line("> silence %v %v", id, ID(in.Arg))
		w.line("> tick %v 3", id)
	case inputAlone:
		w.line("> silence %v", id)
		w.line("> tick %v 3", id)
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
