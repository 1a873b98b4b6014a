package replica

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/journal"
)

// Entry is a committed entry of the log: it never changes, and every replica
// has it or will have it.
type Entry struct {
	// Index is its index, which starts at 1 and has no gaps.
	Index uint64

	// Term is the term of the leader that created it.
	Term uint64

	// Kind is the kind of the entry: Command, NoOp or Configuration.
	Kind Kind

	// Command is the proposed command; the members in a Configuration; nil in a
	// NoOp.
	Command []byte
}

// Kind is the kind of an entry.
type Kind string

// The kinds of entries. Only a Command goes to the state machine.
const (
	Command       Kind = ""
	NoOp          Kind = "noop"
	Configuration Kind = "config"
)

// ErrCompacted means that an entry is no longer in the log of this replica,
// because a snapshot covers it.
var ErrCompacted = errors.New("the log no longer holds it")

// Log returns the entries from one index to another, both included, as far as
// this replica knows them to be committed: there may be fewer, or none. The
// error is ErrCompacted if the first is no longer there.
func (r *Replica[M]) Log(ctx context.Context, from, to uint64) ([]Entry, error) {
	var all []Entry
	for next := from; next <= to; {
		entries, err := r.entries(ctx, next)
		if err != nil {
			return all, err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Index <= to {
				all = append(all, e)
			}
		}
		next = entries[len(entries)-1].Index + 1
	}
	return all, nil
}

// Watch returns the entries from an index on, in their order and each once, as
// this replica learns that they are committed. It continues when the leader
// changes, and waits for more entries until the loop ends. An error comes last:
// that of ctx, api.Unavailable when the replica stops, or ErrCompacted if the
// watch is behind what the log still holds; then the state machine must be
// looked at.
func (r *Replica[M]) Watch(ctx context.Context, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for next := from; ; {
			entries, err := r.entries(ctx, next)
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
				next = e.Index + 1
			}
			if err == nil && len(entries) == 0 {
				err = r.wait(ctx, func(applied, _ uint64) bool { return applied >= next })
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
		}
	}
}

// entries returns committed entries from an index on, as many as the server
// returns at once.
func (r *Replica[M]) entries(ctx context.Context, from uint64) ([]Entry, error) {
	if from == 0 {
		return nil, &api.Error{Code: api.BadRequest, Definite: true, Message: "the log has no entry 0; it starts at 1"}
	}
	a, err := r.look(ctx, api.Request{Op: api.Log, From: from}, nil)
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.Compacted:
		return nil, fmt.Errorf("entry %d: %w", from, ErrCompacted)
	case err != nil:
		return nil, err
	}
	p, err := journal.DecodePage(a.Data)
	if err != nil {
		return nil, fmt.Errorf("the server's log: %w", err)
	}
	var entries []Entry
	for _, e := range p.Entries {
		if e.Index > p.Commit {
			break
		}
		if Kind(e.Kind) == Command {
			e.Command = server.CommandBytes(e.Command)
		}
		entries = append(entries, Entry{Index: e.Index, Term: e.Term, Kind: Kind(e.Kind), Command: e.Command})
	}
	return entries, nil
}
