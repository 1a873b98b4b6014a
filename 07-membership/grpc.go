//go:build grpc

package main

// A program contains only the transports that it imports. gRPC would make the first
// go run slow, so it needs a build tag.
import _ "example.com/raftsteps/shared/core/transport/grpc"
