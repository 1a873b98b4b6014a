package conform

import (
	"maps"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/peers"
)

// tally is a host.Meter that counts a server's messages to its peers.
type tally struct {
	mu   sync.Mutex
	sent map[uint64]int
	lost map[uint64]map[peers.Loss]int
}

func newTally() *tally {
	return &tally{sent: make(map[uint64]int), lost: make(map[uint64]map[peers.Loss]int)}
}

func (m *tally) Sent(to uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[to]++
}

func (m *tally) Lost(peer uint64, why peers.Loss, count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost[peer] == nil {
		m.lost[peer] = make(map[peers.Loss]int)
	}
	m.lost[peer][why] += count
}

// of returns how many messages to a peer were sent, and how many are known to be lost.
func (m *tally) of(peer uint64) (sent int, lost map[peers.Loss]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent[peer], maps.Clone(m.lost[peer])
}

func (*tally) Received(uint64)                          {}
func (*tally) Synced(time.Duration)                     {}
func (*tally) Input()                                   {}
func (*tally) Answered(string, api.Code, time.Duration) {}
func (*tally) Round(host.Round)                         {}
