// Package peers has what all transports say about a server's peers in the same words:
// why a message was lost, and that a peer runs twice.
package peers

// Loss is the reason why a message to or from a peer was lost.
type Loss string

// The reasons.
const (
	// LostCut: an operator has cut the connection to the peer.
	LostCut Loss = "cut"

	// LostFull: the queue to the peer was full. The oldest messages are dropped.
	LostFull Loss = "full"

	// LostUnreachable: there was no connection to the peer.
	LostUnreachable Loss = "unreachable"

	// LostTooLong: the message was longer than messages may be.
	LostTooLong Loss = "too_long"

	// LostRefused: no correct server sends such a message.
	LostRefused Loss = "refused"
)
