package diagram

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// A diagram has at most maxRows turning points, of which at most mostOf per chapter are
// of the less important kinds.
const (
	maxRows = 32
	mostOf  = 2
)

// row is a turning point.
type row struct {
	event trace.Event

	// first is the index of its event.
	first int

	// nodes are the servers that it is about, if the same happened to several.
	nodes []uint64

	// rank says how important it is: the smaller, the more important.
	rank int
	text string

	// gap is true if rows before it were left out.
	gap bool
}

// Ranks.
const (
	rankChapter = iota
	rankTurn
	rankAnswer
	rankDecision
	rankRest
)

// chooser chooses the turning points of a story.
type chooser struct {
	events []trace.Event
	rows   []row

	// said counts what the present chapter has already shown, and asked are the
	// clients whose operation is shown.
	said  map[string]int
	asked map[uint64]bool

	// shown are the clients whose last operation is shown in this chapter.
	shown map[uint64]bool

	// told are the codes of the decisions that were shown in any chapter.
	told map[string]bool
}

func (c *chooser) add(i, rank int, text string) {
	e := c.events[i]
	c.rows = append(c.rows, row{event: e, first: i, nodes: []uint64{e.Node}, rank: rank, text: text})
}

// once counts how often something is said in a chapter, from 1 on.
func (c *chooser) once(what string) int {
	c.said[what]++
	return c.said[what]
}

// choose returns the turning points, in their order.
func choose(events []trace.Event) []row {
	c := &chooser{events: events, said: make(map[string]int), asked: make(map[uint64]bool), shown: make(map[uint64]bool), told: make(map[string]bool)}
	titled := false
	for i, e := range events {
		switch e.Kind {
		case trace.Note:
			if !titled {
				titled = true // the story's name and claim are the title
				continue
			}
			clear(c.said)
			clear(c.shown)
			c.add(i, rankChapter, e.Text)
		case trace.Verdict:
			c.add(i, rankChapter, trace.Sentence(e))
		case trace.Start, trace.Stop, trace.Crash, trace.Pause, trace.Resume:
			if e.Step > 0 && !c.fold(e) {
				c.add(i, rankTurn, trace.Sentence(e))
			}
		case trace.Cut, trace.Heal:
			if !c.fold(e) {
				c.add(i, rankTurn, trace.Sentence(e))
			}
		case trace.Drop:
			c.lost(i)
		case trace.Decide:
			c.decision(i)
		case trace.Role:
			if e.Role == string(node.Leader) && e.Step > 0 && !c.announced(e) {
				c.add(i, rankTurn, trace.Sentence(e))
			}
		case trace.Invoke:
			if strings.HasSuffix(e.Text, again) {
				// The rest of an operation that is shown.
				if c.shown[e.Client] && c.once("again") <= 2*mostOf {
					c.asked[e.Client] = true
					c.add(i, rankDecision, sentence(e))
				}
				continue
			}
			n := c.once("ask")
			c.shown[e.Client] = n <= mostOf
			if n <= mostOf {
				c.asked[e.Client] = true
				c.add(i, rankAnswer+min(n-1, 1)*2, sentence(e))
			}
		case trace.Return:
			failed := strings.Contains(e.Message, `"ok":false`)
			if c.asked[e.Client] || failed && c.once("failed") <= 1 {
				c.add(i, c.answerRank(e), sentence(e))
			}
			delete(c.asked, e.Client)
		}
	}
	return c.limit()
}

// again ends the text of an Invoke that is a retry.
const again = "again"

// sessionFields are those of a request that say nothing to a reader of a diagram.
var sessionFields = regexp.MustCompile(` (session|since|seq|ack)=\d+`)

// sentence is that of a request or an answer.
func sentence(e trace.Event) string { return sessionFields.ReplaceAllString(trace.Sentence(e), "") }

// answerRank is the rank of the operation that an answer belongs to.
func (c *chooser) answerRank(e trace.Event) int {
	for _, r := range slices.Backward(c.rows) {
		if r.event.Kind == trace.Invoke && r.event.Client == e.Client {
			return r.rank
		}
	}
	return rankDecision
}

func (c *chooser) decision(i int) {
	e := c.events[i]
	switch {
	case e.Reason == nil:
	case e.Reason.Code == "elected":
		c.winner(e)
		c.add(i, rankTurn, trace.Sentence(e))
	case e.Reason.Code == "timed-out" && strings.Contains(e.Reason.Text, "election"):
		c.add(i, rankRest, trace.Sentence(e))
	case !trace.Routine(e.Reason.Code) && c.once(e.Reason.Code) <= mostOf:
		rank := rankRest
		if !c.told[e.Reason.Code] {
			rank = rankAnswer // it is new in this story
		} else if c.once("decisions") <= 4 {
			rank = rankDecision
		}
		c.told[e.Reason.Code] = true
		c.add(i, rank, trace.Sentence(e))
	}
}

// lost adds a message that is lost, unless its receiver is down, or many are.
func (c *chooser) lost(i int) {
	e := c.events[i]
	if e.Text == trace.IsDown(e.To) || e.From == 0 || e.Number == 0 || c.fold(e) {
		return
	}
	rank := rankTurn
	switch n := c.once("drop " + e.Text); {
	case n > mostOf:
		return
	case n > 1:
		rank = rankDecision
	}
	c.add(i, rank, loses(e, ""))
}

// loses says that a message is lost, and how many more are.
func loses(e trace.Event, more string) string {
	kind, reply := kindOf(e.Message)
	what := map[string]string{"vote": "RequestVote", "append": "AppendEntries", "heartbeat": "heartbeat", "snapshot": "InstallSnapshot", "read": "ReadIndex", "replicate": "command"}[kind]
	what = cmp.Or(what, "message")
	if text, _ := label(e.Message); text != "" && !reply && (kind == "append" || kind == "replicate") {
		what += " (" + text + ")"
	}
	if reply {
		what = "reply to " + what
	}
	why := e.Text
	if why != "" {
		why = " (" + why + ")"
	}
	return fmt.Sprintf("%s → %s%s is lost%s: %s", node.Name(e.From), node.Name(e.To), more, why, what)
}

// winner makes the election of a new leader as important as its end.
func (c *chooser) winner(e trace.Event) {
	for i := range slices.Backward(c.rows) {
		r := &c.rows[i]
		if x := r.event; x.Kind == trace.Decide && x.Node == e.Node && x.Reason.Code == "timed-out" && x.Term == e.Term {
			r.rank = rankAnswer
			return
		}
	}
}

// announced reports whether a decision in the same step says the same as a new role.
func (c *chooser) announced(e trace.Event) bool {
	return slices.ContainsFunc(c.rows, func(r row) bool {
		return r.event.Step == e.Step && r.event.Kind == trace.Decide && r.event.Node == e.Node
	})
}

// fold joins an event to the row before it if the same happens to another server, or
// on another link, at the same time.
func (c *chooser) fold(e trace.Event) bool {
	if len(c.rows) == 0 {
		return false
	}
	r := &c.rows[len(c.rows)-1]
	if r.event.Kind != e.Kind || r.event.At != e.At || r.event.Text != e.Text && e.Kind != trace.Start {
		return false
	}
	switch e.Kind {
	case trace.Drop, trace.Cut, trace.Heal:
		if r.event.From != e.From || e.From == 0 {
			return false
		}
		r.nodes = append(r.nodes, e.To)
		more := ", " + names(r.nodes[1:])
		if e.Kind == trace.Drop {
			r.text = loses(r.event, more)
		} else {
			r.text = strings.Replace(trace.Sentence(r.event), node.Name(r.event.To), node.Name(r.event.To)+more, 1)
		}
		return true
	}
	r.nodes = append(r.nodes, e.Node)
	slices.Sort(r.nodes)
	one := r.event
	one.Node, one.Text = 0, ""
	r.text = "each of " + names(r.nodes) + " " + strings.TrimPrefix(trace.Sentence(one), ": ")
	return true
}

func names(ids []uint64) string {
	var all []string
	for _, id := range ids {
		all = append(all, node.Name(id))
	}
	return strings.Join(all, ", ")
}

// limit leaves out the least important rows, and of the first rank that does not fit
// those in the middle.
func (c *chooser) limit() []row {
	room := maxRows
	keep := make([]bool, len(c.rows))
	for rank := rankChapter; rank <= rankRest && room > 0; rank++ {
		var of []int
		for i, r := range c.rows {
			if r.rank == rank {
				of = append(of, i)
			}
		}
		if len(of) > room {
			first := (room + 1) * 2 / 3
			of = append(of[:first:first], of[len(of)-(room-first):]...)
		}
		for _, i := range of {
			keep[i] = true
		}
		room -= len(of)
	}
	var rows []row
	gap := false
	for i, r := range c.rows {
		if !keep[i] {
			gap = gap || r.rank <= rankTurn
			continue
		}
		r.gap, gap = gap, false
		rows = append(rows, r)
	}
	return rows
}

// message is a message that is drawn.
type message struct {
	from, to uint64

	// sent and ended are steps; ended is 0 if the story ends first.
	sent, ended uint64
	lost, no    bool
	label       string
	line        string
}

// mostMessages bounds the arrows.
const mostMessages = 90

// The messages of the stages, by their names on the wire. A reply has Reply at the end.
var messageKinds = []string{"requestVote", "appendEntries", "installSnapshot", "readIndex", "replicate"}

// kindOf says what a message is: "vote", "append", "heartbeat", "snapshot", "read",
// "replicate" or "other", and whether it is a reply.
func kindOf(line string) (kind string, reply bool) {
	for _, name := range messageKinds {
		reply = strings.Contains(line, `"`+name+`Reply":`)
		if !reply && !strings.Contains(line, `"`+name+`":`) {
			continue
		}
		switch name {
		case "requestVote":
			return "vote", reply
		case "appendEntries":
			if !reply && !strings.Contains(line, `"entries":[{`) {
				return "heartbeat", false
			}
			return "append", reply
		case "installSnapshot":
			return "snapshot", reply
		case "readIndex":
			return "read", reply
		}
		return name, reply
	}
	return "other", false
}

// messages returns the messages on which the rows depend: the votes of an election, the
// message that led to a decision, those that were lost, and what a shown operation of a
// client made the servers send.
func messages(events []trace.Event, rows []row) []message {
	all := pair(events)
	bySend := make(map[uint64][]*message)
	byEnd := make(map[uint64][]*message)
	for i := range all {
		m := &all[i]
		bySend[m.sent] = append(bySend[m.sent], m)
		if m.ended != 0 {
			byEnd[m.ended] = append(byEnd[m.ended], m)
		}
	}
	drawn := make(map[*message]bool)
	var order []*message
	draw := func(m *message) {
		if !drawn[m] && len(order) < mostMessages {
			drawn[m] = true
			order = append(order, m)
		}
	}
	// answers are what the receiver of a message sends back at once.
	answers := func(m *message, until uint64) {
		if m.lost || m.ended == 0 {
			return
		}
		for _, a := range bySend[m.ended] {
			if kind, reply := kindOf(a.line); reply && a.from == m.to && a.to == m.from && kind != "heartbeat" && (until == 0 || a.ended <= until) {
				draw(a)
			}
		}
	}
	for i, r := range rows {
		e := r.event
		switch e.Kind {
		case trace.Decide:
			for _, m := range byEnd[e.Step] {
				if kind, reply := kindOf(m.line); m.to == e.Node && !m.lost && kind != "heartbeat" && !(reply && e.Reason.Code == "timed-out") {
					draw(m)
				}
			}
			for _, m := range bySend[e.Step] {
				if kind, reply := kindOf(m.line); m.from == e.Node && kind == "vote" && !reply {
					draw(m)
					answers(m, 0)
				}
			}
		case trace.Drop:
			for _, m := range byEnd[e.Step] {
				if m.lost && m.from == e.From && slices.Contains(append([]uint64{e.To}, r.nodes...), m.to) {
					draw(m)
				}
			}
		case trace.Invoke:
			end := until(rows[i:], e.Client)
			seen := make(map[string]bool)
			for _, m := range all {
				if m.sent < e.Step || m.sent > end {
					continue
				}
				kind, reply := kindOf(m.line)
				key := fmt.Sprint(kind, m.from, m.to)
				if reply || kind == "heartbeat" || kind == "vote" || seen[key] {
					continue
				}
				seen[key] = true
				x := bySend[m.sent]
				for _, same := range x {
					if same.from == m.from && same.to == m.to && same.line == m.line {
						draw(same)
						answers(same, end)
						break
					}
				}
			}
		}
	}
	var out []message
	for _, m := range order {
		m.label, m.no = label(m.line)
		out = append(out, *m)
	}
	slices.SortStableFunc(out, func(a, b message) int {
		return cmp.Or(cmp.Compare(a.sent, b.sent), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	// One label is enough for messages that go out together.
	for i := 1; i < len(out); i++ {
		if a, b := &out[i-1], &out[i]; a.sent == b.sent && a.from == b.from && a.label == b.label && !a.no {
			a.label = ""
		}
	}
	return out
}

// until is the step of the answer to the operation of the first row, or of that row.
func until(rows []row, client uint64) uint64 {
	for _, r := range rows[1:] {
		if r.event.Client == client && r.event.Kind == trace.Return {
			return r.event.Step
		}
	}
	return rows[0].event.Step
}

// pair returns all messages of the servers.
func pair(events []trace.Event) []message {
	type key struct{ from, to, number uint64 }
	var all []message
	at := make(map[key]int)
	for _, e := range events {
		k := key{e.From, e.To, e.Number}
		switch e.Kind {
		case trace.Send:
			at[k] = len(all)
			all = append(all, message{from: e.From, to: e.To, sent: e.Step, line: e.Message})
		case trace.Deliver, trace.Drop:
			i, ok := at[k]
			if !ok || e.Number == 0 {
				continue
			}
			if m := &all[i]; m.ended == 0 {
				m.ended, m.lost = e.Step, e.Kind == trace.Drop
			} else if e.Kind == trace.Deliver {
				again := *m
				again.ended = e.Step
				all = append(all, again)
			}
		}
	}
	return all
}

// label returns the few words that stand at an arrow, and whether it refuses.
func label(line string) (text string, no bool) {
	kind, reply := kindOf(line)
	switch {
	case reply && (strings.Contains(line, `"granted":true`) || strings.Contains(line, `"success":true`)):
		if kind == "vote" {
			return "yes", false
		}
		return "", false
	case reply && (kind == "vote" || kind == "append"):
		return "no", true
	case reply:
		return "", strings.Contains(line, `"ok":false`)
	case kind == "vote" && strings.Contains(line, `"preVote":true`):
		return "would you vote?", false
	case kind == "vote":
		return "vote?", false
	case kind == "snapshot":
		return "snapshot", false
	case kind == "read":
		return "read?", false
	case kind == "append" || kind == "replicate":
		return short(operation(line)), false
	}
	return "", false
}

// operation returns the last command of a message as people write it.
func operation(line string) string {
	i := strings.LastIndex(line, `{"op":`)
	if i < 0 {
		if strings.Contains(line, `"noop"`) {
			return "no-op"
		}
		if strings.Contains(line, `"config"`) {
			return "members"
		}
		return ""
	}
	depth := 0
	for k := i; k < len(line); k++ {
		switch line[k] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				words := trace.Brief(line[i : k+1])
				words = strings.TrimPrefix(strings.TrimPrefix(words, "put "), "append ")
				return sessionFields.ReplaceAllString(words, "")
			}
		}
	}
	return ""
}

func short(s string) string {
	if r := []rune(s); len(r) > 14 {
		return string(r[:13]) + "…"
	}
	return s
}

// commit is where a leader commits what a client has asked for.
type commit struct{ server, step uint64 }

// commits returns the first commit during each shown operation of a client.
func commits(events []trace.Event, rows []row) []commit {
	var all []commit
	for i, r := range rows {
		if r.event.Kind != trace.Invoke {
			continue
		}
		end := until(rows[i:], r.event.Client)
		for _, e := range events[r.first:] {
			if e.Step > end {
				break
			}
			if e.Kind == trace.Decide && e.Reason != nil && e.Reason.Code == "committed" {
				all = append(all, commit{e.Node, e.Step})
				break
			}
		}
	}
	return all
}
