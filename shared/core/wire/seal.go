package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
)

const (
	// macBytes is the length of a MAC: half an HMAC-SHA256.
	macBytes = sha256.Size / 2

	// sealed is how much longer a message is with its MAC and a space before it.
	sealed = 2*macBytes + 1
)

// seal puts a MAC before each message of one connection, or checks it at the other
// end. A MAC covers the message and its number in the connection. Without the key
// nobody can therefore add a message, change one, leave one out, repeat one or
// change their order. Damage is found in the same way. One goroutine at a time may
// use a seal.
type seal struct {
	mac hash.Hash

	// count is how many messages there were.
	count uint64

	// sum is memory for a MAC.
	sum [sha256.Size]byte
}

func newSeal(key []byte) *seal { return &seal{mac: hmac.New(sha256.New, key)} }

// next returns the MAC of the next message. It is valid until the next call.
func (s *seal) next(message []byte) []byte {
	s.mac.Reset()
	number := binary.BigEndian.AppendUint64(s.sum[:0], s.count)
	s.count++
	s.mac.Write(number)
	s.mac.Write(message)
	return s.mac.Sum(s.sum[:0])[:macBytes]
}

// append appends the next message after its MAC, and a newline.
func (s *seal) append(b, message []byte) []byte {
	b = hex.AppendEncode(b, s.next(message))
	b = append(b, ' ')
	b = append(b, message...)
	return append(b, '\n')
}

// open checks the MAC of the next message and returns the message. After an error
// the seal is of no further use.
func (s *seal) open(line []byte) ([]byte, error) {
	var mac [macBytes]byte
	if len(line) < sealed || line[sealed-1] != ' ' {
		return nil, errors.New("a message has no MAC")
	}
	if _, err := hex.Decode(mac[:], line[:sealed-1]); err != nil {
		return nil, errors.New("a message has no MAC")
	}
	number, message := s.count, line[sealed:]
	if !hmac.Equal(mac[:], s.next(message)) {
		return nil, fmt.Errorf("message %d of this connection, with %d bytes, is not what the sender sent: it was damaged, or somebody on the way has changed, added, repeated or removed something", number+1, len(message))
	}
	return message, nil
}
