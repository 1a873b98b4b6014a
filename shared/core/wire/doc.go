// Package wire carries lines of JSON over TCP, between clients and a server and
// between the servers of a cluster. A server uses one port for all of them.
//
// # Clients
//
// A request is one line, and so is an answer. A client may have many requests in
// flight on one connection. An answer carries the id of its request; answers may
// come in any order. Bad input gets an answer that says what is wrong with it,
// and does not harm other clients:
//
//   - A line that is not a request is refused with bad_request. The connection
//     stays open, because the next request starts after the next newline.
//   - A line above its limit, or one that takes too long to arrive, is refused
//     and ends the connection.
//   - If a client sends requests faster than it reads answers, the server stops
//     reading from it once it makes the server hold Limits.ConnBytes, so TCP
//     makes it wait. If the client reads nothing at all, the connection ends.
//   - Limits.ServerBytes bounds what all clients together make the server hold.
//     A request for which there is no room is refused with busy.
//   - A client that connects while too many are connected, in all or from its
//     address, is refused with busy.
//   - A client may show a token, which gives it a role; see package access. The
//     token is the connection's first line, {"token":"…"}, and has no answer, so
//     requests can follow at once. A wrong token is refused with denied and ends
//     the connection. A request that needs a higher role is refused with denied.
//   - An error without an id is about the connection. If the connection ends
//     right after it, the error is also about every request without an answer:
//     the server began none of them. From such an error of a server that is
//     stopping, clients learn that they may safely try another server.
//   - A line without its newline is not a request and is never carried out.
//
// # Peers
//
// A connection whose first line is a hello comes from another server. Both sides
// prove who they are with the cluster's secret; see Peers. After that the
// connection carries messages in one direction only, from the side that dialed,
// each on a line that begins with its MAC.
//
// Clients cannot keep peers out. When the server has reached its limit of
// clients, it still accepts a few connections, so that a peer can send its hello.
// Such a connection has at least 20 ms for it before a newer one may take its
// place.
//
// # Versions
//
// A version of the peers' protocol is everything that servers send to each other: the
// handshake, the MACs and the messages. Two servers use the newest version that both
// can, and a release can use its own version and that of the release before it. So the
// servers of a cluster can be upgraded one after the other, and one can go back. Servers
// without a common version refuse each other, and both log which versions each can use.
// A server logs the version that it uses with a peer when that is not its newest, or
// when it changes.
//
// Only the hello of a newer version may have unknown fields. Everything else is read
// strictly: a message with an unknown field is refused, because the rules rely on all
// fields of a message. So in an older version a server must send nothing that is new. A
// change of what servers send takes a new version:
//
//   - Raise protocol by one in hello.go here, in transport/udp/hello.go and in
//     transport/grpc/handshake.go (a new field of a message also belongs into
//     raft.proto). All three carry the same messages. The release after that raises
//     oldestProtocol, too.
//   - Send what is new only to a peer with which the new version was agreed. If a rule
//     needs it from a majority or from all members, the rule begins once all of them use
//     the new version.
//   - What is in the log or in a snapshot reaches every server, whichever version it
//     uses, and stays. A new kind of entry, a new field of a command, and a new format of
//     a file may be written one release after the first one that can read them.
//     Otherwise nobody can go back. Disks have versions of their own: see packages
//     journal and snapshot, and node for the file of peers.
//   - Record a conversation of the new version: go test -run Recorded -update, here, in
//     transport/udp and in transport/grpc. The old files stay as they are, as long as
//     this program can use their version. The messages themselves are in
//     transport/grpc/testdata/messages.jsonl, which go test ./07-membership/server
//     -run Golden -update writes: if that file changes, the version must. For a new format
//     of files, add folders: see scenario.TestFolders.
//   - TestVersionsMeet in each of the three packages plays the agreement. TestUpgrade of
//     07-membership makes later releases by itself, from the constants: it needs no
//     change.
//
// # TLS
//
// Without TLS, anyone on the way can read what clients and peers send. A server with keys
// (Server.TLS) speaks TLS 1.3 and nothing else: all is encrypted with forward secrecy, so
// someone who records it and learns the secret and the private keys later cannot read it.
// Inside of TLS, all is as without it: the first bytes say what the connection carries.
// Anyone who does not begin with TLS gets an answer that says so, in the language of its
// first bytes. A handshake may take as long as a line of a client, or as a hello of a
// newcomer, and has at most 16 KiB. A certificate that is not accepted is an error inside
// of TLS, as of bad input: an alert of TLS could not say what to do.
//
// # Speed
//
// A connection has one goroutine, which reads, decodes and calls the Handler.
// Answers are collected per connection, and all that are ready leave with one
// write: at the latest when the goroutine has processed all requests that have
// arrived.
package wire
