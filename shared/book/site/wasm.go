package site

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// wasmHeader begins a WebAssembly module of the only version there is.
const wasmHeader = "\x00asm\x01\x00\x00\x00"

// The sections of a module that joinData must know.
const (
	dataSection      = 11
	dataCountSection = 12
)

// mostZeros is how many zeros joinData puts between two segments to join them.
const mostZeros = 1024

// segment is a piece of the memory that a program starts with. The memory is zero
// where there is no segment.
type segment struct {
	address int
	data    []byte
}

// joinData joins the data segments of a WebAssembly module that are close to each
// other. Go's linker leaves out each run of eight zeros or more and starts a new
// segment after it, sixty thousand in an engine. That makes the module smaller as it
// is and larger when it is compressed: zeros take almost no space then, and the
// address at the start of each segment takes two or three bytes.
func joinData(wasm []byte) ([]byte, error) {
	if !bytes.HasPrefix(wasm, []byte(wasmHeader)) {
		return nil, errors.New("it does not start as WebAssembly does")
	}
	out := append(make([]byte, 0, 2*len(wasm)), wasmHeader...)
	r := wasmReader{rest: wasm[len(wasmHeader):]}
	for len(r.rest) > 0 {
		id, content := r.byte(), r.bytes()
		if r.err == nil && id == dataCountSection {
			r.err = errors.New("it has a section with the number of its data segments, which must not change then")
		}
		if r.err == nil && id == dataSection {
			content, r.err = joinSegments(content)
		}
		if r.err != nil {
			return nil, r.err
		}
		out = appendBytes(append(out, id), content)
	}
	return out, nil
}

// joinSegments does the work of joinData for the content of the data section.
func joinSegments(section []byte) ([]byte, error) {
	segments, err := readSegments(section)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.address, b.address) })
	var joined []segment
	for i, s := range segments {
		if i == 0 {
			joined = append(joined, s)
			continue
		}
		last := &joined[len(joined)-1]
		zeros := s.address - (last.address + len(last.data))
		switch {
		case zeros < 0:
			return nil, fmt.Errorf("two data segments overlap at address %d", s.address)
		case zeros > mostZeros:
			joined = append(joined, s)
		default:
			last.data = append(append(last.data, make([]byte, zeros)...), s.data...)
		}
	}
	b := binary.AppendUvarint(nil, uint64(len(joined)))
	for _, s := range joined {
		b = appendBytes(appendAddress(b, s.address), s.data)
	}
	return b, nil
}

// The bytes of a segment's head: it is for the first memory, at an address that is a
// constant.
const (
	activeSegment = 0x00
	constI32      = 0x41
	endOfAddress  = 0x0b
)

// readSegments reads the content of a data section.
func readSegments(section []byte) ([]segment, error) {
	r := wasmReader{rest: section}
	var all []segment
	for n := r.number(); n > 0 && r.err == nil; n-- {
		r.want(activeSegment)
		r.want(constI32)
		address := r.address()
		r.want(endOfAddress)
		data := r.bytes()
		all = append(all, segment{address, data[:len(data):len(data)]})
	}
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes follow the last data segment", len(r.rest))
	}
	return all, r.err
}

// appendBytes appends bytes after their number.
func appendBytes(b, content []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(content))), content...)
}

// appendAddress appends the head of a segment. The address is a signed number: bit 6
// of the last byte is its sign.
func appendAddress(b []byte, address int) []byte {
	b = binary.AppendUvarint(append(b, activeSegment, constI32), uint64(address))
	if last := &b[len(b)-1]; *last&0x40 != 0 {
		*last |= 0x80
		b = append(b, 0)
	}
	return append(b, endOfAddress)
}

// wasmReader reads WebAssembly. After the first error it returns zeros.
type wasmReader struct {
	rest []byte
	err  error
}

// take returns the next n bytes.
func (r *wasmReader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.err = fmt.Errorf("it ends too early: %d bytes are left, and %d are needed", len(r.rest), n)
	}
	if r.err != nil {
		return nil
	}
	var taken []byte
	taken, r.rest = r.rest[:n], r.rest[n:]
	return taken
}

func (r *wasmReader) byte() byte {
	if b := r.take(1); r.err == nil {
		return b[0]
	}
	return 0
}

func (r *wasmReader) bytes() []byte { return r.take(r.number()) }

// number reads an unsigned number.
func (r *wasmReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if r.err == nil && (size <= 0 || n > 1<<32-1) {
		r.err = fmt.Errorf("no number of 32 bits is where one is needed, %d bytes before the end", len(r.rest))
	}
	r.take(uint64(max(size, 0)))
	if r.err != nil {
		return 0
	}
	return n
}

// address reads the address of a segment.
func (r *wasmReader) address() int {
	rest := r.rest
	n := r.number()
	if r.err == nil && rest[len(rest)-len(r.rest)-1]&0x40 != 0 {
		r.err = errors.New("the address of a data segment is negative")
	}
	return int(n)
}

func (r *wasmReader) want(b byte) {
	if got := r.byte(); r.err == nil && got != b {
		r.err = fmt.Errorf("the head of a data segment has a byte %#02x where %#02x is known", got, b)
	}
}
