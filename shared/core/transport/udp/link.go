package udp

import (
	"cmp"
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
)

const (
	// baseSize is the length of a datagram that every path can be expected to
	// carry whole.
	baseSize = 1200

	// maxDatagram is the longest datagram that is ever sent or received.
	maxDatagram = 16 << 10

	// askInterval is how often acks are asked for while there is little to send.
	askInterval = 20 * time.Millisecond

	// keepAlive is how long a link is silent before it sends something, so that
	// the peer and the firewalls between them know that it is there.
	keepAlive = 5 * time.Second

	// minRepeat and maxRepeat are the shortest and the longest time after which an
	// ack is asked for once more. In between, it depends on the time of a round
	// trip.
	minRepeat = 30 * time.Millisecond
	maxRepeat = 500 * time.Millisecond

	// pauseAfter is how long a peer may leave a question unanswered before it is
	// sent no more messages, renewAfter before a new session is tried, and
	// goneAfter before it counts as gone.
	pauseAfter = 200 * time.Millisecond
	renewAfter = time.Second
	goneAfter  = 4 * time.Second

	// rekeyAge is how long a session is used, and rekeyCount for how many
	// datagrams: far fewer than an AES-GCM key may encrypt.
	rekeyAge   = time.Hour
	rekeyCount = 1 << 22

	// probeTries is how often a longer datagram is tried. If maxMissing in a row do
	// not arrive, although shorter ones do, the link goes back to baseSize, and
	// tries longer ones after probeAgain.
	probeTries = 3
	maxMissing = 8
	probeAgain = 10 * time.Minute

	// firstWindow is how many datagrams of baseSize may be on their way at first,
	// and minWindow how many always may.
	firstWindow = 32
	minWindow   = 8

	// patience is how long a peer may be away before this is logged.
	patience = time.Second
)

// sizes are the longer datagrams that a link tries, if the system can keep them
// whole: those of Ethernet, of Ethernet with jumbo frames, and of the loopback
// interface.
var sizes = []int{1452, 8952, maxDatagram}

// weight is how much of a socket's buffer a datagram may use. A kernel counts its
// own overhead, too.
func weight(length int) int { return 2*length + 768 }

// link sends messages to one peer.
type link struct {
	t    *Transport
	to   uint64
	log  *slog.Logger
	wake chan struct{}
	end  context.CancelFunc

	mu sync.Mutex

	// queue are the messages to send, and bytes is the sum of their lengths.
	queue [][]byte
	bytes int

	// current is the message that is being sent in parts.
	current *parts
	numbers uint32

	// named and proved are addresses of the peer; targets are those to which a
	// hello is sent, in turn.
	named   string
	proved  netip.AddrPort
	targets []netip.AddrPort

	// out is the present session, attempt a handshake; either may be nil.
	out     *outbound
	attempt *attempt

	// keys are for hellos; nil while the servers have to agree on keys over TLS
	// first. agreeAt is when they try next, and agreeTries how often that has
	// failed.
	keys       *keys
	agreeAt    time.Time
	agreeTries int

	// agreed is the version of the latest session; before the first one, the newest that
	// this server can use.
	agreed uint64

	// away is since when there is no session; said is true once that was logged,
	// and told is the last refusal that was logged.
	away time.Time
	said bool
	told string

	// limit is the largest window of all sessions.
	limit int

	// losses has how many of the latest datagrams are lost.
	losses losses
}

// losses are decaying counts of datagrams.
type losses struct{ sent, got float64 }

func (l *losses) add(sent, got float64) {
	l.sent += sent
	l.got += got
	if l.sent > 2048 {
		l.sent /= 2
		l.got /= 2
	}
}

// share returns the share of datagrams that are lost.
func (l *losses) share() float64 {
	if l.sent < 32 {
		return 0
	}
	return max(0, 1-l.got/l.sent)
}

// parts is a message that needs several datagrams.
type parts struct {
	message []byte
	number  uint32

	// size is the length of a part, count how many there are, and next the next
	// one to send; copies is how often each is sent in all.
	size, count, next, copies int
}

// attempt is a handshake.
type attempt struct {
	keys        keys
	hello       hello
	bytes       []byte
	began, next time.Time
	pause       time.Duration
	tries       int
}

// outbound is a session in which this server sends messages to a peer.
type outbound struct {
	// index is the number of the session here, and theirs that of the peer.
	index, theirs uint32

	// start is that of the peer, to is where it is, and born when it answered.
	start uint64
	to    netip.AddrPort
	born  time.Time

	messages, acks cipher.AEAD

	// rekey is after how many datagrams a new session is needed.
	rekey uint64

	// sent is the number of the latest datagram, wrote its time, and total what was
	// sent up to it. totals has that for the latest numbers.
	sent   uint64
	wrote  time.Time
	total  total
	totals [replaySpan]total

	// acked is the number of the latest ack. high, count and long are from it: the
	// highest number that had arrived, how many had, and how many longer than
	// baseSize. freed is what was sent up to high. missing is how many of these,
	// longer than baseSize, have not arrived since one of them has.
	acked, high, count, long uint64
	freed                    total
	missing                  uint64

	// question is the number of the first datagram with an unanswered question, 0
	// if there is none; asked is its time. askedLast is the time of the last
	// question, and askedWeight was the weight then. repeat is when to ask again.
	question    uint64
	asked       time.Time
	askedLast   time.Time
	askedWeight uint64
	repeat      time.Time
	repeats     int

	// trip is the smoothed time from a question to its answer.
	trip time.Duration

	// window is how much weight may be on its way, theirWindow how much the peer
	// can take, and threshold where the window begins to grow slowly. cut is when
	// it was last reduced.
	window, threshold float64
	theirWindow       int
	cut               time.Time

	// size is the longest datagram that has arrived, or baseSize. probe is the
	// index in sizes of the next one to try, and tries is how often it was.
	size, probe, tries int

	// probed is the number of the latest datagram that tries a size, and
	// probedSize that size; 0 if there is none. probeBy is until when its ack must
	// arrive.
	probed     uint64
	probedSize int
	probeBy    time.Time
}

// total is a sum over datagrams: their weights, and how many of them are longer
// than baseSize.
type total struct{ weight, long uint64 }

func newLink(t *Transport, to uint64) *link {
	l := &link{t: t, to: to, log: t.log.With("peer", to), wake: make(chan struct{}, 1), end: func() {}, agreed: t.can.Newest, away: time.Now(), limit: math.MaxInt}
	if t.tls == nil {
		l.keys = &t.keys
	}
	return l
}

// send puts a message into the queue.
func (l *link) send(message []byte) bool {
	if len(message) > l.t.limits.Message {
		l.t.lost(l.to, peers.LostTooLong, 1)
		l.log.Error("a message is too long for a peer and was dropped", "bytes", len(message), "limit", l.t.limits.Message)
		return false
	}
	l.mu.Lock()
	l.queue = append(l.queue, message)
	l.bytes += len(message)
	drop := 0
	for len(l.queue)-drop > l.t.limits.QueueLines || l.bytes > l.t.limits.QueueBytes && len(l.queue)-drop > 1 {
		l.bytes -= len(l.queue[drop])
		l.queue[drop] = nil
		drop++
	}
	l.queue = l.queue[drop:]
	l.mu.Unlock()
	if drop > 0 {
		l.t.lost(l.to, peers.LostFull, drop)
	}
	l.awake()
	return drop == 0
}

func (l *link) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// clear empties the queue, because there is no session. l.mu must be held.
func (l *link) clear() {
	n := len(l.queue)
	if l.current != nil {
		n++
	}
	l.queue, l.bytes, l.current = nil, 0, nil
	if n > 0 {
		l.t.lost(l.to, peers.LostUnreachable, n)
	}
}

// place sets the addresses of the peer.
func (l *link) place(named string, proved netip.AddrPort) {
	l.mu.Lock()
	changed := l.named != named || l.proved != proved
	l.named, l.proved = named, proved
	if changed && l.out == nil {
		l.targets = nil // find them again
	}
	l.mu.Unlock()
	if changed {
		l.awake()
	}
}

// run sends until ctx is done.
func (l *link) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	b := make([]byte, 0, maxDatagram+64)
	for ctx.Err() == nil {
		l.resolve(ctx)
		if l.t.tls != nil {
			l.agree(ctx, time.Now())
		}
		d, wait := l.step(time.Now(), b)
		if d.bytes != nil {
			if d.seal != nil {
				d.bytes = endSeal(d.seal, d.bytes)
			}
			if err := l.t.write(d.bytes, d.to); err != nil {
				l.failed(len(d.bytes), err, time.Now())
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-timer.C:
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	l.leave()
}

// leave ends the session and the handshake. l.mu must be held.
func (l *link) leave() {
	if l.out != nil {
		l.t.forgetOut(l.out.index)
	}
	if l.attempt != nil {
		l.t.forgetOut(l.attempt.hello.index)
	}
	l.out, l.attempt = nil, nil
}

// resolve finds the addresses to which a hello is sent, if that is needed.
func (l *link) resolve(ctx context.Context) {
	l.mu.Lock()
	named, proved, needed := l.named, l.proved, l.out == nil && l.targets == nil
	l.mu.Unlock()
	if !needed {
		return
	}
	var targets []netip.AddrPort
	if proved.IsValid() {
		targets = append(targets, proved)
	}
	if host, port, err := net.SplitHostPort(named); err == nil {
		ctx, cancel := context.WithTimeout(ctx, l.t.limits.Dial)
		defer cancel()
		number, _ := net.DefaultResolver.LookupPort(ctx, "udp", port)
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil && len(targets) == 0 && ctx.Err() == nil {
			l.log.Warn("the address of a peer cannot be found; trying again", "address", named, "error", err)
		}
		for _, ip := range ips {
			a := netip.AddrPortFrom(ip.Unmap(), uint16(number))
			if !slices.Contains(targets, a) && l.t.reaches(a.Addr()) {
				targets = append(targets, a)
			}
		}
	}
	l.mu.Lock()
	l.targets = targets
	l.mu.Unlock()
}

// datagram is one to send; seal encrypts it, if it is not nil.
type datagram struct {
	bytes []byte
	seal  cipher.AEAD
	to    netip.AddrPort
}

// step returns the next datagram to send, made in b. If there is none, it returns
// how long to wait.
func (l *link) step(now time.Time, b []byte) (datagram, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.out; o != nil && o.unanswered(now) > goneAfter {
		l.t.forgetOut(o.index)
		l.out, l.targets, l.away, l.said = nil, nil, now, false
	}
	d, wait := l.shake(now)
	if d.bytes != nil || l.out == nil {
		return d, wait
	}
	d, until := l.out.step(l, now, b)
	return d, min(wait, until)
}

// places returns where to say hello. l.mu must be held.
func (l *link) places() []netip.AddrPort {
	if l.out == nil {
		return l.targets
	}
	places := []netip.AddrPort{l.out.to}
	if l.proved.IsValid() && l.proved != l.out.to {
		places = append(places, l.proved)
	}
	return places
}

// wantsSession reports whether there is a handshake, or must be one. l.mu must be
// held.
func (l *link) wantsSession(now time.Time) bool {
	return l.out == nil || l.attempt != nil || l.out.old(now)
}

// shake returns the next hello.
func (l *link) shake(now time.Time) (datagram, time.Duration) {
	limit := l.t.limits.Dial
	if l.t.tls != nil {
		limit = agreeTime
	}
	if l.attempt != nil && now.Sub(l.attempt.began) > limit {
		l.t.forgetOut(l.attempt.hello.index)
		l.attempt = nil
		if l.t.tls != nil {
			l.keys = nil // perhaps the peer no longer has them
		}
		if l.out == nil {
			l.targets = nil
		}
		return datagram{}, 0 // find the addresses again
	}
	if !l.wantsSession(now) {
		return datagram{}, time.Hour
	}
	targets := l.places()
	if len(targets) == 0 {
		l.clear()
		l.targets = nil
		return datagram{}, l.t.limits.Backoff[1]
	}
	if l.keys == nil {
		return datagram{}, max(0, l.agreeAt.Sub(now))
	}
	if l.attempt == nil {
		l.begin(now)
	}
	a := l.attempt
	if wait := a.next.Sub(now); wait > 0 {
		return datagram{}, wait
	}
	if (l.out == nil || l.out.unanswered(now) >= renewAfter) && a.tries >= len(targets) {
		l.clear() // a peer that starts again should not have to read old messages first
	}
	l.complain(now)
	to := targets[a.tries%len(targets)]
	if a.tries++; a.tries%len(targets) == 0 {
		a.next = now.Add(a.pause/2 + mathrand.N(a.pause))
		a.pause = min(2*a.pause, l.t.limits.Backoff[1])
	}
	return datagram{bytes: a.bytes, to: to}, 0
}

// begin starts a handshake. l.mu must be held.
func (l *link) begin(now time.Time) {
	t := l.t
	h := hello{can: t.can, from: t.id, to: l.to, start: t.start, number: t.hellos.Add(1), cluster: t.cluster}
	t.random(h.nonce[:])
	h.index = t.newOut(l)
	pause := t.limits.Backoff[0]
	if l.out == nil && now.Sub(l.away) > t.limits.Dial {
		pause = t.limits.Backoff[1]
	}
	l.attempt = &attempt{keys: *l.keys, hello: h, bytes: h.encode(*l.keys), began: now, next: now, pause: pause}
}

// complain logs, once, that the peer has not answered for a while.
func (l *link) complain(now time.Time) {
	if l.out == nil && !l.said && now.Sub(l.away) > patience {
		l.said = true
		l.log.Info("no answer from a peer over UDP; trying again", "addresses", l.targets,
			"hint", "it is not running, it has another secret, or a firewall drops UDP")
	}
}

// answered ends a handshake.
func (l *link) answered(b []byte, from netip.AddrPort, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, x := l.attempt, decodeAnswer(b)
	if a == nil || a.hello.index != x.index || !genuine(a.keys.answer, a.bytes, b) || !l.t.can.Has(x.version) {
		return
	}
	messages, acks, err := a.keys.seals(a.bytes, a.hello, x)
	if err != nil {
		l.log.Error("no keys for a session with a peer", "error", err)
		return
	}
	switch {
	case x.version != l.agreed: // one of the two was upgraded, or is still to be
		l.log.Info("connected to a peer", "address", from, "version", x.version)
	case l.out == nil:
		l.log.Debug("connected to a peer", "address", from, "version", x.version)
	}
	if l.agreed = x.version; l.out != nil {
		l.t.forgetOut(l.out.index)
	}
	if p := l.current; p != nil { // its parts belong to one session
		l.queue, l.current = append([][]byte{p.message}, l.queue...), nil
		l.bytes += len(p.message)
	}
	l.attempt, l.told, l.said = nil, "", false
	l.out = &outbound{index: x.index, theirs: x.session, start: x.start, to: from, born: now, messages: messages, acks: acks,
		rekey: l.t.rekey, wrote: now, window: firstWindow * float64(weight(baseSize)), threshold: math.Inf(1), theirWindow: int(x.window), size: baseSize, trip: minRepeat / 3}
	if !l.t.whole {
		l.out.probe = len(sizes)
	}
	l.awake()
}

// protocolName is how errors call the protocol.
const protocolName = "the protocol over UDP"

// errRefusesVersions is what a peer cannot mean.
var errRefusesVersions = errors.New("it does not want the version that both can use")

// refused logs why the peer refuses this server.
func (l *link) refused(b []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.attempt
	r, ok := decodeRefusal(b)
	if !ok || a == nil || a.hello.index != r.index || !genuine(a.keys.answer, a.bytes, b) {
		return
	}
	a.pause = l.t.limits.Backoff[1]
	a.next = now.Add(a.pause)
	self, other := node.Name(l.t.id), node.Name(l.to)
	why := ""
	switch r.reason {
	case otherVersion:
		_, err := l.t.can.Agree(r.can, other, protocolName)
		why = fmt.Sprint(cmp.Or(err, errRefusesVersions))
	case otherServer:
		why = fmt.Sprintf("%s wants to reach %s, but this is %s: correct the address that %[1]s has for %[2]s", self, other, node.Name(r.id))
	case otherCluster:
		why = fmt.Sprintf("%s belongs to cluster %.64q, %s to cluster %q", other, r.name, self, l.t.name)
	case sameServer:
		why = fmt.Sprintf("%s is the peer's own ID: two servers run under one ID, so stop one of them", self)
	}
	if why != l.told {
		l.told = why
		l.log.Warn("no connection to a peer; trying again", "addresses", l.targets, "error", "the peer refuses: "+why)
	}
}

// renew starts a handshake, because the peer has started again and no longer knows
// the session.
func (l *link) renew(start uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && l.out.start != start {
		l.t.forgetOut(l.out.index)
		l.out, l.targets, l.away, l.said = nil, nil, time.Now(), false
		if l.attempt != nil {
			l.t.forgetOut(l.attempt.hello.index)
			l.attempt = nil
		}
		if l.t.tls != nil {
			l.keys = nil
		}
		l.awake()
	}
}

// failed is called when a datagram could not be sent.
func (l *link) failed(length int, err error, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.out; o != nil && isTooLong(err) && length > o.size {
		o.tries = probeTries // a probe; no longer one will fit either
	} else if o != nil && isTooLong(err) && length > baseSize {
		o.shrink(now)
	} else if !errors.Is(err, net.ErrClosed) && err.Error() != l.told {
		l.told = err.Error()
		l.log.Warn("a datagram could not be sent to a peer", "bytes", length, "error", err)
	}
}

// shrink gives up on datagrams that are longer than those that every path carries,
// for some time.
func (o *outbound) shrink(now time.Time) {
	o.size, o.probe, o.tries, o.probeBy, o.missing = baseSize, 0, 0, now.Add(probeAgain), 0
}

// old reports whether a new session is needed.
func (o *outbound) old(now time.Time) bool {
	return o.sent >= o.rekey || now.Sub(o.born) >= rekeyAge || o.unanswered(now) >= renewAfter
}

// unanswered returns how long the peer has left a question unanswered.
func (o *outbound) unanswered(now time.Time) time.Duration {
	if o.question == 0 {
		return 0
	}
	return now.Sub(o.asked)
}

// step returns the next datagram of the session, or how long to wait.
func (o *outbound) step(l *link, now time.Time, b []byte) (datagram, time.Duration) {
	wait := o.wrote.Add(keepAlive).Sub(now)
	if o.question != 0 {
		again := o.repeat.Sub(now)
		if again <= 0 {
			o.repeats++
			return o.ask(now, b, 0), 0
		}
		wait = min(wait, again)
	}
	if o.sent == 0 || wait <= 0 {
		return o.ask(now, b, 0), 0 // the peer must learn that this side knows the keys
	}
	if o.probe < len(sizes) && o.count > 0 {
		switch due := o.probeBy.Sub(now); {
		case due > 0:
			wait = min(wait, due)
		case o.tries == probeTries:
			o.probe = len(sizes)
		default:
			o.tries++
			o.probed, o.probedSize, o.probeBy = o.sent+1, sizes[o.probe], now.Add(4*max(o.trip, minRepeat))
			return o.ask(now, b, sizes[o.probe]), 0
		}
	}
	if (len(l.queue) == 0 && l.current == nil) || o.unanswered(now) > pauseAfter {
		return datagram{}, wait
	}
	limit := min(o.window, float64(o.theirWindow), float64(l.limit))
	flying := float64(o.total.weight - o.freed.weight)
	if flying > 0 && flying+float64(weight(o.size)) > limit || o.sent-o.high >= replaySpan/2 {
		if o.question == 0 {
			return o.ask(now, b, 0), 0
		}
		return datagram{}, wait
	}
	b = l.take(beginSeal(b, kindMessage, o.theirs, o.sent+1), o)
	if now.Sub(o.askedLast) >= askInterval || float64(o.total.weight-o.askedWeight) >= limit/4 {
		b[sealHead] |= asks
	}
	return o.seal(now, b), 0
}

// ask returns a datagram that only asks for an ack, of a length if that is not 0.
func (o *outbound) ask(now time.Time, b []byte, length int) datagram {
	b = append(beginSeal(b, kindMessage, o.theirs, o.sent+1), filler|asks)
	if more := length - len(b) - sealTag; more > 0 {
		b = append(b, make([]byte, more)...)
	}
	return o.seal(now, b)
}

// seal counts a datagram, which is complete but not encrypted.
func (o *outbound) seal(now time.Time, b []byte) datagram {
	o.sent++
	o.total.weight += uint64(weight(len(b) + sealTag))
	if len(b)+sealTag > baseSize {
		o.total.long++
	}
	o.totals[o.sent%replaySpan] = o.total
	o.wrote = now
	if b[sealHead]&asks != 0 {
		if o.question == 0 {
			o.question, o.asked, o.repeats = o.sent, now, 0
		}
		o.askedLast, o.askedWeight = now, o.total.weight
		if o.repeat = now.Add(min(maxRepeat, max(minRepeat, 3*o.trip))); o.unanswered(now) > renewAfter {
			o.repeat = now.Add(maxRepeat)
		}
	}
	return datagram{bytes: b, seal: o.messages, to: o.to}
}

// take appends the next message or part of one to b, with its first byte. There
// must be one.
func (l *link) take(b []byte, o *outbound) []byte {
	if l.current == nil {
		m := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.bytes -= len(m)
		if len(m)+1+sealLen <= o.size {
			return append(append(b, whole), m...)
		}
		l.current = l.split(m, o)
	}
	p := l.current
	i := p.next % p.count
	b = append(b, fragment)
	b = binary.BigEndian.AppendUint32(b, p.number)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.message)))
	b = binary.BigEndian.AppendUint16(b, uint16(i))
	b = binary.BigEndian.AppendUint16(b, uint16(p.count))
	b = append(b, p.message[i*p.size:min((i+1)*p.size, len(p.message))]...)
	if p.next++; p.next == p.count*p.copies {
		l.current = nil
	}
	return b
}

// split prepares a message that needs several datagrams. If datagrams are lost, so
// many that the message would probably not arrive, each part is sent several
// times.
func (l *link) split(m []byte, o *outbound) *parts {
	room := o.size - sealLen - 1 - fragmentHead
	l.numbers++
	p := &parts{message: m, number: l.numbers, count: (len(m) + room - 1) / room, copies: 1}
	p.size = (len(m) + p.count - 1) / p.count
	p.count = (len(m) + p.size - 1) / p.size
	for loss := l.losses.share(); float64(p.count)*math.Pow(loss, float64(p.copies)) > maxIncomplete && p.copies < maxCopies; {
		p.copies++
	}
	return p
}

// maxIncomplete is the probability that a message in parts may have not to arrive,
// as long as maxCopies copies of each part are enough for that.
const (
	maxIncomplete = 0.1
	maxCopies     = 6
)

// acknowledged processes an ack.
func (l *link) acknowledged(b []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.out
	if o == nil || o.index != sealIndex(b) || sealNumber(b) <= o.acked || len(b) != sealLen+ackLen {
		return
	}
	number := sealNumber(b)
	text, ok := openSeal(o.acks, b)
	if !ok {
		return
	}
	high, count := binary.BigEndian.Uint64(text), binary.BigEndian.Uint64(text[8:])
	long := binary.BigEndian.Uint64(text[16:])
	longest, window := int(binary.BigEndian.Uint32(text[24:])), int(binary.BigEndian.Uint32(text[28:]))
	if high > o.sent || high < o.high || count < o.count || long < o.long || o.sent-high >= replaySpan {
		return
	}
	o.acked, o.theirWindow = number, window
	sent, got := float64(high-o.high), float64(count-o.count)
	if o.probed != 0 && high >= o.probed {
		switch {
		case longest < o.probedSize: // this loss says nothing about the others
			sent--
		case o.probe < len(sizes) && sizes[o.probe] == o.probedSize:
			o.size, o.tries, o.probeBy = o.probedSize, 0, time.Time{}
			o.probe++
		}
		o.probed = 0
	}
	l.losses.add(sent, got)
	before := o.freed
	if high > 0 {
		o.freed = o.totals[high%replaySpan]
	}
	if o.missing += o.freed.long - before.long; long > o.long {
		o.missing = 0
	} else if o.missing >= maxMissing && o.size > baseSize {
		o.shrink(now) // the path no longer carries long ones
	}
	o.high, o.count, o.long = high, count, long
	if o.question != 0 && high >= o.question {
		if o.repeats == 0 {
			o.trip += (now.Sub(o.asked) - o.trip) / 8
		}
		o.question = 0
	}
	o.adapt(now, sent > got, float64(o.freed.weight-before.weight))
	l.awake()
}

// adapt changes how much may be on its way: it grows as long as nothing is lost,
// first quickly and then slowly, and shrinks after a loss, as with TCP.
func (o *outbound) adapt(now time.Time, lost bool, freed float64) {
	one := float64(weight(o.size))
	switch {
	case lost && now.Sub(o.cut) > o.trip:
		o.cut = now
		o.window = max(0.7*o.window, minWindow*float64(weight(baseSize)), 2*one)
		o.threshold = o.window
	case lost:
	case o.window < o.threshold:
		o.window += freed
	default:
		o.window += freed * one / o.window
	}
	o.window = min(o.window, 1<<26)
}
