package udp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"example.com/raftsteps/shared/core/version"
)

// protocol is the version of this protocol, and oldestProtocol the oldest one that this
// program can still use. Two servers use the newest version that both can. Servers that
// have no version in common refuse each other, and the error names the versions. See
// package wire for what a new version takes.
const (
	protocol       = 1
	oldestProtocol = 1
)

// The kinds of datagrams, which are their first bytes.
const (
	kindHello   = 1
	kindAnswer  = 2
	kindRefusal = 3
	kindMessage = 4
	kindAck     = 5
)

// Lengths in bytes.
const (
	macLen    = sha256.Size
	nonceLen  = 32
	headLen   = 6                        // kind, version, index of the side that said hello
	helloEnd  = headLen + 5*8 + nonceLen // of what a hello of version 1 says
	helloLen  = helloEnd + macLen
	answerLen = headLen + 4 + 8 + 4 + nonceLen + macLen
	maxName   = helloLen - headLen - 1 - 8 - macLen
	maxHello  = 1200 // the longest hello, of any version
)

// keys are made of the cluster's secret.
type keys struct{ secret, hello, answer []byte }

func newKeys(secret string) (keys, error) {
	k := keys{secret: []byte(secret)}
	var err, err2 error
	k.hello, err = hkdf.Key(sha256.New, k.secret, nil, "raftsteps udp hello", sha256.Size)
	k.answer, err2 = hkdf.Key(sha256.New, k.secret, nil, "raftsteps udp answer", sha256.Size)
	if err == nil {
		err = err2
	}
	return k, err
}

// sum appends the MAC of texts to b.
func sum(b, key []byte, texts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, t := range texts {
		m.Write(t)
	}
	return m.Sum(b)
}

// genuine reports whether a datagram ends with the MAC of before and of what the
// datagram says.
func genuine(key, before, datagram []byte) bool {
	said := len(datagram) - macLen
	return hmac.Equal(datagram[said:], sum(nil, key, before, datagram[:said]))
}

// hello is the first datagram of a handshake. In every version, it begins with what
// version 1 says, and ends with a MAC over everything before it. A later version may say
// more in between, beginning with one byte for the oldest version that the sender can
// use.
type hello struct {
	// can are the versions that the sender can use. The oldest is missing if it is the
	// newest, too.
	can version.Range

	// index is the number by which the sender knows this session.
	index    uint32
	from, to uint64

	// start is a number that the sender draws when it starts, greater than before,
	// and number counts its hellos to this receiver since then.
	start, number uint64

	// cluster is a hash of the cluster's name.
	cluster uint64
	nonce   [nonceLen]byte
}

func (h hello) encode(k keys) []byte {
	b := make([]byte, 0, helloLen+1)
	b = append(b, kindHello, byte(h.can.Newest))
	b = binary.BigEndian.AppendUint32(b, h.index)
	for _, n := range []uint64{h.from, h.to, h.start, h.number, h.cluster} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, h.nonce[:]...)
	if h.can.Oldest != h.can.Newest {
		b = append(b, byte(h.can.Oldest))
	}
	return sum(b, k.hello, b)
}

// isHello reports whether a datagram is as long as a hello.
func isHello(b []byte) bool {
	return len(b) == helloLen || len(b) > helloLen && len(b) <= maxHello && b[1] > 1
}

// decodeHello reads a datagram for which isHello is true. What a version that this
// program does not know says at the end is skipped.
func decodeHello(b []byte) hello {
	h := hello{index: binary.BigEndian.Uint32(b[2:])}
	h.can = version.Between(uint64(b[1]), uint64(b[1]))
	if len(b) > helloLen {
		h.can.Oldest = uint64(b[helloEnd])
	}
	for i, n := range []*uint64{&h.from, &h.to, &h.start, &h.number, &h.cluster} {
		*n = binary.BigEndian.Uint64(b[headLen+8*i:])
	}
	copy(h.nonce[:], b[headLen+5*8:])
	return h
}

func clusterHash(name string) uint64 {
	h := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(h[:])
}

// answer is the second datagram of a handshake. It ends with a MAC over the whole
// hello and everything before it, so nobody can make two servers use an older version
// than they could.
type answer struct {
	// version is the version that the two servers use.
	version uint64

	// index is that of the hello; session is the number by which the sender of the
	// answer knows the session.
	index, session uint32

	// start is that of the sender of the answer, and window how much it can take
	// at once.
	start  uint64
	window uint32
	nonce  [nonceLen]byte
}

func (a answer) encode(k keys, hello []byte) []byte {
	b := make([]byte, 0, answerLen)
	b = append(b, kindAnswer, byte(a.version))
	b = binary.BigEndian.AppendUint32(b, a.index)
	b = binary.BigEndian.AppendUint32(b, a.session)
	b = binary.BigEndian.AppendUint64(b, a.start)
	b = binary.BigEndian.AppendUint32(b, a.window)
	b = append(b, a.nonce[:]...)
	return sum(b, k.answer, hello, b)
}

func decodeAnswer(b []byte) answer {
	a := answer{version: uint64(b[1]), index: binary.BigEndian.Uint32(b[2:]), session: binary.BigEndian.Uint32(b[6:]),
		start: binary.BigEndian.Uint64(b[10:]), window: binary.BigEndian.Uint32(b[18:])}
	copy(a.nonce[:], b[22:])
	return a
}

// Reasons for a refusal.
const (
	otherVersion = 1 + iota
	otherServer
	otherCluster
	sameServer
)

// refusal is the answer to a hello whose sender knows the secret and cannot be
// accepted. It has the same kind of MAC as an answer, and is never longer than a
// hello. It is the same in every version.
type refusal struct {
	// can are the versions that the sender can use. The oldest is only there, in place
	// of the name, if it is not the newest and the versions are the reason.
	can version.Range

	index  uint32
	reason byte

	// id is the ID of the server that refuses, and name its cluster's name if
	// that is the reason.
	id   uint64
	name string
}

func (r refusal) encode(k keys, hello []byte) []byte {
	b := append(make([]byte, 0, helloLen), kindRefusal, byte(r.can.Newest))
	b = binary.BigEndian.AppendUint32(b, r.index)
	b = append(b, r.reason)
	b = binary.BigEndian.AppendUint64(b, r.id)
	if r.reason == otherVersion && r.can.Oldest != r.can.Newest {
		b = append(b, byte(r.can.Oldest))
	}
	b = append(b, r.name[:min(len(r.name), maxName)]...)
	return sum(b, k.answer, hello, b)
}

// decodeRefusal reads a genuine refusal, or returns false.
func decodeRefusal(b []byte) (refusal, bool) {
	const fixed = headLen + 1 + 8
	if len(b) < fixed+macLen {
		return refusal{}, false
	}
	r := refusal{can: version.Between(uint64(b[1]), uint64(b[1])), index: binary.BigEndian.Uint32(b[2:]), reason: b[headLen], id: binary.BigEndian.Uint64(b[headLen+1:])}
	rest := b[fixed : len(b)-macLen]
	switch {
	case r.reason != otherVersion:
		r.name = string(rest)
	case len(rest) > 0:
		r.can.Oldest = uint64(rest[0])
	}
	return r, true
}

// seals returns the two AEADs of a session: for messages, from the side that said
// hello, and for the acks of the other side. Their keys come from the secret, both
// nonces and everything else in the hello, so every session has its own.
func (k keys) seals(hello []byte, h hello, a answer) (messages, acks cipher.AEAD, err error) {
	salt := slices.Concat(h.nonce[:], a.nonce[:])
	for _, s := range []struct {
		name string
		to   *cipher.AEAD
	}{{"messages", &messages}, {"acks", &acks}} {
		key, err := hkdf.Key(sha256.New, k.secret, salt, "raftsteps udp "+s.name+string(hello), 32)
		if err != nil {
			return nil, nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, nil, err
		}
		if *s.to, err = cipher.NewGCM(block); err != nil {
			return nil, nil, err
		}
	}
	return messages, acks, nil
}

// random fills b with random bytes.
func random(b []byte) { _, _ = rand.Read(b) } // never fails

func (t *Transport) random32() uint32 {
	var b [4]byte
	t.random(b[:])
	return binary.BigEndian.Uint32(b[:])
}
