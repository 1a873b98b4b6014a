// Package grpc carries the messages of Raft over gRPC.
package grpc
