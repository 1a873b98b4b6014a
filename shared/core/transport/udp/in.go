package udp

import (
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/peers"
)

// What a message datagram carries, which is its first byte after decryption.
const (
	// whole is one message, fragment a part of one, and filler nothing: it only
	// asks, or shows that a datagram of its size arrives.
	whole    = 1
	fragment = 2
	filler   = 3

	// asks is added if the receiver should send an ack at once.
	asks = 0x80
)

// fragmentHead is the length of what precedes a part of a message: the message's
// number (4 bytes) and length (4), the number of this part, from 0 (2), and how
// many there are (2). All parts have the same length, except that the last may be
// shorter.
const fragmentHead = 4 + 4 + 2 + 2

// ackLen is the length of an ack: the highest number that has arrived (8), how many
// datagrams have arrived (8), how many of them are longer than baseSize (8), the
// longest of them (4), and how much the receiver can take at once (4).
const ackLen = 8 + 8 + 8 + 4 + 4

// maxAge is how long the parts of an incomplete message are kept.
const maxAge = 2 * time.Second

// inbound is a session in which a peer sends messages to this server.
type inbound struct {
	peer *peer

	// index is the number of this session here, and theirs is that of the peer.
	index, theirs uint32

	// start and number are those of hello, which is what the peer said; answer is
	// what this server answered, also when the hello comes once more. opened is when.
	start, number uint64
	opened        time.Time
	hello, answer []byte

	messages, acks cipher.AEAD

	mu sync.Mutex

	// arrived are the numbers that have arrived, count is how many there were, and
	// long how many of these datagrams are longer than baseSize. longest is the
	// longest of them.
	arrived     replays
	count, long uint64
	longest     int

	// acked counts the acks.
	acked uint64

	// parts are incomplete messages, the oldest first, and partBytes is the sum of
	// their lengths. done has the numbers of the messages that were complete last.
	parts     []*partial
	partBytes int
	done      [32]uint32
	doneCount int
}

// partial is a message of which parts have arrived.
type partial struct {
	number  uint32
	began   time.Time
	data    []byte
	have    []uint64
	missing int
}

// open decrypts a datagram. asked is true if an ack must be sent, and first if this
// is the first datagram of the session.
func (s *inbound) open(b []byte, now time.Time, limit int) (message []byte, asked, first, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := sealNumber(b)
	if !s.arrived.fresh(n) {
		return nil, false, false, false
	}
	text, genuine := openSeal(s.messages, b)
	if !genuine || len(text) == 0 {
		return nil, false, false, false
	}
	s.arrived.mark(n)
	s.count++
	if s.longest = max(s.longest, len(b)); len(b) > baseSize {
		s.long++
	}
	asked, first = text[0]&asks != 0, s.count == 1
	switch text[0] &^ asks {
	case whole:
		if len(text)-1 <= limit {
			message = append(make([]byte, 0, len(text)-1), text[1:]...)
		}
	case fragment:
		message = s.assemble(text[1:], now, limit)
	}
	return message, asked, first, true
}

// assemble adds a part to its message, and returns the message if it is complete.
func (s *inbound) assemble(b []byte, now time.Time, limit int) []byte {
	if len(b) <= fragmentHead {
		return nil
	}
	number, length := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint32(b[4:]))
	part, parts := int(binary.BigEndian.Uint16(b[8:])), int(binary.BigEndian.Uint16(b[10:]))
	b = b[fragmentHead:]
	if length > limit || part >= parts || parts > length {
		return nil
	}
	size := (length + parts - 1) / parts
	from := part * size
	if from >= length || len(b) != min(size, length-from) {
		return nil
	}
	s.forget(now.Add(-maxAge))
	p := s.find(number, length, parts, now, limit)
	if p == nil || len(p.data) != length || len(p.have) != (parts+63)/64 || p.have[part/64]&(1<<(part%64)) != 0 {
		return nil
	}
	p.have[part/64] |= 1 << (part % 64)
	copy(p.data[from:], b)
	if p.missing--; p.missing > 0 {
		return nil
	}
	s.drop(p)
	s.done[s.doneCount%len(s.done)] = number
	s.doneCount++
	return p.data
}

// find returns the message of a part; nil if it was complete already. A new message
// may need the room of older ones.
func (s *inbound) find(number uint32, length, parts int, now time.Time, limit int) *partial {
	for _, p := range s.parts {
		if p.number == number {
			return p
		}
	}
	for i := range min(s.doneCount, len(s.done)) {
		if s.done[i] == number {
			return nil
		}
	}
	for s.partBytes+length > limit {
		s.drop(s.parts[0])
	}
	p := &partial{number: number, began: now, data: make([]byte, length), have: make([]uint64, (parts+63)/64), missing: parts}
	s.parts = append(s.parts, p)
	s.partBytes += length
	return p
}

// drop gives up a message, or passes it on.
func (s *inbound) drop(p *partial) {
	for i, q := range s.parts {
		if q == p {
			s.parts = append(s.parts[:i], s.parts[i+1:]...)
			s.partBytes -= len(p.data)
			return
		}
	}
}

// forget gives up the messages whose first part came before a time.
func (s *inbound) forget(before time.Time) {
	for len(s.parts) > 0 && s.parts[0].began.Before(before) {
		s.drop(s.parts[0])
	}
}

// clean is forget, for a session on which nothing arrives.
func (s *inbound) clean(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(before)
}

// ack returns an ack.
func (s *inbound) ack(window uint32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked++
	b := beginSeal(make([]byte, 0, sealLen+ackLen), kindAck, s.theirs, s.acked)
	b = binary.BigEndian.AppendUint64(b, s.arrived.highest)
	b = binary.BigEndian.AppendUint64(b, s.count)
	b = binary.BigEndian.AppendUint64(b, s.long)
	b = binary.BigEndian.AppendUint32(b, uint32(s.longest))
	b = binary.BigEndian.AppendUint32(b, window)
	return endSeal(s.acks, b)
}

// peer is what this server knows about another one.
type peer struct {
	id uint64

	// named is its address in the last call of Connect; "" if it was not named.
	named string

	// proved is the address from which it has sent its latest datagram, and heard
	// is when; heard is zero if it is not connected.
	proved netip.AddrPort
	heard  time.Time

	// link sends to it; nil if there is nothing to send to.
	link *link

	// keys are those on which it has agreed over TLS, the newest last.
	keys []keys

	// start and number are those of its latest accepted hello, and since is when this
	// start was new.
	start, number uint64
	since         time.Time

	// sessions are those in which it sends: first the present one, if current, and
	// the one before; then those of which nothing has arrived, the newest last.
	current, before *inbound
	pending         []*inbound

	// lives are its starts.
	lives peers.Lives
}

// Limits on what is remembered of a peer. pendingTime is how long a session may be
// without a datagram.
const (
	maxPending  = 4
	pendingTime = 10 * time.Second
)
