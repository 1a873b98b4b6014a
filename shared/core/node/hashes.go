package node

import "example.com/raftsteps/shared/core/api"

// Hashes are hashes of a server's state machine. An operator compares those of all
// servers: at the same index they must be the same.
//
// Servers apply an entry at different times, so they keep hashes at indexes that are
// likely to be the same everywhere: at every 256th, and at the first entry after each
// tick, which is every entry if there are few. They do so only for a while after
// somebody has asked: a hash takes as long as it takes to look at all sessions.
//
// A hash follows the changes of the store, so it says nothing about memory that is
// damaged later. So each request also looks at a part of the store, until it has seen
// all of it.
//
// The zero value has none. Hashes belong to the goroutine of the server.
type Hashes struct {
	// kept are the hashes, the oldest first.
	kept []api.StateHash

	// checked is true if the memory of the store was looked at since somebody has
	// asked, and damaged if it was found damaged. looked is the tick of the last part.
	checked, damaged bool
	looked           uint64

	// until is the tick up to which hashes are kept, and tick that of the last one.
	until, tick uint64
}

const (
	// everyHash is how many entries there are between two hashes under load.
	everyHash = 256

	// hashTicks is how long hashes are kept after somebody has asked.
	hashTicks = 200

	// maxHashes is how many hashes are kept.
	maxHashes = 256

	// lookBytes is how many bytes of the store a request may look at.
	lookBytes = 1 << 20
)

// Note is called after each entry that the server has applied.
func (h *Hashes) Note(index, tick uint64, of Hasher) {
	if tick >= h.until || index%everyHash != 0 && tick == h.tick {
		return
	}
	h.keep(index, tick, of)
}

// Answer answers a request for the hashes of a server that has applied the entries up
// to an index.
func (h *Hashes) Answer(id, applied, tick uint64, of Hasher) []byte {
	h.look(tick, of)
	h.until = tick + hashTicks
	if last := len(h.kept) - 1; applied > 0 && (last < 0 || h.kept[last].Index < applied && h.tick != tick) {
		h.keep(applied, tick, of)
	}
	return api.StateHashes{ID: id, Applied: applied, Checked: h.checked, Damaged: h.damaged, Hashes: h.kept}.AppendJSON(nil)
}

// look looks at a part of the store's memory, at most once per tick.
func (h *Hashes) look(tick uint64, of Hasher) {
	again := tick >= h.until
	holder, ok := of.(StoreHolder)
	if !ok || h.checked && !again || h.looked == tick {
		return
	}
	if s := holder.Store(); s != nil {
		done, right := s.Recount(again, lookBytes)
		h.checked, h.damaged, h.looked = done, done && !right, tick
	}
}

func (h *Hashes) keep(index, tick uint64, of Hasher) {
	if len(h.kept) == maxHashes {
		h.kept = h.kept[:copy(h.kept, h.kept[1:])]
	}
	h.kept = append(h.kept, api.StateHash{Index: index, Hash: of.StateHash()})
	h.tick = tick
}
