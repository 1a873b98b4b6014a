package trace

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// StoryLines is the Limit of a story that a person reads on a screen.
const StoryLines = 78

// Digest writes a story in few lines. It keeps the lines that a Narrator would
// write, each with its weight, and End writes as many of the important ones as
// fit: chapters and the verdict first, then decisions, losses and the crashes and
// starts of servers, then requests of clients and their answers, then every
// message.
//
// Its Tell is a Sink, and like every Sink it is called by one goroutine at a
// time.
type Digest struct {
	// Color switches ANSI colors on.
	Color bool

	// Limit is the number of lines that a story may have, up to a dozen more.
	// Where even the chapters exceed it, the first and the last are kept.
	Limit int

	w io.Writer
	n *Narrator

	// lines are those kept so far, and count how many there were of each weight.
	lines []line
	count [weights]int

	// said is what the present chapter has already said about losses, decisions
	// and clients.
	said map[saying]bool

	// lost is how many lines were dropped early to save memory.
	lost int
}

// line is the line of one event.
type line struct {
	weight weight
	event  Event
	text   string

	// nodes are the servers that it is about, if the same happened to several.
	nodes []uint64
}

// height is how many lines of text the line takes.
func (l line) height() int { return 1 + strings.Count(l.text, "\n") }

// saying is a statement that is made once in a chapter.
type saying struct {
	about topic
	text  string
}

// weight says how important a line is: the smaller, the more important.
type weight int

const (
	// chapter: what the story is about, and how it ends.
	chapter weight = iota

	// turn: something that changes what happens next.
	turn

	// table: the logs at the end of a chapter.
	table

	// client: requests of clients, and their answers.
	client

	// detail: everything else.
	detail

	weights
)

// routine are the decisions of a run without failures.
var routine = map[string]bool{
	"newer-term": true, "older-term": true, "timed-out": true, "voted": true, "asks": true, "would-vote": true,
	"committed": true, "learned-commit": true, "read-confirmed": true,
}

// Routine reports whether a decision belongs to a run without failures.
func Routine(code string) bool { return routine[code] }

// NewDigest returns a Digest that writes to w.
func NewDigest(w io.Writer, limit int) *Digest {
	return &Digest{Limit: limit, w: w, n: NewNarrator(w), said: make(map[saying]bool)}
}

// Tell processes one event.
func (d *Digest) Tell(e Event) {
	text, color := d.n.sentence(e)
	if text == "" || d.n.repeats(e, text) || d.saidByDecision(e) || d.fold(e) {
		return
	}
	l := line{weight: d.weigh(e, text), event: e, nodes: []uint64{e.Node}}
	if e.Kind == Drop {
		l.nodes = []uint64{e.To}
	}
	d.n.Color = d.Color
	l.text = d.n.paint(text, color)
	d.keep(l)
}

// weigh returns the weight of an event whose sentence is text.
func (d *Digest) weigh(e Event, text string) weight {
	switch e.Kind {
	case Note, Verdict:
		clear(d.said)
		return chapter
	case Start, Stop, Crash, Pause, Resume, Cut, Heal:
		return turn
	case Role:
		if e.Role == "leader" {
			return turn
		}
	case Logs:
		return table
	case Drop:
		if e.Text == IsDown(e.To) {
			return detail
		}
		// The reason of a lost message is given once for each link, for any
		// content.
		return d.once(turn, topic{e.Kind, e.From, e.To}, e.Text)
	case Decide:
		if e.Reason == nil || routine[e.Reason.Code] {
			return detail
		}
		return d.once(turn, topic{e.Kind, e.Node, 0}, text)
	case Invoke, Return:
		return d.once(client, topic{e.Kind, e.Client, 0}, text)
	}
	return detail
}

// once returns w the first time that something is said about a topic, and
// detail when it is repeated.
func (d *Digest) once(w weight, about topic, text string) weight {
	if d.said[saying{about, text}] {
		return detail
	}
	d.said[saying{about, text}] = true
	return w
}

// saidByDecision reports whether e is a new role that the decision before it
// has announced.
func (d *Digest) saidByDecision(e Event) bool {
	if e.Kind != Role || len(d.lines) == 0 {
		return false
	}
	for i := len(d.lines) - 1; i >= 0 && d.lines[i].event.At == e.At; i-- {
		if before := d.lines[i].event; before.Kind == Decide && before.Node == e.Node {
			return true
		}
	}
	return false
}

// fold joins e to an earlier line of the chapter if the same happens to another
// server, or to a message on another link of the same sender.
func (d *Digest) fold(e Event) bool {
	for i := len(d.lines) - 1; i >= 0 && d.lines[i].weight != chapter; i-- {
		l := &d.lines[i]
		if l.event.Kind != e.Kind || l.event.Text != e.Text {
			if l.weight == turn {
				return false
			}
			continue
		}
		switch e.Kind {
		case Start, Stop, Crash, Pause, Resume:
			if l.event.At == e.At && !slices.Contains(l.nodes, e.Node) {
				l.nodes = append(l.nodes, e.Node)
				return true
			}
		case Drop:
			if l.weight == turn && l.event.From == e.From && e.From != 0 && !slices.Contains(l.nodes, e.To) {
				l.nodes = append(l.nodes, e.To)
				d.said[saying{topic{e.Kind, e.From, e.To}, e.Text}] = true
				return true
			}
		}
		if l.weight == turn {
			return false
		}
	}
	return false
}

// keep stores a line, unless lines of its weight cannot be shown any longer.
func (d *Digest) keep(l line) {
	d.count[l.weight] += l.height()
	sum := 0
	for w := chapter; w <= l.weight; w++ {
		sum += d.count[w]
	}
	if l.weight > table && sum > d.Limit {
		d.lost++
		return
	}
	d.lines = append(d.lines, l)
	if len(d.lines) > 64*max(d.Limit, 1) {
		d.thin()
	}
}

// thin drops the lines in the middle that End would leave out anyway.
func (d *Digest) thin() {
	shown := d.choose()
	kept := d.lines[:0]
	for i, l := range d.lines {
		// The newest lines may turn out to be the end of the story.
		if shown[i] || i >= len(shown)-d.Limit {
			kept = append(kept, l)
		} else {
			d.lost++
		}
	}
	d.lines = kept
}

// End writes the story, and returns the first error of the writer.
func (d *Digest) End() error {
	shown := d.choose()
	var b strings.Builder
	left, last := d.lost, -1
	for i, ok := range shown {
		if ok {
			last = i
			continue
		}
		left++
	}
	gap := false
	for i, l := range d.lines {
		if !shown[i] {
			gap = gap || l.weight <= d.level()
			continue
		}
		if gap && i <= last {
			fmt.Fprintf(&b, "%s  %s\n", strings.Repeat(" ", 11), d.n.paint("     …", dim))
			gap = false
		}
		b.WriteString(d.format(l))
	}
	if left > 0 {
		fmt.Fprintf(&b, "%s       %s\n", strings.Repeat(" ", 11), d.n.paint(fmt.Sprintf("(%d more events: -v tells them all)", left), dim))
	}
	_, err := io.WriteString(d.w, b.String())
	return err
}

// level is the weight of which not all lines may fit.
func (d *Digest) level() weight {
	sum := 0
	for w := chapter; w < weights; w++ {
		if sum += d.count[w]; sum > d.Limit {
			return min(w, table)
		}
	}
	return weights
}

// choose returns which lines are shown: all lines of the weights that fit as a
// whole, and of the first weight that does not, the first lines and the last.
// Lines about clients, and details, are shown completely or not at all.
func (d *Digest) choose() []bool {
	shown := make([]bool, len(d.lines))
	room := d.Limit
	for w := chapter; w < weights && room > 0; w++ {
		if d.count[w] <= room {
			room -= d.take(shown, w, room)
			continue
		}
		if w <= table {
			first := room * 2 / 3
			d.take(shown, w, first)
			d.takeLast(shown, w, room-first)
		}
		break
	}
	return shown
}

// take shows the first lines of a weight that fit, and returns their height.
func (d *Digest) take(shown []bool, w weight, room int) int {
	height := 0
	for i, l := range d.lines {
		if l.weight != w {
			continue
		}
		if height+l.height() > room {
			break
		}
		shown[i] = true
		height += l.height()
	}
	return height
}

// takeLast shows the last lines of a weight that fit.
func (d *Digest) takeLast(shown []bool, w weight, room int) {
	for i, l := range slices.Backward(d.lines) {
		if l.weight != w {
			continue
		}
		if room -= l.height(); room < 0 || shown[i] {
			break
		}
		shown[i] = true
	}
}

// format writes a line as a Narrator does.
func (d *Digest) format(l line) string {
	if l.event.Kind == Logs {
		return l.text + "\n"
	}
	who := ""
	if l.event.Node != 0 {
		who = fmt.Sprintf("n%d", l.event.Node)
	}
	if len(l.nodes) > 1 {
		slices.Sort(l.nodes)
		names := make([]string, len(l.nodes))
		for i, id := range l.nodes {
			names[i] = fmt.Sprintf("n%d", id)
		}
		several := strings.Join(names, ", ")
		text := d.n.paint(fmt.Sprintf("each of %s %s", several, because(lifeWords[l.event.Kind], l.event.Text)), bold)
		if l.event.Kind == Drop {
			text = d.n.paint(fmt.Sprintf("n%d → %s are lost (%s): %s", l.event.From, several, l.event.Text, Brief(l.event.Message)), red)
		}
		return fmt.Sprintf("%s       %s\n", clock(l.event.At), text)
	}
	return strings.TrimRight(fmt.Sprintf("%s  %s  %s", clock(l.event.At), d.n.paint(fmt.Sprintf("%-3s", who), nodeColour(l.event.Node)), l.text), " ") + "\n"
}
