package udp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"example.com/raftsteps/shared/core/api"
)

// In a cluster that uses TLS, two servers agree on their keys over a connection with
// TLS 1.3, which they then close: the side that will say hello dials, both check each
// other's certificate, and take the keys from the connection (RFC 8446, §7.5). So the
// cluster's secret without a server's certificate opens nothing, and with both, nobody
// can read what was recorded before. The keys are only in memory, so the servers agree
// again when one of them has started again.
const (
	// agreement is what the side that dials sends.
	agreement = "raftsteps udp keys 1\n"

	// agreed is what the other side sends once it has the keys.
	agreed = '\n'

	// maxAnswer is the longest answer of the other side.
	maxAnswer = 4 << 10

	exporterLabel = "EXPORTER-raftsteps-udp"

	// keptKeys is how many keys of a peer are kept: it may agree on new ones before
	// it has used the last.
	keptKeys = 2
)

// agreeTime is how long a hello under agreed keys may stay without an answer. Then the
// peer has probably started again, and has no keys.
const agreeTime = time.Second / 2

// UsesKeys is transport.Certified.UsesKeys.
func (t *Transport) UsesKeys() {}

// Preface is transport.Sharer.Preface.
func (t *Transport) Preface() []byte { return []byte(agreement) }

// ALPN is transport.Sharer.ALPN.
func (t *Transport) ALPN() []string { return nil }

// Serve is transport.Sharer.Serve: a peer wants to agree on keys.
func (t *Transport) Serve(c net.Conn, proved func()) {
	below, _ := c.(interface{ NetConn() net.Conn })
	if t.tls == nil || below == nil {
		return
	}
	secured, ok := below.NetConn().(*tls.Conn)
	if !ok || c.SetDeadline(time.Now().Add(t.limits.Dial)) != nil {
		return
	}
	if _, err := io.ReadFull(c, make([]byte, len(agreement))); err != nil {
		return
	}
	state := secured.ConnectionState()
	who, err := t.tls.Verify(state)
	if err == nil && (who.Server == 0 || who.Server == t.id || who.Server > api.MaxID) {
		err = fmt.Errorf("%s is not another server of the cluster", who.URI())
	}
	var k keys
	if err == nil {
		k, err = t.export(state, who.Server, t.id)
	}
	if err != nil {
		t.refusals.Say(err.Error(), func(before int) {
			t.log.Warn("a peer was refused", "address", c.RemoteAddr(), "error", err, "refused_before", before)
		})
		return
	}
	proved()
	if t.keep(who.Server, k) {
		_, _ = c.Write([]byte{agreed}) // if it is lost, the peer tries again
	}
}

// keep records the keys with which a peer will say hello.
func (t *Transport) keep(id uint64, k keys) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peer(id)
	if p == nil {
		return false
	}
	if p.keys = append(p.keys, k); len(p.keys) > keptKeys {
		p.keys = p.keys[1:]
	}
	return true
}

// export returns the keys for the direction from one server to another.
func (t *Transport) export(s tls.ConnectionState, from, to uint64) (keys, error) {
	var context []byte
	for _, n := range []uint64{from, to, t.cluster} {
		context = binary.BigEndian.AppendUint64(context, n)
	}
	secret, err := s.ExportKeyingMaterial(exporterLabel, context, 32)
	if err != nil {
		return keys{}, err
	}
	return newKeys(string(secret) + t.secret)
}

// helloKeys returns the keys under which a hello may be. Before the hello is checked,
// only its length is certain.
func (t *Transport) helloKeys(b []byte) []keys {
	if t.tls == nil {
		return []keys{t.keys}
	}
	if !isHello(b) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[decodeHello(b).from]; p != nil {
		return append([]keys(nil), p.keys...)
	}
	return nil
}

// agree agrees with the peer on keys, if that is needed and the time has come. It
// waits for the peer.
func (l *link) agree(ctx context.Context, now time.Time) {
	l.mu.Lock()
	targets := l.places()
	needed := l.keys == nil && len(targets) > 0 && !now.Before(l.agreeAt) && l.wantsSession(now)
	l.mu.Unlock()
	if !needed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.t.limits.Dial)
	defer cancel()
	var failed error
	for _, to := range targets {
		k, err := l.agreeWith(ctx, to)
		if err == nil {
			l.mu.Lock()
			l.keys, l.agreeTries = &k, 0
			l.mu.Unlock()
			return
		}
		failed = errors.Join(failed, fmt.Errorf("%v: %w", to, err))
	}
	now = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agreeAt = now.Add(min(l.t.limits.Backoff[0]<<min(l.agreeTries, 10), l.t.limits.Backoff[1]))
	l.agreeTries++
	if l.out == nil {
		l.clear()
		l.targets = nil
	}
	why := failed.Error()
	if op := (*net.OpError)(nil); errors.As(failed, &op) {
		why = op.Err.Error() // without the port of this side, which is another one each time
	}
	if now.Sub(l.away) > patience && why != l.told && ctx.Err() == nil {
		l.told = why
		l.log.Warn("no keys for a peer, on which servers agree over TLS; trying again", "error", failed)
	}
}

// agreeWith agrees on keys with the peer at an address.
func (l *link) agreeWith(ctx context.Context, to netip.AddrPort) (keys, error) {
	d := tls.Dialer{Config: l.t.tls.Dial(l.to)}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return keys{}, err
	}
	defer c.Close()
	if by, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(by) // it fails only on a closed connection
	}
	if _, err := io.WriteString(c, agreement); err != nil {
		return keys{}, err
	}
	answer, err := bufio.NewReader(io.LimitReader(c, maxAnswer)).ReadBytes(agreed)
	if err != nil {
		return keys{}, err
	}
	if len(answer) > 1 { // the answer to a client
		r, err := api.DecodeResponse(answer[:len(answer)-1])
		if err == nil && r.Error != nil {
			return keys{}, fmt.Errorf("the peer refuses: %w", r.Error)
		}
		return keys{}, errors.New("the server there does not receive messages over UDP")
	}
	return l.t.export(c.(*tls.Conn).ConnectionState(), l.t.id, l.to)
}
