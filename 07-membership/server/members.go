package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// change begins a change of the members, or cancels one. The client is answered
// when its first entry is committed; the change then continues by itself. To the rules
// a change to the present voters cancels the one under way, or writes new addresses;
// only the server knows which of these the client wants, and refuses the other.
func (s *Server) change(r api.Request, reply func(api.Response)) {
	c := s.config()
	next, refusal := c.Voters, (*api.Error)(nil)
	switch {
	case s.rules.Status().Role != raft.Leader:
		refusal = s.notLeader()
	case r.Op == api.Change && len(c.Next) > 0:
		refusal = s.refuseChange(raft.ErrChanging)
	case r.Op == api.Change:
		next, refusal = nextVoters(c, r)
	case len(c.Next) == 0:
		refusal = refused("there is nothing to cancel: no change of the members is under way")
	}
	if refusal != nil {
		reply(api.Failed(r.ID, refusal))
		return
	}
	index, term, err := s.rules.Change(next, addresses(c, next, r.Add))
	if err != nil {
		reply(api.Failed(r.ID, s.refuseChange(err)))
		return
	}
	s.waiting[index] = waiter{term: term, request: r, reply: reply}
}

// nextVoters returns who votes after a change, or says why it makes no sense. A
// voter that is added at another address has moved.
func nextVoters(c raft.Config, r api.Request) ([]raft.ID, *api.Error) {
	next := slices.Clone(c.Voters)
	for _, id := range r.Remove {
		i := slices.Index(next, raft.ID(id))
		if i < 0 {
			return nil, refused("%s is not a member, so it cannot be removed; the members are %s", node.Name(id), names(c.Voters))
		}
		next = slices.Delete(next, i, i+1)
	}
	for _, m := range r.Add {
		id := raft.ID(m.ID)
		for _, other := range c.Voters {
			switch {
			case c.Addresses[other] != m.Address || !slices.Contains(next, other):
			case other == id:
				return nil, refused("%v is a member already, at %s", id, m.Address)
			default:
				return nil, refused("%s is the address of %v", m.Address, other)
			}
		}
		if !slices.Contains(next, id) {
			next = append(next, id)
		}
	}
	slices.Sort(next)
	switch {
	case len(next) == 0:
		return nil, refused("a cluster cannot be without members")
	case len(next) > api.MaxMembers:
		return nil, refused("a cluster has at most %d members", api.MaxMembers)
	}
	return next, nil
}

// moved says what to do if this server is not where the cluster knows it.
func (s *Server) moved() string {
	known, own := s.config().Addresses[raft.ID(s.world.ID)], s.world.Config.Address(s.world.ID)
	if known == "" || known == own {
		return ""
	}
	return fmt.Sprintf("; the cluster knows it at %s, and its configuration says %s; when it runs, tell the cluster with: add %d=%[2]s", known, own, s.world.ID)
}

// addresses are those of the voters and of the next ones.
func addresses(c raft.Config, next []raft.ID, added []api.Member) map[raft.ID]string {
	known := make(map[raft.ID]string)
	for _, id := range slices.Concat(c.Voters, next) {
		known[id] = c.Addresses[id]
	}
	for _, m := range added {
		known[raft.ID(m.ID)] = m.Address
	}
	return known
}

func (s *Server) refuseChange(err error) *api.Error {
	c := s.config()
	switch {
	case err == raft.ErrNotLeader:
		return s.notLeader()
	case err == raft.ErrChanging && c.Joint:
		return refused("a change of the members is under way, from %s to %s; wait until it is done", names(c.Voters), names(c.Next))
	case err == raft.ErrChanging && len(c.Next) > 0:
		return refused("a change of the members is under way, from %s to %s: the new ones are catching up; wait, or cancel it", names(c.Voters), names(c.Next))
	case err == raft.ErrChanging:
		return refused("a change of the members has just been made and is not committed yet; try again in a moment")
	}
	return refused("%v; try again in a moment", err)
}

// names lists servers in words.
func names(ids []raft.ID) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = id.String()
	}
	return strings.Join(list, ", ")
}

func refused(format string, args ...any) *api.Error {
	return &api.Error{Code: api.Refused, Message: fmt.Sprintf(format, args...), Definite: true}
}

// transferPatience is how long a client waits for the transfer.
const transferPatience = 2 * time.Second

// pendingTransfer is a client that waits for another server to lead.
type pendingTransfer struct {
	request api.Request
	reply   func(api.Response)

	// since is the tick at which it arrived, and term the term at that time.
	since uint64
	term  raft.Term
}

// transfer moves the leadership to another server.
func (s *Server) transfer(r api.Request, reply func(api.Response)) {
	switch err := s.rules.Transfer(raft.ID(r.To)); err {
	case nil:
		s.pendingTransfers = append(s.pendingTransfers, pendingTransfer{request: r, reply: reply, since: s.ticks, term: s.rules.Status().CurrentTerm})
	case raft.ErrNotLeader:
		reply(api.Failed(r.ID, s.notLeader()))
	default:
		c := s.config()
		reply(api.Failed(r.ID, refused("%s does not vote, so it cannot lead; the voters are %s", node.Name(r.To), names(c.Voters))))
	}
}

// serveTransfers answers the clients whose server leads now.
func (s *Server) serveTransfers() {
	s.pendingTransfers = slices.DeleteFunc(s.pendingTransfers, func(t pendingTransfer) bool {
		if s.rules.Status().Leader != raft.ID(t.request.To) {
			return false
		}
		t.reply(api.Response{ID: t.request.ID})
		return true
	})
}

// expireTransfers answers the clients whose transfers did not happen in time. A
// server that still leads in the same term has never told the other to start an
// election.
func (s *Server) expireTransfers() {
	s.pendingTransfers = slices.DeleteFunc(s.pendingTransfers, func(t pendingTransfer) bool {
		if s.ticks-t.since < uint64(node.Ticks(transferPatience)) {
			return false
		}
		e := &api.Error{Code: api.Unknown, Leader: s.leader(),
			Message: fmt.Sprintf("%s has not become the leader within %v", node.Name(t.request.To), transferPatience)}
		if status := s.rules.Status(); status.Role == raft.Leader && status.CurrentTerm == t.term {
			e = &api.Error{Code: api.Unavailable, Definite: true,
				Message: fmt.Sprintf("%s did not have the whole log in time, so %s stays leader; run members to see the progress", node.Name(t.request.To), node.Name(s.world.ID))}
		}
		t.reply(api.Failed(t.request.ID, e))
		return true
	})
}

// phase names the phase of a change that a configuration belongs to.
func phase(c raft.Config) string {
	switch {
	case c.Joint:
		return api.Joint
	case len(c.Next) > 0:
		return api.Learning
	}
	return api.Stable
}

// members describes the configuration.
func (s *Server) members() api.Membership {
	c := s.config()
	status := s.rules.Status()
	to := api.Membership{
		ID:        s.world.ID,
		Role:      string(status.Role),
		Term:      uint64(status.CurrentTerm),
		Leader:    uint64(status.Leader),
		Last:      uint64(status.Last),
		Commit:    uint64(status.Commit),
		Config:    uint64(c.Index),
		Committed: c.Index <= status.Commit,
		Phase:     phase(c),
		Removed:   status.Removed,
	}
	for _, id := range c.Members() {
		match, _ := s.rules.Progress(id)
		to.Members = append(to.Members, api.MemberStatus{
			Member: api.Member{ID: uint64(id), Address: c.Addresses[id]},
			Voter:  slices.Contains(c.Voters, id),
			Next:   slices.Contains(c.Next, id),
			Match:  uint64(match),
		})
	}
	return to
}

// addMembership adds to a status what this server knows of the configuration.
func (s *Server) addMembership(to *api.ServerStatus) {
	c, status := s.config(), s.rules.Status()
	to.Phase, to.Voters, to.Next, to.Removed = phase(c), numbers(c.Voters), numbers(c.Next), status.Removed
	if status.Role != raft.Leader || to.Phase != api.Learning {
		return
	}
	to.Learners = []api.Learner{}
	for _, id := range learners(c) {
		match, _ := s.rules.Progress(id)
		to.Learners = append(to.Learners, api.Learner{ID: uint64(id), Match: uint64(match)})
	}
}

// numbers are IDs as an answer has them; never nil.
func numbers(ids []raft.ID) []uint64 {
	list := make([]uint64, len(ids))
	for i, id := range ids {
		list[i] = uint64(id)
	}
	return list
}

// learners are the servers that get the log and do not count yet.
func learners(c raft.Config) []raft.ID {
	if c.Joint {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Next), func(id raft.ID) bool { return slices.Contains(c.Voters, id) })
}
