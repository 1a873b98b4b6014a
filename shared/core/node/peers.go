package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

// Keeper is a Server that stores data on a disk.
type Keeper interface {
	// Incarnation returns the incarnation of the disk. It does not change.
	Incarnation() disk.Incarnation
}

// IncarnationOf returns the incarnation of a server's disk, 0 if it has none.
func IncarnationOf(s Server) disk.Incarnation {
	if k, ok := s.(Keeper); ok {
		return k.Incarnation()
	}
	return 0
}

// Peers is what a server remembers about its peers: which disk each of them has.
// A world asks it before it delivers the first message of a peer, and refuses the
// messages of a peer that comes back with another disk: that peer has forgotten
// its votes, and the entries that it has acknowledged.
//
// It is a file next to the journal, with lines of JSON after their checksums:
//
//	5b1c2d70 {"peers":{"version":1,"incarnation":"005eed0fa11d15c5"}}
//	0f3b4c1e {"peer":{"id":2,"incarnation":"7d0c6f1be2a95318"}}
//
// The first line names the server's own disk, so the file is valid only with the
// journal next to which it was created. A Peers must be used by one goroutine at
// a time.
type Peers struct {
	disk  disk.Disk
	own   disk.Incarnation
	known map[uint64]disk.Incarnation
}

const (
	// peersName is the name of the file, and peersVersion the version of its
	// format.
	peersName    = "peers"
	peersVersion = 1

	// MaxPeers is how many peers are remembered. A cluster has at most 99 members
	// at a time; further numbers, after so many replacements, are refused.
	MaxPeers = 10_000
)

// OpenPeers reads what a server remembers; own is the incarnation of its disk. A
// server without a disk, whose incarnation is 0, remembers nothing.
func OpenPeers(d disk.Disk, own disk.Incarnation) (*Peers, error) {
	p := &Peers{disk: d, own: own, known: make(map[uint64]disk.Incarnation)}
	if own == 0 {
		return p, nil
	}
	text, err := disk.ReadFile(d, peersName)
	if errors.Is(err, fs.ErrNotExist) {
		return p, p.save()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the file %q: %w", peersName, err)
	}
	if err := p.decode(text); err != nil {
		return nil, fmt.Errorf("the file %q: %w", peersName, err)
	}
	return p, nil
}

// Own returns the incarnation of the server's own disk.
func (p *Peers) Own() disk.Incarnation { return p.own }

// Known returns the incarnation of a peer's disk, 0 if this server has not met
// that peer.
func (p *Peers) Known(id uint64) disk.Incarnation { return p.known[id] }

// Admit records that a peer has proved its identity and has a disk. It returns a
// *DiskError if the peer had another disk before. When it returns nil, the peer's
// disk is remembered, also after a power cut. After another error it is not: the
// disk has failed, or MaxPeers are remembered already.
func (p *Peers) Admit(id uint64, now disk.Incarnation) error {
	known, met := p.known[id]
	switch {
	case known == now && (met || now == 0):
		return nil
	case met:
		return &DiskError{Peer: id, Known: known, Now: now}
	case p.own == 0:
		return nil
	case len(p.known) >= MaxPeers:
		return fmt.Errorf("this server remembers %d peers, which is the limit", MaxPeers)
	}
	p.known[id] = now
	if err := p.save(); err != nil {
		delete(p.known, id)
		return err
	}
	return nil
}

// DiskError says that a server came back with another disk.
type DiskError struct {
	// Peer is the server, Known the disk that it had, and Now the one it has.
	Peer       uint64
	Known, Now disk.Incarnation
}

func (e *DiskError) Error() string {
	return fmt.Sprintf("%s comes back with another disk (incarnation %v, before %v), and has forgotten what it promised", Name(e.Peer), e.Now, e.Known)
}

// Disowned returns the error with which a server must stop when a peer knows it
// with another disk: the votes and entries that it promised to keep were on that
// disk. Changes is true where the members of a cluster can change.
func Disowned(id, by uint64, known, own disk.Incarnation, changes bool) error {
	return fmt.Errorf("%s has lost its disk: %s knows it with incarnation %v, and this folder has %v; %s",
		Name(id), Name(by), known, own, DiskAdvice(id, changes))
}

// DiskAdvice says what to do about a server that came back with another disk.
func DiskAdvice(id uint64, changes bool) string {
	if changes {
		return fmt.Sprintf("put its old folder back, or remove %s and add a new server with a new number", Name(id))
	}
	return fmt.Sprintf("put its old folder back: the members are fixed, so nothing else brings %s back", Name(id))
}

// save replaces the file.
func (p *Peers) save() error {
	b := appendSealed(nil, fmt.Sprintf(`{"peers":{"version":%d,"incarnation":"%v"}}`, peersVersion, p.own))
	for _, id := range slices.Sorted(maps.Keys(p.known)) {
		b = appendSealed(b, fmt.Sprintf(`{"peer":{"id":%d,"incarnation":"%v"}}`, id, p.known[id]))
	}
	f, err := disk.Replace(p.disk, peersName, b)
	if err != nil {
		return err
	}
	return f.Close()
}

// appendSealed appends a line after its checksum.
func appendSealed(b []byte, text string) []byte {
	start := len(b)
	b = append(b, make([]byte, crcline.Len)...)
	b = append(b, text...)
	crcline.Seal(b[start:])
	return append(b, '\n')
}

// decode reads the file. It was written as a whole, so any error in it is damage.
func (p *Peers) decode(text []byte) error {
	for n := 1; n == 1 || len(text) > 0; n++ {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		record := crcline.Open(line)
		if !whole || record == nil {
			return fmt.Errorf("line %d is damaged: check the disk, and keep the folder", n)
		}
		if err := p.decodeLine(record, n == 1); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		text = rest
	}
	return nil
}

// decodeLine reads one line.
func (p *Peers) decodeLine(record []byte, first bool) error {
	kind, version, id, incarnation := "", uint64(0), uint64(0), disk.Incarnation(0)
	d := strict.NewDecoder(record)
	d.Object(func(field []byte) {
		kind = string(field)
		d.Object(func(field []byte) {
			switch string(field) {
			case "version":
				version = d.Uint()
			case "id":
				id = d.Uint()
			case "incarnation":
				i, err := disk.ParseIncarnation(d.Bytes())
				if incarnation = i; err != nil {
					d.Fail("%v", err)
				}
			default:
				d.Unknown()
			}
		})
	})
	if err := d.End(); err != nil {
		return err
	}
	switch {
	case first && kind == "peers" && version != peersVersion:
		return fmt.Errorf("it has version %d, and this program knows only version %d", version, peersVersion)
	case first && kind == "peers" && incarnation != p.own:
		return fmt.Errorf("it was created next to a journal with incarnation %v, and the journal here has %v: "+
			"the journal was lost or replaced, and with it the votes and entries that this server has promised to keep; put the old one back", incarnation, p.own)
	case first && kind == "peers":
		return nil
	case !first && kind == "peer" && id != 0:
		p.known[id] = incarnation
		return nil
	}
	return fmt.Errorf("the record %q is not allowed in this line", kind)
}
