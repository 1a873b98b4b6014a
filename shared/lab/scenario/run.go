package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
	"example.com/raftsteps/shared/lab/sim"
)

// run is one run of a story. It keeps its first failure: after it the helpers
// do nothing, so that a script needs no check after each line.
type run struct {
	stage      Stage
	story      Scenario
	seed       uint64
	w          *sim.World
	invariants *check.Invariants

	// ended is true once the script has ended, by itself or by a Direction.
	ended bool

	// kind and why describe the failure; kind is "" while there is none.
	kind Kind
	why  string

	// askers counts the further clients that the script has used.
	askers uint64

	// given is the newest term in which the operator has appointed a leader.
	given uint64

	// person is the client that changes the members in a story, teller in a chaos.
	// wire waits for a moment in a change, and transfers counts the transfers of
	// leadership.
	person    *sim.Client
	teller    *sim.Client
	wire      *tripwire
	transfers int

	// joining has the spares that were asked to join, voted all servers that
	// have ever been voters.
	joining []uint64
	voted   []uint64

	// calm is true once the faults of a chaos have ended.
	calm bool

	// acknowledged has the last acknowledged value of each key that put and
	// mustWrite wrote.
	acknowledged map[string]string

	// writes has the commands that servers have applied, if the events have a
	// receiver.
	writes []write

	// disks starts servers from copies of disks.
	disks *durable

	// logs are the logs that were shown last.
	logs logs
}

// write is a command that a server applied.
type write struct {
	server  uint64
	at      time.Duration
	command kv.Command
}

// How long a story waits, in virtual time. Each bound is many times the
// expected time.
const (
	// settleTime is how long replicas may take to agree after the faults have
	// ended.
	settleTime = 2 * time.Second

	// leaderTime is how long a cluster may take to find a leader.
	leaderTime = 5 * time.Second
)

// breaks records a failure, unless there was one before.
func (r *run) breaks(kind Kind, format string, args ...any) {
	if r.kind == "" {
		r.kind, r.why = kind, fmt.Sprintf(format, args...)
	}
}

// over reports whether the story has ended.
func (r *run) over() bool { return r.kind != "" || r.w.Err() != nil }

// say begins a chapter. It first shows the logs at the end of the previous
// chapter.
func (r *run) say(format string, args ...any) {
	if !r.over() {
		r.tellLogs()
		r.w.Say(format, args...)
	}
}

// wait lets time pass.
func (r *run) wait(d time.Duration) {
	if !r.over() {
		r.w.RunFor(d)
	}
}

// settle gives the replicas time to agree.
func (r *run) settle() { r.wait(settleTime) }

// Clients of every story.
const (
	// someClient sends each request once, to one server.
	someClient = 1

	// watcher sends requests that are not part of the story.
	watcher = 2

	// firstAsker is the first client that has its own options.
	firstAsker = 3
)

// asker returns a new client.
func (r *run) asker() *sim.Client {
	r.askers++
	return r.w.Client(firstAsker + r.askers - 1)
}

// do sends a request once, to one server. It returns the error of the answer.
func (r *run) do(server uint64, q api.Request) (api.Response, *api.Error) {
	return r.doAs(r.w.Client(someClient), server, q)
}

// look is do for requests that are not part of the story.
func (r *run) look(server uint64, q api.Request) (api.Response, *api.Error) {
	c := r.w.Client(watcher)
	c.Quiet = true
	return r.doAs(c, server, q)
}

func (r *run) doAs(c *sim.Client, server uint64, q api.Request) (api.Response, *api.Error) {
	if r.over() {
		return api.Response{}, &api.Error{Code: api.Unknown, Message: "the story has ended"}
	}
	response, err := c.Do(server, q)
	var answer *api.Error
	if err != nil && !errors.As(err, &answer) {
		answer = &api.Error{Code: api.Unknown, Message: err.Error()}
	}
	return response, answer
}

// put writes through this server, which must acknowledge the write.
func (r *run) put(server uint64, key, value string) {
	if _, err := r.do(server, api.Request{Op: kv.Put, Key: key, Value: value}); err != nil {
		r.breaks(Unavailable, "%s does not take put %s=%s: %v", node.Name(server), key, value, err)
		return
	}
	r.acknowledged[key] = value
}

// tryPut begins a write that may fail, and returns at once.
func (r *run) tryPut(server uint64, key, value string) *sim.Call {
	if r.over() {
		return &sim.Call{}
	}
	return r.w.Client(someClient).Begin(server, api.Request{Op: kv.Put, Key: key, Value: value})
}

// write writes through the leader and repeats the request until it is
// acknowledged. It reports whether that happened within bound.
func (r *run) write(key, value string, bound time.Duration) bool {
	c := r.asker()
	c.Follow, c.Timeout, c.Patience = true, 500*time.Millisecond, bound
	end := r.w.Now() + bound
	server := r.someone()
	for !r.over() && r.w.Now() < end {
		// A put is idempotent as long as no other client writes the key.
		if _, err := c.Do(server, api.Request{Op: kv.Put, Key: key, Value: value}); err == nil {
			return true
		}
		r.wait(50 * time.Millisecond)
	}
	return false
}

// mustWrite is write for a cluster with a running majority: the write must be
// acknowledged.
func (r *run) mustWrite(key, value string) {
	if !r.write(key, value, leaderTime) && !r.over() {
		r.breaks(Unavailable, "no server takes put %s=%s within %v, though %s", key, value, leaderTime, whoRuns(r.w.Running()))
	}
	r.acknowledged[key] = value
}

// someone returns a running server.
func (r *run) someone() uint64 {
	running := r.w.Running()
	if len(running) == 0 {
		return 1
	}
	return running[r.w.Rand().IntN(len(running))]
}

// others returns the servers except these, in order.
func (r *run) others(but ...uint64) []uint64 {
	return slices.DeleteFunc(r.w.IDs(), func(id uint64) bool { return slices.Contains(but, id) })
}

// pick chooses n servers from a list and returns them in order.
func (r *run) pick(from []uint64, n int) []uint64 {
	chosen := slices.Clone(from)
	r.w.Rand().Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	chosen = chosen[:min(n, len(chosen))]
	slices.Sort(chosen)
	return chosen
}

func nodeNames(ids []uint64) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = node.Name(id)
	}
	switch len(names) {
	case 0:
		return "no servers"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// whoRuns returns a clause about the servers that are running.
func whoRuns(ids []uint64) string {
	if len(ids) == 1 {
		return nodeNames(ids) + " runs"
	}
	return nodeNames(ids) + " run"
}

// status asks a server for its status.
func (r *run) status(server uint64) (api.ServerStatus, bool) {
	response, err := r.look(server, api.Request{Op: api.Status})
	if err != nil || r.over() {
		return api.ServerStatus{}, false
	}
	s, failed := api.DecodeStatus(response.Data)
	if failed != nil || s.ID != server || s.Role == "" {
		r.breaks(Unsafe, "the status of %s is %s: it needs its id and its role", node.Name(server), response.Data)
		return api.ServerStatus{}, false
	}
	return s, true
}

// findLeader returns the leader with the newest term among some servers; 0 if
// there is none within bound.
func (r *run) findLeader(among []uint64, bound time.Duration) uint64 {
	for end := r.w.Now() + bound; !r.over(); r.wait(50 * time.Millisecond) {
		var leader api.ServerStatus
		for _, id := range among {
			if !r.w.Up(id) {
				continue
			}
			if s, ok := r.status(id); ok && node.Role(s.Role) == node.Leader && s.Term >= leader.Term {
				leader = s
			}
		}
		if leader.ID != 0 {
			return leader.ID
		}
		if r.w.Now() > end {
			break
		}
	}
	return 0
}

// leader returns the leader. If there is none and the operator appoints leaders
// in this stage, it appoints one.
func (r *run) leader() uint64 { return r.leaderAmong(r.w.IDs()) }

// leaderAmong is leader for one side of a cluster.
func (r *run) leaderAmong(ids []uint64) uint64 {
	bound := leaderTime
	_, appointed := r.stage.Ops[api.Lead]
	if appointed {
		bound = 0
	}
	id := r.findLeader(ids, bound)
	if id == 0 && appointed {
		id = r.appointBest(ids)
	}
	if id == 0 {
		r.breaks(Unavailable, "nobody leads within %v, though %s", bound, whoRuns(r.w.Running()))
	}
	return id
}

// appointBest appoints the server with the most up-to-date log among some, in a
// term after all of theirs, as a careful operator does.
func (r *run) appointBest(ids []uint64) uint64 {
	var best, bestTerm, bestLast uint64
	term := r.given
	for _, id := range ids {
		s, ok := r.status(id)
		if !ok {
			continue
		}
		lastTerm := r.lastTerm(s)
		if best == 0 || lastTerm > bestTerm || lastTerm == bestTerm && s.Last > bestLast {
			best, bestTerm, bestLast = id, lastTerm, s.Last
		}
		term = max(term, s.Term)
	}
	if best != 0 {
		r.appoint(best, term+1)
	}
	return best
}

// appoint appoints a server leader of a term.
func (r *run) appoint(id, term uint64) {
	r.given = max(r.given, term)
	r.say("the operator appoints %s in term %d", node.Name(id), term)
	if _, err := r.do(id, api.Request{Op: api.Lead, Term: term}); err != nil {
		r.breaks(Unavailable, "%s refuses to be appointed: %v", node.Name(id), err)
	}
}

// lastTerm is the term of a server's last log entry.
func (r *run) lastTerm(s api.ServerStatus) uint64 {
	if s.Last == 0 {
		return 0
	}
	response, err := r.look(s.ID, api.Request{Op: api.Log, From: s.Last})
	if err != nil {
		return 0
	}
	p, failed := journal.DecodePage(response.Data)
	if failed != nil {
		r.breaks(Unsafe, "the log of %s is not as it should be: %v", node.Name(s.ID), failed)
	}
	if len(p.Entries) == 0 {
		return 0
	}
	return p.Entries[len(p.Entries)-1].Term
}

// newLeader waits until one of these servers leads. In stages without
// elections, it appoints the one with the best log.
func (r *run) newLeader(among []uint64) uint64 {
	if _, appointed := r.stage.Ops[api.Lead]; appointed {
		return r.appointBest(among)
	}
	id := r.findLeader(among, leaderTime)
	if id == 0 && !r.over() {
		r.breaks(Unavailable, "%s are a majority and have found no leader within %v", nodeNames(among), leaderTime)
	}
	return id
}

// values reads a key from every running member.
func (r *run) values(key string) []check.Replica {
	var all []check.Replica
	members := r.members()
	for _, id := range r.w.Running() {
		if !slices.Contains(members, id) {
			continue
		}
		response, err := r.do(id, api.Request{Op: kv.Get, Key: key})
		switch {
		case err == nil:
			all = append(all, check.Replica{Server: id, Found: true, Value: response.Value})
		case err.Code == api.NotFound:
			all = append(all, check.Replica{Server: id})
		default:
			r.breaks(Unavailable, "%s does not answer get %s: %v", node.Name(id), key, err)
		}
	}
	return all
}

// agree checks that all running servers have this value under a key.
func (r *run) agree(key, value string) {
	if replicas, ok := r.same(key); ok && (!replicas[0].Found || replicas[0].Value != value) {
		has := "nothing"
		if replicas[0].Found {
			has = key + "=" + replicas[0].Value
		}
		r.breaks(LostWrite, "every server holds %s, and %s=%s was acknowledged", has, key, value)
	}
}

// same checks that all running servers have the same value under a key,
// whatever it is.
func (r *run) same(key string) ([]check.Replica, bool) {
	if r.over() {
		return nil, false
	}
	replicas := r.values(key)
	if r.over() {
		return nil, false
	}
	if len(replicas) == 0 {
		r.breaks(Unavailable, "no server is running")
		return nil, false
	}
	if err := check.Agree(key, replicas); err != nil {
		r.breaks(ReplicasDiffer, "%v", err)
		r.tellParting(key)
		return nil, false
	}
	return replicas, true
}

// remember keeps the commands that servers apply, to show where they differ.
func (r *run) remember(e trace.Event) {
	switch e.Kind {
	case trace.Start:
		// The server has lost what it held in memory.
		r.writes = slices.DeleteFunc(r.writes, func(w write) bool { return w.server == e.Node })
	case trace.Apply:
		if c, _, _, ok := check.DecodeCommand([]byte(e.Message)); ok {
			r.writes = append(r.writes, write{e.Node, e.At, c})
		}
	}
}

// tellParting shows, for servers that differ, what each of them wrote under the
// key, and when.
func (r *run) tellParting(key string) {
	var stories []string
	tellers := make(map[string][]uint64)
	for _, id := range r.w.Running() {
		var steps []string
		for _, w := range r.writes {
			if w.server == id && w.command.Key == key {
				steps = append(steps, trace.Brief(string(w.command.AppendJSON(nil))))
			}
		}
		story := "nothing"
		if len(steps) > 0 {
			story = strings.Join(steps, ", then ")
		}
		if tellers[story] == nil {
			stories = append(stories, story)
		}
		tellers[story] = append(tellers[story], id)
	}
	for _, story := range stories {
		r.w.Say("under %s, %s wrote: %s", key, nodeNames(tellers[story]), story)
	}
}
