package recording

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// clients gives numbers to the clients of requests. A server does not know who has
// sent a request, only what number it has on its connection. So requests that are
// open at the same time get different numbers.
type clients struct {
	open []asked
}

type asked struct {
	client, server uint64
	id             string
}

// mostClients is how many requests may be open at once; further ones get number 0,
// and are not shown.
const mostClients = 1000

func (c *clients) ask(server uint64, id string) uint64 {
	if len(c.open) >= mostClients {
		return 0
	}
	n := uint64(1)
	for _, a := range c.open { // in the order of their numbers
		if a.client != n {
			break
		}
		n++
	}
	a := asked{n, server, id}
	i, _ := slices.BinarySearchFunc(c.open, a, func(a, b asked) int { return cmp.Compare(a.client, b.client) })
	c.open = slices.Insert(c.open, i, a)
	return n
}

// answer returns the client of an answer, or 0.
func (c *clients) answer(server uint64, id string) uint64 {
	i := slices.IndexFunc(c.open, func(a asked) bool { return a.server == server && a.id == id })
	if i < 0 {
		return 0
	}
	n := c.open[i].client
	c.open = slices.Delete(c.open, i, i+1)
	return n
}

// gone forgets the requests of a server that has stopped: nobody answers them.
func (c *clients) gone(server uint64) {
	c.open = slices.DeleteFunc(c.open, func(a asked) bool { return a.server == server })
}

// requestID returns the number that a request or an answer has on its connection.
func requestID(line string) string {
	digits, ok := strings.CutPrefix(line, `{"id":`)
	if !ok {
		return ""
	}
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if _, err := strconv.ParseUint(digits[:max(end, 0)], 10, 64); err != nil {
		return ""
	}
	return digits[:end]
}
