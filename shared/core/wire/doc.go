// Package wire carries lines of JSON over TCP: between clients and a server,
// and between the servers of a cluster, all on one port.
//
// # Clients
//
// A request is a line, an answer is a line. A client may have many requests in
// flight on one connection; the answer carries the id of its request and may
// come in any order. Whatever a client sends gets an answer that says what is
// wrong with it, and harms nobody else:
//
//   - A line that is not a request is refused with bad_request; the connection
//     stays, for the next newline is where the next request starts.
//   - A line above its limit, or one that takes too long to arrive, is refused
//     and ends the connection.
//   - A client that asks faster than it reads is read no further once it makes
//     the server hold Limits.ConnBytes: TCP makes it wait. One that reads nothing
//     at all is cut off.
//   - What all clients together make the server hold is bounded by
//     Limits.ServerBytes; a request beyond it is refused with busy.
//   - A client for which there is no place, because too many are connected or too
//     many of its address, is refused with busy.
//   - An error without an id is about the connection, and where the connection
//     ends right behind it, it speaks for every request that was not answered:
//     none of them was begun. This is how a server that stops lets its clients
//     know that they may ask elsewhere.
//   - A line without its newline is no request and is never carried out.
//
// # Peers
//
// A connection whose first line is a hello comes from another server. Both
// sides prove that they know the cluster's secret, and that proof covers who
// they are; see Peers. After that the connection carries messages in one
// direction only, from the side that dialed, each line behind its CRC-32C.
//
// Clients cannot keep peers out. Where there is no place for a client, a new
// connection may still say hello, and has 20 ms for it at least; then it makes room
// for the next.
//
// # Speed
//
// A connection has one goroutine, which reads, decodes and calls the Handler.
// Answers are collected in one buffer a connection and leave with one write for
// all that are ready: at the latest when the goroutine has no further request
// to look at.
package wire
