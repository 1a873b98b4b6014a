package explore

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The protocol of these tests elects a leader, once: a server asks the others
// for their votes, a server votes once, and the server that has the votes of a majority
// leads. It comes with mistakes to plant.

type id uint64

type server struct {
	Self id

	// Asked is true once it started an election.
	Asked bool

	// Vote is whom it voted for, Saved what it will remember of that.
	Vote, Saved id

	// Grants are those who voted for it, Count how often someone did.
	Grants []id
	Count  int

	Leads bool

	// Clock is no part of the state.
	Clock int
}

type message struct {
	From, To id
	Body     body
}

type body interface{ body() }

type ask struct{}
type grant struct{ Why string }

func (ask) body()   {}
func (grant) body() {}

// leaders are those who ever led.
type leaders struct{ Who []id }

// The mistakes.
const (
	forgetful = "votes for everyone"
	volatile  = "does not save its vote"
	counting  = "counts votes instead of voters"
	half      = "takes half of the servers for a majority"
	panicky   = "panics when asked for its vote"
	wrongWay  = "sends to a server that does not exist"
)

type election struct {
	n       int
	mistake string
	encoder *Encoder
}

func newElection(t testing.TB, n int, mistake string) *election {
	e, err := NewEncoder(Encoding{Names: []reflect.Type{reflect.TypeFor[id]()}, Leave: []string{"server.Clock"}}, &server{}, message{}, ask{}, grant{}, leaders{})
	require.NoError(t, err)
	return &election{n: n, mistake: mistake, encoder: e}
}

const (
	timeout Kind = iota + 1
	crash
)

func (p *election) Encoder() *Encoder  { return p.encoder }
func (p *election) Counters() []string { return []string{"elections", "refusals", "leaders"} }
func (p *election) Start(n int) *server {
	return &server{Self: id(n)}
}
func (p *election) History() leaders { return leaders{} }
func (p *election) To(m message) int { return int(m.To) }

func (p *election) Inputs(in []Input, w World[*server, leaders], n int) []Input {
	if !w.Servers[n-1].Asked {
		in = append(in, Input{Kind: timeout})
	}
	return append(in, Input{Kind: crash})
}

func (p *election) Do(s *server, in Input, m message) []Effect[*server, message] {
	x := *s
	x.Grants = slices.Clone(s.Grants)
	x.Clock++
	e := Effect[*server, message]{Server: &x, Why: func() []string { return []string{"because"} }}
	switch {
	case in.Kind == timeout:
		e.Counts = 1
		p.stand(&x, &e)
	case in.Kind == crash:
		e.Server, e.Spends = &server{Self: s.Self, Vote: s.Saved, Saved: s.Saved}, Restart
	case m.Body == ask{}:
		if p.mistake == wrongWay {
			m.From = 9
		}
		if p.mistake == panicky {
			panic("I have no vote")
		}
		p.vote(&x, &e, m.From)
	default:
		p.win(&x, &e, m.From)
	}
	return []Effect[*server, message]{e}
}

func (p *election) stand(x *server, e *Effect[*server, message]) {
	x.Asked = true
	if x.Vote != 0 {
		return
	}
	x.Vote, x.Saved, x.Grants, x.Count = x.Self, x.Self, []id{x.Self}, 1
	for to := id(1); to <= id(p.n); to++ {
		if to != x.Self {
			e.Messages = append(e.Messages, message{x.Self, to, ask{}})
		}
	}
}

func (p *election) vote(x *server, e *Effect[*server, message], from id) {
	if p.mistake != forgetful && x.Vote != 0 && x.Vote != from {
		e.Counts = 2
		return
	}
	x.Vote = from
	if p.mistake != volatile {
		x.Saved = from
	}
	e.Messages = []message{{x.Self, from, grant{"first come"}}}
}

func (p *election) win(x *server, e *Effect[*server, message], from id) {
	if !x.Asked {
		return
	}
	x.Count++
	if !slices.Contains(x.Grants, from) {
		x.Grants = append(x.Grants, from)
	}
	votes := len(x.Grants)
	if p.mistake == counting {
		votes = x.Count
	} else {
		x.Count = 0
	}
	if 2*votes > p.n || p.mistake == half && 2*votes >= p.n-1 {
		x.Leads, e.Counts = true, 4
	}
}

func (p *election) Observe(g leaders, s *server) (leaders, error) {
	if !s.Leads || slices.Contains(g.Who, s.Self) {
		return g, nil
	}
	if len(g.Who) > 0 {
		return g, errors.New("two servers lead")
	}
	return leaders{[]id{s.Self}}, nil
}

func (p *election) Check(w World[*server, leaders]) error {
	for _, s := range w.Servers {
		if s.Leads && !slices.Contains(w.History.Who, s.Self) {
			return errors.New("a leader is forgotten")
		}
	}
	return nil
}

func (p *election) Tell(n int, in Input, m message) string {
	switch in.Kind {
	case timeout:
		return fmt.Sprintf("server %d starts an election", n)
	case crash:
		return fmt.Sprintf("server %d crashes and starts again", n)
	}
	return fmt.Sprintf("server %d receives: %s", n, p.TellMessage(m))
}

func (p *election) TellMessage(m message) string {
	if m.Body == (ask{}) {
		return fmt.Sprintf("%d asks %d for its vote", m.From, m.To)
	}
	return fmt.Sprintf("%d votes for %d", m.From, m.To)
}

func find(t *testing.T, n int, mistake string, b Bounds) Result[*server, message] {
	t.Helper()
	b.Servers = n
	r, err := Search(newElection(t, n, mistake), b)
	require.NoError(t, err)
	return r
}

func TestTheCorrectProtocolHasNoCounterexample(t *testing.T) {
	for _, b := range []Bounds{{InFlight: 1}, {InFlight: 2, Restarts: 1}, {InFlight: 3, Restarts: 1, Duplicates: 1}} {
		r := find(t, 3, "", b)
		t.Log(r)
		require.NoError(t, r.Err("elections", "leaders", "refusals", Delivered))
	}
	require.NoError(t, find(t, 5, "", Bounds{InFlight: 2}).Err("leaders", Lost))
}

func TestEveryMistakeIsFoundOnAShortestPath(t *testing.T) {
	for _, c := range []struct {
		mistake string
		n       int
		bounds  Bounds
		steps   int
	}{
		{forgetful, 3, Bounds{InFlight: 1}, 6},
		{forgetful, 3, Bounds{InFlight: 3}, 6},
		{volatile, 3, Bounds{InFlight: 1, Restarts: 1}, 7},
		{half, 3, Bounds{InFlight: 1}, 0},
		{half, 4, Bounds{InFlight: 1}, 6},
		{half, 5, Bounds{InFlight: 1}, 6},
		{counting, 5, Bounds{InFlight: 2, Duplicates: 2}, 8},
	} {
		r := find(t, c.n, c.mistake, c.bounds)
		if c.steps == 0 {
			require.NoError(t, r.Err(), c.mistake)
			continue
		}
		require.NotNil(t, r.Violation, c.mistake)
		require.EqualError(t, r.Violation.Err, "two servers lead", c.mistake)
		require.Len(t, r.Violation.Path, c.steps, r.Violation.Story)
		require.ErrorIs(t, r.Err(), r.Violation.Err)
	}
}

func TestAStoryNamesTheServersTheSameWayAllAlong(t *testing.T) {
	r := find(t, 3, volatile, Bounds{InFlight: 1, Restarts: 1})
	require.Equal(t, `  1. server 1 starts an election
       because
       lost: 1 asks 3 for its vote
  2. server 2 receives: 1 asks 2 for its vote
       because
  3. server 2 crashes and starts again
       because
  4. server 1 receives: 2 votes for 1
       because
  5. server 2 starts an election
       because
       lost: 2 asks 1 for its vote
  6. server 3 receives: 2 asks 3 for its vote
       because
  7. server 2 receives: 3 votes for 2
       because
     two servers lead
`, r.Violation.Story)
}

func TestTheSameSearchFindsTheSame(t *testing.T) {
	b := Bounds{InFlight: 2, Restarts: 1, Duplicates: 1}
	one := find(t, 3, forgetful, b)
	for _, workers := range []int{1, 2, 5} {
		b.Workers = workers
		other := find(t, 3, forgetful, b)
		require.Equal(t, one.Violation.Story, other.Violation.Story)
		require.Equal(t, one.States, other.States)
		require.Equal(t, one.Steps, other.Steps)
		require.Equal(t, one.Counters, other.Counters)
	}
}

func TestAPanicOfTheRulesIsAViolation(t *testing.T) {
	r := find(t, 3, panicky, Bounds{InFlight: 1})
	require.EqualError(t, r.Violation.Err, "panic: I have no vote")
	require.Len(t, r.Violation.Path, 2)
}

func TestAMessageToNobodyIsAViolation(t *testing.T) {
	r := find(t, 3, wrongWay, Bounds{InFlight: 1})
	require.EqualError(t, r.Violation.Err, "a message is sent to server 9; there are 3 servers")
}

func TestASearchThatProvesNothingFails(t *testing.T) {
	r := find(t, 5, "", Bounds{InFlight: 1})
	require.ErrorContains(t, r.Err("elections", "leaders"), `the counter "leaders" stayed at zero`)
	require.ErrorContains(t, r.Err("leeders"), `there is no counter "leeders"`)
	r = find(t, 3, "", Bounds{InFlight: 2, States: 50})
	require.False(t, r.Finished)
	require.ErrorIs(t, r.Err(), ErrUnfinished)
	require.Contains(t, r.String(), "unfinished")
}

func TestBoundsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, c := range []struct {
		b    Bounds
		says string
	}{
		{Bounds{Servers: 6, InFlight: 1}, "the number of servers is 6; it must be 1 to 5"},
		{Bounds{Servers: 3}, "the number of messages in flight is 0; it must be 1 to 250"},
		{Bounds{Servers: 3, InFlight: 1, Restarts: 300}, "a budget of restarts, reads or duplicates is 300; it must be 0 to 250"},
	} {
		_, err := Search(newElection(t, 3, ""), c.b)
		require.EqualError(t, err, c.says)
	}
}

// The simple search below does the same with none of the tricks: states are
// texts, servers keep their names, and a message is lost in a step of its own.

// fullState is a state in full.
type fullState struct {
	servers    []*server
	past       leaders
	flight     []message
	restarts   int
	duplicates int
}

func (s fullState) text(p *election, flight bool) string {
	var b []byte
	for _, x := range s.servers {
		b = p.encoder.Append(b, x, nil)
	}
	b = p.encoder.Append(b, s.past, nil)
	if flight {
		var texts []string
		for _, m := range s.flight {
			texts = append(texts, string(p.encoder.Append(nil, m, nil)))
		}
		slices.Sort(texts)
		b = fmt.Appendf(b, "%q %d %d", texts, s.restarts, s.duplicates)
	}
	return string(b)
}

// next returns the states that follow from s.
func (s fullState) next(t *testing.T, p *election, b Bounds) (all []fullState) {
	do := func(i int, in Input, m message, flight []message, duplicates int) {
		e := p.Do(s.servers[i], in, m)[0]
		x := fullState{slices.Clone(s.servers), s.past, append(slices.Clone(flight), e.Messages...), s.restarts, duplicates}
		if e.Spends == Restart {
			x.restarts++
		}
		x.servers[i] = e.Server
		var err error
		x.past, err = p.Observe(s.past, e.Server)
		require.NoError(t, err)
		// All ways to lose messages: one at a time, until there is room.
		queue := []fullState{x}
		for len(queue) > 0 {
			x, queue = queue[0], queue[1:]
			if len(x.flight) <= b.InFlight {
				all = append(all, x)
			}
			for j := range x.flight {
				y := x
				y.flight = slices.Delete(slices.Clone(x.flight), j, j+1)
				queue = append(queue, y)
			}
		}
	}
	for i, m := range s.flight {
		do(int(m.To)-1, Input{}, m, slices.Delete(slices.Clone(s.flight), i, i+1), s.duplicates)
		if s.duplicates < b.Duplicates {
			do(int(m.To)-1, Input{}, m, s.flight, s.duplicates+1)
		}
	}
	for i := range s.servers {
		for _, in := range p.Inputs(nil, World[*server, leaders]{s.servers, s.past}, i+1) {
			if in.Kind != crash || s.restarts < b.Restarts {
				do(i, in, message{}, s.flight, s.duplicates)
			}
		}
	}
	return all
}

func simpleSearch(t *testing.T, p *election, b Bounds) (reached map[string]bool) {
	start := fullState{}
	for i := range p.n {
		start.servers = append(start.servers, p.Start(i+1))
	}
	seen, reached := map[string]bool{start.text(p, true): true}, map[string]bool{}
	for queue := []fullState{start}; len(queue) > 0; queue = queue[1:] {
		reached[queue[0].text(p, false)] = true
		for _, x := range queue[0].next(t, p, b) {
			if text := x.text(p, true); !seen[text] {
				seen[text] = true
				queue = append(queue, x)
			}
		}
	}
	return reached
}

// recorder is the election, and notes what Check is shown.
type recorder struct {
	*election
	mu   sync.Mutex
	seen map[string]bool
}

func (r *recorder) Check(w World[*server, leaders]) error {
	text := fullState{servers: w.Servers, past: w.History}.text(r.election, false)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[text] = true
	return nil
}

func TestTheTricksOverlookNothing(t *testing.T) {
	for _, b := range []Bounds{
		{Servers: 3, InFlight: 1, Restarts: 1},
		{Servers: 3, InFlight: 2, Duplicates: 1},
		{Servers: 2, InFlight: 3, Restarts: 2, Duplicates: 2},
	} {
		p := newElection(t, b.Servers, "")
		want := simpleSearch(t, p, b)
		named, folded := &recorder{election: p, seen: map[string]bool{}}, &recorder{election: p, seen: map[string]bool{}}
		b.Named = true
		all, err := Search[*server, message, leaders](named, b)
		require.NoError(t, err)
		require.Equal(t, len(want), len(named.seen))
		for text := range want {
			require.True(t, named.seen[text], "a state that the simple search reaches is overlooked")
		}
		// Folding leaves a state of each kind, and no state twice: to find all, it
		// is enough to swap names.
		b.Named = false
		some, err := Search[*server, message, leaders](folded, b)
		require.NoError(t, err)
		require.Less(t, some.States, all.States)
		require.GreaterOrEqual(t, some.States*uint64(factorial(b.Servers)), all.States)
		for text := range folded.seen {
			require.True(t, want[text], "a state is reached that the simple search does not reach")
		}
	}
}

func factorial(n int) int {
	if n < 2 {
		return 1
	}
	return n * factorial(n-1)
}

func TestAStateHasOneFingerprintHoweverItsServersAreNamed(t *testing.T) {
	b := Bounds{Servers: 3, InFlight: 2, Restarts: 1, Duplicates: 1, Named: true}
	w := newWorker(newSearch(newElection(t, 3, ""), b))
	prints := map[string]fingerprint{}
	texts := map[fingerprint]string{}
	for _, st := range allStates(w) {
		w.search.bounds.Named = false
		text, f := leastText(w, st), w.fingerprint(st)
		w.search.bounds.Named = true
		if other, known := prints[text]; known {
			require.Equal(t, other, f, "two names, two fingerprints")
		}
		if other, known := texts[f]; known {
			require.Equal(t, other, text, "two states, one fingerprint")
		}
		prints[text], texts[f] = f, text
	}
	b.Named = false
	require.Len(t, prints, int(find(t, 3, "", b).States))
}

func allStates(w *worker[*server, message, leaders]) (all []state) {
	frontier := level{}
	frontier.add(w.search.start())
	w.search.visited.add(w.fingerprint(frontier.at(0)), 0, 0)
	for len(frontier.starts) > 0 {
		w.depth, w.next = w.depth+1, level{}
		for i := range frontier.starts {
			all = append(all, slices.Clone(frontier.at(i)))
			w.expand(frontier.at(i))
		}
		frontier = w.next
	}
	return all
}

// leastText writes a state under every way to name the servers and returns the
// least text.
func leastText(w *worker[*server, message, leaders], st state) (least string) {
	p := w.search.protocol
	for i, x := range w.search.namings.all {
		var servers, messages []string
		for j := range w.n {
			servers = append(servers, string(p.Encoder().Append(nil, w.search.servers.at(st[j]).value, x.name)))
		}
		for _, m := range w.inFlight(st) {
			messages = append(messages, string(p.Encoder().Append(nil, w.search.messages.at(m).value, x.name)))
		}
		slices.Sort(servers)
		slices.Sort(messages)
		past := p.Encoder().Append(nil, w.search.histories.at(st[w.n]).value, x.name)
		if text := fmt.Sprintf("%q %q %q %d", servers, messages, past, w.spent(st)); i == 0 || text < least {
			least = text
		}
	}
	return least
}
