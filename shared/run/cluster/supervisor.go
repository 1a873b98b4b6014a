package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// defaultStopTime is how long servers may take for a clean stop.
const defaultStopTime = 6 * time.Second

// Options describes the cluster to run.
type Options struct {
	// Folder is the data folder. The caller holds its lock.
	Folder *Folder

	// Command returns the command that runs server id, with the links to the
	// servers in cuts cut from the start. The server must follow the protocol
	// of its standard input and output: print Ready when it listens, execute
	// CutLine and HealLine and print Done for each, stop when its input ends.
	Command func(id uint64, cuts []uint64) *exec.Cmd

	// Single is true if the folder belongs to a single server, which has no
	// name.
	Single bool

	// Changes is true if the members can change, so that new servers may be
	// started.
	Changes bool

	// Program comes before a command in hints, Flags after it: "kv" and "
	// --data DIR".
	Program string
	Flags   string

	// Out receives the output of the servers and the supervisor.
	Out io.Writer

	// Color is true if Out supports colors.
	Color bool

	// Up returns the text that is shown when all servers listen; nil for none.
	Up func() string

	// Settle is how long the servers must have been silent before Up is shown,
	// so that it comes after their first lines.
	Settle time.Duration

	// Kill, once closed, makes Run kill the servers instead of stopping them
	// cleanly.
	Kill <-chan struct{}

	// Trace is the absolute path of the traces, without the names of the servers at
	// the end; "" if there are none. Others find it with Remote.Trace.
	Trace string

	// Note is called when a process crashes, is paused or is resumed, with
	// trace.Crash, trace.Pause or trace.Resume; nil for none. Its calls do not
	// overlap.
	Note func(kind trace.Kind, id uint64, text string)

	// StopTime is how long servers may take for a clean stop; 0 for 6 s.
	StopTime time.Duration
}

// Run starts the servers of a cluster, supervises them until ctx is done, and
// ends them. No server is running when it returns. It returns nil if it ended
// because ctx was done, and an error if the cluster could not be started: a
// port is in use, or a server does not start.
//
// It also listens on its own port for the commands of Remote.
func Run(ctx context.Context, o Options) error {
	s := newSupervisor(ctx, o)
	if err := s.checkPorts(); err != nil {
		return err
	}
	c, err := listenControl(o.Folder.Dir, o.Trace, s.carryOut)
	if err != nil {
		return err
	}
	s.control = c
	go s.out.run()
	s.group.Go(c.serve)
	err = s.startAll(ctx)
	if err == nil {
		s.out.settle(ctx, o.Settle)
		if o.Up != nil {
			s.mu.Lock() // a command may change what Up describes
			text := o.Up()
			s.mu.Unlock()
			s.out.plain(text)
		}
		<-ctx.Done()
	}
	s.stopAll()
	c.close()
	s.group.Wait()
	s.out.close()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// supervisor owns the processes of a cluster.
type supervisor struct {
	o     Options
	out   *output
	ctx   context.Context
	group errgroup.Group

	// control takes the commands.
	control *control

	// lost makes the supervisor say only once that no command finds it.
	lost sync.Once

	// notes is held while Note is called.
	notes sync.Mutex

	// mu is held while the servers change: one command at a time.
	mu      sync.Mutex
	servers []*server
	ending  bool
}

// server is one server, member or not, across restarts.
type server struct {
	member node.Member

	// process is its latest process; nil before the first.
	process *process

	// paused is true while it is paused.
	paused bool

	// cuts are the servers to which its link is cut.
	cuts map[uint64]bool
}

func newSupervisor(ctx context.Context, o Options) *supervisor {
	if o.StopTime == 0 {
		o.StopTime = defaultStopTime
	}
	c := o.Folder.File.Config
	all := slices.Concat(c.Members, c.Joiners)
	s := &supervisor{o: o, ctx: ctx, out: newOutput(o.Out, o.Color, all...)}
	s.out.single = o.Single
	for _, m := range all {
		s.servers = append(s.servers, newServer(m))
	}
	return s
}

func newServer(m node.Member) *server { return &server{member: m, cuts: make(map[uint64]bool)} }

// checkPorts reports a port in use before any server is started.
func (s *supervisor) checkPorts() error {
	for _, sv := range s.servers {
		at := node.Member{ID: sv.member.ID, Address: s.o.Folder.File.Config.ListenAddress(sv.member.ID)}
		err := checkPort(at)
		switch {
		case errors.Is(err, syscall.EADDRINUSE) && s.o.Folder.Created:
			return fmt.Errorf("%w, or take other ports with --fresh --base-port", ListenError(at, err))
		case errors.Is(err, syscall.EADDRINUSE):
			// --fresh would delete data here.
			return fmt.Errorf("%w, or start another cluster with --data and --base-port", ListenError(at, err))
		case err != nil:
			return ListenError(at, err)
		}
	}
	return nil
}

func checkPort(m node.Member) error {
	l, err := net.Listen("tcp", m.Address)
	if err != nil {
		return err
	}
	return l.Close()
}

// ListenError says why a server cannot listen on its address and what to do.
func ListenError(m node.Member, err error) error {
	name := node.Name(m.ID)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s cannot listen on %s: another program uses that port, or %[1]s is already running; stop it", name, m.Address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s cannot listen on %s: that is not an address of this machine; give %[1]s one of its addresses", name, m.Address)
	default:
		return fmt.Errorf("%s cannot listen on %s: %w", name, m.Address, err)
	}
}

func (s *supervisor) startAll(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []error
	for _, sv := range s.servers {
		if err := s.checkData(sv); err != nil {
			// The others may continue without it.
			lost = append(lost, err)
			s.out.say("%v; it is not started", err)
			continue
		}
		if err := s.start(sv); err != nil {
			return err
		}
	}
	if len(lost) == len(s.servers) {
		return joinErrors(lost)
	}
	for _, sv := range s.servers {
		if sv.process == nil {
			continue
		}
		if err := s.waitReady(ctx, sv); err != nil {
			if ctx.Err() != nil || s.o.Folder.Created {
				return err
			}
			// Its disk may be damaged. The others have data and may continue
			// without it.
			lost = append(lost, err)
			s.out.say("%s did not come up; its output says why, and the other servers continue", s.name(sv.member.ID))
		}
	}
	if len(lost) == len(s.servers) {
		return joinErrors(lost)
	}
	return nil
}

// checkData refuses a server whose data is gone.
func (s *supervisor) checkData(sv *server) error {
	return CheckStarted(s.o.Folder.File.Data(s.o.Folder.ConfigPath()), sv.member.ID, s.o.Changes)
}

// start starts a new process of a server.
func (s *supervisor) start(sv *server) error {
	var cuts []uint64
	for id := range sv.cuts {
		cuts = append(cuts, id)
	}
	slices.Sort(cuts)
	id := sv.member.ID
	p, err := startProcess(s.o.Command(id, cuts), func(line string) { s.out.server(id, line) })
	if err != nil {
		return fmt.Errorf("%s did not start: %w", s.name(id), err)
	}
	sv.process, sv.paused = p, false
	s.group.Go(func() error {
		p.wait(func() { s.note(id, p) })
		s.report(id, p)
		return nil
	})
	return nil
}

func (s *supervisor) waitReady(ctx context.Context, sv *server) error {
	if err := sv.process.waitReady(ctx); err != nil {
		return fmt.Errorf("%s did not come up: %w", s.name(sv.member.ID), err)
	}
	return nil
}

// report shows that a running server has ended without a command.
func (s *supervisor) report(id uint64, p *process) {
	select {
	case <-p.ready:
	default:
		return
	}
	switch asked, ended, _ := p.state(); {
	case asked != "":
	case !s.control.found():
		s.out.say("%s ended by itself (%s)", s.name(id), ended)
		s.lost.Do(func() {
			text := fmt.Sprintf("the folder %s was deleted or replaced, so no command can bring servers back; press ^C and start again", s.o.Folder.Dir)
			if !s.o.Single {
				text += fmt.Sprintf(" with: %s cluster%s", s.o.Program, s.o.Flags)
			}
			s.out.say("%s", text)
		})
	default:
		s.out.say("%s ended by itself (%s) and stays down; bring it back with: %s", s.name(id), ended, s.restartLine(id))
	}
}

// note records in the trace that a server has crashed: it was killed, or it ended
// by itself.
func (s *supervisor) note(id uint64, p *process) {
	switch asked, ended, _ := p.state(); asked {
	case Killed:
		s.trace(trace.Crash, id, "its process was killed")
	case "":
		s.trace(trace.Crash, id, "its process ended by itself: "+ended)
	}
}

// trace calls Options.Note, if there is one.
func (s *supervisor) trace(kind trace.Kind, id uint64, text string) {
	if s.o.Note == nil {
		return
	}
	s.notes.Lock()
	defer s.notes.Unlock()
	s.o.Note(kind, id, text)
}

// name returns the name of a server in messages.
func (s *supervisor) name(id uint64) string {
	if s.o.Single {
		return "the server"
	}
	return node.Name(id)
}

// restartLine returns the command that restarts a server.
func (s *supervisor) restartLine(id uint64) string {
	if s.o.Single {
		return fmt.Sprintf("%s restart%s", s.o.Program, s.o.Flags)
	}
	return fmt.Sprintf("%s restart %d%s", s.o.Program, id, s.o.Flags)
}

// stopAll stops all servers and returns when none is running.
func (s *supervisor) stopAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	var live []*server
	for _, sv := range s.servers {
		if sv.process != nil && sv.process.running() {
			live = append(live, sv)
		}
	}
	if len(live) > 0 && !s.o.Single {
		s.out.say("stopping %s; ^C again to kill", count(len(live), "server"))
	}
	for _, sv := range live {
		sv.process.requestStop()
	}
	bound := make(chan time.Time)
	timer := time.AfterFunc(s.o.StopTime, func() { close(bound) })
	defer timer.Stop()
	for _, sv := range live {
		if !sv.process.stop(bound, s.o.Kill) {
			s.out.say("%s did not stop in time and was killed", s.name(sv.member.ID))
		}
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// find returns a server by its ID.
func (s *supervisor) find(id uint64) (*server, error) {
	for _, sv := range s.servers {
		if sv.member.ID == id {
			return sv, nil
		}
	}
	return nil, &NoServerError{fmt.Sprintf("%s is not a server of this cluster; the servers are %s", s.name(id), ServerList(s.o.Folder.File.Config))}
}

// status describes the process of a server.
func (sv *server) status() Server {
	state := Running
	switch {
	case sv.process == nil:
		state = Stopped
	case !sv.process.running():
		asked, ended, _ := sv.process.state()
		state = asked
		if state == "" {
			state = "ended by itself: " + ended
		}
	case sv.paused:
		state = Paused
	}
	out := Server{ID: sv.member.ID, State: state}
	for id := range sv.cuts {
		out.Cut = append(out.Cut, id)
	}
	slices.Sort(out.Cut)
	return out
}

// joinErrors combines several errors into one line.
func joinErrors(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}
