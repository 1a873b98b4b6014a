package host

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/httpapi"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/core/wire"
)

// counts is a Meter that counts.
type counts struct {
	noMeter
	rounds, inputs int
	synced         int
	messages       []string
	answers        []string
	last           Round
}

func (c *counts) Synced(time.Duration) { c.synced++ }
func (c *counts) Input()               { c.inputs++ }
func (c *counts) Sent(to uint64)       { c.messages = append(c.messages, fmt.Sprintf("to n%d", to)) }
func (c *counts) Received(from uint64) {
	c.messages = append(c.messages, fmt.Sprintf("from n%d", from))
}
func (c *counts) Lost(peer uint64, why peers.Loss, count int) {
	c.messages = append(c.messages, fmt.Sprintf("n%d %s %d", peer, why, count))
}
func (c *counts) Round(r Round) { c.rounds, c.last = c.rounds+1, r }
func (c *counts) Answered(op string, code api.Code, took time.Duration) {
	c.answers = append(c.answers, fmt.Sprintf("%s %s %v", op, code, took))
}

// A meter learns what was done: rounds, inputs of the server, messages, and answers
// with the time since their request arrived.
func TestAMeterLearnsWhatWasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		w := newWorld(nil)
		w.meter, w.syncs.meter = c, c
		for _, key := range []string{"a", "b", "c"} {
			w.ask(key)
		}
		time.Sleep(3 * time.Second)
		w.receive(2, []byte("m1"))
		w.receive(3, []byte("m2"))
		w.cut(4, true)
		require.NoError(t, w.round(1))
		require.Equal(t, 1, c.rounds)
		require.Equal(t, 5, c.inputs)
		require.Equal(t, []string{"from n2", "from n3"}, c.messages)
		require.Equal(t, []string{"get  3s", "get  3s", "get  3s"}, c.answers)
		require.Nil(t, c.last.State, "this server does not show its state")

		w.receive(4, []byte("cut"))
		w.send(4, []byte("cut"))
		w.send(3, []byte("m3"))
		w.send(9, []byte("its queue is full"))
		w.syncs.took("journal", time.Second)
		require.NoError(t, w.round(2))
		require.Equal(t, 2, c.rounds)
		require.Equal(t, 5, c.inputs)
		require.Equal(t, 1, c.synced)
		require.Equal(t, []string{"n4 cut 1", "to n3", "to n9", "n9 full 1", "n4 cut 1"}, c.messages[2:])

		w.server.waiting = nil
		w.ask("d")
		w.server.flush = func() error { return io.ErrShortWrite }
		require.Error(t, w.round(0))
		require.Equal(t, 6, c.inputs)
		require.Len(t, c.answers, 3, "no answer has left")
	})
}

// A host speaks HTTP on its address, and answers to the names of its
// configuration only.
func TestHTTPOfAHost(t *testing.T) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	h, err := New(Options{
		ID: 1, Listener: ln, Ops: api.Commands(), Log: slog.New(slog.DiscardHandler), Trace: func(trace.Event) {},
		Config: node.Config{
			Cluster: "c", HTTPHosts: []string{"kv.example.org"},
			Members: []node.Member{{ID: 1, Address: "n1.example.org:7071"}}, Joiners: []node.Member{{ID: 4, Address: "n4.example.org:7074"}}, Secret: "s",
		},
		New: func(node.World) (node.Server, error) { return &recorder{}, nil },
		HTTP: func(o HTTP) http.Handler {
			return httpapi.New(httpapi.Options{Ops: api.Commands(), Ask: o.Ask, Access: o.Access, Hosts: o.Hosts, Bodies: o.Bodies})
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		require.NoError(t, <-done)
	}()
	get := func(host, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+path, nil)
		require.NoError(t, err)
		r.Host = host
		a, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		require.NoError(t, err)
		return a.StatusCode, string(text)
	}
	for host, want := range map[string]int{
		"kv.example.org": 200, "n1.example.org:7071": 200, "n4.example.org": 200, "localhost": 200, address: 200,
		"example.org": 421, "evil.example": 421,
	} {
		status, text := get(host, "/v1/kv/x")
		require.Equal(t, want, status, host)
		require.Equal(t, want == 200, text == "x", host)
	}
}
