package cluster

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// The commands of a supervisor.
const (
	// Ping does nothing. Its answer shows that the supervisor is running.
	Ping = "ping"

	// List returns the states of the servers.
	List = "list"

	// Kill kills servers with SIGKILL, without a clean shutdown.
	Kill = "kill"

	// Pause pauses servers with SIGSTOP. Their connections stay open.
	Pause = "pause"

	// Resume continues paused servers.
	Resume = "resume"

	// Restart stops servers cleanly if they are running, and starts them again.
	Restart = "restart"

	// Start starts a new server: IDs has its number, Address its address; ""
	// means the address that follows from those of the members. This does not
	// make it a member. The server stays one of the cluster's servers when the
	// cluster is run again.
	Start = "start"

	// Cut drops all messages between each server of IDs and each of Others.
	Cut = "cut"

	// Heal ends cuts: those between IDs and Others, or all if both are empty.
	Heal = "heal"
)

// The states of a server's process. The state of a server that ended by itself
// says how: "ended by itself: …".
const (
	Running = "running"
	Paused  = "paused"
	Killed  = "killed"
	Stopped = "stopped"
)

// Command is a command for a supervisor.
type Command struct {
	// Do is one of the constants above.
	Do string `json:"do"`

	// IDs are the servers that the command applies to.
	IDs []uint64 `json:"ids,omitempty"`

	// Others are the other ends of the links, for Cut and Heal.
	Others []uint64 `json:"others,omitempty"`

	// Address is where the new server of Start listens.
	Address string `json:"address,omitempty"`
}

// Server is a supervisor's view of a server.
type Server struct {
	// ID is the ID of the server.
	ID uint64 `json:"id"`

	// State is Running, Paused, Killed, Stopped, or how the server ended by
	// itself.
	State string `json:"state"`

	// Cut are the servers to which its link is cut.
	Cut []uint64 `json:"cut,omitempty"`
}

// carryOut executes one command. If it fails for one server, it continues with
// the others; the error names all servers for which it failed.
func (s *supervisor) carryOut(c Command) ([]Server, error) {
	if c.Do == Ping {
		// Ping does not wait for other commands.
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return nil, errors.New("the cluster is stopping")
	}
	if c.Do == Start {
		return s.join(c)
	}
	for _, id := range slices.Concat(c.IDs, c.Others) {
		if _, err := s.find(id); err != nil {
			return nil, err
		}
	}
	switch c.Do {
	case List:
		return s.list(nil), nil
	case Kill:
		return s.each(c.IDs, s.kill)
	case Pause:
		return s.each(c.IDs, s.pause)
	case Resume:
		return s.each(c.IDs, s.resume)
	case Restart:
		return s.each(c.IDs, s.restart)
	case Cut:
		return s.relink(c, true)
	case Heal:
		return s.relink(c, false)
	}
	return nil, fmt.Errorf("the running cluster does not know the command %q, because another version of this program started it; restart the cluster", c.Do)
}

// list describes the servers with these IDs, or all.
func (s *supervisor) list(ids []uint64) []Server {
	var out []Server
	for _, sv := range s.servers {
		if ids == nil || slices.Contains(ids, sv.member.ID) {
			out = append(out, sv.status())
		}
	}
	return out
}

// each calls do for several servers.
func (s *supervisor) each(ids []uint64, do func(*server) error) ([]Server, error) {
	var errs []error
	for _, id := range ids {
		sv, err := s.find(id)
		if err == nil {
			err = do(sv)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return s.list(ids), joinErrors(errs)
}

// alive returns an error if a server is not running.
func (s *supervisor) alive(sv *server) error {
	if sv.process.running() {
		return nil
	}
	id := sv.member.ID
	return fmt.Errorf("%s is not running (%s); bring it back with: %s", s.name(id), sv.status().State, s.restartLine(id))
}

func (s *supervisor) kill(sv *server) error {
	if err := s.alive(sv); err != nil {
		return err
	}
	sv.process.kill(Killed)
	sv.paused = false
	s.out.say("%s was killed", s.name(sv.member.ID))
	return nil
}

func (s *supervisor) pause(sv *server) error {
	if err := s.alive(sv); err != nil {
		return err
	}
	if sv.paused {
		return nil
	}
	if err := pauseProcess(sv.process.cmd.Process); err != nil {
		return fmt.Errorf("%s: %w", s.name(sv.member.ID), err)
	}
	sv.paused = true
	s.trace(trace.Pause, sv.member.ID, "")
	s.out.say("%s is paused", s.name(sv.member.ID))
	return nil
}

func (s *supervisor) resume(sv *server) error {
	name := s.name(sv.member.ID)
	if err := s.alive(sv); err != nil {
		return err
	}
	if !sv.paused {
		return fmt.Errorf("%s is not paused", name)
	}
	s.trace(trace.Resume, sv.member.ID, "") // before the events of the resumed server
	if err := resumeProcess(sv.process.cmd.Process); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	sv.paused = false
	s.out.say("%s has resumed", name)
	return nil
}

func (s *supervisor) restart(sv *server) error {
	name := s.name(sv.member.ID)
	if err := s.checkData(sv); err != nil {
		return err // a running server should stay running
	}
	if sv.process.running() {
		sv.process.requestStop()
		if !sv.process.stop(time.After(s.o.StopTime), s.o.Kill) {
			s.out.say("%s did not stop in time and was killed", name)
		}
	}
	if err := s.start(sv); err != nil {
		return err
	}
	if err := s.waitReady(s.ctx, sv); err != nil {
		return err
	}
	s.out.say("%s is back", name)
	return nil
}

// relink cuts or heals links.
func (s *supervisor) relink(c Command, cut bool) ([]Server, error) {
	all := len(c.IDs)+len(c.Others) == 0
	lines := make(map[*server][]string)
	for _, a := range s.servers {
		for _, b := range s.servers {
			between := slices.Contains(c.IDs, a.member.ID) && slices.Contains(c.Others, b.member.ID) ||
				slices.Contains(c.Others, a.member.ID) && slices.Contains(c.IDs, b.member.ID)
			if a == b || a.cuts[b.member.ID] == cut || !between && !all {
				continue
			}
			lines[a] = append(lines[a], a.setCut(b.member.ID, cut))
		}
	}
	var errs []error
	for _, sv := range s.servers {
		if len(lines[sv]) == 0 || !sv.process.running() {
			continue
		}
		if err := sv.process.send(lines[sv], sv.paused); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", node.Name(sv.member.ID), err))
		}
	}
	s.sayLinks()
	return s.list(nil), joinErrors(errs)
}

// setCut records the state of a link and returns the line for the server's
// standard input.
func (sv *server) setCut(other uint64, cut bool) string {
	if cut {
		sv.cuts[other] = true
		return fmt.Sprintf("%s %d", CutLine, other)
	}
	delete(sv.cuts, other)
	return fmt.Sprintf("%s %d", HealLine, other)
}

// sayLinks shows which links are cut now.
func (s *supervisor) sayLinks() {
	text := ""
	for _, sv := range s.servers {
		for _, other := range sv.status().Cut {
			if sv.member.ID < other {
				text += fmt.Sprintf(" %s-%s", node.Name(sv.member.ID), node.Name(other))
			}
		}
	}
	if text == "" {
		s.out.say("all links are healed")
		return
	}
	s.out.say("links that are cut:%s", text)
}

// join starts a new server.
func (s *supervisor) join(c Command) ([]Server, error) {
	switch {
	case !s.o.Changes:
		return nil, errors.New("in this stage the members are fixed: a new server could not join them")
	case len(c.IDs) != 1 || c.IDs[0] == 0:
		return nil, errors.New("start takes the number of one server")
	}
	m, folder := node.Member{ID: c.IDs[0], Address: c.Address}, s.o.Folder
	var err error
	if m.Address == "" {
		if m.Address, err = folder.File.AddressFor(m.ID); err != nil {
			return nil, err
		}
	}
	if err := folder.CheckJoin(m); err != nil {
		return nil, err
	}
	if err := checkPort(m); errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s cannot listen on %s: another program uses that port; name another address", node.Name(m.ID), m.Address)
	} else if err != nil {
		return nil, ListenError(m, err)
	}
	if err := folder.Join(m); err != nil {
		return nil, err
	}
	sv := newServer(m)
	if err = s.start(sv); err == nil {
		if err = s.waitReady(s.ctx, sv); err != nil {
			sv.process.kill(Killed)
		}
	}
	if err != nil {
		errs := []error{err}
		if err := folder.Unjoin(m.ID); err != nil {
			errs = append(errs, err)
		}
		return nil, joinErrors(errs)
	}
	s.servers = append(s.servers, sv)
	s.out.widen(m)
	s.out.say("%s was started; it is not a member yet", node.Name(m.ID))
	return s.list(c.IDs), nil
}
