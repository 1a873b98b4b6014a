package disk

import "math/rand/v2"

// change is one unsynced change of the folder: the names that change, and the
// file of each name afterwards, nil for none. A rename changes two names at once.
type change []struct {
	name string
	file *simFile
}

// simFile is a file's content.
type simFile struct {
	// live is the content that a process reads.
	live []byte

	// durable is the content on disk.
	durable []byte

	// pending are the writes since the last sync, in their order. Any of them may
	// have reached the disk.
	pending []write
}

// write is one unsynced write or, if data is nil, a truncation to off bytes.
type write struct {
	off  int64
	data []byte
}

func (c change) apply(names map[string]*simFile) {
	for _, e := range c {
		if e.file == nil {
			delete(names, e.name)
		} else {
			names[e.name] = e.file
		}
	}
}

// write changes the content that a process reads and remembers the write.
func (f *simFile) write(w write) {
	f.live = w.apply(f.live)
	f.pending = append(f.pending, w)
}

// apply performs a write on a file's content.
func (w write) apply(data []byte) []byte {
	if w.data == nil {
		if w.off <= int64(len(data)) {
			return data[:w.off]
		}
		return append(data, make([]byte, w.off-int64(len(data)))...)
	}
	if len(w.data) == 0 {
		return data
	}
	if gap := w.off - int64(len(data)); gap > 0 {
		data = append(data, make([]byte, gap)...)
	}
	n := copy(data[w.off:], w.data)
	return append(data, w.data[n:]...)
}

// crash decides which of the unsynced writes and changes survive.
type crash struct {
	rng *rand.Rand

	// lost is true if the crash lost something, torn if it kept a part of a write
	// and lost another part.
	lost bool
	torn bool
}

// survivors returns the content that a crash leaves of a file.
func (c *crash) survivors(f *simFile) []byte {
	data := f.durable
	if len(f.pending) == 0 {
		return data
	}
	switch c.rng.IntN(4) {
	case 0:
		c.lost = true
	case 1:
		data = c.prefix(data, f.pending)
	case 2:
		data = c.sectors(data, f.pending)
	case 3:
		for _, w := range f.pending {
			data = w.apply(data)
		}
	}
	return data
}

// prefix keeps the first unsynced writes and tears the one after them.
func (c *crash) prefix(data []byte, pending []write) []byte {
	kept := c.rng.IntN(len(pending))
	for _, w := range pending[:kept] {
		data = w.apply(data)
	}
	c.lost = true
	w := pending[kept]
	if len(w.data) == 0 {
		return data
	}
	n := c.rng.IntN(len(w.data))
	c.torn = c.torn || n > 0
	return write{w.off, w.data[:n]}.apply(data)
}

// sectors keeps or loses each sector of each unsynced write.
func (c *crash) sectors(data []byte, pending []write) []byte {
	for _, w := range pending {
		// The probability is random too, and a new one for each write, so that
		// long runs of kept or lost sectors occur as well as frequent changes.
		odds := c.rng.Float64()
		keep := func() bool { return c.rng.Float64() < odds }
		if w.data == nil {
			if keep() {
				data = w.apply(data)
			} else {
				c.lost = true
			}
			continue
		}
		kept := 0
		for from := 0; from < len(w.data); {
			to := min(len(w.data), from+SectorSize-int((w.off+int64(from))%SectorSize))
			if keep() {
				data = write{w.off + int64(from), w.data[from:to]}.apply(data)
				kept += to - from
			}
			from = to
		}
		c.lost = c.lost || kept < len(w.data)
		c.torn = c.torn || 0 < kept && kept < len(w.data)
	}
	return data
}
