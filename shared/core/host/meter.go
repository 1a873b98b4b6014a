package host

import (
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
)

// Meter receives what a host does, to count and measure it. Package metrics has one
// for Prometheus. Its methods must not wait. One goroutine at a time calls them, apart
// from Synced and Lost.
type Meter interface {
	// Synced is called after each fsync of a file or of the data folder, from any
	// goroutine.
	Synced(took time.Duration)

	// Sent and Received are called for each message to and from a peer.
	Sent(to uint64)
	Received(from uint64)

	// Lost is called for messages that are known to be lost, with the reason, from
	// any goroutine. Those to a peer were counted as sent, except for LostCut.
	Lost(peer uint64, why peers.Loss, count int)

	// Input is called for each request of a client and each message of a peer that
	// the server has processed.
	Input()

	// Answered is called for each answer to a client: what was asked, how it ended
	// (the code of its error, "" if it was done), and how long it took since the
	// request arrived.
	Answered(op string, code api.Code, took time.Duration)

	// Round is called after each round of the server.
	Round(r Round)
}

// Round is what a Meter learns about a round.
type Round struct {
	// At is when the round ended, Took how long its Flush took, and Synced the
	// longest fsync during it.
	At     time.Time
	Took   time.Duration
	Synced time.Duration

	// State is the server's state after the round, nil if the server does not
	// show it. It is valid only during the call.
	State *node.State

	// StoreBytes are the bytes of keys and values in the store; 0 if the server
	// does not show it.
	StoreBytes int64
}

// noMeter measures nothing.
type noMeter struct{}

func (noMeter) Synced(time.Duration)                     {}
func (noMeter) Sent(uint64)                              {}
func (noMeter) Received(uint64)                          {}
func (noMeter) Lost(uint64, peers.Loss, int)             {}
func (noMeter) Input()                                   {}
func (noMeter) Answered(string, api.Code, time.Duration) {}
func (noMeter) Round(Round)                              {}

// measure tells the meter about a round.
func (l *loop) measure(r Round) {
	if _, off := l.meter.(noMeter); off {
		return
	}
	if in, ok := l.node.(node.Inspector); ok {
		in.Inspect(&l.state)
		r.State = &l.state
	}
	if h, ok := l.node.(node.StoreHolder); ok {
		if s := h.Store(); s != nil {
			r.StoreBytes = s.Bytes()
		}
	}
	l.meter.Round(r)
}
