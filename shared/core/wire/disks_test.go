package wire

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

// book is a Disks for tests.
type book struct {
	mu       sync.Mutex
	own      disk.Incarnation
	known    map[uint64]disk.Incarnation
	disowned []string

	// refused counts the peers that were refused, and ends is called when this
	// server must stop; nil for nothing.
	refused int
	ends    func()
}

func (b *book) Own() disk.Incarnation { return b.own }

func (b *book) Known(id uint64) disk.Incarnation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known[id]
}

func (b *book) Admit(id uint64, now disk.Incarnation) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = make(map[uint64]disk.Incarnation)
	}
	if known := b.known[id]; known != 0 && known != now {
		b.refused++
		return errors.New("another disk")
	}
	b.known[id] = now
	return nil
}

func (b *book) Disowned(by uint64, known disk.Incarnation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disowned = append(b.disowned, fmt.Sprintf("n%d knows %d", by, known))
	if b.ends != nil {
		b.ends()
	}
}

func (b *book) says() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.disowned...)
}

// The link of n2 and the server n1 each have a disk and know a disk of the other.
// The test checks how the handshake ends, and whether a message arrives.
func TestDisksMeet(t *testing.T) {
	for _, c := range []struct {
		name   string
		n1, n2 *book

		// accepted is true if the message must arrive; told1 and told2 are the
		// calls of Disowned on the two servers.
		accepted     bool
		told1, told2 []string
	}{
		{"neither knows the other", &book{own: 1}, &book{own: 2}, true, nil, nil},
		{"they know each other", &book{own: 1, known: map[uint64]disk.Incarnation{2: 2}}, &book{own: 2, known: map[uint64]disk.Incarnation{1: 1}}, true, nil, nil},
		{"n2 was wiped", &book{own: 1, known: map[uint64]disk.Incarnation{2: 9}}, &book{own: 2}, false, nil, []string{"n1 knows 9"}},
		{"n1 was wiped", &book{own: 1}, &book{own: 2, known: map[uint64]disk.Incarnation{1: 9}}, false, []string{"n2 knows 9"}, nil},
		{"both were wiped", &book{own: 1, known: map[uint64]disk.Incarnation{2: 9}}, &book{own: 2, known: map[uint64]disk.Incarnation{1: 9}}, false, []string{"n2 knows 9"}, []string{"n1 knows 9"}},
		{"no disks", &book{}, &book{}, true, nil, nil},
		{"n2 has no disk any longer", &book{own: 1, known: map[uint64]disk.Incarnation{2: 9}}, &book{}, false, nil, []string{"n1 knows 9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				var log1, log2 logged
				s := member1(&got, &log1)
				s.Peers.Self.Disks = c.n1
				ln := newPipes()
				r := serve(t, s, ln)
				k := link(ln, &log2, Limits{})
				k.o.Self.Disks = c.n2
				k.Send([]byte(`{"a":1}`))
				end := runLink(t, k)
				synctest.Wait()
				end()
				require.NoError(t, r.end())
				require.Equal(t, c.told1, c.n1.says())
				require.Equal(t, c.told2, c.n2.says())
				require.NotContains(t, log1.String()+log2.String(), "level=WARN", "the link must not log what Disks has logged")
				if !c.accepted {
					require.Empty(t, got.all())
					require.Empty(t, got.met())
					return
				}
				require.Equal(t, []string{`n2 {"a":1}`}, got.all())
				require.Equal(t, c.n2.own, c.n1.Known(2))
				require.Equal(t, c.n1.own, c.n2.Known(1))
			})
		})
	}
}

// A server that learns that it has another disk may stop at that moment. Its peer
// has then learned it too and logs it, because an operator may read the log of
// either.
func TestBothSidesLearnOfALostDisk(t *testing.T) {
	for name, dials := range map[string]bool{"the server that lost its disk dials": true, "its peer dials": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lost, peer := &book{own: 1}, &book{own: 2, known: map[uint64]disk.Incarnation{1: 9, 2: 9}}
				s := member1(&received{}, &logged{})
				ln := newPipes()
				s.Peers.Self.Disks = lost
				if dials {
					s.Peers.Self.Disks = peer
				}
				r := serve(t, s, ln)
				k := link(ln, &logged{}, Limits{})
				k.o.Self.Disks = peer
				if dials {
					k.o.Self.Disks = lost
				}
				ended := make(chan struct{})
				lost.ends = func() {
					if dials {
						peer.mu.Lock()
						defer peer.mu.Unlock()
						require.Equal(t, 1, peer.refused)
					} else {
						s.Close()
					}
					close(ended)
					lost.ends = nil
				}
				end := runLink(t, k)
				<-ended
				synctest.Wait()
				require.Equal(t, 1, peer.refused)
				end()
				_ = r.end() // the server was closed
			})
		})
	}
}

// The peer is told the reason why it is refused.
func TestARefusedDiskLearnsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := member1(&received{}, &logged{})
		s.Peers.Self.Disks = &book{own: 1, known: map[uint64]disk.Incarnation{2: 9}}
		r := serve(t, s, newPipes())
		e, h := r.dial(), fromN2()
		h.disk = 2
		nonce := e.greet(h)
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		require.Equal(t, welcome{disk: 1, known: 9, refused: "another disk"}, e.welcomed(h, nonce))
		e.over()
		require.NoError(t, r.end())
	})
}

// If somebody changes a field about the disks on the way, the proof fails and the
// server records nothing.
func TestDisksAreProved(t *testing.T) {
	for name, change := range map[string]func(h *hello){
		"the peer's disk":     func(h *hello) { h.disk = 3 },
		"what the peer knows": func(h *hello) { h.known = 3 },
		"the start":           func(h *hello) { h.start = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				b := &book{own: 1}
				s := member1(&got, &logged{})
				s.Peers.Self.Disks = b
				r := serve(t, s, newPipes())
				e, h := r.dial(), fromN2()
				h.disk, h.start = 2, 5
				nonce := e.greet(h)
				change(&h)
				e.prove(h.proof(dialer, secret, nonce, welcome{}))
				e.refused(noSecret)
				require.NoError(t, r.end())
				require.Zero(t, b.Known(2))
				require.Empty(t, got.met())
			})
		})
	}
	h := fromN2()
	sound := h.proof(acceptor, secret, nil, welcome{disk: 1, known: 2, refused: "why"})
	for _, w := range []welcome{{disk: 3, known: 2, refused: "why"}, {disk: 1, known: 3, refused: "why"}, {disk: 1, known: 2}} {
		require.NotEqual(t, sound, h.proof(acceptor, secret, nil, w))
	}
}

// Two processes with copies of one disk keep replacing each other's connection,
// and the server logs this once. A server that is only restarted does not cause
// this message.
func TestAPeerThatRunsTwiceIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		r := serve(t, member1(&received{}, &log), newPipes())
		said := func() int { return strings.Count(log.String(), "a peer runs twice") }
		start := func(n uint64) {
			h := fromN2()
			h.start = n
			h.address = fmt.Sprintf("n2:%d", n)
			r.dial().becomePeer(h)
			synctest.Wait()
		}
		for n := range uint64(20) {
			start(n + 1)
			start(n + 1)
		}
		require.Zero(t, said())
		start(19)
		require.Equal(t, 1, said())
		require.Contains(t, log.String(), "level=ERROR")
		require.Regexp(t, `peer=2 one="n2:20, from .*" other="n2:19, from `, log.String())
		for range 3 {
			start(20)
			start(19)
		}
		require.Equal(t, 1, said())
		time.Sleep(time.Minute)
		require.NoError(t, r.end())
	})
}
