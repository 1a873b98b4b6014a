package sim

import (
	"time"

	"example.com/raftsteps/shared/core/disk"
)

// kind is what an event does.
type kind uint8

const (
	// evTick: a server's clock ticks.
	evTick kind = iota

	// evDeliver: a peer's message arrives.
	evDeliver

	// evRound: a server handles what has arrived, and flushes.
	evRound

	// evRequest, evReply: a client's request arrives at a server, and the
	// answer at the client.
	evRequest
	evReply

	// evBroken: a client learns that its connection broke.
	evBroken

	// evTimeout: a client stops waiting.
	evTimeout

	// evCall: a function is called.
	evCall
)

// event is something that will happen.
type event struct {
	at   time.Duration
	seq  uint64
	kind kind

	// id is the machine of the event, life the life of the machine that the
	// event is for.
	id   uint64
	life uint64

	// from, number and line are a message: its sender, its number on the link
	// and its content. disk is the sender's. again is true for a duplicate,
	// late for a message that a later one has overtaken.
	from   uint64
	disk   disk.Incarnation
	number uint64
	line   []byte
	again  bool
	late   bool

	// carried is true for a message that a Carrier has carried.
	carried bool

	// lost is true for a message that somebody has taken away, silent if its
	// arrival was put off.
	lost   bool
	silent bool

	// attempt is the attempt that a request or an answer belongs to.
	attempt *attempt

	f func()
}

// queue holds events ordered by time, then by creation. It is a heap with four
// children per node, which is shallow and therefore fast.
type queue struct {
	heap  []*event
	spare []*event
	seq   uint64
}

func (q *queue) empty() bool   { return len(q.heap) == 0 }
func (q *queue) first() *event { return q.heap[0] }

// add creates an event and puts it into the queue.
func (q *queue) add(at time.Duration, k kind) *event {
	var e *event
	if n := len(q.spare); n > 0 {
		e, q.spare = q.spare[n-1], q.spare[:n-1]
		*e = event{}
	} else {
		e = new(event)
	}
	q.seq++
	e.at, e.seq, e.kind = at, q.seq, k
	q.heap = append(q.heap, e)
	q.up(len(q.heap) - 1)
	return e
}

// free makes an event available for reuse.
func (q *queue) free(e *event) { q.spare = append(q.spare, e) }

func (q *queue) pop() *event {
	h := q.heap
	e := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], nil
	q.heap = h[:last]
	if last > 0 {
		q.down(0)
	}
	return e
}

func before(a, b *event) bool {
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

const children = 4

func (q *queue) up(i int) {
	e := q.heap[i]
	for i > 0 {
		parent := (i - 1) / children
		if !before(e, q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = e
}

func (q *queue) down(i int) {
	h := q.heap
	e := h[i]
	for {
		child := children*i + 1
		if child >= len(h) {
			break
		}
		least := child
		for c := child + 1; c < min(child+children, len(h)); c++ {
			if before(h[c], h[least]) {
				least = c
			}
		}
		if !before(h[least], e) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
}
