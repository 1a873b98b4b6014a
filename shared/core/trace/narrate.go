package trace

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Narrator writes events for people, one line each: when, on which server, what
// happened, and why. It leaves out repetitions: a message is written when it
// differs from the previous one between the same two servers, so that heartbeats
// appear once.
//
// Its Tell is a Sink, and like every Sink it is called by one goroutine at a
// time.
type Narrator struct {
	// Color switches ANSI colors on.
	Color bool

	// Verbose makes it write everything: sends, saves, repetitions, and requests
	// as the servers see them.
	Verbose bool

	w io.Writer

	// said is the last text about a link or a server.
	said map[topic]string

	err error
}

// topic is what a line is about, to notice that it repeats.
type topic struct {
	kind     Kind
	from, to uint64
}

// NewNarrator returns a Narrator that writes to w.
func NewNarrator(w io.Writer) *Narrator {
	return &Narrator{w: w, said: make(map[topic]string)}
}

// Err returns the first error of the writer, or nil.
func (n *Narrator) Err() error { return n.err }

// Colors, by what they mean.
const (
	dim   = "2"
	bold  = "1"
	red   = "31"
	green = "32"
)

// nodeColors distinguish the servers.
var nodeColors = []string{"36", "33", "35", "34", "32", "96", "93", "95"}

// Tell writes one event, if it is worth a line.
func (n *Narrator) Tell(e Event) {
	text, color := n.sentence(e)
	if text == "" || n.repeats(e, text) {
		return
	}
	who := ""
	if e.Node != 0 {
		who = fmt.Sprintf("n%d", e.Node)
	}
	if e.Kind == Logs {
		n.write(text)
		return
	}
	line := fmt.Sprintf("%s  %s  %s", clock(e.At), n.paint(fmt.Sprintf("%-3s", who), nodeColour(e.Node)), n.paint(text, color))
	n.write(line)
}

func (n *Narrator) write(line string) {
	if n.err == nil {
		_, n.err = fmt.Fprintln(n.w, strings.TrimRight(line, " "))
	}
}

// indent indents a table under the text of a story.
func indent(table string) string {
	margin := strings.Repeat(" ", 18)
	return margin + strings.ReplaceAll(table, "\n", "\n"+margin)
}

// clock formats a time since the start, in seconds with microseconds.
func clock(at time.Duration) string {
	return fmt.Sprintf("%10.6fs", at.Seconds())
}

func nodeColour(id uint64) string {
	if id == 0 {
		return ""
	}
	return nodeColors[(id-1)%uint64(len(nodeColors))]
}

func (n *Narrator) paint(text, color string) string {
	if !n.Color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Sentence returns what happened as a Narrator says it, with the server in front; ""
// if it is not worth a line.
func Sentence(e Event) string {
	text, _ := new(Narrator).sentence(e)
	if text != "" && e.Node != 0 && e.Kind != Drop {
		text = fmt.Sprintf("n%d %s", e.Node, text)
	}
	return text
}

// repeats reports whether a message or a decision was written before in the same
// words, with nothing else between the same two servers.
func (n *Narrator) repeats(e Event, text string) bool {
	if n.Verbose {
		return false
	}
	t := topic{e.Kind, e.From, e.To}
	switch e.Kind {
	case Deliver, Drop:
	case Decide:
		t = topic{e.Kind, e.Node, e.Node}
	default:
		return false
	}
	if n.said[t] == text {
		return true
	}
	n.said[t] = text
	return false
}

// sentence returns what happened, and in which color; "" if it is not worth a
// line.
func (n *Narrator) sentence(e Event) (text, color string) {
	switch e.Kind {
	case Start, Stop, Crash, Pause, Resume:
		return because(lifeWords[e.Kind], e.Text), bold
	case Cut, Heal:
		return linkSentence(e), bold
	case Send, Deliver, Drop:
		return n.messageSentence(e)
	case Request, Reply, Invoke, Return:
		return n.clientSentence(e)
	case Role:
		return roleSentence(e), bold
	case Decide:
		return decideSentence(e), ""
	case Save:
		if !n.Verbose {
			return "", ""
		}
		return because("syncs its disk", e.Text), dim
	case Trouble:
		return e.Text, red
	case Apply:
		return applySentence(e), green
	case Logs:
		return indent(e.Text), ""
	case Note:
		return "— " + e.Text, bold
	case Verdict:
		if e.Reason != nil {
			return "✘ " + because(e.Text, e.Reason.Text), red
		}
		return "✔ " + e.Text, green
	}
	return because(string(e.Kind), e.Text), ""
}

var lifeWords = map[Kind]string{
	Start:  "starts",
	Stop:   "stops",
	Crash:  "crashes",
	Pause:  "is paused",
	Resume: "goes on",
}

// because joins what happened and why; either may be missing.
func because(what, why string) string {
	if what == "" || why == "" {
		return what + why
	}
	return what + ": " + why
}

func linkSentence(e Event) string {
	if e.From == 0 && e.To == 0 {
		return e.Text
	}
	what := "passes messages again"
	if e.Kind == Cut {
		what = "loses every message"
	}
	return because(fmt.Sprintf("the link n%d → n%d %s", e.From, e.To, what), e.Text)
}

func (n *Narrator) messageSentence(e Event) (text, color string) {
	message := Brief(e.Message)
	switch e.Kind {
	case Send:
		if !n.Verbose {
			return "", ""
		}
		return fmt.Sprintf("sends to n%d: %s", e.To, message), dim
	case Drop:
		if e.From == 0 && e.To == 0 {
			return because("drops a message", e.Text), red
		}
		return fmt.Sprintf("n%d → n%d is lost (%s): %s", e.From, e.To, e.Text, message), red
	}
	if e.Text != "" {
		message += " (" + e.Text + ")"
	}
	return fmt.Sprintf("gets from n%d: %s", e.From, message), dim
}

func (n *Narrator) clientSentence(e Event) (text, color string) {
	message := Brief(e.Message)
	switch e.Kind {
	case Invoke:
		return because(fmt.Sprintf("client %d asks n%d: %s", e.Client, e.To, message), e.Text), ""
	case Return:
		return because(fmt.Sprintf("client %d is told: %s", e.Client, message), e.Text), ""
	}
	if !n.Verbose {
		return "", ""
	}
	if e.Kind == Request {
		return fmt.Sprintf("is asked by client %d: %s", e.Client, message), dim
	}
	return fmt.Sprintf("answers client %d: %s", e.Client, message), dim
}

func roleSentence(e Event) string {
	what := "becomes " + e.Role
	if e.Term != 0 {
		what += fmt.Sprintf(" in term %d", e.Term)
	}
	return because(because(what, e.Text), reasonText(e))
}

// decideSentence drops the server's name at the front of a reason: the line
// has it already.
func decideSentence(e Event) string {
	text := because(e.Text, reasonText(e))
	return strings.TrimPrefix(text, fmt.Sprintf("n%d ", e.Node))
}

// reasonText is a reason and where the paper states its rule.
func reasonText(e Event) string {
	if e.Reason == nil {
		return ""
	}
	text := e.Reason.Text
	if e.Reason.Section != "" {
		text += " (" + e.Reason.Section + ")"
	}
	return text
}

func applySentence(e Event) string {
	what := "writes " + Brief(e.Message)
	if e.Index != 0 {
		what += fmt.Sprintf(" (entry %d)", e.Index)
	}
	return because(what, e.Text)
}
