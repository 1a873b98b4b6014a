package sim

import (
	"errors"
	"time"

	"example.com/raftsteps/shared/core/disk"
)

// workTime is the range of how long work alongside a server takes. Meanwhile the
// server goes on, and may crash.
var workTime = [2]time.Duration{time.Millisecond, 60 * time.Millisecond}

// work is node.World.Work: the work is done as a whole some time later, and a
// crash before that means that it never was.
func (w *World) work(m *machine, life uint64, work func() error, done func(error)) {
	w.After(between(m.random.of(uint64(w.now)), workTime), func() { w.finishWork(m, life, work, done) })
}

func (w *World) finishWork(m *machine, life uint64, work func() error, done func(error)) {
	switch {
	case m.server == nil || m.life != life:
		return
	case m.paused:
		w.work(m, life, work, done)
		return
	}
	err := work()
	if errors.Is(err, disk.ErrPowerCut) {
		w.end(m, err)
		return
	}
	done(err)
	w.stepped(m, false)
	w.flush(m)
}
