// Package grpc carries the messages of Raft over gRPC. A program that imports it has
// the transport "grpc":
//
//	import _ "example.com/raftsteps/shared/core/transport/grpc"
//
// The messages are those of raft.proto (package raftpb). A server calls the method
// Link of each peer and keeps the call open; both sides send on its stream. If both
// have called each other, each sends on the call that it has made. If only one could
// call, because the other one cannot reach it or does not know it, both use that
// call.
//
// # Who is at the other end
//
// A Link begins with a handshake, C being the server that calls and A the one that
// answers:
//
//	C  Hello      the versions of the protocol that it can use, its cluster, its ID,
//	              the ID of A, a random nonce, a number of this start of the server
//	A  Challenge  the newest version that both can use, another nonce
//	C  Proof      an HMAC-SHA256 under the cluster's secret, over all of this
//	A  Proof      the same, but not the same text
//
// The server that calls proves itself first: a stranger gets nothing from which the
// secret could be guessed. The keys of the messages come from the secret and both
// nonces (HKDF), one for each direction, so that no message of another Link is
// accepted, and none of the other direction. The MAC of a message covers its number
// and its JSON form: nobody on the way can add, change, repeat or leave out a
// message. The JSON form is also the only one that the servers know, so the MAC
// shows that the conversion has changed nothing.
//
// Without TLS, anyone on the way can read the messages. With TLS, all of this happens
// inside of it, and the messages are encrypted with forward secrecy. Each side has then
// checked that the certificate of the other one is that of the server that it claims to
// be.
//
// # What a stranger can use
//
// A connection that has not proved that it belongs to a peer may send 64 KiB and hold
// 8 calls, of which those of Link end after Limits.Dial. There are at most 256 such
// connections. If there is another one, the oldest has to go, but not within its first
// 50 milliseconds, so that a peer has time for its handshake. Everybody may ask what
// the server offers (gRPC's server reflection), which is what raft.proto says.
package grpc
