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
