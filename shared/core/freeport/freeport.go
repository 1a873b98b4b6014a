// Package freeport finds TCP ports on 127.0.0.1 for servers that are started,
// killed and started again.
//
// Port 0 is no help there: it gives a port out of those that the operating
// system also hands to anyone who connects somewhere. While the server is down,
// such a connection can get its port, and then the server cannot come back. It
// can even be the connection of one who looks for the server: then it reaches
// itself, and takes that for a server that says nothing.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken from below those that operating systems hand out by
// themselves, in blocks. The last port of a block is its lock: anyone who listens
// there owns the block.
const (
	firstBlock = 10000
	lastBlock  = 32600
	blockSize  = 100
)

// Size is how many ports a block has.
const Size = blockSize - 1

// Block is a row of free ports. Nobody else who asks this package gets one of
// them until it is closed.
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

// First is the lowest port of the block.
func (b *Block) First() int { return b.first }

// Address is the address of the block's port number i, from 0 to Size - 1.
func (b *Block) Address(i int) string {
	if i < 0 || i >= Size {
		panic(fmt.Sprintf("freeport: a block has the ports 0 to %d, not %d", Size-1, i))
	}
	return address(b.first + i)
}

// Close gives the ports back.
func (b *Block) Close() error { return b.lock.Close() }

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func listen(port int) (net.Listener, error) { return net.Listen("tcp", address(port)) }

// free says whether nobody listens on the ports from first to before last.
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
