package server

import (
	"fmt"
	"slices"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/node"
)

// Offline reads what a server that does not run has on its disk: its store with all
// entries of its log applied. It is for a cluster that has lost its majority.
//
// What the snapshot covers is committed. Of the entries after it only the others knew
// more: each may have been committed, and acknowledged, or not. An entry that was
// never committed may be in the store then, as if its client had got no answer. An
// entry that was committed by the lost servers without this one is missing.
func Offline(w node.World) (node.Saved, error) {
	names, err := w.Disk.List()
	switch {
	case err != nil:
		return node.Saved{}, err
	case !slices.Contains(names, journalName):
		return node.Saved{}, fmt.Errorf("there is no file %q in it", journalName)
	}
	w.Send = func(uint64, []byte) {}
	n, err := New(w)
	if err != nil {
		return node.Saved{}, err
	}
	s := n.(*Server)
	status := s.rules.Status()
	for i := status.Applied + 1; i <= status.Last; i++ {
		if e := s.rules.Entry(i); e.Kind == raft.Command {
			if failed, ok := s.machine.Apply(uint64(i), e.Command).(unknownCommand); ok {
				return node.Saved{}, fmt.Errorf("entry %d: %w", i, failed.error)
			}
		}
	}
	last := uint64(0)
	if status.Last > status.Snapshot.Index {
		last = uint64(s.rules.Entry(status.Last).Term)
	} else {
		last = uint64(status.Snapshot.Term)
	}
	return node.Saved{Store: s.machine.held(), Committed: uint64(status.Snapshot.Index), Last: uint64(status.Last), LastTerm: last}, s.Close()
}
