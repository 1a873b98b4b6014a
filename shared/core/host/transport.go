package host

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/tcp"
	"example.com/raftsteps/shared/core/wire"
)

// Transport carries messages between this server and its peers.
type Transport = transport.Transport

// join creates the transport: the one in the options, or the one that the
// configuration names.
func (h *Host) join() error {
	o := h.o
	if o.Transport != nil {
		h.count(o.Transport)
		h.transport = introduced{o.Transport, h.disks}
		return nil
	}
	self := wire.Identity{Cluster: o.Config.Cluster, Secret: o.Config.Secret, Keys: o.TLS, ID: o.ID, Address: o.Config.Address(o.ID), Disks: h.disks, Start: rand.Uint64()}
	name := cmp.Or(o.Config.Transport, transport.TCP)
	if name == transport.TCP {
		t := tcp.New(self, o.Limits, h.log, h.loop.receive)
		h.count(t)
		h.transport, h.server.Peers = t, t.Peers()
		return nil
	}
	t, err := transport.New(name, transport.Options{
		ID: o.ID, Cluster: self.Cluster, Secret: self.Secret, Keys: o.TLS, Address: self.Address, Listen: h.listen.Addr().String(), Log: h.log,
		Limits: transport.Limits{Message: o.Limits.PeerLine, QueueLines: o.Limits.QueueLines, QueueBytes: o.Limits.QueueBytes,
			Dial: o.Limits.Dial, Idle: o.Limits.Idle, Backoff: o.Limits.Backoff},
	})
	if err != nil {
		return err
	}
	h.count(t)
	h.transport, h.created = introduced{t, h.disks}, t
	if _, certified := t.(transport.Certified); o.TLS != nil && !certified {
		return fmt.Errorf(`the transport %s does not use TLS, so with "tls" its messages would be less protected than cluster.json says; leave "transport" out`, name)
	}
	h.server.Peers = &wire.Peers{Self: self, Elsewhere: fmt.Sprintf(
		`this server receives messages over %s: write "transport": %[1]q into the cluster.json of every server`, name)}
	if s, ok := t.(transport.Sharer); ok {
		h.server.Shared = s
	}
	return nil
}

// count makes the transport tell the meter what it loses, if it can.
func (h *Host) count(t Transport) {
	if c, ok := t.(transport.Counted); ok {
		c.OnLoss(h.loop.meter.Lost)
		h.loop.counted = true
	}
}

// close closes what New has opened, for a server that cannot start.
func (h *Host) close() (err error) {
	if c, ok := h.created.(io.Closer); ok {
		err = c.Close()
	}
	if h.listen != nil {
		err = errors.Join(err, h.listen.Close())
	}
	return err
}
