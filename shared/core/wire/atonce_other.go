//go:build !unix

package wire

import "net"

// atOnce is not possible here: a goroutine writes.
type atOnce struct{}

func newAtOnce(net.Conn) *atOnce { return nil }

func (*atOnce) write([]byte) (int, error) { return 0, nil }
