package wire

import (
	"bytes"
	"cmp"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/version"
)

// protocol is the version of the peers' protocol, and oldestProtocol the oldest one
// that this program can still use. Two servers use the newer of the versions that both
// can, so that the servers of a cluster can be upgraded one after the other. Servers
// that have no version in common refuse each other, and the error names the versions.
const (
	protocol       = 5
	oldestProtocol = 5
)

// agree returns the version to use with the sender of a hello, if this server can use
// these.
func (h hello) agree(own version.Range) (uint64, error) {
	their := version.Between(cmp.Or(h.oldest, h.version), h.version)
	return own.Agree(their, fmt.Sprintf("n%d", h.from), "the peers' protocol")
}

// maxHello is the longest line of a handshake.
const maxHello = 4 << 10

// hello is the first line of a peer.
type hello struct {
	// version is the newest version of the protocol that the sender can use, and
	// oldest the oldest one; 0 if that is the same. agreed is the one in use; it is
	// in the answer to the hello.
	version uint64
	oldest  uint64
	agreed  uint64

	cluster  string
	from, to uint64
	address  string

	// disk is the peer's disk, and known is this server's disk as the peer knows
	// it.
	disk, known disk.Incarnation
	start       uint64

	// probe is true if the sender only asks who is at the other end.
	probe bool
	nonce []byte
}

// place describes where a peer is: its address, and the address from which it has
// connected.
func (h hello) place(c *conn) string {
	return fmt.Sprintf("%s, from %s", h.address, c.nc.RemoteAddr())
}

// welcome is the acceptor's answer to the dialer's proof: the acceptor's disk, and
// the dialer's disk as the acceptor knows it.
type welcome struct {
	disk, known disk.Incarnation

	// refused says why the acceptor does not want this peer; "" if it does.
	refused string
}

const helloStart = `{"hello":`

func isHello(line []byte) bool { return bytes.HasPrefix(line, []byte(helloStart)) }

func (h hello) appendJSON(b []byte) []byte {
	b = append(b, helloStart+`{"version":`...)
	b = strconv.AppendUint(b, h.version, 10)
	b = strict.AppendNumber(b, "oldest", h.oldest)
	b = append(b, `,"cluster":`...)
	b = strict.AppendString(b, h.cluster)
	b = append(b, `,"from":`...)
	b = strconv.AppendUint(b, h.from, 10)
	b = append(b, `,"to":`...)
	b = strconv.AppendUint(b, h.to, 10)
	b = append(b, `,"address":`...)
	b = strict.AppendString(b, h.address)
	b = append(b, ',')
	b = appendDisks(b, h.disk, h.known)
	if h.start != 0 {
		b = append(b, `"start":`...)
		b = strconv.AppendUint(b, h.start, 10)
		b = append(b, ',')
	}
	if h.probe {
		b = append(b, `"probe":true,`...)
	}
	b = append(b, `"nonce":"`...)
	b = hex.AppendEncode(b, h.nonce)
	return append(b, `"}}`...)
}

// appendDisks appends the fields of two disks, each followed by a comma, without
// those that are 0.
func appendDisks(b []byte, own, known disk.Incarnation) []byte {
	for _, f := range []struct {
		name string
		disk disk.Incarnation
	}{{"disk", own}, {"known", known}} {
		if f.disk != 0 {
			b = fmt.Appendf(b, `"%s":"%v",`, f.name, f.disk)
		}
	}
	return b
}

func (w welcome) appendJSON(b, proof []byte) []byte {
	b = append(b, '{')
	b = appendDisks(b, w.disk, w.known)
	if w.refused != "" {
		b = append(strict.AppendString(append(b, `"refused":`...), w.refused), ',')
	}
	return fmt.Appendf(b, `"proof":"%x"}`, proof)
}

// decodeHello reads a hello. The version comes first. A hello of a newer version may
// have fields that this one does not know; they are skipped. After an error, the
// version is valid if it could be read.
func decodeHello(line []byte) (hello, error) {
	var h hello
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if string(field) != "hello" {
			d.Unknown()
			return
		}
		d.Object(func(field []byte) {
			switch string(field) {
			case "version":
				h.version = d.Uint()
			case "oldest":
				h.oldest = d.Uint()
			case "cluster":
				h.cluster = d.String()
			case "from":
				h.from = d.Uint()
			case "to":
				h.to = d.Uint()
			case "address":
				h.address = d.String()
			case "disk":
				h.disk = decodeDisk(&d)
			case "known":
				h.known = decodeDisk(&d)
			case "start":
				h.start = d.Uint()
			case "probe":
				h.probe = d.Bool()
			case "nonce":
				h.nonce = decodeHex(&d)
			default:
				if h.version > protocol {
					d.Raw()
					return
				}
				d.Unknown()
			}
		})
	})
	err := d.End()
	switch {
	case err != nil:
		return h, fmt.Errorf("a malformed hello: %w", err)
	case len(h.nonce) == 0:
		return h, errors.New("a malformed hello: the nonce is missing")
	}
	return h, nil
}

// decodeHex reads a nonce or a proof: a string of 32 bytes in hexadecimal digits.
func decodeHex(d *strict.Decoder) []byte {
	text := d.Bytes()
	b, err := hex.AppendDecode(nil, text)
	if err != nil || len(b) != sha256.Size {
		d.Fail("want %d hexadecimal digits", 2*sha256.Size)
	}
	return b
}

func decodeDisk(d *strict.Decoder) disk.Incarnation {
	i, err := disk.ParseIncarnation(d.Bytes())
	if err != nil {
		d.Fail("%v", err)
	}
	return i
}

// decodeWelcome reads the answer to a proof.
func decodeWelcome(line []byte) (w welcome, proof []byte, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch string(field) {
		case "disk":
			w.disk = decodeDisk(&d)
		case "known":
			w.known = decodeDisk(&d)
		case "refused":
			w.refused = d.String()
		case "proof":
			proof = decodeHex(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return w, nil, err
	}
	if proof == nil {
		return w, nil, errors.New("the proof is missing")
	}
	return w, proof, nil
}

// challenge is the acceptor's answer to a hello.
type challenge struct {
	version uint64
	nonce   []byte
}

func (c challenge) appendJSON(b []byte) []byte {
	return fmt.Appendf(b, `{"version":%d,"nonce":"%x"}`, c.version, c.nonce)
}

// decodeChallenge reads the answer to a hello.
func decodeChallenge(line []byte) (c challenge, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch string(field) {
		case "version":
			c.version = d.Uint()
		case "nonce":
			c.nonce = decodeHex(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return c, err
	}
	if c.nonce == nil || c.version == 0 {
		return c, errors.New("the version or the nonce is missing")
	}
	return c, nil
}

// decodeProof reads the dialer's proof.
func decodeProof(line []byte) (proof []byte, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if string(field) != "proof" {
			d.Unknown()
			return
		}
		proof = decodeHex(&d)
	})
	if err := d.End(); err != nil {
		return nil, err
	}
	if proof == nil {
		return nil, errors.New("the proof is missing")
	}
	return proof, nil
}

func newNonce() []byte {
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b) // never fails
	return b
}

// The two sides of a handshake.
const (
	dialer   = "dialer"
	acceptor = "acceptor"
)

// proof returns the proof of one side. nonce is the acceptor's; w is what the
// acceptor says with its proof, and empty for the dialer.
func (h hello) proof(by, secret string, nonce []byte, w welcome) []byte {
	var text []byte
	part := func(b []byte) {
		text = binary.BigEndian.AppendUint32(text, uint32(len(b)))
		text = append(text, b...)
	}
	part([]byte("raftsteps peer"))
	part([]byte(by))
	part([]byte(h.cluster))
	text = binary.BigEndian.AppendUint64(text, h.version)
	text = binary.BigEndian.AppendUint64(text, h.oldest)
	text = binary.BigEndian.AppendUint64(text, h.agreed)
	text = binary.BigEndian.AppendUint64(text, h.from)
	text = binary.BigEndian.AppendUint64(text, h.to)
	part([]byte(h.address))
	for _, n := range []uint64{uint64(h.disk), uint64(h.known), h.start, uint64(w.disk), uint64(w.known)} {
		text = binary.BigEndian.AppendUint64(text, n)
	}
	part(strconv.AppendBool(nil, h.probe))
	part(h.nonce)
	part(nonce)
	part([]byte(w.refused))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(text)
	return mac.Sum(nil)
}

// seal returns the seal of the messages that follow the handshake. Its key comes
// from the secret and both nonces, so every connection has its own.
func (h hello) seal(secret string, nonce []byte) (*seal, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), slices.Concat(h.nonce, nonce), "raftsteps peer messages", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("no key for the messages: %w", err)
	}
	return newSeal(key), nil
}
