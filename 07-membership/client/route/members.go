package route

import (
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// The members of a cluster change, and a client may outlive all servers that were
// named to it. So it asks from time to time who the members are. These are calls of
// its own, alongside the others.

const (
	// learnEvery is how long after a read or a command the client asks for the
	// members. It asks at once when another server leads: that is when they change.
	learnEvery = 2 * time.Second

	// learnSoon is how long after a server failed it.
	learnSoon = 100 * time.Millisecond

	// learnTimeout is how long it waits for each server.
	learnTimeout = 250 * time.Millisecond
)

// members is what a client knows of the members.
type members struct {
	// config is where in the log the configuration stands that names them.
	config uint64

	// questions are the calls under way that ask for them. asked is the number of
	// the last, and led is the leader at that time, "" before the first.
	questions []*question
	asked     uint64
	led       string
}

// question is a call that asks one server after the other for the members.
type question struct {
	id uint64

	// after is how long it waits before it asks.
	after time.Duration

	// tried are the servers that it has asked.
	tried []string
}

// learn begins a question, unless one that waits as long is under way.
func (r *Route) learn(after time.Duration) []node.Step {
	if r.led != "" && r.led != r.leader {
		after = 0
	}
	if slices.ContainsFunc(r.questions, func(q *question) bool { return q.after == after }) {
		return nil
	}
	r.asked++
	r.led = r.leader
	q := &question{id: node.Own + r.asked, after: after}
	r.questions = append(r.questions, q)
	return []node.Step{q.ask(r.leader, after)}
}

// ask is the step that asks a server.
func (q *question) ask(at string, after time.Duration) node.Step {
	q.tried = append(q.tried, at)
	return node.Step{Call: q.id, To: at, After: after, Timeout: learnTimeout, Request: api.Request{Op: api.Members}}
}

// learned takes the answer to a question. A server that follows no leader may have
// been removed, so the next one is asked. But the members that it knows may know
// more.
func (r *Route) learned(id uint64, response api.Response, e *api.Error) []node.Step {
	if e == nil {
		m, err := api.DecodeMembership(response.Data)
		if err == nil && m.Leader != 0 {
			r.adopt(m)
			return r.forget(id)
		}
		for _, member := range m.Members {
			r.know(member.Address)
		}
	}
	q := r.questions[slices.IndexFunc(r.questions, func(q *question) bool { return q.id == id })]
	for _, at := range append([]string{r.leader, r.reader}, r.servers...) {
		if !slices.Contains(q.tried, at) {
			return []node.Step{q.ask(at, 0)}
		}
	}
	return r.forget(id)
}

// forget ends a question.
func (r *Route) forget(id uint64) []node.Step {
	r.questions = slices.DeleteFunc(r.questions, func(q *question) bool { return q.id == id })
	return nil
}

// adopt puts the members first in the order in which servers are asked. The others
// stay behind them, as a last resort.
func (r *Route) adopt(m api.Membership) {
	if m.Config < r.config || len(m.Members) == 0 {
		return // it is older than the known configuration
	}
	r.config = m.Config
	var addresses []string
	for _, member := range m.Members {
		addresses = append(addresses, member.Address)
	}
	for _, address := range r.servers {
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	r.servers = addresses
	if !slices.Contains(addresses[:len(m.Members)], r.reader) {
		r.reader = r.servers[0]
	}
}

// concernsMembers reports whether a request goes to the leader without a session. A
// server that does not answer could keep such a request, and nobody would know
// whether it was done. So the server must first say who the members are.
func concernsMembers(op string) bool {
	return slices.Contains([]string{api.Members, api.Change, api.Cancel, api.Transfer}, op)
}
