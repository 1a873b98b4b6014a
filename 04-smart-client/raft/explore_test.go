package raft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/explore"
)

// The explorer visits every state of a small cluster: all orders in which
// messages arrive, get lost and arrive again, servers time out, crash and
// restart, within bounds. What it must find, or rule out, takes some bounds at
// least: two leaders in a term show with two terms, Figure 8 needs four, a vote
// that is counted twice needs five servers.
//
//	go test ./raft -run Explore -v -explore.long        the ladder of bounds below, with its long rungs
//	go test ./raft -run Explore -v -explore.terms=4 …   one search at bounds of your own

// bounds are those of one search.
type bounds struct {
	explore.Bounds

	// terms and log are the highest term and the greatest length of a log.
	terms Term
	log   Index

	// single puts one entry into a message at most, instead of all.
	single bool

	// grouped, if not 0, is how many inputs may gather before one Take, which is
	// an input of its own.
	grouped int

	// torn lets the power fail in the middle of a save, when early messages are
	// out and some records are on the disk.
	torn bool

	// only, if not empty, are the invariants that are checked; panics count
	// always.
	only []string

	// stage are this stage's own.
	stage stageBounds

	// goal, if not empty, is a counter: the search ends where it first moves, and
	// tells the shortest way there.
	goal string
}

func (b bounds) String() string {
	s := fmt.Sprintf("%d servers, %d terms, log %d, %d in flight", b.Servers, b.terms, b.log, b.InFlight)
	for _, x := range []struct {
		n    int
		what string
	}{{b.Restarts, "restarts"}, {b.Duplicates, "duplicates"}, {b.Reads, "reads"}, {b.grouped, "inputs in a group"}} {
		if x.n > 0 {
			s += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	for _, x := range []struct {
		is   bool
		what string
	}{{b.single, "single entries"}, {b.torn, "torn saves"}, {b.stage != stageBounds{}, fmt.Sprint(b.stage)}} {
		if x.is {
			s += ", " + x.what
		}
	}
	return s
}

// rung is a search of the ladder.
type rung struct {
	bounds

	// must are the counters that must have moved.
	must []string

	// long keeps the search out of a run without -explore.long.
	long bool
}

// chosen are the bounds that the flags give.
var chosen = rung{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 3, log: 2}}

func init() {
	explore.Flags(&chosen.Bounds)
	flag.IntVar(&chosen.grouped, "explore.grouped", 0, "explore: how many inputs may gather before one save; 0 saves after each")
	flag.Uint64Var((*uint64)(&chosen.terms), "explore.terms", 3, "explore: the highest term")
	flag.Uint64Var((*uint64)(&chosen.log), "explore.log", 2, "explore: the greatest length of a log")
	flag.BoolVar(&chosen.single, "explore.single", false, "explore: one entry in a message at most")
	flag.BoolVar(&chosen.torn, "explore.torn", false, "explore: the power fails in the middle of a save")
	flag.StringVar(&chosen.goal, "explore.goal", "", "explore: tell the shortest way to this counter")
	flag.Func("explore.only", "explore: check these invariants only, as in 'Log Matching,Election Safety'", func(s string) error {
		chosen.only = strings.Split(s, ",")
		return nil
	})
}

func TestExplore(t *testing.T) {
	rungs := ladder
	if explore.Given() {
		chosen.Progress = explore.Progress
		rungs = []rung{chosen}
	}
	for _, r := range rungs {
		t.Run(r.String(), func(t *testing.T) {
			if why := explore.Skip(r.long); why != "" {
				t.Skip(why)
			}
			result, err := explore.Search(newModel(t, r.bounds), r.Bounds)
			require.NoError(t, err)
			t.Log(result)
			if v := result.Violation; v != nil {
				t.Logf("as a script:\n%s", scriptOf(r.bounds, v))
			}
			require.NoError(t, result.Err(r.must...))
		})
	}
}

// machine is a server with its disk, as the search sees it.
type machine struct {
	raft *Raft
	disk disk

	// life counts restarts.
	life uint64

	// gathered counts the inputs since the last Take, if they gather.
	gathered int

	// stage is what this stage's part of the search remembers.
	stage machineStage
}

func (m *machine) clone() *machine {
	c := *m
	r := *m.raft
	c.raft = &r
	r.log.entries = slices.Clone(r.log.entries)
	if r.progress != nil {
		r.progress = make(map[ID]*progress)
		for id, p := range m.raft.progress {
			q := *p
			r.progress[id] = &q
		}
	}
	if s := r.out.State; s != nil {
		state := *s
		r.out.State = &state
	}
	r.out.Early, r.out.Append = slices.Clone(r.out.Early), slices.Clone(r.out.Append)
	r.out.Messages, r.out.Committed = slices.Clone(r.out.Messages), slices.Clone(r.out.Committed)
	r.out.Reasons = nil
	c.disk.log = slices.Clone(c.disk.log)
	c.cloneStage(m)
	return &c
}

// unchanging are the fields whose contents nobody changes, so that a clone may
// share them.
var unchanging = []string{"Raft.options", "Entry.Command", "Message.Body"}

// past is what was true once and must stay true.
type past struct {
	// leaders is who ever led a term; the first term is at place 1.
	leaders [10]ID

	// committed are the entries that some server ever took for committed, and the
	// term in which the first did.
	committed []committed
}

// model is the cluster as explore.Protocol.
type model struct {
	bounds
	encoder *explore.Encoder
	members []ID

	// names are the counters, places says which of them a decision moves.
	names  []string
	places map[string]int
}

type effects = []explore.Effect[*machine, Message]

func newModel(t testing.TB, b bounds) *model {
	require.Less(t, int(b.terms), len(past{}.leaders), "the highest term")
	e, err := explore.NewEncoder(explore.Encoding{
		Names: reflect.TypeFor[ID](),
		// Clocks and what never changes; reasons explain and do not act.
		Leave: append([]string{
			"Raft.elapsed", "Options.Config", "Options.State", "Options.Log", "Options.HeartbeatTicks",
			"Options.MaxBatch", "Options.Explain", "Output.Reasons", "machine.life",
		}, exploreLeaves...),
		// The network has no order.
		Unordered: []string{"Output.Early", "Output.Messages"},
	}, append([]any{&machine{}, Message{}, AppendEntries{}, AppendEntriesReply{}, past{}}, exploreBodies...)...)
	require.NoError(t, err)
	m := &model{bounds: b, encoder: e, places: map[string]int{}}
	for _, c := range counters {
		if !slices.Contains(m.names, c.name) {
			m.names = append(m.names, c.name)
		}
		m.places[c.code] = slices.Index(m.names, c.name)
	}
	for i := range b.Servers {
		m.members = append(m.members, ID(i+1))
	}
	return m
}

func (p *model) Encoder() *explore.Encoder { return p.encoder }
func (p *model) History() past             { return past{} }
func (p *model) To(m Message) int          { return int(m.To) }
func (p *model) Start(id int) *machine     { return p.boot(ID(id), disk{}, 0) }

func (p *model) Counters() []string { return p.names }

// counters say which decision moves which counter.
var counters = append([]counter{
	{Committed.Code, "commits"}, {LearnedCommit.Code, "commits learned"}, {Truncated.Code, "truncations"},
	{Refused.Code, "refused probes"}, {FellBack.Code, "fallbacks"}, {OlderTerm.Code, "stale messages"},
	{SteppedDown.Code, "steps down"}, {"restart", "restarts"}, {"power cut", "power cuts in a save"},
}, exploreStageCounters...)

type counter struct{ code, name string }

// happened moves the counter of a decision.
func (p *model) happened(e *explore.Effect[*machine, Message], code string) {
	i, counted := p.places[code]
	if !counted {
		return
	}
	e.Counts |= 1 << i
	if p.goal != "" && p.names[i] == p.goal {
		p.broken(&e.Err, p.goal, "the goal is reached")
	}
}

// boot starts a server with what is on its disk.
func (p *model) boot(id ID, d disk, life uint64) *machine {
	o := Options{ID: id, Config: Config{Voters: p.members}, State: d.state, Log: d.log, HeartbeatTicks: 3, MaxBatch: 1000, Explain: true}
	if p.single {
		o.MaxBatch = -1
	}
	return &machine{raft: New(p.stageOptions(o, life)), disk: d, life: life}
}

// The inputs that all stages know.
const (
	inputRestart explore.Kind = iota + 1
	inputHeartbeat
	inputPropose
	inputFlush

	stageKinds
)

func (p *model) Inputs(in []explore.Input, w explore.World[*machine, past], id int) []explore.Input {
	r := w.Servers[id-1].raft
	if p.Restarts > 0 {
		in = append(in, explore.Input{Kind: inputRestart})
	}
	if s := w.Servers[id-1]; s.gathered > 0 {
		in = append(in, explore.Input{Kind: inputFlush})
	}
	if r.role == Leader {
		in = append(in, explore.Input{Kind: inputHeartbeat})
		if r.log.lastIndex() < p.log {
			in = append(in, explore.Input{Kind: inputPropose})
		}
	}
	return p.stageInputs(in, w, id)
}

func (p *model) Do(s *machine, in explore.Input, m Message) effects {
	return p.carryOut(s, s.clone(), in, m)
}

// carryOut gives an input to a server, of which before is a copy.
func (p *model) carryOut(before, now *machine, in explore.Input, m Message) effects {
	do := &doing{model: p, before: before, now: now}
	r := now.raft
	switch in.Kind {
	case explore.Arrival:
		r.Step(m)
	case inputRestart:
		do.e.Spends, do.restarted = explore.Restart, true
		p.happened(&do.e, "restart")
		do.now = p.boot(r.options.ID, now.disk, now.life+1)
	case inputHeartbeat:
		r.elapsed = r.options.HeartbeatTicks - 1
		r.Tick()
	case inputPropose:
		_, _, err := r.Propose([]byte("x"))
		p.check(&do.e.Err, err == nil, "Propose", "%v", err)
	case inputFlush:
		do.flush()
	default:
		p.stageInput(do, in)
	}
	if p.grouped == 0 && !do.restarted {
		do.flush()
	} else if in.Kind != inputFlush && !do.restarted {
		do.now.gathered++
	}
	return do.done()
}

// doing is an input that is being carried out.
type doing struct {
	*model
	before, now *machine

	// restarted is true if the server has lost what it had not saved.
	restarted bool

	// e is the effect if the power does not fail, cuts are those if it does.
	e    explore.Effect[*machine, Message]
	cuts effects

	reasons []Reason
}

// flush carries outputs out as the driver does, until nothing comes.
func (do *doing) flush() {
	do.now.gathered = 0
	for range 100 {
		out := do.now.raft.Take()
		if out.Empty() {
			do.checkSaved()
			return
		}
		do.reasons = append(do.reasons, out.Reasons...)
		do.send(out.Early)
		if do.torn {
			do.cut(out)
		}
		do.now.disk.save(out, -1)
		do.send(out.Messages)
		do.stageOutput(out)
	}
	do.broken(&do.e.Err, ownCheck, "Take does not come to an end")
}

// cut adds what remains if the power fails in the save of an output. If nothing
// is out and nothing is saved, it is a crash before the input; if everything is
// saved, one after it.
func (do *doing) cut(out Output) {
	records := len(out.Append)
	if out.State != nil {
		records++
	}
	if out.Truncate != 0 {
		records++
	}
	for n := range records {
		if n == 0 && len(do.e.Messages) == 0 {
			continue
		}
		d := do.now.disk
		d.log = slices.Clone(d.log)
		d.save(out, n)
		e := explore.Effect[*machine, Message]{
			Server:   do.boot(do.now.raft.options.ID, d, do.now.life+1),
			Messages: slices.Clone(do.e.Messages), Spends: explore.Restart, Err: do.e.Err,
			Why:  do.why(),
			Note: fmt.Sprintf("the power fails when %d of %d records are on its disk, and it starts again", n, records),
		}
		do.happened(&e, "power cut")
		do.cuts = append(do.cuts, e)
	}
}

func (do *doing) send(messages []Message) {
	for _, m := range messages {
		do.checkMessage(m)
		do.e.Messages = append(do.e.Messages, m)
	}
}

// done finishes the effects and judges them.
func (do *doing) done() effects {
	r := do.now.raft
	do.reasons = append(do.reasons, r.out.Reasons...)
	r.out.Reasons = nil
	for _, why := range do.reasons {
		do.happened(&do.e, why.Rule.Code)
	}
	do.e.Why = do.why()
	all := append(effects{do.e}, do.cuts...)
	all[0].Server = do.now
	for i := range all {
		e := &all[i]
		e.Beyond = e.Server.raft.log.lastIndex() > do.log || e.Server.raft.currentTerm > do.terms || e.Server.gathered > do.grouped
		do.checkChange(&e.Err, do.before, e.Server, do.restarted || i > 0)
	}
	return all
}

// why returns the reasons so far, for people.
func (do *doing) why() func() []string {
	reasons := slices.Clip(do.reasons)
	return func() (words []string) {
		for _, why := range reasons {
			words = append(words, fmt.Sprintf("%v (%s)", why, why.Rule.Section))
		}
		return words
	}
}

// broken notes the first invariant that does not hold.
func (p *model) broken(err *error, name, format string, args ...any) {
	wanted := len(p.only) == 0 && p.goal == "" || slices.Contains(p.only, name) || p.goal == name
	if *err == nil && wanted {
		*err = fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
	}
}

func (p *model) check(err *error, holds bool, name, format string, args ...any) {
	if !holds {
		p.broken(err, name, format, args...)
	}
}

// checkChange compares a server with what it was.
func (p *model) checkChange(err *error, a, b *machine, restarted bool) {
	was, is := a.raft, b.raft
	id := is.options.ID
	p.check(err, a.disk.state.CurrentTerm <= b.disk.state.CurrentTerm, monotone, "the term on the disk of %v falls", id)
	p.check(err, is.lastApplied <= is.commitIndex && is.commitIndex <= is.log.lastIndex(), order,
		"%v has applied %d, committed %d, and its log ends at %d", id, is.lastApplied, is.commitIndex, is.log.lastIndex())
	for i, e := range is.log.entries[1:] {
		before := is.log.entries[i]
		p.check(err, e.Index == before.Index+1 && e.Term >= max(before.Term, 1) && e.Term <= is.currentTerm, logShape,
			"%v has %v behind %v in term %d", id, place(e), place(before), is.currentTerm)
	}
	p.checkStageChange(err, a, b)
	if restarted {
		return
	}
	p.check(err, was.currentTerm <= is.currentTerm && was.commitIndex <= is.commitIndex && was.lastApplied <= is.lastApplied, monotone,
		"the term, the commit or what is applied falls on %v", id)
	kept := is.log.lastIndex() >= was.commitIndex && sameLog(was.log.entries[:was.commitIndex+1], is.log.entries[:was.commitIndex+1])
	p.check(err, kept, stateMachineSafety, "%v removes or changes entries up to %d, which are committed", id, was.commitIndex)
	if is.role != Leader {
		return
	}
	if was.role == Leader && was.currentTerm == is.currentTerm {
		kept := len(is.log.entries) >= len(was.log.entries) && sameLog(was.log.entries, is.log.entries[:len(was.log.entries)])
		p.check(err, kept, leaderAppendOnly, "%v leads term %d and changes its log", id, is.currentTerm)
	}
	p.check(err, is.commitIndex == was.commitIndex || is.log.term(is.commitIndex) == is.currentTerm, commitRule,
		"%v leads term %d and commits an entry of term %d by counting", id, is.currentTerm, is.log.term(is.commitIndex))
}

// checkSaved: when outputs are carried out, the disk holds what the server
// believes.
func (do *doing) checkSaved() {
	r, d := do.now.raft, do.now.disk
	do.check(&do.e.Err, d.state == r.Status().State, allSaved, "%v believes in %+v, and its disk says %+v", r.options.ID, r.Status().State, d.state)
	do.check(&do.e.Err, sameLog(r.log.entries[1:], d.log), allSaved, "%v believes in a log that ends in %v, and its disk holds %v", r.options.ID, r.last(), d.last())
}

// checkMessage: what leaves speaks of no term that is not on disk, and promises
// no entry that is not. If the server has moved to a newer term in the same
// round, the promise of the older one is void.
func (do *doing) checkMessage(m Message) {
	d := do.now.disk
	do.check(&do.e.Err, m.Term <= d.state.CurrentTerm, savedFirst, "%v says %s, and its disk is in term %d", m.From, describe(m), d.state.CurrentTerm)
	if b, is := m.Body.(AppendEntriesReply); is && b.Success && m.Term == d.state.CurrentTerm {
		do.check(&do.e.Err, int(b.MatchIndex) <= len(d.log), savedFirst, "%v says %s, and its disk ends in %v", m.From, describe(m), d.last())
	}
	do.checkStageMessage(m)
}

// Observe notes who leads and what is committed. A leader whose term is not on
// its disk has told nobody of it.
func (p *model) Observe(g past, s *machine) (past, error) {
	var err error
	r := s.raft
	if r.role == Leader && s.disk.state.CurrentTerm == r.currentTerm {
		leader := &g.leaders[r.currentTerm]
		p.check(&err, *leader == 0 || *leader == r.options.ID, electionSafety, "%v and %v both lead term %d", *leader, r.options.ID, r.currentTerm)
		*leader = r.options.ID
	}
	known := len(g.committed)
	for i := range min(known, int(r.commitIndex)) {
		e, c := r.log.entries[i+1], g.committed[i]
		p.check(&err, sameEntry(e, c.entry), stateMachineSafety, "%v commits %s where %s was committed in term %d", r.options.ID, entryWords(e), entryWords(c.entry), c.in)
	}
	if known < int(r.commitIndex) {
		g.committed = slices.Clip(g.committed)
		for _, e := range r.log.entries[known+1 : r.commitIndex+1] {
			g.committed = append(g.committed, committed{e, r.currentTerm})
		}
	}
	return g, err
}

// Check looks at all servers at once.
func (p *model) Check(w explore.World[*machine, past]) error {
	var err error
	for i, a := range w.Servers {
		for _, b := range w.Servers[:i] {
			p.checkMatching(&err, a, b)
		}
		if a.raft.role == Leader {
			p.checkLeader(&err, w, a)
		}
		p.checkStageWorld(&err, w, a)
	}
	// Of any majority, one disk has each committed entry, and so has each log that
	// ends in a newer term than the one in which it was committed (§5.4.1).
	for _, c := range w.History.committed {
		lacks := func(id ID) bool { return !w.Servers[id-1].disk.holds(c.entry) }
		for _, s := range w.Servers {
			id := s.raft.options.ID
			p.check(&err, !lacks(id) || s.disk.last().Term <= c.in, upToDate, "the log of %v ends in %v and lacks %v, which was committed in term %d", id, s.disk.last(), place(c.entry), c.in)
		}
		p.check(&err, !quorum(p.config(w.History), lacks), quorumLog, "%v is committed, and a majority of the disks lack it", place(c.entry))
	}
	return err
}

// checkMatching: if two logs hold an entry of the same index and term, they are
// identical up to it.
func (p *model) checkMatching(err *error, a, b *machine) {
	x, y := a.raft.log.entries, b.raft.log.entries
	k := min(len(x), len(y))
	for k > 0 && x[k-1].Term != y[k-1].Term {
		k--
	}
	p.check(err, sameLog(x[:k], y[:k]), logMatching, "%v and %v both have an entry %d of one term, and differ up to it", a.raft.options.ID, b.raft.options.ID, k-1)
}

// checkLeader: a leader has what was committed in older terms, nobody has an
// entry of its term that it lacks, and what it believes of the others' disks is
// true while they are in its term.
func (p *model) checkLeader(err *error, w explore.World[*machine, past], a *machine) {
	r := a.raft
	for _, c := range w.History.committed {
		has := c.in >= r.currentTerm || c.entry.Index <= r.log.lastIndex() && sameEntry(r.log.entries[c.entry.Index], c.entry)
		p.check(err, has, leaderCompleteness, "%v leads term %d without %v, which was committed in term %d", r.options.ID, r.currentTerm, place(c.entry), c.in)
	}
	for _, f := range w.Servers {
		id := f.raft.options.ID
		if last := f.raft.last(); last.Term == r.currentTerm {
			p.check(err, last.Index <= r.log.lastIndex(), leaderHasLast, "%v has %v, and the log of its leader %v ends in %v", id, last, r.options.ID, r.last())
		}
		if !slices.Contains(r.config().Members(), id) {
			continue
		}
		match, next := r.Progress(id)
		p.check(err, match < next && next <= r.log.lastIndex()+1, progressTrue, "%v believes in match %d and next %d for %v, and its log ends at %d", r.options.ID, match, next, id, r.log.lastIndex())
		if f.disk.state.CurrentTerm == r.currentTerm {
			p.check(err, f.disk.agrees(r.log.entries[1:], match), progressTrue, "%v believes that %v has its entries up to %d, and the disk of %v ends in %v", r.options.ID, id, match, id, f.disk.last())
		}
	}
}

func (p *model) Tell(id int, in explore.Input, m Message) string {
	switch in.Kind {
	case explore.Arrival:
		return p.TellMessage(m)
	case inputRestart:
		return fmt.Sprintf("%v crashes and starts again", ID(id))
	case inputHeartbeat:
		return fmt.Sprintf("it is time for a heartbeat of %v", ID(id))
	case inputPropose:
		return fmt.Sprintf("a client proposes x to %v", ID(id))
	case inputFlush:
		return fmt.Sprintf("%v carries out what has gathered", ID(id))
	}
	return p.tellStage(ID(id), in)
}

func (p *model) TellMessage(m Message) string { return describe(m) }

// scriptOf writes a counterexample as a script for testdata/scripts. What it
// causes, -update adds.
func scriptOf(b bounds, v *explore.Violation[*machine, Message]) string {
	w := &scriptWriter{bounds: b}
	batch := 1000
	if b.single {
		batch = -1
	}
	w.line("# %v", v.Err)
	w.line("> cluster %d batch=%d", b.Servers, batch)
	if b.grouped > 0 {
		for i := range b.Servers {
			w.line("- hold %v", ID(i+1))
		}
	}
	for _, s := range v.Path {
		w.step(s)
	}
	w.line("> status")
	w.line("> log")
	if name, _, named := strings.Cut(v.Err.Error(), ":"); named && name != b.goal {
		w.line("> breaks %s", name)
	}
	return w.out.String()
}

type scriptWriter struct {
	bounds
	out strings.Builder

	// network are the messages in flight as the script's runner has them, the
	// oldest first; late are those it keeps back.
	network, late []Message
}

func (w *scriptWriter) line(format string, args ...any) { fmt.Fprintf(&w.out, format+"\n", args...) }

func (w *scriptWriter) step(s explore.Step[*machine, Message]) {
	id, records := ID(s.Server), 0
	cut, _ := fmt.Sscanf(s.Effect.Note, "the power fails when %d", &records)
	if cut > 0 {
		w.line("> powercut %v %d", id, records)
	}
	switch s.Input.Kind {
	case explore.Arrival:
		if s.Kept {
			w.choose("duplicate", s.Message)
			w.network = append(w.network, s.Message)
		}
		w.choose("deliver", s.Message)
	case inputRestart:
		w.restart(id, s.Effect.Server.life)
	case inputHeartbeat:
		w.line("> tick %v 3", id)
	case inputPropose:
		w.line("> propose %v x", id)
	case inputFlush:
		w.line("> release %v", id)
	default:
		w.stageStep(id, s.Input)
	}
	if cut > 0 {
		w.restart(id, s.Effect.Server.life)
	} else if s.Input.Kind == inputFlush {
		w.line("- hold %v", id)
	}
	w.network = append(w.network, s.Effect.Messages...)
	for _, m := range s.Lost {
		w.choose("drop", m)
	}
}

func (w *scriptWriter) restart(id ID, life uint64) {
	w.stageRestart(id, life)
	w.line("> restart %v", id)
	if w.grouped > 0 {
		w.line("- hold %v", id)
	}
}

// choose writes a command about one message. Where several fit the words, those
// before it are kept back.
func (w *scriptWriter) choose(command string, m Message) {
	words := fmt.Sprintf("%v->%v %s first", m.From, m.To, kindOf(m))
	fits := func(x Message) bool { return x.From == m.From && x.To == m.To && kindOf(x) == kindOf(m) }
	same := func(x Message) bool { return reflect.DeepEqual(x, m) }
	if i := slices.IndexFunc(w.late, same); i >= 0 && command == "deliver" {
		for j, x := range w.late {
			if fits(x) && j < i {
				w.line("# the next line means the message: %s", describe(m))
				break
			}
		}
		w.line("> late %s", words)
		w.late = slices.Delete(w.late, i, i+1)
		return
	}
	for {
		i := slices.IndexFunc(w.network, fits)
		if i < 0 {
			return // it is kept back, and stays there
		}
		if x := w.network[i]; !same(x) {
			w.line("- delay %s", words)
			w.network, w.late = slices.Delete(w.network, i, i+1), append(w.late, x)
			continue
		}
		w.line("> %s %s", command, words)
		if command != "duplicate" {
			w.network = slices.Delete(w.network, i, i+1)
		}
		return
	}
}

// TestExploreFoldsOnlyNames searches with and without folding the servers'
// names, and compares what the searches saw.
func TestExploreFoldsOnlyNames(t *testing.T) {
	if explore.Race {
		t.Skip("left out of runs with the race detector")
	}
	for i, b := range []bounds{
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 1},
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 1, log: 1},
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 1, log: 1, grouped: 1},
	} {
		if why := explore.Skip(i > 0); why != "" {
			t.Log(why)
			break
		}
		folded, named := &witness{model: newModel(t, b)}, &witness{model: newModel(t, b)}
		some, err := explore.Search(folded, b.Bounds)
		require.NoError(t, err)
		b.Named = true
		all, err := explore.Search(named, b.Bounds)
		require.NoError(t, err)
		require.Less(t, some.States, all.States)
		require.Equal(t, named.seen, folded.seen)
	}
}

// witness is the model, and notes what Check is shown, but for the names.
type witness struct {
	*model
	mu   sync.Mutex
	seen map[string]bool
}

func (p *witness) Check(w explore.World[*machine, past]) error {
	least := ""
	for _, names := range [][]uint64{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}} {
		name := func(id uint64) uint64 { return names[id-1] }
		var servers []string
		for _, s := range w.Servers {
			servers = append(servers, string(p.encoder.Append(nil, s, name)))
		}
		slices.Sort(servers)
		text := strings.Join(servers, "") + string(p.encoder.Append(nil, w.History, name))
		if least == "" || text < least {
			least = text
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	p.seen[least] = true
	return p.model.Check(w)
}

// TestExploreWritesScripts finds the shortest way to an event, writes it as a
// script and plays it: the same must happen there, for the same reasons.
func TestExploreWritesScripts(t *testing.T) {
	if explore.Race {
		t.Skip("TestExplore runs the same search with the race detector")
	}
	for _, b := range goals {
		result, err := explore.Search(newModel(t, b), b.Bounds)
		require.NoError(t, err)
		require.NotNil(t, result.Violation, "there is no way to %q within %v", b.goal, b)
		text := scriptOf(b, result.Violation)
		played := harness.Play(t, text)
		t.Logf("%s\n%s", result.Violation.Story, played)
		for _, step := range result.Violation.Path {
			for _, why := range step.Effect.Why() {
				_, rest, found := strings.Cut(played, why)
				require.True(t, found, "the script lacks, or has too early: %s\n%s", why, text)
				played = rest
			}
		}
	}
}

// TestExploreForgetsNothing walks at random and takes each step twice: as the
// search does, from a copy of the state, and on servers that are never copied.
// If the two come to differ, a field is missing in the copy or in the encoding,
// or two values share memory that one of them changes.
func TestExploreForgetsNothing(t *testing.T) {
	seeds := uint64(40)
	if explore.Race {
		seeds = 8
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 1))
		b := bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 6, Restarts: 200, Reads: 200}, terms: 9, log: 6, grouped: int(seed % 4), single: seed%3 == 1}
		walk(t, newModel(t, b), random)
	}
}

func walk(t *testing.T, p *model, random *rand.Rand) {
	w := explore.World[*machine, past]{}
	var live []*machine
	var flight []Message
	for i := range p.Servers {
		w.Servers = append(w.Servers, p.Start(i+1))
		live = append(live, p.Start(i+1))
	}
	for range 400 {
		i := random.IntN(p.Servers)
		var m Message
		in := explore.Input{}
		if len(flight) > 0 && random.IntN(3) > 0 {
			m = flight[random.IntN(len(flight))]
			i = int(m.To) - 1
		} else if all := p.Inputs(nil, w, i+1); len(all) > 0 {
			in = all[random.IntN(len(all))]
		} else {
			continue
		}
		before := p.encoder.Append(nil, w.Servers[i], nil)
		e := p.Do(w.Servers[i], in, m)[0]
		require.Equal(t, before, p.encoder.Append(nil, w.Servers[i], nil), "the step has changed the state it began in")
		require.Empty(t, explore.Shared(w.Servers[i].clone(), w.Servers[i], unchanging), "a clone shares memory with the original")
		require.NoError(t, e.Err)
		w.Servers[i] = e.Server
		inPlace := p.carryOut(live[i].clone(), live[i], in, m)
		live[i] = inPlace[0].Server
		require.Equal(t, p.encoder.Append(nil, e.Server, nil), p.encoder.Append(nil, live[i], nil), "the copy and the original part")
		require.Equal(t, len(e.Messages), len(inPlace[0].Messages))
		for j := range e.Messages {
			require.Equal(t, p.encoder.Append(nil, e.Messages[j], nil), p.encoder.Append(nil, inPlace[0].Messages[j], nil), "the messages of the copy and of the original part")
		}
		flight = append(flight, inPlace[0].Messages...)
		flight = flight[max(0, len(flight)-12):]
		if e.Beyond {
			return
		}
	}
}
