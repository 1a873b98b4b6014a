package framing

import (
	"fmt"
	"strings"

	"example.com/raftsteps/shared/core/transport"
)

// count is the name of something that is counted.
type count string

const (
	// lines are the lines that servers have sent, and delivered those that have
	// arrived. long are delivered lines that need several datagrams, or that
	// arrived in several pieces of a connection.
	lines     count = "lines"
	delivered count = "delivered"
	long      count = "long"

	// sessions are UDP's sessions and TCP's connections in which a line was
	// delivered; renewed are those between two servers that had one already.
	sessions count = "sessions"
	renewed  count = "renewed"

	// frames are datagrams, or pieces of a connection. lost, repeated, late and
	// damaged are datagrams: late ones were overtaken.
	frames   count = "frames"
	lost     count = "lost"
	repeated count = "repeated"
	late     count = "late"
	damaged  count = "damaged"

	// stalled are pieces of a connection that had to be sent again. broken are
	// connections that broke, and halfOpen those of which only one side knew.
	stalled  count = "stalled"
	broken   count = "broken"
	halfOpen count = "half open"

	// forged are connections in which somebody on the way has changed something,
	// and refused those of them that a transport has ended then. The others broke, or
	// a server went down.
	forged  count = "forged"
	refused count = "refused"
)

// needed are the counts of each transport that must not stay 0.
var needed = map[string][]count{
	transport.TCP: {lines, delivered, long, sessions, renewed, frames, stalled, broken, halfOpen, forged, refused},
	"udp":         {lines, delivered, long, sessions, renewed, frames, lost, repeated, late, damaged},
}

// counts says how often something happened.
type counts map[count]int

// list lists the counts of a transport.
func (c counts) list(name string) string {
	var texts []string
	for _, n := range needed[name] {
		texts = append(texts, fmt.Sprintf("%s %d", n, c[n]))
	}
	return strings.Join(texts, ", ")
}

// zero returns the counts of a transport that are 0.
func (c counts) zero(name string) (zero []string) {
	for _, n := range needed[name] {
		if c[n] == 0 {
			zero = append(zero, string(n))
		}
	}
	return zero
}
