// Package freeport finds TCP ports on 127.0.0.1 for servers that are started,
// killed and started again.
//
// Port 0 does not help there: it gives a port from the range that the operating
// system also uses for outgoing connections. While the server is down, such a
// connection can get its port, and then the server cannot start again. It can
// even be the connection of a client of that server: then the client connects to
// itself, and takes itself for a server that does not answer.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken in blocks, from below the range that operating systems assign
// by themselves. The last port of a block is its lock: the process that listens
// there owns the block.
const (
	firstBlock = 10000
	lastBlock  = 32600
	blockSize  = 100
)

// Size is the number of ports in a block.
const Size = blockSize - 1

// Block is a range of free ports. No other caller of this package gets one of
// them until the block is closed.
type Block struct {
	first int
	lock  net.Listener
}

// Reserve returns a block of Size ports on which nobody listens.
func Reserve() (*Block, error) {
	for range 1000 {
		first := firstBlock + blockSize*rand.IntN((lastBlock-firstBlock)/blockSize)
		lock, err := listen(first + Size)
		if err != nil {
			continue
		}
		if free(first, first+Size) {
			return &Block{first: first, lock: lock}, nil
		}
		lock.Close()
	}
	return nil, errors.New("there are no free ports on 127.0.0.1")
}

// First returns the lowest port of the block.
func (b *Block) First() int { return b.first }

// Address returns the address of the block's port number i, from 0 to Size - 1.
func (b *Block) Address(i int) string {
	if i < 0 || i >= Size {
		panic(fmt.Sprintf("freeport: a block has the ports 0 to %d, not %d", Size-1, i))
	}
	return address(b.first + i)
}

// Close releases the ports.
func (b *Block) Close() error { return b.lock.Close() }

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func listen(port int) (net.Listener, error) { return net.Listen("tcp", address(port)) }

// free reports whether nobody listens on the ports from first up to, not
// including, last.
func free(first, last int) bool {
	for port := first; port < last; port++ {
		l, err := listen(port)
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
