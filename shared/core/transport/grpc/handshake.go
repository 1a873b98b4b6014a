package grpc

import (
	"cmp"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
)

// protocol is the version of the handshake and of what follows it.
const protocol = 1

// nonceBytes is the length of a nonce.
const nonceBytes = sha256.Size

// stream is one end of a Link.
type stream interface {
	Send(*raftpb.Frame) error
	Recv() (*raftpb.Frame, error)
}

// side is a side of a handshake, and the direction of the messages that it sends.
type side string

const (
	caller   side = "caller"
	answerer side = "answerer"
)

// greet is the caller's handshake with the server to. It returns the seals of the
// messages that are sent and that arrive.
func greet(s stream, self transport.Options, to uint64) (out, in *seal, err error) {
	h := &raftpb.Hello{Version: protocol, Cluster: self.Cluster, From: self.ID, To: to, Nonce: newNonce()}
	if err := s.Send(&raftpb.Frame{Content: &raftpb.Frame_Hello{Hello: h}}); err != nil {
		return nil, nil, reason(s, err)
	}
	answer, err := s.Recv()
	if err != nil {
		return nil, nil, err
	}
	nonce := answer.GetChallenge().GetNonce()
	if len(nonce) != nonceBytes {
		return nil, nil, fmt.Errorf("n%d did not answer the hello with a challenge", to)
	}
	if err := s.Send(proofFrame(prove(caller, self.Secret, h, nonce))); err != nil {
		return nil, nil, reason(s, err)
	}
	if answer, err = s.Recv(); err != nil {
		return nil, nil, err
	}
	if !hmac.Equal(answer.GetProof().GetHmac(), prove(answerer, self.Secret, h, nonce)) {
		return nil, nil, fmt.Errorf("the server that should be n%d does not know the secret of cluster %q", to, self.Cluster)
	}
	return seals(caller, self.Secret, h, nonce)
}

// reason returns why the other side has ended a stream on which sending has failed.
func reason(s stream, failed error) error {
	for {
		if _, err := s.Recv(); err != nil {
			return cmp.Or(err, failed)
		}
	}
}

// welcome is the answerer's handshake, up to its own proof, which the caller of
// welcome sends. vouched says whether the connection may belong to a server. welcome
// returns the peer, the proof, and the seals of the messages that are sent and that
// arrive. An error is a gRPC status, which tells the peer.
func welcome(s stream, self transport.Options, vouched func(from uint64) error) (from uint64, proof *raftpb.Frame, out, in *seal, err error) {
	fail := func(code codes.Code, format string, args ...any) (uint64, *raftpb.Frame, *seal, *seal, error) {
		return 0, nil, nil, nil, status.Errorf(code, format, args...)
	}
	first, err := s.Recv()
	if err != nil {
		return fail(codes.Unauthenticated, "a link begins with a hello, and there is none")
	}
	h := first.GetHello()
	switch {
	case h == nil:
		return fail(codes.Unauthenticated, "a link begins with a hello, and there is none")
	case len(h.Nonce) != nonceBytes:
		return fail(codes.Unauthenticated, "a hello has a nonce of %d bytes", nonceBytes)
	}
	if err := cmp.Or(check(h, self), vouched(h.From)); err != nil {
		return fail(codes.FailedPrecondition, "%v", err)
	}
	nonce := newNonce()
	if err := s.Send(&raftpb.Frame{Content: &raftpb.Frame_Challenge{Challenge: &raftpb.Challenge{Nonce: nonce}}}); err != nil {
		return 0, nil, nil, nil, err
	}
	second, err := s.Recv()
	if err != nil {
		return fail(codes.Unauthenticated, "n%d did not prove who it is: there is no proof after the challenge", h.From)
	}
	if !hmac.Equal(second.GetProof().GetHmac(), prove(caller, self.Secret, h, nonce)) {
		return fail(codes.Unauthenticated, "n%d does not know the secret of cluster %q", h.From, h.Cluster)
	}
	if out, in, err = seals(answerer, self.Secret, h, nonce); err != nil {
		return 0, nil, nil, nil, err
	}
	return h.From, proofFrame(prove(answerer, self.Secret, h, nonce)), out, in, nil
}

// check returns why a hello is refused, or nil.
func check(h *raftpb.Hello, self transport.Options) error {
	switch {
	case h.Version != protocol:
		return fmt.Errorf("n%d uses version %d of the handshake over gRPC, this server version %d: run the same program on both", h.From, h.Version, protocol)
	case h.Cluster != self.Cluster:
		return fmt.Errorf("n%d belongs to cluster %.64q, this server to cluster %q", h.From, h.Cluster, self.Cluster)
	case h.To != self.ID:
		return fmt.Errorf("n%d wants to reach n%d, but this is n%[3]d: correct the address that n%[1]d has for n%[2]d", h.From, h.To, self.ID)
	case h.From == self.ID:
		return fmt.Errorf("n%d is this server's own ID: two servers run under one ID, so stop one of them", h.From)
	case h.From == 0 || h.From > api.MaxID:
		return fmt.Errorf("n%d is not a server's ID: IDs go from 1 to 2^53", h.From)
	}
	return nil
}

func newNonce() []byte {
	b := make([]byte, nonceBytes)
	_, _ = rand.Read(b) // never fails
	return b
}

func proofFrame(proof []byte) *raftpb.Frame {
	return &raftpb.Frame{Content: &raftpb.Frame_Proof{Proof: &raftpb.Proof{Hmac: proof}}}
}

// prove returns the proof of one side. nonce is the answerer's.
func prove(by side, secret string, h *raftpb.Hello, nonce []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(transcript("raftsteps grpc proof", by, h, nonce))
	return mac.Sum(nil)
}

// transcript is all that was said in a handshake, and by whom it is used for what.
// Each text has its length before it, so that no two transcripts are the same.
func transcript(use string, by side, h *raftpb.Hello, nonce []byte) []byte {
	var text []byte
	for _, part := range []string{use, string(by), h.Cluster, string(h.Nonce), string(nonce)} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	for _, n := range []uint64{h.Version, h.From, h.To} {
		text = binary.BigEndian.AppendUint64(text, n)
	}
	return text
}

// seals returns the seals of the messages that one side sends and receives.
func seals(by side, secret string, h *raftpb.Hello, nonce []byte) (out, in *seal, err error) {
	other := map[side]side{caller: answerer, answerer: caller}[by]
	out, err1 := newSeal(by, secret, h, nonce)
	in, err2 := newSeal(other, secret, h, nonce)
	return out, in, errors.Join(err1, err2)
}

// seal makes the MACs of the messages of one direction of a Link. One goroutine at a
// time may use it.
type seal struct {
	mac hash.Hash

	// count is how many messages there were.
	count uint64

	// sum is memory for a MAC.
	sum [sha256.Size]byte
}

func newSeal(by side, secret string, h *raftpb.Hello, nonce []byte) (*seal, error) {
	info := string(transcript("raftsteps grpc messages", by, h, nonce))
	key, err := hkdf.Key(sha256.New, []byte(secret), slices.Concat(h.Nonce, nonce), info, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("no key for the messages: %w", err)
	}
	return &seal{mac: hmac.New(sha256.New, key)}, nil
}

// next returns the MAC of the next message. It is valid until the next call.
func (s *seal) next(line []byte) []byte {
	s.mac.Reset()
	s.mac.Write(binary.BigEndian.AppendUint64(s.sum[:0], s.count))
	s.count++
	s.mac.Write(line)
	return s.mac.Sum(s.sum[:0])[:sha256.Size/2]
}

// close returns the frame of the next message, whose line is given too.
func (s *seal) close(m *raftpb.Message, line []byte) *raftpb.Frame {
	return &raftpb.Frame{Content: &raftpb.Frame_Message{Message: m}, Mac: slices.Clone(s.next(line))}
}

// open returns the line of the next message. After an error the seal is of no further
// use.
func (s *seal) open(f *raftpb.Frame) ([]byte, error) {
	m := f.GetMessage()
	if m == nil {
		return nil, errors.New("a frame without a message")
	}
	line, err := AppendLine(nil, m)
	if err != nil {
		return nil, err
	}
	if number := s.count; !hmac.Equal(f.Mac, s.next(line)) {
		return nil, fmt.Errorf("message %d of this link, with %d bytes, is not what the sender sent: somebody on the way has changed, added, repeated or removed something", number+1, len(line))
	}
	return line, nil
}
