package rules

import (
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/explore"
)

// The explorer visits every state of a small cluster: all orders in which
// messages arrive, get lost and arrive again, servers time out, crash and
// restart, within bounds. What it must find, or rule out, takes some bounds at
// least: two leaders in a term show with two terms, Figure 8 needs four, a vote
// that is counted twice needs five servers.
//
//	go test ./raft -run Explore -v -explore.long        the stage's ladder of bounds, with its long rungs
//	go test ./raft -run Explore -v -explore.terms=4 …   one search at bounds of your own

// Bounds are those of one search; B are a stage's own.
type Bounds[B comparable] struct {
	explore.Bounds

	// Terms and Log are the highest term and the greatest length of a log.
	Terms, Log uint64

	// Single puts one entry into a message at most, instead of all.
	Single bool

	// Grouped, if not 0, is how many inputs may gather before one output, which is
	// an input of its own.
	Grouped int

	// Torn lets the power fail in the middle of a save, when early messages are
	// out and some records are on the disk.
	Torn bool

	// Only, if not empty, are the invariants that are checked; panics count
	// always.
	Only []string

	// Stage are this stage's own.
	Stage B

	// Goal, if not empty, is a counter: the search ends where it first moves, and
	// tells the shortest way there.
	Goal string
}

func (b Bounds[B]) String() string {
	var none B
	s := fmt.Sprintf("%d servers, %d terms, log %d, %d in flight", b.Servers, b.Terms, b.Log, b.InFlight)
	for _, x := range []struct {
		n    int
		what string
	}{{b.Restarts, "restarts"}, {b.Duplicates, "duplicates"}, {b.Reads, "reads"}, {b.Grouped, "inputs in a group"}} {
		if x.n > 0 {
			s += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	for _, x := range []struct {
		is   bool
		what string
	}{{b.Single, "single entries"}, {b.Torn, "torn saves"}, {b.Stage != none, fmt.Sprint(b.Stage)}} {
		if x.is {
			s += ", " + x.what
		}
	}
	return s
}

// Rung is a search of the ladder.
type Rung[B comparable] struct {
	Bounds[B]

	// Must are the counters that must have moved.
	Must []string

	// Long keeps the search out of a run without -explore.long.
	Long bool
}

// Explorer is what a stage says of itself to be explored: X is what the search
// must remember of a server for this stage. A nil function does nothing; those
// marked "must" may not be nil.
type Explorer[R Explorable[R, E, M], E Entry[E], M Message[E], X any, B comparable] struct {
	// Ladder are the searches of every test run, Goals events to which the
	// explorer writes scripts, and Folds more bounds at which folding the names is
	// tested.
	Ladder []Rung[B]
	Goals  []Bounds[B]
	Folds  []Bounds[B]

	// Names is the type of servers' names, Bodies are all kinds of messages.
	Names  reflect.Type
	Bodies []any

	// Leave are fields that are not part of the state: clocks, and what never
	// changes. Unchanging are those that a clone may share.
	Leave, Unchanging []string

	// Counters say which decision moves which counter.
	Counters []Counter

	// Boot starts a server with what is on its disk (must). It sets Stage.
	Boot func(p *Model[R, E, M, X, B], id ID, d Disk[E], life uint64) *Machine[R, X, E]

	// CloneStage makes now.Stage a copy.
	CloneStage func(now *Machine[R, X, E])

	// Inputs are the stage's own inputs, their kinds from StageKinds on; Input
	// carries one out, Tell describes it, and Step writes it to a script (must).
	Inputs func(p *Model[R, E, M, X, B], in []explore.Input, w explore.World[*Machine[R, X, E], Past[E]], id int) []explore.Input
	Input  func(do *Doing[R, E, M, X, B], in explore.Input)
	Tell   func(id ID, in explore.Input) string
	Step   func(w *ScriptWriter[R, E, M, X, B], id ID, in explore.Input)

	// Arrive prepares a server for a message: arg is 1 in the variant that
	// MayDoubt asks for, in which the server has not heard from its leader for
	// long.
	Arrive   func(r R, arg uint16)
	MayDoubt func(m *Machine[R, X, E], arrived M) bool

	// Fill completes a message that leaves; Output carries out what only this
	// stage has in an output; Done ends the input.
	Fill   func(do *Doing[R, E, M, X, B], m *M)
	Output func(do *Doing[R, E, M, X, B], out Output[E, M])
	Done   func(do *Doing[R, E, M, X, B])

	// CheckChange compares a server with what it was, CheckMessage looks at a
	// message that leaves, CheckServer at a server among the others, CheckWorld at
	// all of them.
	CheckChange  func(p *Model[R, E, M, X, B], err *error, was, is *Machine[R, X, E])
	CheckMessage func(do *Doing[R, E, M, X, B], m M)
	CheckServer  func(p *Model[R, E, M, X, B], err *error, w explore.World[*Machine[R, X, E], Past[E]], a *Machine[R, X, E])
	CheckWorld   func(p *Model[R, E, M, X, B], err *error, w explore.World[*Machine[R, X, E], Past[E]])

	// Decides reports whether the servers for which has is true can decide;
	// without it, a majority of all can.
	Decides func(p *Model[R, E, M, X, B], g Past[E], has func(ID) bool) bool

	// Voters is how many servers are members at first, if it is not all; Given is
	// what a server has on its disk then, and Committed what is committed. Named
	// reports whether names must not be folded.
	Voters    func(b Bounds[B]) int
	Given     func(p *Model[R, E, M, X, B], id ID) Disk[E]
	Committed func(p *Model[R, E, M, X, B]) []E
	Named     func(b B) bool

	// Begin and Restart write what a script needs at its beginning, and before a
	// server starts again.
	Begin   func(w *ScriptWriter[R, E, M, X, B])
	Restart func(w *ScriptWriter[R, E, M, X, B], id ID, life uint64)

	// Walk completes the bounds of a random walk.
	Walk func(b *Bounds[B], seed uint64)

	// Chosen are the bounds that the flags give; see Flags.
	Chosen Rung[B]
}

// Explorable is a stage's *Raft that can be explored.
type Explorable[R, E, M any] interface {
	Raft[E, M]
	Clone() R

	// Heartbeat lets the time for a heartbeat come.
	Heartbeat()

	// TakeReasons takes the reasons that no output has taken yet.
	TakeReasons() []Reason

	// MayPropose reports whether a leader takes proposals now.
	MayPropose() bool
}

// Counter is moved by decisions of this code, and by what the model calls so.
type Counter struct{ Code, Name string }

// Flags registers the flags of a search. A stage calls it once, in init.
func (x *Explorer[R, E, M, X, B]) Flags() {
	b := &x.Chosen.Bounds
	b.Servers, b.InFlight = 3, 1
	explore.Flags(&b.Bounds)
	flag.IntVar(&b.Grouped, "explore.grouped", 0, "explore: how many inputs may gather before one save; 0 saves after each")
	flag.Uint64Var(&b.Terms, "explore.terms", 3, "explore: the highest term")
	flag.Uint64Var(&b.Log, "explore.log", 2, "explore: the greatest length of a log")
	flag.BoolVar(&b.Single, "explore.single", false, "explore: one entry in a message at most")
	flag.BoolVar(&b.Torn, "explore.torn", false, "explore: the power fails in the middle of a save")
	flag.StringVar(&b.Goal, "explore.goal", "", "explore: tell the shortest way to this counter")
	flag.Func("explore.only", "explore: check these invariants only, as in 'Log Matching,Election Safety'", func(s string) error {
		b.Only = strings.Split(s, ",")
		return nil
	})
}

// Machine is a server with its disk, as the search sees it.
type Machine[R, X any, E Entry[E]] struct {
	Raft R
	Disk Disk[E]

	// life counts restarts.
	life uint64

	// gathered counts the inputs since the last output, if they gather.
	gathered int

	// reads are those that wait.
	reads []waitingRead

	// Stage is what the stage's part of the search remembers.
	Stage X
}

type waitingRead struct{ id, least uint64 }

// Gathers reports whether inputs wait for an output.
func (m *Machine[R, X, E]) Gathers() bool { return m.gathered > 0 }

func (p *Model[R, E, M, X, B]) clone(m *Machine[R, X, E]) *Machine[R, X, E] {
	c := *m
	c.Raft = m.Raft.Clone()
	c.Disk.Log, c.reads = slices.Clone(c.Disk.Log), slices.Clone(c.reads)
	if p.CloneStage != nil {
		p.CloneStage(&c)
	}
	return &c
}

// Past is what was true once and must stay true.
type Past[E any] struct {
	// leaders is who ever led a term; the first term is at place 1.
	leaders [10]ID

	// Committed are the entries that some server ever took for committed, and the
	// term in which the first did.
	Committed []Committed[E]
}

// Model is the cluster as explore.Protocol.
type Model[R Explorable[R, E, M], E Entry[E], M Message[E], X any, B comparable] struct {
	*Explorer[R, E, M, X, B]
	Bounds[B]

	// Members are the first.
	Members []ID

	encoder *explore.Encoder

	// names are the counters, places says which of them a decision moves.
	names  []string
	places map[string]int
}

// newModel prepares a search.
func (x *Explorer[R, E, M, X, B]) newModel(b Bounds[B]) (*Model[R, E, M, X, B], error) {
	if highest := len(Past[E]{}.leaders) - 1; int(b.Terms) > highest {
		return nil, fmt.Errorf("the highest term may be %d", highest)
	}
	b.Named = b.Named || x.Named != nil && x.Named(b.Stage)
	e, err := explore.NewEncoder(explore.Encoding{
		Names: []reflect.Type{reflect.TypeFor[ID](), x.Names},
		// Clocks and what never changes; reasons explain and do not act.
		Leave: append([]string{
			"Raft.elapsed", "Options.Config", "Options.State", "Options.Log", "Options.HeartbeatTicks",
			"Options.MaxBatch", "Options.Explain", "Output.Reasons", "Machine.life", "Disk.whole",
		}, x.Leave...),
		// The network has no order.
		Unordered: []string{"Output.Early", "Output.Messages"},
	}, append([]any{&Machine[R, X, E]{}, *new(M), Past[E]{}}, x.Bodies...)...)
	if err != nil {
		return nil, err
	}
	m := &Model[R, E, M, X, B]{Explorer: x, Bounds: b, encoder: e, places: map[string]int{}}
	for _, c := range x.Counters {
		if !slices.Contains(m.names, c.Name) {
			m.names = append(m.names, c.Name)
		}
		m.places[c.Code] = slices.Index(m.names, c.Name)
	}
	voters := b.Servers
	if x.Voters != nil {
		voters = x.Voters(b)
	}
	for i := range voters {
		m.Members = append(m.Members, ID(i+1))
	}
	return m, nil
}

func (p *Model[R, E, M, X, B]) Encoder() *explore.Encoder { return p.encoder }
func (p *Model[R, E, M, X, B]) To(m M) int                { return int(m.Head().To) }
func (p *Model[R, E, M, X, B]) Counters() []string        { return p.names }

func (p *Model[R, E, M, X, B]) History() (g Past[E]) {
	if p.Committed != nil {
		for _, e := range p.Committed(p) {
			g.Committed = append(g.Committed, Committed[E]{e, e.Place().Term})
		}
	}
	return g
}

func (p *Model[R, E, M, X, B]) Start(id int) *Machine[R, X, E] {
	var d Disk[E]
	if p.Given != nil {
		d = p.Given(p, ID(id))
	}
	return p.boot(ID(id), d, 0)
}

func (p *Model[R, E, M, X, B]) boot(id ID, d Disk[E], life uint64) *Machine[R, X, E] {
	m := p.Boot(p, id, d, life)
	m.Disk, m.life = d, life
	return m
}

// MaxBatch is the size limit of an AppendEntries.
func (p *Model[R, E, M, X, B]) MaxBatch() int {
	if p.Single {
		return -1
	}
	return 1000
}

// happened moves the counter of a decision.
func (p *Model[R, E, M, X, B]) happened(e *explore.Effect[*Machine[R, X, E], M], code string) {
	i, counted := p.places[code]
	if !counted {
		return
	}
	e.Counts |= 1 << i
	if p.Goal != "" && p.names[i] == p.Goal {
		p.broken(&e.Err, p.Goal, "the goal is reached")
	}
}

// The inputs that all stages know.
const (
	inputRestart explore.Kind = iota + 1
	inputHeartbeat
	inputPropose
	inputFlush

	// StageKinds is the first kind of a stage.
	StageKinds
)

func (p *Model[R, E, M, X, B]) Inputs(in []explore.Input, w explore.World[*Machine[R, X, E], Past[E]], id int) []explore.Input {
	s := w.Servers[id-1]
	v := s.Raft.View()
	if p.Restarts > 0 {
		in = append(in, explore.Input{Kind: inputRestart})
	}
	if s.gathered > 0 {
		in = append(in, explore.Input{Kind: inputFlush})
	}
	if v.Leads {
		in = append(in, explore.Input{Kind: inputHeartbeat})
		if v.Last.Index < p.Log && s.Raft.MayPropose() {
			in = append(in, explore.Input{Kind: inputPropose})
		}
	}
	return p.Explorer.Inputs(p, in, w, id)
}

// doubts is the variant in which a server has not heard from its leader for long:
// whether it has, decides about requests for votes. A variant from torn on is a
// power cut.
const (
	doubts = iota + 1
	torn
)

func (p *Model[R, E, M, X, B]) Do(s *Machine[R, X, E], in explore.Input, m M) []explore.Effect[*Machine[R, X, E], M] {
	all := p.carryOut(s, p.clone(s), in, m)
	if in.Kind == explore.Arrival && in.Arg == 0 && p.MayDoubt != nil && p.MayDoubt(s, m) {
		later := p.carryOut(s, p.clone(s), explore.Input{Arg: 1}, m)
		later[0].Note, later[0].Variant = "it has not heard from its leader for long", doubts
		all = append(all, later...)
	}
	return all
}

// carryOut gives an input to a server, of which before is a copy.
func (p *Model[R, E, M, X, B]) carryOut(before, now *Machine[R, X, E], in explore.Input, m M) []explore.Effect[*Machine[R, X, E], M] {
	do := &Doing[R, E, M, X, B]{Model: p, Before: before, Now: now}
	switch in.Kind {
	case explore.Arrival:
		if p.Arrive != nil {
			p.Arrive(now.Raft, in.Arg)
		}
		now.Raft.Step(m)
	case inputRestart:
		do.e.Spends = explore.Restart
		do.StartAgain("restart")
	case inputHeartbeat:
		now.Raft.Heartbeat()
	case inputPropose:
		err := now.Raft.ProposeCommand([]byte("x"))
		do.Ensure(err == nil, "Propose", "%v", err)
	case inputFlush:
		do.flush()
	default:
		p.Input(do, in)
	}
	if p.Grouped == 0 && !do.restarted {
		do.flush()
	} else if in.Kind != inputFlush && !do.restarted {
		do.Now.gathered++
	}
	return do.done()
}

// Doing is an input that is being carried out.
type Doing[R Explorable[R, E, M], E Entry[E], M Message[E], X any, B comparable] struct {
	*Model[R, E, M, X, B]
	Before, Now *Machine[R, X, E]

	// Reasons are the decisions so far.
	Reasons []Reason

	// restarted is true if the server has lost what it had not saved.
	restarted bool

	// e is the effect if the power does not fail, cuts are those if it does.
	e    explore.Effect[*Machine[R, X, E], M]
	cuts []explore.Effect[*Machine[R, X, E], M]
}

// StartAgain starts the server again with what is on its disk.
func (do *Doing[R, E, M, X, B]) StartAgain(code string) {
	do.Happened(code)
	do.restarted = true
	do.Now = do.boot(do.Now.Raft.View().ID, do.Now.Disk, do.Now.life+1)
}

// Happened moves the counter of a decision.
func (do *Doing[R, E, M, X, B]) Happened(code string) { do.happened(&do.e, code) }

// Ensure notes the first invariant that does not hold.
func (do *Doing[R, E, M, X, B]) Ensure(holds bool, name, format string, args ...any) {
	do.Model.Ensure(&do.e.Err, holds, name, format, args...)
}

// SpendsRead counts the input as a read.
func (do *Doing[R, E, M, X, B]) SpendsRead() { do.e.Spends = explore.Read }

// ReadBegins notes a read, before which so many entries were committed.
func (do *Doing[R, E, M, X, B]) ReadBegins(id, committed uint64) {
	do.Now.reads = append(do.Now.reads, waitingRead{id, committed})
}

// ReadsAnswered: a read sees all that was committed when it began.
func (do *Doing[R, E, M, X, B]) ReadsAnswered(upTo, index uint64) {
	do.Now.reads = slices.DeleteFunc(do.Now.reads, func(q waitingRead) bool {
		if q.id > upTo {
			return false
		}
		do.Happened("answer")
		do.Ensure(index >= q.least, LinearizableRead, "%v answers a read at %d, and when it began %d was committed", do.Now.Raft.View().ID, index, q.least)
		return true
	})
}

// flush carries outputs out as the driver does, until nothing comes.
func (do *Doing[R, E, M, X, B]) flush() {
	do.Now.gathered = 0
	for range 100 {
		out, is := do.Now.Raft.NextOutput()
		if !is {
			do.checkSaved()
			return
		}
		do.Reasons = append(do.Reasons, out.Reasons...)
		do.send(out.Early)
		if do.Torn {
			do.Cut(out)
		}
		Save(&do.Now.Disk, do.Now.Raft, out, -1)
		do.send(out.Messages)
		if do.Output != nil {
			do.Output(do, out)
		}
	}
	do.Ensure(false, OwnCheck, "Take does not come to an end")
}

// Cut adds what remains if the power fails in the save of an output. If nothing
// is out and nothing is saved, it is a crash before the input; if everything is
// saved, one after it.
func (do *Doing[R, E, M, X, B]) Cut(out Output[E, M]) {
	records := len(out.Append)
	if out.State != nil {
		records++
	}
	if out.Truncate != 0 {
		records++
	}
	if out.Rewrite {
		records = 1 // and a snapshot is there already
	}
	for n := range records {
		if n == 0 && len(do.e.Messages) == 0 && !out.Rewrite {
			continue
		}
		d := do.Now.Disk
		d.Log = slices.Clone(d.Log)
		Save(&d, do.Now.Raft, out, n)
		e := explore.Effect[*Machine[R, X, E], M]{
			Server:   do.boot(do.Now.Raft.View().ID, d, do.Now.life+1),
			Messages: slices.Clone(do.e.Messages), Spends: explore.Restart, Err: do.e.Err,
			Why: do.why(), Variant: torn + n,
			Note: fmt.Sprintf("the power fails when %d of %d records are on its disk, and it starts again", n, records),
		}
		do.happened(&e, "power cut")
		do.cuts = append(do.cuts, e)
	}
}

func (do *Doing[R, E, M, X, B]) send(messages []M) {
	for _, m := range messages {
		if do.Fill != nil {
			do.Fill(do, &m)
		}
		do.checkMessage(m)
		do.e.Messages = append(do.e.Messages, m)
	}
}

// done finishes the effects and judges them.
func (do *Doing[R, E, M, X, B]) done() []explore.Effect[*Machine[R, X, E], M] {
	do.Reasons = append(do.Reasons, do.Now.Raft.TakeReasons()...)
	for _, why := range do.Reasons {
		do.Happened(why.Code)
	}
	if do.Done != nil {
		do.Done(do)
	}
	do.e.Why = do.why()
	all := append([]explore.Effect[*Machine[R, X, E], M]{do.e}, do.cuts...)
	all[0].Server = do.Now
	for i := range all {
		e := &all[i]
		v, restarted := e.Server.Raft.View(), do.restarted || i > 0
		if v.Rewrites && restarted {
			do.happened(e, "ahead")
		}
		e.Beyond = v.Last.Index > do.Log || v.State.CurrentTerm > do.Terms || e.Server.gathered > do.Grouped
		do.checkChange(&e.Err, do.Before, e.Server, restarted)
	}
	return all
}

// why returns the reasons so far, for people.
func (do *Doing[R, E, M, X, B]) why() func() []string {
	reasons := slices.Clip(do.Reasons)
	return func() (words []string) {
		for _, why := range reasons {
			words = append(words, why.String())
		}
		return words
	}
}

func (p *Model[R, E, M, X, B]) Tell(id int, in explore.Input, m M) string {
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
	return p.Explorer.Tell(ID(id), in)
}

func (p *Model[R, E, M, X, B]) TellMessage(m M) string { return Describe[E](m) }
