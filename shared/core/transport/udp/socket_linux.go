package udp

import (
	"net"
	"syscall"
)

// Socket options that package syscall does not name for every architecture.
const (
	ipMTUDiscover    = 10
	ipv6MTUDiscover  = 23
	mtuDiscoverProbe = 3
)

// tune returns how much memory the kernel gives to datagrams that wait to be read,
// and to those that wait to be sent, in bytes, its own overhead included; 0 if that
// is unknown. whole is true if the kernel will not split a large datagram into
// several packets, so that one that arrives proves that it fits.
func tune(c *net.UDPConn) (in, out int, whole bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, false
	}
	err = raw.Control(func(fd uintptr) {
		in = option(int(fd), syscall.SO_RCVBUF)
		out = option(int(fd), syscall.SO_SNDBUF)
		v4 := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipMTUDiscover, mtuDiscoverProbe)
		v6 := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, ipv6MTUDiscover, mtuDiscoverProbe)
		ip4 := c.LocalAddr().(*net.UDPAddr).IP.To4() != nil
		whole = v4 == nil && (v6 == nil || ip4)
	})
	return in, out, whole && err == nil
}

func option(fd, name int) int {
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, name)
	if err != nil {
		return 0
	}
	return n
}
