// Package diagram draws the turning points of a story as a space-time diagram: one
// column for each server, time downward, an arrow for each message that matters, and a
// sentence for each turning point. The picture is an SVG file that can be read in light
// and dark, and it is the same for the same events.
package diagram

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Measures, in pixels.
const (
	left     = 76  // of the first lane
	lane     = 84  // between two lanes
	margin   = 46  // between the last lane and the sentences
	words    = 430 // of the sentences
	perLine  = 60  // runes of a line of a sentence
	top      = 112 // of the first row
	lineHigh = 15
	rowHigh  = 27
	radius   = 9
)

// Draw draws a story. name is its name; the first note of the events is its claim.
func Draw(name string, events []trace.Event) []byte {
	p := &picture{events: events, name: name}
	p.rows = choose(events)
	p.messages = messages(events, p.rows)
	p.commits = commits(events, p.rows)
	p.lanes()
	p.layout()
	return p.svg()
}

// picture is a diagram that is being drawn.
type picture struct {
	name     string
	events   []trace.Event
	rows     []row
	messages []message
	commits  []commit

	// x is where each server's lane is; 0 is the clients'.
	x     map[uint64]int
	ids   []uint64
	right int // where the sentences begin
	width int

	// y is where each row is, points where each step is that has something, and end
	// the lower end.
	y      []int
	points []point
	end    int

	b strings.Builder
}

type point struct {
	step uint64
	y    int
}

// lanes places the servers, and the clients before them if there are any.
func (p *picture) lanes() {
	ids := make(map[uint64]bool)
	for _, e := range p.events {
		for _, id := range []uint64{e.Node, e.From, e.To} {
			if id != 0 {
				ids[id] = true
			}
		}
	}
	for id := range ids {
		p.ids = append(p.ids, id)
	}
	slices.Sort(p.ids)
	p.x = make(map[uint64]int)
	x := left
	if slices.ContainsFunc(p.rows, func(r row) bool { return r.event.Client != 0 }) {
		p.x[0] = x + 12
		x += lane
	}
	for _, id := range p.ids {
		p.x[id] = x + 12
		x += lane
	}
	p.right = x - lane + 12 + margin
	p.width = p.right + words
}

// layout places the rows, and between them the steps in which shown messages begin and
// end.
func (p *picture) layout() {
	steps := make(map[uint64]bool)
	for _, m := range p.messages {
		steps[m.sent] = true
		if m.ended != 0 && !m.lost {
			steps[m.ended] = true
		}
	}
	for _, c := range p.commits {
		steps[c.step] = true
	}
	var between []uint64
	for s := range steps {
		between = append(between, s)
	}
	slices.Sort(between)
	y := top
	last := uint64(0)
	for i, r := range p.rows {
		var inside []uint64
		for _, s := range between {
			if s > last && s < r.event.Step {
				inside = append(inside, s)
			}
		}
		if i > 0 {
			high := max(rowHigh, 12+lineHigh*len(p.lines(i-1)))
			if n := len(inside); n > 0 {
				high = max(high, min(26+9*n, 88))
			}
			if r.gap {
				high += 12
			}
			if i > 0 && r.event.Step == p.rows[i-1].event.Step {
				high = max(rowHigh-5, 8+lineHigh*len(p.lines(i-1)))
			}
			for k, s := range inside {
				p.points = append(p.points, point{s, y + high*(k+1)/(len(inside)+1)})
			}
			y += high
		}
		p.y = append(p.y, y)
		p.points = append(p.points, point{r.event.Step, y})
		last = r.event.Step
	}
	p.end = y + 22
	if n := len(p.rows); n > 0 {
		p.end = y + 12 + lineHigh*len(p.lines(n-1))
	}
}

// lines are the lines of the sentence of a row.
func (p *picture) lines(i int) []string {
	if r := p.rows[i]; r.rank == rankChapter {
		return wrap(perLine-4, r.text, 3) // it is bold
	}
	return wrap(perLine, p.rows[i].text, 2)
}

// at returns where a step is: at its own point, or at the next one.
func (p *picture) at(step uint64) int {
	for _, x := range p.points {
		if x.step >= step {
			return x.y
		}
	}
	return p.end
}

// when returns where an event of a server is: at its own row, if it has one.
func (p *picture) when(e trace.Event) int {
	for i, r := range p.rows {
		if r.event.Step == e.Step && r.event.Kind == e.Kind && slices.Contains(r.nodes, e.Node) {
			return p.y[i]
		}
	}
	return p.at(e.Step)
}

// wrap breaks a text into lines, and cuts it after the last one.
func wrap(perLine int, text string, most int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > perLine {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	lines = append(lines, line)
	if len(lines) > most {
		lines = lines[:most]
		lines[most-1] = strings.TrimRight(lines[most-1], " ,;:(") + " …"
	}
	return lines
}

func (p *picture) printf(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

// terms is how many colors there are.
const terms = 8

func termClass(term uint64) string {
	if term == 0 {
		return "t0"
	}
	return fmt.Sprintf("t%d", (term-1)%terms+1)
}

const style = `
svg { --paper:#fff; --ink:#1d2430; --faint:#5d6675; --line:#c9ced7; --band:#f2f4f7; --bad:#c02626; --good:#1d7a3e;
 --t0:#6b7382; --t1:#2f6fd0; --t2:#b9510a; --t3:#14804a; --t4:#8a3fb8; --t5:#8f6a0c; --t6:#0b7780; --t7:#c02f66; --t8:#5b6b2f }
@media (prefers-color-scheme: dark) { svg { --paper:#0d1117; --ink:#e8ebf0; --faint:#a0a9b8; --line:#3b4454; --band:#1b222c; --bad:#ff7b72; --good:#62d08b;
 --t0:#8d96a6; --t1:#5b9bff; --t2:#ff9a52; --t3:#4cc784; --t4:#c48bf0; --t5:#e6c04f; --t6:#4fd0da; --t7:#ff86b0; --t8:#b4c77a } }
text { font: 12px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: var(--ink) }
.paper { fill: var(--paper) } .band { fill: var(--band) } .title { font-size: 15px; font-weight: 600 } .claim, .time, .dots { fill: var(--faint) } .time { font-size: 10.5px }
.name { font-weight: 600; text-anchor: middle } .chapter { font-weight: 600 } .bad { fill: var(--bad) } .good { fill: var(--good) }
.t0 { --term: var(--t0) } .t1 { --term: var(--t1) } .t2 { --term: var(--t2) } .t3 { --term: var(--t3) } .t4 { --term: var(--t4) } .t5 { --term: var(--t5) } .t6 { --term: var(--t6) } .t7 { --term: var(--t7) } .t8 { --term: var(--t8) }
.life { stroke: var(--term); stroke-width: 2 } .leads { stroke-width: 6 } .down { stroke: var(--line); stroke-width: 1.5; stroke-dasharray: 1 5 } .paused { stroke-dasharray: 4 4 } .plain { stroke: var(--line); stroke-width: 1.5 }
.guide { stroke: var(--line); stroke-width: .6; stroke-dasharray: 2 3 } .wall { stroke: var(--bad); stroke-width: 2.5 } .healed { stroke: var(--good); stroke-width: 2.5; stroke-dasharray: 7 4 }
.arrow { stroke: var(--term); stroke-width: 1.3; fill: none } .reply { stroke-dasharray: 5 3 } .head { fill: var(--term) } .no { --term: var(--bad) } .asks { --term: var(--ink) }
.lost { stroke: var(--bad); stroke-width: 2.2; fill: none } .dot { fill: var(--term) } .ring { fill: var(--paper); stroke: var(--term); stroke-width: 2 } .candidate { stroke-dasharray: 4 2.5 } .crown { fill: var(--term) }
.commit { stroke: var(--good); stroke-width: 2.5; fill: none } .number { font-size: 10.5px; font-weight: 700; text-anchor: middle; fill: var(--paper) } .hollow { fill: var(--term) } .note { font-size: 10.5px; text-anchor: middle; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round }
`

func (p *picture) svg() []byte {
	claim := ""
	for _, e := range p.events {
		if e.Kind == trace.Note {
			claim = strings.TrimPrefix(e.Text, p.name+": ")
			break
		}
	}
	high := p.end + 14
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc">`+"\n", p.width, high, p.width, high)
	p.printf("<title id=\"title\">%s</title>\n", html.EscapeString(p.name))
	p.printf("<desc id=\"desc\">%s.", html.EscapeString(claim))
	for _, r := range p.rows {
		p.printf(" %s.", html.EscapeString(strings.TrimRight(r.text, ".")))
	}
	p.printf("</desc>\n<style>%s</style>\n", style)
	p.printf(`<rect class="paper" width="%d" height="%d" rx="6"/>`+"\n", p.width, high)
	p.printf(`<text class="title" x="16" y="26">%s</text>`+"\n", html.EscapeString(p.name))
	for i, line := range wrap((p.width-32)/7, claim, 2) {
		p.printf(`<text class="claim" x="16" y="%d">%s</text>`+"\n", 45+lineHigh*i, html.EscapeString(line))
	}
	p.bands()
	p.lives()
	for i := range p.messages {
		p.arrow(&p.messages[i])
	}
	p.clients()
	for _, c := range p.commits {
		x, y := p.x[c.server], p.at(c.step)
		p.printf(`<path class="commit" d="M%d,%d l4,4 l7,-9"><title>%s commits</title></path>`+"\n", x+7, y, node.Name(c.server))
	}
	for i := range p.rows {
		p.row(i)
	}
	p.labels()
	p.printf("</svg>\n")
	return []byte(p.b.String())
}

// bands are the chapters and the verdict, behind everything, and the names of the
// lanes.
func (p *picture) bands() {
	for i, r := range p.rows {
		if r.rank == rankChapter {
			high := lineHigh*len(p.lines(i)) + 8
			p.printf(`<rect class="band" x="8" y="%d" width="%d" height="%d" rx="4"/>`+"\n", p.y[i]-13, p.width-16, high)
		}
	}
	for _, id := range p.ids {
		p.printf(`<text class="name" x="%d" y="%d">%s</text>`+"\n", p.x[id], top-30, node.Name(id))
	}
	if x, ok := p.x[0]; ok {
		p.printf(`<text class="name claim" x="%d" y="%d">clients</text>`+"\n", x, top-30)
		p.printf(`<path class="plain" d="M%d,%d V%d"/>`+"\n", x, top-20, p.end)
	}
}

// life is how a server is for a while.
type life struct {
	up, paused, leads bool
	term              uint64
}

func (l life) class() string {
	switch {
	case !l.up:
		return "down"
	case l.leads:
		return "life leads " + termClass(l.term)
	case l.paused:
		return "life paused " + termClass(l.term)
	}
	return "life " + termClass(l.term)
}

// lives draws the lanes of the servers, in the color of their terms.
func (p *picture) lives() {
	for _, id := range p.ids {
		now, from := p.first(id), top-20
		for _, e := range p.events {
			if e.Node != id {
				continue
			}
			next := now
			switch e.Kind {
			case trace.Start:
				next = life{up: true, term: e.Term, leads: now.leads && e.Step == 0 && e.Role == ""}
			case trace.Crash, trace.Stop:
				next.up, next.leads, next.paused = false, false, false
			case trace.Pause, trace.Resume:
				next.paused = e.Kind == trace.Pause
			}
			if e.Role != "" && next.up {
				next.term, next.leads = e.Term, e.Role == string(node.Leader)
			}
			if next == now {
				continue
			}
			y := top - 20
			if e.Step > 0 {
				y = p.when(e)
			}
			p.segment(id, now, from, y)
			now, from = next, y
		}
		p.segment(id, now, from, p.end)
	}
}

// first is how a server is before it says so, in the stages in which nobody is elected:
// as it is when it first speaks of its role.
func (p *picture) first(id uint64) life {
	for _, e := range p.events {
		if e.Node != id {
			continue
		}
		if e.Kind == trace.Role || e.Kind == trace.Start && e.Step > 0 {
			return life{}
		}
		if e.Role != "" && e.Kind != trace.Start {
			return life{up: true, term: e.Term, leads: e.Role == string(node.Leader) && (e.Reason == nil || e.Reason.Code != "elected")}
		}
	}
	return life{}
}

func (p *picture) segment(id uint64, l life, from, to int) {
	if to > from {
		p.printf(`<path class="%s" d="M%d,%d V%d"/>`+"\n", l.class(), p.x[id], from, to)
	}
}

// termOf is the term of a message, which has the color of its arrow.
func termOf(line string) uint64 {
	var term uint64
	if i := strings.Index(line, `"term":`); i >= 0 {
		_, _ = fmt.Sscan(strings.TrimLeft(line[i+7:], " "), &term) // 0 is as good as any other
	}
	return term
}

// ends returns where an arrow begins and ends.
func (p *picture) ends(m *message) (x1, y1, x2, y2 int) {
	x1, y1, x2 = p.x[m.from], p.at(m.sent), p.x[m.to]
	y2 = y1 + 16
	if m.ended != 0 && !m.lost {
		y2 = max(p.at(m.ended), y1+5)
	}
	return x1, y1, x2, y2
}

func (p *picture) arrow(m *message) {
	x1, y1, x2, y2 := p.ends(m)
	class := "arrow " + termClass(termOf(m.line))
	if _, reply := kindOf(m.line); reply {
		class += " reply"
	}
	if m.no {
		class += " no"
	}
	if m.lost {
		// It falls on its way.
		x, y := x1+(x2-x1)*2/3, y1+11
		p.printf(`<path class="%s no" d="M%d,%d L%d,%d"/><path class="lost" d="M%d,%d l9,9 m0,-9 l-9,9"/>`+"\n", class, x1, y1, x, y, x-4, y-4)
		return
	}
	p.line(class, x1, y1, x2, y2, 3)
}

// line draws a line with a head, which ends a little before its end.
func (p *picture) line(class string, x1, y1, x2, y2, before int) {
	way := 1
	if x2 < x1 {
		way = -1
	}
	x2 -= way * before
	// The head lies in the direction of the line.
	dx, dy := float64(x2-x1), float64(y2-y1)
	n := max(1, math.Hypot(dx, dy))
	ux, uy := dx/n, dy/n
	bx, by := float64(x2)-8*ux, float64(y2)-8*uy
	head := strings.ReplaceAll(class, "arrow", "head")
	p.printf(`<path class="%s" d="M%d,%d L%.1f,%.1f"/><path class="%s" d="M%d,%d L%.1f,%.1f L%.1f,%.1f z"/>`+"\n",
		class, x1, y1, bx, by, strings.ReplaceAll(head, " reply", ""), x2, y2, bx-3.5*uy, by+3.5*ux, bx+3.5*uy, by-3.5*ux)
}

// clients draws requests and their answers.
func (p *picture) clients() {
	asked := make(map[uint64]uint64) // client → server
	k := 0
	for i, r := range p.rows {
		for ; k <= r.first; k++ {
			if e := p.events[k]; e.Kind == trace.Invoke {
				asked[e.Client] = e.To
			}
		}
		x2, ok := p.x[asked[r.event.Client]]
		if !ok || r.event.Client == 0 {
			continue
		}
		switch r.event.Kind {
		case trace.Invoke:
			p.line("arrow asks", p.x[0], p.y[i], x2, p.y[i], 4)
		case trace.Return:
			if strings.Contains(r.event.Message, `"code":"unknown"`) || strings.Contains(r.event.Message, `"code":"unavailable"`) {
				// No answer has come from a server.
				x := (x2 + p.x[0]) / 2
				p.printf(`<path class="arrow reply no" d="M%d,%d H%d"/><path class="lost" d="M%d,%d l9,9 m0,-9 l-9,9"/>`+"\n", x2, p.y[i], x, x-4, p.y[i]-4)
				break
			}
			p.line("arrow asks reply", x2, p.y[i], p.x[0], p.y[i], 4)
		}
	}
}

// row draws what happens at a turning point, and its sentence.
func (p *picture) row(i int) {
	r, y := p.rows[i], p.y[i]
	e := r.event
	if i == 0 || clock(e.At) != clock(p.rows[i-1].event.At) {
		p.printf(`<text class="time" x="16" y="%d">%s</text>`+"\n", y+4, clock(e.At))
	}
	if r.gap {
		p.printf(`<text class="dots" x="%d" y="%d">⋮</text>`+"\n", p.right, y-16)
	}
	class := ""
	switch {
	case e.Kind == trace.Verdict && e.Reason != nil, e.Kind == trace.Crash, e.Kind == trace.Drop:
		class = "bad"
	case e.Kind == trace.Verdict:
		class = "good"
	}
	if r.rank == rankChapter {
		class += " chapter"
	}
	for k, line := range p.lines(i) {
		p.printf(`<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, p.right, y+4+lineHigh*k, html.EscapeString(line))
	}
	if e.Kind == trace.Cut || e.Kind == trace.Heal {
		p.network(i)
		return
	}
	for _, id := range r.nodes {
		if x, ok := p.x[id]; ok && id != 0 && e.Kind != trace.Drop {
			p.mark(e, id, x, y)
		}
	}
}

// mark is what happens to a server.
func (p *picture) mark(e trace.Event, id uint64, x, y int) {
	p.printf(`<path class="guide" d="M%d,%d H%d"/>`+"\n", x+radius+3, y, p.right-6)
	term := termClass(e.Term)
	switch {
	case e.Kind == trace.Crash || e.Kind == trace.Stop:
		p.printf(`<path class="lost" d="M%d,%d l14,14 m0,-14 l-14,14"/>`+"\n", x-7, y-7)
	case e.Kind == trace.Start:
		p.printf(`<path class="dot %s" d="M%d,%d l8,-13 l8,13 z"/>`+"\n", term, x-8, y+6)
	case e.Kind == trace.Pause:
		p.printf(`<rect class="paper" x="%d" y="%d" width="14" height="14"/><path class="wall" d="M%d,%d v12 m7,-12 v12"/>`+"\n", x-7, y-7, x-4, y-6)
	case e.Kind == trace.Resume:
		p.printf(`<path class="good" d="M%d,%d l13,7 l-13,7 z"/>`+"\n", x-5, y-7)
	case e.Role == string(node.Leader) && (e.Kind == trace.Role || e.Reason != nil && (e.Reason.Code == "elected" || e.Reason.Code == "appointed")):
		p.printf(`<path class="crown %s" d="M%d,%d l-2,-7 l4,3 l4,-5 l4,5 l4,-3 l-2,7 z"/><circle class="dot %s" cx="%d" cy="%d" r="%d"/><text class="number" x="%d" y="%d">%d</text>`+"\n",
			term, x-6, y-radius, term, x, y, radius, x, y+4, e.Term)
	case e.Kind == trace.Decide && e.Role == string(node.Candidate):
		p.printf(`<g class="%s"><circle class="ring candidate" cx="%d" cy="%d" r="%d"/><text class="number hollow" x="%d" y="%d">%d</text></g>`+"\n", term, x, y, radius, x, y+4, e.Term)
	default:
		p.printf(`<circle class="dot %s" cx="%d" cy="%d" r="5"/>`+"\n", term, x, y)
	}
}

// network draws a change of the links, across the lanes that it is about.
func (p *picture) network(i int) {
	e, y := p.rows[i].event, p.y[i]
	class := "wall"
	if e.Kind == trace.Heal {
		class = "healed"
	}
	from, to := p.x[p.ids[0]]-24, p.x[p.ids[len(p.ids)-1]]+24
	if e.From != 0 && e.To != 0 {
		from, to = min(p.x[e.From], p.x[e.To]), max(p.x[e.From], p.x[e.To])
	}
	p.printf(`<path class="%s" d="M%d,%d H%d"/>`+"\n", class, from, y, to)
}

// labels are the words at arrows, above all lines.
func (p *picture) labels() {
	type place struct{ x, y int }
	var taken []place
	for i := range p.messages {
		m := &p.messages[i]
		if m.label == "" {
			continue
		}
		x1, y1, x2, y2 := p.ends(m)
		x, y := x1+(x2-x1)*3/5, y1+(y2-y1)*3/5+3
		if m.lost {
			x, y = x1+(x2-x1)*2/5, y1+5
		}
		for k := 0; k < 3 && slices.ContainsFunc(taken, func(q place) bool { return max(q.x-x, x-q.x) < 30 && max(q.y-y, y-q.y) < 10 }); k++ {
			x -= (x2 - x1) / 6
			y -= (y2 - y1) / 6
		}
		taken = append(taken, place{x, y})
		class := "note"
		if m.no || m.lost {
			class += " bad"
		}
		p.printf(`<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(m.label))
	}
}

// clock writes a time in seconds, with milliseconds.
func clock(at time.Duration) string { return fmt.Sprintf("%.3f s", at.Seconds()) }
