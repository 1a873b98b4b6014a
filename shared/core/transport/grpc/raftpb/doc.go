// Package raftpb is the Go code that protoc makes of raft.proto. To make it again
// after a change, install protoc (in Debian the package protobuf-compiler) and run
// go generate in this folder.
package raftpb

//go:generate go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
//go:generate go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//go:generate protoc -I../../../../.. --go_out=../../../../.. --go_opt=paths=source_relative --go-grpc_out=../../../../.. --go-grpc_opt=paths=source_relative shared/core/transport/grpc/raftpb/raft.proto
