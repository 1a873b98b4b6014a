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
	"example.com/raftsteps/shared/core/version"
)

// protocol is the version of the handshake and of what follows it, and oldestProtocol the
// oldest one that this program can still use. Two servers use the newest version that
// both can. Servers that have no version in common refuse each other, and the error names
// the versions. See package wire for what a new version takes.
//
// Version 2 says in the hello when the server has started.
const (
	protocol       = 2
	oldestProtocol = 1
)

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

// identity is this server in a handshake.
type identity struct {
	transport.Options

	// can are the versions that it can use.
	can version.Range

	// start is drawn when the server starts.
	start uint64

	// nonce, in a test, is the nonce of every handshake; nil for a new one each.
	nonce []byte
}

func (i identity) newNonce() []byte {
	if i.nonce != nil {
		return i.nonce
	}
	return newNonce()
}

// greet is the caller's handshake with the server to. It returns the version that both
// use, and the seals of the messages that are sent and that arrive.
func greet(s stream, self identity, to uint64) (agreed uint64, out, in *seal, err error) {
	h := &raftpb.Hello{Version: self.can.Newest, Cluster: self.Cluster, From: self.ID, To: to, Nonce: self.newNonce()}
	if self.can.Oldest != self.can.Newest {
		h.Oldest = self.can.Oldest
	}
	if self.can.Newest >= 2 {
		h.Start = self.start
	}
	if err := s.Send(&raftpb.Frame{Content: &raftpb.Frame_Hello{Hello: h}}); err != nil {
		return 0, nil, nil, reason(s, err)
	}
	answer, err := s.Recv()
	if err != nil {
		return 0, nil, nil, err
	}
	c := answer.GetChallenge()
	agreed = cmp.Or(c.GetVersion(), h.Version)
	switch {
	case len(c.GetNonce()) != nonceBytes:
		return 0, nil, nil, fmt.Errorf("n%d did not answer the hello with a challenge", to)
	case !self.can.Has(agreed):
		return 0, nil, nil, fmt.Errorf("n%d wants to use version %d of %s, and this server can use %v", to, agreed, protocolName, self.can)
	}
	if err := s.Send(proofFrame(prove(caller, self.Secret, h, c))); err != nil {
		return 0, nil, nil, reason(s, err)
	}
	if answer, err = s.Recv(); err != nil {
		return 0, nil, nil, err
	}
	if !hmac.Equal(answer.GetProof().GetHmac(), prove(answerer, self.Secret, h, c)) {
		return 0, nil, nil, fmt.Errorf("the server that should be n%d does not know the secret of cluster %q", to, self.Cluster)
	}
	out, in, err = seals(caller, self.Secret, h, c)
	return agreed, out, in, err
}

// reason returns why the other side has ended a stream on which sending has failed.
func reason(s stream, failed error) error {
	for {
		if _, err := s.Recv(); err != nil {
			return cmp.Or(err, failed)
		}
	}
}

// welcomed is a peer whose handshake has succeeded but for this server's own proof.
type welcomed struct {
	from, agreed uint64
	proof        *raftpb.Frame

	// start tells this start of the peer from others; 0 if it is not known.
	start uint64

	// out and in are the seals of the messages that are sent and that arrive.
	out, in *seal
}

// welcome is the answerer's handshake, up to its own proof, which the caller of
// welcome sends. vouched says whether the connection may belong to a server. An error is
// a gRPC status, which tells the peer.
func welcome(s stream, self identity, vouched func(from uint64) error) (w welcomed, err error) {
	fail := func(code codes.Code, format string, args ...any) (welcomed, error) {
		return welcomed{}, status.Errorf(code, format, args...)
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
	if w.agreed, err = agree(h, self.can); err == nil {
		err = cmp.Or(check(h, self.Options), vouched(h.From))
	}
	if err != nil {
		return fail(codes.FailedPrecondition, "%v", err)
	}
	c := &raftpb.Challenge{Nonce: self.newNonce()}
	if w.agreed != h.Version {
		c.Version = w.agreed
	}
	if err := s.Send(&raftpb.Frame{Content: &raftpb.Frame_Challenge{Challenge: c}}); err != nil {
		return welcomed{}, err
	}
	second, err := s.Recv()
	if err != nil {
		return fail(codes.Unauthenticated, "n%d did not prove who it is: there is no proof after the challenge", h.From)
	}
	if !hmac.Equal(second.GetProof().GetHmac(), prove(caller, self.Secret, h, c)) {
		return fail(codes.Unauthenticated, "n%d does not know the secret of cluster %q", h.From, h.Cluster)
	}
	if w.out, w.in, err = seals(answerer, self.Secret, h, c); err != nil {
		return welcomed{}, err
	}
	w.from, w.proof = h.From, proofFrame(prove(answerer, self.Secret, h, c))
	if w.agreed >= 2 {
		w.start = h.Start
	}
	return w, nil
}

// protocolName is how errors call the protocol.
const protocolName = "the protocol over gRPC"

// agree returns the version to use with the sender of a hello.
func agree(h *raftpb.Hello, own version.Range) (uint64, error) {
	their := version.Between(cmp.Or(h.Oldest, h.Version), h.Version)
	return own.Agree(their, fmt.Sprintf("n%d", h.From), protocolName)
}

// check returns why a hello is refused whose version this server can use, or nil.
func check(h *raftpb.Hello, self transport.Options) error {
	switch {
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

// prove returns the proof of one side.
func prove(by side, secret string, h *raftpb.Hello, c *raftpb.Challenge) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(transcript("raftsteps grpc proof", by, h, c))
	return mac.Sum(nil)
}

// transcript is all that was said in a handshake, and by whom it is used for what.
// Each text has its length before it, so that no two transcripts are the same. If there
// is only one version, the oldest and the agreed one are left out. Version 1 has no start.
func transcript(use string, by side, h *raftpb.Hello, c *raftpb.Challenge) []byte {
	var text []byte
	for _, part := range []string{use, string(by), h.Cluster, string(h.Nonce), string(c.Nonce)} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	numbers := []uint64{h.Version, h.From, h.To}
	if h.Oldest != 0 || c.Version != 0 {
		numbers = append(numbers, h.Oldest, c.Version)
	}
	if cmp.Or(c.Version, h.Version) >= 2 {
		numbers = append(numbers, h.Start)
	}
	for _, n := range numbers {
		text = binary.BigEndian.AppendUint64(text, n)
	}
	return text
}

// seals returns the seals of the messages that one side sends and receives.
func seals(by side, secret string, h *raftpb.Hello, c *raftpb.Challenge) (out, in *seal, err error) {
	other := map[side]side{caller: answerer, answerer: caller}[by]
	out, err1 := newSeal(by, secret, h, c)
	in, err2 := newSeal(other, secret, h, c)
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

func newSeal(by side, secret string, h *raftpb.Hello, c *raftpb.Challenge) (*seal, error) {
	info := string(transcript("raftsteps grpc messages", by, h, c))
	key, err := hkdf.Key(sha256.New, []byte(secret), slices.Concat(h.Nonce, c.Nonce), info, sha256.Size)
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
