package grpc

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/transport"
)

// peer is another server: the messages that wait for it, and the links to it.
type peer struct {
	id     uint64
	limits transport.Limits
	log    *slog.Logger
	lost   func(why peers.Loss, count int)

	// named is true while Connect names the peer, at this address; end ends the calls
	// to it. Transport.mu guards them.
	named   bool
	address string
	end     context.CancelFunc

	mu    sync.Mutex
	queue [][]byte
	bytes int

	// called is the link that this server has opened, and answered the one that the
	// peer has opened; nil if there is none. Messages leave on called, or else on
	// answered.
	called, answered *link

	// lives are the starts of the peer.
	lives peers.Lives
}

// link is a Link whose sides have proved who they are.
type link struct {
	stream  stream
	out, in *seal

	// wake signals that there may be messages to send.
	wake chan struct{}

	// close ends the link.
	close func()
}

func newLink(s stream, out, in *seal, end func()) *link {
	return &link{stream: s, out: out, in: in, wake: make(chan struct{}, 1), close: end}
}

// send puts a message into the queue. It returns false if it had to drop messages:
// the oldest ones, because the newest have the latest term and commit index.
func (p *peer) send(line []byte) bool {
	if len(line) > p.limits.Message {
		p.lost(peers.LostTooLong, 1)
		p.log.Error("a message is too long for a peer and was dropped", "bytes", len(line), "limit", p.limits.Message)
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, line)
	p.bytes += len(line)
	drop := 0
	for len(p.queue)-drop > p.limits.QueueLines || p.bytes > p.limits.QueueBytes && len(p.queue)-drop > 1 {
		p.bytes -= len(p.queue[drop])
		p.queue[drop] = nil
		drop++
	}
	p.queue = p.queue[drop:]
	if drop > 0 {
		p.lost(peers.LostFull, drop)
	}
	p.wakeLink()
	return drop == 0
}

// take returns the next message that is to leave on a link, or nil.
func (p *peer) take(l *link) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l != p.link() || len(p.queue) == 0 {
		return nil
	}
	line := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	p.bytes -= len(line)
	return line
}

// clear empties the queue, unless the peer has a link: an attempt to call it has
// failed, and a peer that starts again should not have to read old messages first.
func (p *peer) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link() == nil {
		p.drop()
	}
}

// drop empties the queue, because there is no link. p.mu must be held.
func (p *peer) drop() {
	if n := len(p.queue); n > 0 {
		p.lost(peers.LostUnreachable, n)
	}
	p.queue, p.bytes = nil, 0
}

// link returns the link on which messages leave, or nil. p.mu must be held.
func (p *peer) link() *link {
	if p.called != nil {
		return p.called
	}
	return p.answered
}

// wakeLink makes the link look at the queue. p.mu must be held.
func (p *peer) wakeLink() {
	if l := p.link(); l != nil {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// set puts a link in its place. It returns the older link there, which must be
// closed: a peer calls again when its old connection has failed, which this side may
// not have noticed.
func (p *peer) set(place **link, l *link) (old *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, *place = *place, l
	p.wakeLink()
	return old
}

// saw records that the peer has called. It returns where another process of the same
// server is, if there is one; see peers.Lives.
func (p *peer) saw(start uint64, place net.Addr) (other string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lives.See(start, place.String())
}

// unset takes a link that has ended out of its place.
func (p *peer) unset(place **link, l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *place == l {
		*place = nil
		p.wakeLink()
	}
}

// carry sends and receives messages until the link ends, and returns why.
func (p *peer) carry(ctx context.Context, l *link, receive func(from uint64, line []byte)) error {
	var sender sync.WaitGroup
	var failed error
	sender.Go(func() {
		failed = p.pump(ctx, l)
		l.close()
	})
	err := p.listen(l, receive)
	l.close()
	sender.Wait()
	if failed != nil {
		return failed
	}
	return err
}

// listen receives messages until the link ends.
func (p *peer) listen(l *link, receive func(from uint64, line []byte)) error {
	for {
		f, err := l.stream.Recv()
		if err != nil {
			return err
		}
		line, err := l.in.open(f)
		if err != nil {
			p.log.Warn("a peer's message was not genuine; the link is closed", "error", err)
			return err
		}
		receive(p.id, line)
	}
}

// pump sends messages until the link ends. It returns an error only if that is the
// reason.
func (p *peer) pump(ctx context.Context, l *link) error {
	for {
		line := p.take(l)
		if line == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-l.wake:
				continue
			}
		}
		m, err := FromLine(line)
		if err != nil {
			p.lost(peers.LostRefused, 1)
			p.log.Error("a message to a peer was dropped", "error", err)
			continue
		}
		if err := l.stream.Send(l.out.close(m, line)); err != nil {
			return nil // listen returns the reason
		}
	}
}
