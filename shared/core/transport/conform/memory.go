package conform

import (
	"context"
	"sync"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport"
)

// InProcess is the name of a transport between servers in one process: the simplest
// one that does what a transport must do.
const InProcess = "in-process"

func init() {
	transport.Register(InProcess, func(o transport.Options) (transport.Transport, error) {
		return &port{cluster: o.Cluster + "\n" + o.Secret, id: o.ID, limits: o.Limits.Filled(), wake: make(chan struct{}, 1)}, nil
	})
}

// bus has the ports of all servers that are running. Servers with different secrets
// do not meet.
var bus = struct {
	sync.Mutex
	ports map[string]map[uint64]*port
}{ports: make(map[string]map[uint64]*port)}

// port is where a server receives the messages of the others.
type port struct {
	cluster string
	id      uint64
	limits  transport.Limits
	wake    chan struct{}

	mu     sync.Mutex
	queue  []mail
	bytes  int
	ended  bool
	target map[uint64]bool
}

type mail struct {
	from uint64
	line []byte
}

func (p *port) Run(ctx context.Context, receive func(from uint64, line []byte)) error {
	bus.Lock()
	if bus.ports[p.cluster] == nil {
		bus.ports[p.cluster] = make(map[uint64]*port)
	}
	bus.ports[p.cluster][p.id] = p
	bus.Unlock()
	defer func() {
		bus.Lock()
		defer bus.Unlock()
		if bus.ports[p.cluster][p.id] == p {
			delete(bus.ports[p.cluster], p.id)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		for m, ok := p.next(); ok && ctx.Err() == nil; m, ok = p.next() {
			receive(m.from, m.line)
		}
	}
}

func (p *port) next() (mail, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return mail{}, false
	}
	m := p.queue[0]
	p.queue[0] = mail{}
	p.queue = p.queue[1:]
	p.bytes -= len(m.line)
	return m, true
}

// Connect does nothing: a server can reach every other one that is running.
func (p *port) Connect([]node.Member) {}

func (p *port) Send(to uint64, line []byte) bool {
	bus.Lock()
	q := bus.ports[p.cluster][to]
	bus.Unlock()
	if q == nil || len(line) > p.limits.Message {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, mail{p.id, line})
	q.bytes += len(line)
	whole := true
	for len(q.queue) > p.limits.QueueLines || q.bytes > p.limits.QueueBytes && len(q.queue) > 1 {
		q.bytes -= len(q.queue[0].line)
		q.queue = q.queue[1:]
		whole = false
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return whole
}
