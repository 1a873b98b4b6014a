// Package replica puts one server of a cluster into a Go program: the last
// stage as a library. It replicates any server.Machine: a bank, a queue of
// jobs, a configuration.
//
//	r, err := replica.Start(replica.Options[*bank]{ID: 1, Config: config, Machine: newBank, Dir: "data/n1"})
//	…
//	result, index, err := r.Propose(ctx, []byte(`{"from":"ann","to":"bob","amount":30}`))
//	err = r.Read(ctx, func(b *bank) { balance = b.balance["ann"] })
//
// A program starts one replica, and its other copies, most often on other
// machines, start the others. Commands go to the replica that leads: Propose at
// another says so, and names the address of the leader, or, with
// Options.Forward, passes the command on to it. Reads are answered by every
// replica, and are as fresh as if there were only one.
//
// # What a machine must do
//
// Its Apply is called on every server with the same commands in the same order.
// Between commands nothing may change it, and nothing but the commands may
// decide what it does. A command may be proposed again by a program that got no
// answer; a machine for which it matters gives commands names, and remembers
// the results of those it has done.
//
// # Goroutines
//
// All methods are safe for concurrent use. A replica has a goroutine of its own
// that applies commands and runs the functions given to Read: a slow one makes
// the cluster slow. It has others for its disk and its peers; Close ends them
// all.
//
// # Errors
//
// Propose has one of three outcomes:
//
//	err == nil                   done: the command is committed and applied
//	an *api.Error, Definite      not done, and it will not be
//	an *api.Error, not Definite  unknown: it may have been done, or may yet be
//
// Propose never repeats a command, and a forwarded command is proposed at most
// once, whatever the network does. So a command is applied twice only if the
// program proposes it again after an unknown outcome.
//
// The other methods have an *api.Error, too, with a code for programs and a
// sentence for people. Methods that change nothing end with the error of their
// ctx when that is done, and Log and Watch with ErrCompacted for entries that
// are no longer in the log.
package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trust"
)

// Options configures a replica. M is the state machine.
type Options[M server.Machine] struct {
	// ID is the replica's own. It must be among the members of Config, or, if it
	// will be added to a running cluster, among the joiners.
	ID uint64

	// Config is the configuration that all replicas share before they start:
	// the name of the cluster, the secret with which they know each other,
	// members, timeouts, CompactBytes. Over TCP there must be a secret: without
	// one no replica trusts another. Timeouts that are 0 have defaults; they
	// are counted in steps of node.TickInterval. Once a replica has data, its
	// own list of the members counts, not this one. Leader and Fsync mean
	// nothing here: leaders are elected, and what is written is synced.
	Config node.Config

	// Machine returns a new state machine. It is called at the start, and again
	// when the leader sends a snapshot.
	Machine func() M

	// Dir is the folder in which the replica keeps its log and its snapshot; it
	// is created if it does not exist. It belongs to this ID and this kind of
	// machine forever: a new replica gets a new ID and a new Dir. A replica
	// that restarts with an empty folder has forgotten its promises: the others
	// refuse it, and it stops.
	Dir string

	// Disk, if not nil, is used instead of Dir, and is not closed. It must be safe
	// for concurrent use.
	Disk disk.Disk

	// Transport carries messages between replicas; nil is the one that
	// Config.Transport names, between the addresses of the members: TCP, or
	// another one whose package the program imports.
	Transport host.Transport

	// Listener accepts the TCP connections; nil means the replica's own
	// address.
	Listener net.Listener

	// Clients is true if other programs may connect to the replica's address,
	// and send it server.LibraryOps as lines of JSON. Config.Access says what
	// they may do; without it, the address must be one that only this machine can
	// reach. A Transport does not change where they connect.
	Clients bool

	// Forward is true if Propose may be called at any replica: one that does not
	// lead passes the command on to the leader, and waits for the result. The
	// same is true of a propose from a client. A leader keeps at most 16 MiB of
	// forwarded commands that are not applied yet, and answers further ones with
	// api.Busy. A result of more than 3 MiB is not sent to another replica: the
	// outcome is then unknown there.
	Forward bool

	// TLS are the keys with which the replica speaks TLS, to the others and to
	// clients; nil means that it speaks none. A Transport does not use them.
	TLS *trust.Keys

	// Log receives messages for the operator; nil discards them.
	Log *slog.Logger
}

// The default timeouts.
const (
	defaultHeartbeat   = 50 * time.Millisecond
	minElectionTimeout = 150 * time.Millisecond
	maxElectionTimeout = 300 * time.Millisecond
)

// Replica is one server of a cluster.
type Replica[M server.Machine] struct {
	host   *host.Host
	server *server.Server

	// life ends at Close, and when the server has stopped by itself.
	life context.Context
	end  context.CancelFunc

	// ended is closed when the server has ended completely; err is set before
	// that.
	ended chan struct{}
	err   error

	progress progress
}

// Start starts a replica from its folder. It returns before there is a leader;
// see Leader.
func Start[M server.Machine](o Options[M]) (*Replica[M], error) {
	config, err := check(o)
	if err != nil {
		return nil, fmt.Errorf("%s cannot start: %w", node.Name(o.ID), err)
	}
	r := &Replica[M]{ended: make(chan struct{})}
	closeDisk := func() error { return nil }
	if o.Disk == nil {
		folder, err := disk.OpenFolder(o.Dir, disk.Options{})
		if err != nil {
			return nil, err
		}
		o.Disk, closeDisk = folder, folder.Close
	}
	factory := server.With(func() server.Machine { return o.Machine() })
	r.host, err = host.New(host.Options{
		ID: o.ID, Config: config, Disk: o.Disk, Transport: o.Transport, Listener: o.Listener, TLS: o.TLS, Log: o.Log,
		Ops: server.LibraryOps, NoClients: !o.Clients,
		New: func(w node.World) (node.Server, error) {
			s, err := factory(w)
			if err != nil {
				return nil, err
			}
			r.server = s.(*server.Server)
			_, _, term := r.server.Progress()
			return &observed{r.server, &r.progress, newForwards(w, o.Forward, term)}, nil
		},
	})
	if err != nil {
		return nil, errors.Join(err, closeDisk())
	}
	r.life, r.end = context.WithCancel(context.Background())
	go func() {
		defer close(r.ended)
		defer r.end()
		r.err = errors.Join(r.host.Run(r.life), closeDisk())
	}()
	return r, nil
}

// check returns an error if the options are wrong; otherwise it returns the
// complete configuration.
func check[M server.Machine](o Options[M]) (node.Config, error) {
	c := o.Config
	c.Members, c.Joiners = inOrder(c.Members), inOrder(c.Joiners)
	c.Heartbeat = cmp.Or(c.Heartbeat, defaultHeartbeat)
	if c.ElectionTimeout == [2]time.Duration{} {
		c.ElectionTimeout = [2]time.Duration{minElectionTimeout, maxElectionTimeout}
	}
	switch {
	case o.ID == 0:
		return c, errors.New("the options have no ID: which of the members is this server?")
	case o.Machine == nil:
		return c, errors.New("the options have no Machine: there is nothing to replicate")
	case o.Disk == nil && o.Dir == "":
		return c, errors.New("the options have no Dir: a server that forgets what it promised breaks the cluster")
	case c.Cluster == "":
		return c, errors.New("the configuration has no Cluster: give the cluster a name")
	case len(c.Members) == 0:
		return c, errors.New("the configuration has no Members: a cluster has at least one")
	case node.Ticks(c.Heartbeat) >= node.Ticks(c.ElectionTimeout[0]) || c.ElectionTimeout[0] > c.ElectionTimeout[1]:
		return c, fmt.Errorf("a heartbeat of %v and an election timeout from %v to %v: each must be above the one before, in steps of %v", c.Heartbeat, c.ElectionTimeout[0], c.ElectionTimeout[1], node.TickInterval)
	}
	all := slices.Concat(c.Members, c.Joiners)
	for i, m := range all {
		if m.ID == 0 || m.ID > api.MaxID {
			return c, fmt.Errorf("the configuration has a member with ID %d; IDs go from 1 to 2^53", m.ID)
		}
		if err := api.CheckAddress(m.Address); err != nil {
			return c, fmt.Errorf("the configuration's address of %s: %w", node.Name(m.ID), err)
		}
		for _, other := range all[:i] {
			if other.ID == m.ID || other.Address == m.Address {
				return c, fmt.Errorf("the configuration has two members %s at %s and %s at %s; IDs and addresses must differ", node.Name(other.ID), other.Address, node.Name(m.ID), m.Address)
			}
		}
	}
	return c, nil
}

func inOrder(members []node.Member) []node.Member {
	return slices.SortedFunc(slices.Values(members), func(a, b node.Member) int { return cmp.Compare(a.ID, b.ID) })
}

// Close stops the replica: it accepts no more requests, waits a few seconds for
// pending answers, and ends all its goroutines. What was committed is on its
// disk; Start with the same folder continues from there. The error is the one
// that stopped the replica earlier, such as a failed disk. Close may be called
// more than once.
func (r *Replica[M]) Close() error {
	r.end()
	<-r.ended
	return r.err
}

// Done is closed when the replica has stopped: by Close, or because of an
// error. Close then returns why.
func (r *Replica[M]) Done() <-chan struct{} { return r.ended }

// Addr returns the address on which the replica listens; nil if it does not.
func (r *Replica[M]) Addr() net.Addr { return r.host.Addr() }

// Propose proposes a command and waits until it has been applied: here, or, if
// the command was forwarded, at the leader. The command has any bytes, at most
// 1 MiB; one that is a JSON value can be read in the journal. Propose returns
// what Apply returned, as JSON, and the command's index in the log.
//
// At a replica that does not lead the error has the code api.NotLeader, and the
// address of the leader if that is known. With Options.Forward this is so only
// if the replica knows no leader, or if the leader has lost its leadership. A
// forwarded command for which no answer comes within 5 seconds has an unknown
// outcome; within half a second, if there is another leader by then.
func (r *Replica[M]) Propose(ctx context.Context, command []byte) (result []byte, index uint64, err error) {
	a, err := r.host.Do(ctx, api.Request{Op: api.Propose, Value: string(command)})
	return a.Data, a.Index, err
}

// Read calls f with the state machine, at a moment when it contains every write
// that any replica acknowledged before Read was called (linearizable). It runs
// on the goroutine that applies commands: f must not wait, nor change the
// machine, nor keep what Apply may change. Once Read has returned, f is no
// longer called.
func (r *Replica[M]) Read(ctx context.Context, f func(machine M)) error {
	_, err := r.look(ctx, api.Request{Op: api.Barrier}, func(api.Response) {
		// It is what Options.Machine has made.
		f(r.server.Machine().(M))
	})
	return err
}

// Leader waits until this replica knows a leader, which may be itself, and
// returns its ID. That server may have lost its leadership by then.
func (r *Replica[M]) Leader(ctx context.Context) (uint64, error) {
	var leader uint64
	err := r.wait(ctx, func(_, known uint64) bool {
		leader = known
		return known != 0
	})
	return leader, err
}

// look sends a request that changes nothing.
func (r *Replica[M]) look(ctx context.Context, q api.Request, then func(api.Response)) (api.Response, error) {
	a, err := r.host.DoThen(ctx, q, then)
	if err != nil && ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	return a, err
}
