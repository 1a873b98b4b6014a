package framing

import (
	"bytes"
	"fmt"

	"example.com/raftsteps/shared/core/node"
)

// ledger has what the servers have sent, and checks what a transport delivers.
type ledger struct {
	sent map[place]payload

	// latest is the number of the line that a TCP link has delivered last.
	latest map[pair]uint64
	once   map[session]map[place]bool
}

// place identifies a line: the server that sent it, in which of its lives, to whom,
// and the number of the line on that link.
type place struct {
	from, life, to, number uint64
}

// session is a session of UDP, or a connection, in which a server receives.
type session struct {
	to, life, number uint64
}

// pair are two lives of two servers.
type pair struct {
	from, fromLife, to, toLife uint64
}

// payload is what a transport carries for a line: the life of its sender, its number, a
// text that makes it long, and the line.
type payload []byte

func newLedger() *ledger {
	return &ledger{sent: make(map[place]payload), latest: make(map[pair]uint64), once: make(map[session]map[place]bool)}
}

// send returns what is sent for a line; its length is at least that.
func (l *ledger) send(p place, line []byte, length int) payload {
	b := fmt.Appendf(nil, "%d %d ", p.life, p.number)
	for number := fmt.Append(nil, p.number, "."); len(b)+len(line)+1 < length; {
		b = append(b, number[:min(len(number), length-len(b)-len(line)-1)]...)
	}
	b = append(append(b, ' '), line...)
	l.sent[p] = b
	return b
}

// arrive checks what a transport has delivered in a session, and returns the line. It
// must be what was sent, and no line may arrive twice in one session. With ordered,
// no line may arrive after a later one.
func (l *ledger) arrive(s session, from uint64, b payload, ordered bool) (place, []byte, error) {
	p := place{from: from, to: s.to}
	text := b
	for _, n := range []*uint64{&p.life, &p.number} {
		digits, rest, _ := bytes.Cut(text, []byte{' '})
		if _, err := fmt.Sscan(string(digits), n); err != nil {
			return p, nil, fmt.Errorf("%s receives from %s what nobody has sent: %.200q", node.Name(s.to), node.Name(from), b)
		}
		text = rest
	}
	if want, ok := l.sent[p]; !ok || !bytes.Equal(want, b) {
		return p, nil, fmt.Errorf("%s receives from %s what was not sent: %.200q; line %d to it was %.200q", node.Name(s.to), node.Name(from), b, p.number, want)
	}
	_, text, _ = bytes.Cut(text, []byte{' '})
	if l.once[s] == nil {
		l.once[s] = make(map[place]bool)
	}
	if l.once[s][p] {
		return p, nil, fmt.Errorf("%s receives line %d from %s twice in one session: %.200q", node.Name(s.to), p.number, node.Name(from), b)
	}
	l.once[s][p] = true
	if !ordered {
		return p, text, nil
	}
	lives := pair{p.from, p.life, p.to, s.life}
	if before := l.latest[lives]; p.number <= before {
		return p, nil, fmt.Errorf("%s receives line %d from %s after line %d: %.200q", node.Name(s.to), p.number, node.Name(from), before, b)
	}
	l.latest[lives] = p.number
	return p, text, nil
}
