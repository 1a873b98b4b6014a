package wire

import "time"

// Limits bound how much memory a client can make a server use, and how long it
// can make the server wait. A field that is zero means its value in
// DefaultLimits.
type Limits struct {
	// Line is the longest line of a client in bytes, its newline not counted.
	Line int

	// PeerLine is the longest line of a peer, and the longest answer that a
	// client accepts, in bytes.
	PeerLine int

	// Conns is how many clients may be connected at once. Peers do not count. A
	// server accepts fewer if its process may open only few files.
	Conns int

	// PerAddress is how many of these clients may come from one address, or from
	// one 64-bit prefix of IPv6. The default is half of Conns.
	PerAddress int

	// Newcomers is how many connections that have not identified themselves may
	// be open in addition to Conns, so that a peer has room to say hello.
	Newcomers int

	// InFlight is how many requests of one connection may wait for their answers.
	// When it has that many, the server stops reading from it.
	InFlight int

	// ConnBytes is how many bytes one connection may make the server hold: its
	// requests in flight, room for the answers to those that read, and the
	// answers that are not sent yet. At that number the server stops reading from
	// the connection. The limit is an eighth of that while more than half of
	// ServerBytes is used, so that a few dozen clients that send much have to
	// wait, and are not refused.
	ConnBytes int

	// ServerBytes is how many bytes all clients together may make the server
	// hold: requests in flight and answers that are not sent yet. At that number
	// the server answers further requests with busy. Lines above 64 KiB that are
	// still arriving may hold the same number of bytes in addition.
	ServerBytes int

	// HalfLine is how long a line may take from its first byte to its newline.
	HalfLine time.Duration

	// Idle is how long a connection may be silent in both directions while no
	// request is in flight on it. The check is coarse: a connection may be silent
	// for up to twice as long.
	Idle time.Duration

	// Write is how long the other side may take to accept 64 KiB.
	Write time.Duration

	// Drain is how long a server waits for the answers to the requests in flight
	// when it stops, or when the client sends no more.
	Drain time.Duration

	// Dial is how long a link may take to connect and to be accepted.
	Dial time.Duration

	// Backoff is the shortest and the longest pause of a link between two
	// attempts to connect.
	Backoff [2]time.Duration

	// QueueLines and QueueBytes limit the messages that wait in a link.
	QueueLines int
	QueueBytes int
}

// DefaultLimits returns limits that suit a server on one machine or in one data
// center.
func DefaultLimits() Limits {
	return Limits{
		Line:        1 << 20,
		PeerLine:    8 << 20,
		Conns:       4096,
		Newcomers:   96,
		InFlight:    1024,
		ConnBytes:   4 << 20,
		ServerBytes: 32 << 20,
		HalfLine:    10 * time.Second,
		Idle:        5 * time.Minute,
		Write:       10 * time.Second,
		Drain:       3 * time.Second,
		Dial:        3 * time.Second,
		Backoff:     [2]time.Duration{20 * time.Millisecond, time.Second},
		QueueLines:  8192,
		QueueBytes:  32 << 20,
	}
}

// filled returns l with the defaults in place of zeros.
func (l Limits) filled() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ have, usual *int }{
		{&l.Line, &d.Line},
		{&l.PeerLine, &d.PeerLine},
		{&l.Conns, &d.Conns},
		{&l.Newcomers, &d.Newcomers},
		{&l.InFlight, &d.InFlight},
		{&l.ConnBytes, &d.ConnBytes},
		{&l.ServerBytes, &d.ServerBytes},
		{&l.QueueLines, &d.QueueLines},
		{&l.QueueBytes, &d.QueueBytes},
	} {
		if *f.have == 0 {
			*f.have = *f.usual
		}
	}
	for _, f := range []struct{ have, usual *time.Duration }{
		{&l.HalfLine, &d.HalfLine},
		{&l.Idle, &d.Idle},
		{&l.Write, &d.Write},
		{&l.Drain, &d.Drain},
		{&l.Dial, &d.Dial},
		{&l.Backoff[0], &d.Backoff[0]},
		{&l.Backoff[1], &d.Backoff[1]},
	} {
		if *f.have == 0 {
			*f.have = *f.usual
		}
	}
	return l
}

// deadline sets a connection's deadline, but only if it has moved far enough to
// matter, because setting it for each request would cost too much time.
type deadline struct {
	at  time.Time
	set func(time.Time) error
}

// within gives the next operation the time d from now, or up to an eighth less.
func (t *deadline) within(now time.Time, d time.Duration) {
	if by := now.Add(d); by.Before(t.at) || by.Sub(t.at) > d/8 {
		t.to(by)
	}
}

// to sets the deadline to by. An error means that the connection is closed, which
// the operation will report as well.
func (t *deadline) to(by time.Time) {
	if !by.Equal(t.at) {
		t.at = by
		_ = t.set(by)
	}
}
