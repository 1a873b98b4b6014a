package crcline

import (
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
)

func seal(text string) []byte {
	line := append(make([]byte, Len), text...)
	Seal(line)
	return line
}

func TestSealFormat(t *testing.T) {
	sum := crc32.Checksum([]byte("abc"), crc32.MakeTable(crc32.Castagnoli))
	require.Equal(t, fmt.Sprintf("%08x abc", sum), string(seal("abc")))
}

func TestOpen(t *testing.T) {
	for _, text := range []string{"", "a", `{"key":"x"}`} {
		got := Open(seal(text))
		require.NotNil(t, got)
		require.Equal(t, text, string(got))
	}
}

func TestAnyChangedByteIsDetected(t *testing.T) {
	line := seal(`{"key":"x","value":"1"}`)
	for i := range line {
		for _, mask := range []byte{1, 0x20, 0x80, 0xff} {
			line[i] ^= mask
			require.Nil(t, Open(line), "byte %d", i)
			line[i] ^= mask
		}
		require.Nil(t, Open(line[:i]), "cut at %d", i)
	}
}
