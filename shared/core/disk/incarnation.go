package disk

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
)

// Incarnation identifies a disk: a random number that a server draws when it
// first uses a folder, and stores there. A server whose folder was emptied draws
// another number, so its peers notice. A copy of the folder has the same
// incarnation. 0 means that there is none.
type Incarnation uint64

// Draw returns a new incarnation.
func Draw(rng *rand.Rand) Incarnation {
	return Incarnation(1 + rng.Uint64N(math.MaxUint64))
}

// incarnationBytes is the size of an incarnation before it is encoded.
const incarnationBytes = 8

// String returns the incarnation as 16 hexadecimal digits.
func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// ParseIncarnation reads what String returns.
func ParseIncarnation(text []byte) (Incarnation, error) {
	var b [incarnationBytes]byte
	if len(text) != 2*len(b) {
		return 0, fmt.Errorf("an incarnation has %d hexadecimal digits", 2*len(b))
	}
	if _, err := hex.Decode(b[:], text); err != nil {
		return 0, fmt.Errorf("an incarnation has %d hexadecimal digits", 2*len(b))
	}
	var i Incarnation
	for _, x := range b {
		i = i<<8 | Incarnation(x)
	}
	return i, nil
}
