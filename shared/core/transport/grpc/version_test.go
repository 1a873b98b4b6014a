package grpc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
	"example.com/raftsteps/shared/core/version"
)

// greeted is what both sides of a handshake come to.
type greeted struct {
	agreed, accepted uint64
	callErr          error
	answerErr        error
	out, in          *seal
}

// meet plays the handshake of two servers; between may change what passes.
func meet(n1, n2 version.Range, between func(*raftpb.Frame)) (g greeted) {
	near, far := pipe()
	self := identity{Options: transport.Options{ID: 1, Cluster: "c", Secret: secret}, can: n1}
	other := identity{Options: transport.Options{ID: 2, Cluster: "c", Secret: secret}, can: n2}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(far.out)
		var w welcomed
		if w, g.answerErr = welcome(changed{far, between}, self, func(uint64) error { return nil }); g.answerErr != nil {
			return
		}
		g.accepted, g.in = w.agreed, w.in
		_ = far.Send(w.proof)
	}()
	g.agreed, g.out, _, g.callErr = greet(changed{near, between}, other, 1)
	close(near.out)
	<-done
	return g
}

// changed is a stream on whose way somebody changes frames.
type changed struct {
	stream
	change func(*raftpb.Frame)
}

func (c changed) Send(f *raftpb.Frame) error {
	if c.change != nil {
		f = proto.CloneOf(f)
		c.change(f)
	}
	return c.stream.Send(f)
}

// Two servers use the newest version that both can; so one can be upgraded before the
// other.
func TestVersionsMeet(t *testing.T) {
	for _, c := range []struct {
		n1, n2 version.Range
		agreed uint64
		why    string
	}{
		{version.Between(1, 1), version.Between(1, 1), 1, ""},
		{version.Between(1, 1), version.Between(1, 2), 1, ""},
		{version.Between(1, 2), version.Between(1, 1), 1, ""},
		{version.Between(1, 2), version.Between(1, 2), 2, ""},
		{version.Between(1, 3), version.Between(2, 9), 3, ""},
		{version.Between(1, 1), version.Between(2, 3), 0, "n2 uses versions 2 to 3 of the protocol over gRPC, this server version 1: run programs on both"},
		{version.Between(3, 4), version.Between(1, 1), 0, "n2 uses version 1 of the protocol over gRPC, this server versions 3 to 4: run programs on both"},
	} {
		g := meet(c.n1, c.n2, nil)
		require.Equal(t, c.agreed, g.agreed, "%v and %v", c.n1, c.n2)
		if c.agreed == 0 {
			require.ErrorContains(t, g.answerErr, c.why)
			continue
		}
		require.NoError(t, errors.Join(g.callErr, g.answerErr))
		require.Equal(t, c.agreed, g.accepted)
		m, err := FromLine(message(1))
		require.NoError(t, err)
		line, err := g.in.open(g.out.close(m, message(1)))
		require.NoError(t, err)
		require.Equal(t, message(1), line)
	}
}

// Nobody on the way can make two servers use an older version than they could, or make a
// server seem to have started again.
func TestNobodyChoosesAnOlderVersion(t *testing.T) {
	both := version.Between(1, 3)
	for name, change := range map[string]func(*raftpb.Frame){
		"the challenge": func(f *raftpb.Frame) {
			if f.GetChallenge() != nil {
				f.GetChallenge().Version = 1
			}
		},
		"the newest": func(f *raftpb.Frame) {
			if f.GetHello() != nil {
				f.GetHello().Version = 2
			}
		},
		"the range": func(f *raftpb.Frame) {
			if f.GetHello() != nil {
				f.GetHello().Version, f.GetHello().Oldest = 1, 0
			}
		},
		"the start": func(f *raftpb.Frame) {
			if f.GetHello() != nil {
				f.GetHello().Start++
			}
		},
		"a version that was not offered": func(f *raftpb.Frame) {
			if f.GetChallenge() != nil {
				f.GetChallenge().Version = 4
			}
		},
	} {
		g := meet(both, both, change)
		require.Error(t, g.callErr, name)
		require.Error(t, g.answerErr, name)
	}
	require.NoError(t, meet(both, both, func(*raftpb.Frame) {}).callErr)
}

// The log of a server says that it could use a newer version than the peer.
func TestTheLogSaysTheVersion(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	b.can = version.Between(protocol, protocol+1) // it has no connection yet
	b.Connect([]node.Member{a.member()})
	b.log.has(t, fmt.Sprintf("level=INFO msg=\"connected to a peer\" peer=1 address=%s version=%d\n", a.address, protocol))
}

// Servers without a common version say so, on both sides.
func TestServersOfOtherVersions(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	b.can = version.Between(3, 4) // it has no connection yet
	b.Connect([]node.Member{a.member()})
	const why = "n2 uses versions 3 to 4 of the protocol over gRPC, this server versions 1 to 2: run programs on both"
	b.log.has(t, "the peer refuses: "+why)
	a.log.has(t, why)
}

var update = flag.Bool("update", false, "write the recorded handshakes anew")

// handshakes are the handshakes of two servers that were recorded, and a message after
// it, one file for each version of the protocol that this program can use. The frames of
// the side that calls begin with C, those of the other side with A.
var handshakes = map[uint64]string{1: "testdata/handshake-1.txt", 2: "testdata/handshake-2.txt"}

// written is a stream that writes down the frames that are sent.
type written struct {
	stream
	side string
	text *strings.Builder
}

func (w written) Send(f *raftpb.Frame) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.text, "%s %x\n", w.side, b)
	return w.stream.Send(f)
}

// A server of this program understands a server of an older one, as it was recorded,
// and answers it with the same bytes. And it still says the same to an older one.
func TestRecordedHandshakes(t *testing.T) {
	for v := uint64(oldestProtocol); v <= protocol; v++ {
		require.Contains(t, handshakes, v, "record the handshake of version %d", v)
	}
	for v, path := range handshakes {
		self := identity{Options: transport.Options{ID: 1, Cluster: "c", Secret: secret}, can: version.Between(oldestProtocol, protocol), nonce: bytes.Repeat([]byte{9}, nonceBytes)}
		older := identity{Options: transport.Options{ID: 2, Cluster: "c", Secret: secret}, can: version.Between(v, v), start: 5, nonce: bytes.Repeat([]byte{7}, nonceBytes)}
		var said strings.Builder
		near, far := pipe()
		answered := make(chan error, 1)
		go func() {
			to := written{far, "A", &said}
			w, err := welcome(to, self, func(uint64) error { return nil })
			if err == nil {
				err = to.Send(w.proof)
			}
			answered <- err
		}()
		_, out, _, err := greet(written{near, "C", &said}, older, 1)
		require.NoError(t, errors.Join(err, <-answered))
		m, err := FromLine(message(1))
		require.NoError(t, err)
		require.NoError(t, written{near, "C", &said}.Send(out.close(m, message(1))))
		if *update && v == protocol {
			require.NoError(t, os.WriteFile(path, []byte(said.String()), 0o644))
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(text), said.String())

		// A new server hears the recorded frames, of which nothing was made here.
		near, far = pipe()
		var calls, answers []*raftpb.Frame
		for line := range strings.Lines(string(text)) {
			side, frame, _ := strings.Cut(strings.TrimSpace(line), " ")
			b, err := hex.DecodeString(frame)
			require.NoError(t, err)
			f := &raftpb.Frame{}
			require.NoError(t, proto.Unmarshal(b, f))
			if side == "C" {
				calls = append(calls, f)
			} else {
				answers = append(answers, f)
			}
		}
		require.Len(t, calls, 3)
		require.Len(t, answers, 2)
		for _, f := range calls[:2] {
			require.NoError(t, near.Send(f))
		}
		w, err := welcome(far, self, func(uint64) error { return nil })
		require.NoError(t, err)
		challenge, err := near.Recv()
		require.NoError(t, err)
		require.True(t, proto.Equal(answers[0], challenge), challenge)
		require.True(t, proto.Equal(answers[1], w.proof), w.proof)
		line, err := w.in.open(calls[2])
		require.NoError(t, err)
		require.Equal(t, message(1), line)
	}
}
