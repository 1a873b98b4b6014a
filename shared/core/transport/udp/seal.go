package udp

import (
	"crypto/cipher"
	"encoding/binary"
)

// A sealed datagram has a clear header and then an AEAD's ciphertext, which also
// authenticates the header:
//
//	kind (1)  index of the receiver's session (4)  number of the datagram (8)  ciphertext  tag (16)
//
// The number is the nonce. A key is used in one direction only, and no number
// twice, so no nonce is used twice.
const (
	sealHead = 1 + 4 + 8
	sealTag  = 16
	sealLen  = sealHead + sealTag
)

// beginSeal starts a datagram in b: what follows is appended in clear, and then
// endSeal encrypts it.
func beginSeal(b []byte, kind byte, index uint32, number uint64) []byte {
	b = append(b[:0], kind)
	b = binary.BigEndian.AppendUint32(b, index)
	return binary.BigEndian.AppendUint64(b, number)
}

// endSeal encrypts what was appended since beginSeal.
func endSeal(a cipher.AEAD, b []byte) []byte {
	return a.Seal(b[:sealHead], sealNonce(b), b[sealHead:], b[:sealHead])
}

// openSeal decrypts a datagram in place, and returns false if it is not genuine.
func openSeal(a cipher.AEAD, b []byte) ([]byte, bool) {
	text, err := a.Open(b[sealHead:sealHead], sealNonce(b), b[sealHead:], b[:sealHead])
	return text, err == nil
}

func sealNonce(b []byte) []byte {
	var nonce [12]byte
	copy(nonce[4:], b[5:sealHead])
	return nonce[:]
}

func sealIndex(b []byte) uint32  { return binary.BigEndian.Uint32(b[1:]) }
func sealNumber(b []byte) uint64 { return binary.BigEndian.Uint64(b[5:]) }

// replays knows which of the latest numbers of a session have arrived, so that
// each is accepted once. Numbers start at 1. A number that is replaySpan or more
// below the highest is refused.
type replays struct {
	highest uint64
	seen    [replaySpan / 64]uint64
}

const replaySpan = 4096

// fresh reports whether a number has not arrived before.
func (r *replays) fresh(n uint64) bool {
	switch {
	case n == 0 || n+replaySpan <= r.highest:
		return false
	case n > r.highest:
		return true
	}
	return r.seen[n%replaySpan/64]&(1<<(n%64)) == 0
}

// mark records a number. It must be called only once the datagram has proved to be
// genuine: otherwise anybody could move the window.
func (r *replays) mark(n uint64) {
	if n > r.highest {
		if n-r.highest >= replaySpan {
			clear(r.seen[:])
		} else {
			for i := r.highest + 1; i <= n; i++ {
				r.seen[i%replaySpan/64] &^= 1 << (i % 64)
			}
		}
		r.highest = n
	}
	r.seen[n%replaySpan/64] |= 1 << (n % 64)
}
