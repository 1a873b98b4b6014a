package site

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// module returns a module with a data section between two others. The sizes have
// five bytes, as Go's linker writes them.
func module(segments []segment) []byte {
	section := binary.AppendUvarint(nil, uint64(len(segments)))
	for _, s := range segments {
		section = appendBytes(appendAddress(section, s.address), s.data)
	}
	b := append([]byte(wasmHeader), 10, 0x83, 0x80, 0x80, 0x80, 0, 'a', 'b', 'c', dataSection)
	n := len(section)
	b = append(b, byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)|0x80, byte(n>>21)|0x80, byte(n>>28))
	return append(append(b, section...), 0, 1, 'z')
}

// memory is what a program starts with.
func memory(t *testing.T, module []byte) (filled []byte, segments int) {
	t.Helper()
	r := wasmReader{rest: module[len(wasmHeader):]}
	var others []byte
	for len(r.rest) > 0 {
		id, content := r.byte(), r.bytes()
		require.NoError(t, r.err)
		if id != dataSection {
			others = append(append(others, id), content...)
			continue
		}
		all, err := readSegments(content)
		require.NoError(t, err)
		segments = len(all)
		for _, s := range all {
			if end := s.address + len(s.data); end > len(filled) {
				filled = append(filled, make([]byte, end-len(filled))...)
			}
			copy(filled[s.address:], s.data)
		}
	}
	require.Equal(t, "\nabc\x00z", string(others))
	return filled, segments
}

// Joined segments fill the memory as the many did.
func TestJoinDataKeepsTheMemory(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var segments []segment
		for end := random.IntN(200); len(segments) < 40; {
			address := end + random.IntN(1<<random.IntN(14))
			data := make([]byte, 1+random.IntN(70))
			for i := range data {
				data[i] = byte(random.IntN(256))
			}
			segments = append(segments, segment{address, data})
			end = address + len(data)
		}
		random.Shuffle(len(segments), func(i, j int) { segments[i], segments[j] = segments[j], segments[i] })
		before := module(segments)
		copied := slices.Clone(before)
		after, err := joinData(before)
		require.NoError(t, err)
		require.Equal(t, copied, before, "joinData changes what it reads")
		want, many := memory(t, before)
		got, few := memory(t, after)
		require.Equal(t, want, got)
		require.Less(t, few, many)
	}
}

func TestJoinDataJoinsWhatIsClose(t *testing.T) {
	joined, err := joinData(module([]segment{{64, []byte("a")}, {65 + mostZeros, []byte("b")}, {67 + 2*mostZeros, []byte("c")}}))
	require.NoError(t, err)
	_, n := memory(t, joined)
	require.Equal(t, 2, n)
}

func TestJoinDataRefusesWhatItDoesNotKnow(t *testing.T) {
	good := module([]segment{{1 << 19, []byte("a")}})
	head := bytes.Index(good, []byte{activeSegment, constI32})
	changed := func(i int, b byte) []byte {
		c := slices.Clone(good)
		c[i] = b
		return c
	}
	for _, c := range []struct {
		wasm []byte
		why  string
	}{
		{nil, "it does not start as WebAssembly does"},
		{[]byte("#!/bin/sh\n"), "it does not start as WebAssembly does"},
		{changed(4, 2), "it does not start as WebAssembly does"},
		{append([]byte(wasmHeader), dataCountSection, 1, 1), "a section with the number of its data segments"},
		{changed(head, 1), "the head of a data segment has a byte 0x01 where 0x00 is known"},
		{changed(head+1, 0x23), "the head of a data segment has a byte 0x23 where 0x41 is known"},
		{changed(head+4, 0x40), "the address of a data segment is negative"},
		{changed(head+5, 1), "the head of a data segment has a byte 0x01 where 0x0b is known"},
		{changed(head+6, 0), "1 bytes follow the last data segment"},
		{changed(head+6, 2), "it ends too early: 1 bytes are left, and 2 are needed"},
		{module([]segment{{8, []byte("abc")}, {10, []byte("d")}}), "two data segments overlap at address 10"},
	} {
		_, err := joinData(c.wasm)
		require.ErrorContains(t, err, c.why)
	}
	// A file that was cut is refused, unless the cut is between two sections.
	complete := map[int]bool{len(wasmHeader): true, len(good) - 3: true, bytes.Index(good, []byte("abc")) + 3: true}
	for n := range good {
		_, err := joinData(good[:n])
		require.Equal(t, complete[n], err == nil, "%d bytes: %v", n, err)
	}
}
