// Package trust has the certificates of a cluster: they say who a server or a
// client is.
//
// # Identities
//
// A certificate says this in a URI (a SAN of type URI), and it has at most one that
// begins with raftsteps:
//
//	raftsteps://CLUSTER/server/2         server n2 of the cluster
//	raftsteps://CLUSTER/client/write     a client with the role write
//	raftsteps://CLUSTER/client/write/app the same, with a name for people
//
// A server and a client are thus different things: a client's certificate never makes
// a peer, and a server is a peer only under its own number.
//
// # Who checks what
//
//   - A server that dials a peer checks that the certificate was signed by the CA, and
//     that it belongs to the server that it wants. The host name does not matter: a
//     server may move.
//   - A server that accepts a connection checks a certificate, if there is one, in the
//     same way. Package wire compares it with the number in the peer's hello. Peers
//     must have a certificate; clients only if the configuration says so.
//   - A client checks that the certificate was signed by the CA, and that it has the
//     host name or the IP address that the client has dialed.
//
// # Files
//
// Keys reads the files of one server, and reads them again when they change. ClientKeys
// does the same for a client. Authority creates certificates.
package trust
