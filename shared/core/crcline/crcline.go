// Package crcline puts a checksum in front of a line of text, so that a program
// can tell a complete line from an incomplete or damaged one, and people can
// still read it:
//
//	1f0a9a9b {"entry":…}
//
// The checksum is a CRC-32C over the bytes after the space, in eight hexadecimal
// digits.
package crcline

import (
	"bytes"
	"hash/crc32"
)

// Len is the length of the checksum and the space after it.
const Len = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const digits = "0123456789abcdef"

// Seal writes the checksum of line[Len:] and a space into line[:Len], which the
// caller has left free.
func Seal(line []byte) {
	putHex(line, crc32.Checksum(line[Len:], castagnoli))
	line[Len-1] = ' '
}

// Open returns the text after the checksum of a line (without its newline), or
// nil if the checksum is missing or wrong.
func Open(line []byte) []byte {
	if len(line) < Len || line[Len-1] != ' ' {
		return nil
	}
	var want [Len - 1]byte
	putHex(want[:], crc32.Checksum(line[Len:], castagnoli))
	if !bytes.Equal(line[:Len-1], want[:]) {
		return nil
	}
	return line[Len:]
}

func putHex(b []byte, sum uint32) {
	for i := 7; i >= 0; i-- {
		b[i] = digits[sum&15]
		sum >>= 4
	}
}
