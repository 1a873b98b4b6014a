//go:build grpc

package replica_test

import _ "example.com/raftsteps/shared/core/transport/grpc"

func init() {
	for name, tls := range map[string]bool{"grpc": false, "grpc and tls": true} {
		o := sockets[name]
		o.transport, o.tls = "grpc", tls
		sockets[name] = o
	}
}
