package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// keeper is a gossip with a journal, and so with an incarnation.
type keeper struct {
	*gossip
	journal *journal.Journal
}

func (k keeper) Incarnation() disk.Incarnation { return k.journal.Incarnation() }

func (k keeper) Close() error { return errors.Join(k.gossip.Close(), k.journal.Close()) }

func newKeeper(w node.World) (node.Server, error) {
	j, _, err := journal.Open(w.Disk, "journal", journal.Header{ID: w.ID, Incarnation: disk.Draw(w.Rand)})
	if err != nil {
		return nil, err
	}
	return keeper{&gossip{w: w, store: kv.NewStore(), fails: new(atomic.Bool), closed: new(atomic.Bool)}, j}, nil
}

// lines is a log that a test can read.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// With a Transport that has no handshake, a server with an empty disk is refused
// by both peers that know it, and stops. One message from it or to it is enough,
// and no message is delivered.
func TestALostDiskWithAnotherTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net memory
		var log lines
		config := node.Config{Cluster: "north"}
		for id := range uint64(3) {
			config.Members = append(config.Members, node.Member{ID: id + 1, Address: fmt.Sprintf("n%d", id+1)})
		}
		start := func(id uint64, d *disk.Sim) (*Host, func() error) {
			h, err := New(Options{ID: id, Config: config, New: newKeeper, Ops: api.Commands(), NoClients: true, Transport: net.of(id),
				Disk: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- h.Run(ctx) }()
			return h, func() error { stop(); return <-done }
		}
		say := func(h *Host, value string) {
			_, err := h.Do(t.Context(), api.Request{Op: kv.Put, Key: "x", Value: value})
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		hears := func(h *Host, value string) {
			a, err := h.Do(t.Context(), api.Request{Op: kv.Get, Key: "x"})
			require.NoError(t, err)
			require.Equal(t, value, a.Value)
		}
		one, stop1 := start(1, disk.NewSim("n1"))
		two, stop2 := start(2, disk.NewSim("n2"))
		old := disk.NewSim("n3")
		three, stop3 := start(3, old)
		say(three, "by n3")
		hears(one, "by n3")
		say(one, "by n1")
		require.NoError(t, stop3())

		three, stop3 = start(3, disk.NewSim("n3"))
		say(three, "by an empty disk")
		say(three, "again")
		hears(one, "by n1")
		hears(two, "by n1")
		require.Equal(t, 2, log.count("a peer is refused because it has lost its disk; put its old folder back"), "each peer must log the refusal once")
		say(one, "by n1 again") // and so n3 learns it
		require.ErrorContains(t, stop3(), "n3 has lost its disk: n1 knows it with incarnation")

		old.Kill()
		three, stop3 = start(3, old)
		say(three, "by n3 again")
		hears(one, "by n3 again")
		for _, stop := range []func() error{stop1, stop2, stop3} {
			require.NoError(t, stop())
		}
	})
}

// A message without an introduction is not delivered.
func TestAMessageWithoutItsIntroduction(t *testing.T) {
	d := newDisks(1, false, slog.New(slog.DiscardHandler))
	require.NoError(t, d.open(disk.NewSim("n1"), 100))
	i := introduced{disks: d}
	for _, line := range []string{"", "{}", strings.Repeat("x", introduction), "0000000000000007 000000000000000x {}"} {
		require.False(t, i.meet(2, []byte(line)), "%q", line)
	}
	require.Zero(t, d.Known(2))
	require.True(t, i.meet(2, []byte("0000000000000007 0000000000000000 {}")))
	require.Equal(t, disk.Incarnation(7), d.Known(2))
	require.False(t, i.meet(2, []byte("0000000000000008 0000000000000000 {}")))
}

// If the journal was lost and another one is in its place, the server does not
// start, because the file of peers belongs to the lost one.
func TestAJournalThatWasLost(t *testing.T) {
	d := disk.NewSim("n1")
	o := Options{ID: 1, Config: node.Config{Members: []node.Member{{ID: 1, Address: "n1"}}}, New: newKeeper, NoClients: true, Transport: new(memory).of(1), Disk: d}
	_, err := New(o)
	require.NoError(t, err)
	d.Kill()
	require.NoError(t, d.Remove("journal"))
	_, err = New(o)
	require.ErrorAs(t, err, new(*journal.LostError), "the length file must show the loss")
	require.NoError(t, d.Remove("journal.length"))
	_, err = New(o)
	require.ErrorContains(t, err, `n1 cannot start: the file "peers": line 1: it was created next to a journal with incarnation`)
}
