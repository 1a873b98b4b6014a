package replica

import (
	"context"
	"sync"

	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
)

// Network carries messages between replicas of one process, without sockets. It
// is for tests, and an example of a transport. Its zero value is ready to use;
// it is safe for concurrent use.
type Network struct {
	mu    sync.Mutex
	ports map[uint64]*port
}

// inbox is how many messages may wait for a replica; further ones are lost, and
// Raft repeats them.
const inbox = 1000

// port is the end of a Network at one replica.
type port struct {
	network *Network
	id      uint64
	arrived chan mail
}

type mail struct {
	from uint64
	line []byte
}

// Transport returns the transport of a replica, for Options. A restarted
// replica needs a new one; messages that the old one did not receive are lost.
func (n *Network) Transport(id uint64) host.Transport {
	p := &port{network: n, id: id, arrived: make(chan mail, inbox)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports == nil {
		n.ports = make(map[uint64]*port)
	}
	n.ports[id] = p
	return p
}

// Run is host.Transport.Run.
func (p *port) Run(ctx context.Context, receive func(from uint64, line []byte)) error {
	for {
		select {
		case m := <-p.arrived:
			receive(m.from, m.line)
		case <-ctx.Done():
			return nil
		}
	}
}

// Connect is host.Transport.Connect. It does nothing: all replicas are
// connected.
func (p *port) Connect([]node.Member) {}

// Send is host.Transport.Send.
func (p *port) Send(to uint64, line []byte) bool {
	p.network.mu.Lock()
	peer := p.network.ports[to]
	p.network.mu.Unlock()
	if peer == nil {
		return false
	}
	select {
	case peer.arrived <- mail{p.id, line}:
		return true
	default:
		return false
	}
}
