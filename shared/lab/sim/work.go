package sim

import (
	"errors"
	"time"

	"example.com/raftsteps/shared/core/disk"
)

// workTime is the range of the duration of background work. Meanwhile the
// server continues, and may crash.
var workTime = [2]time.Duration{time.Millisecond, 60 * time.Millisecond}

// work implements node.World.Work: the work happens at once, some time later.
// After a crash before that moment it never happens.
func (w *World) work(m *machine, life uint64, work func() error, done func(error)) {
	w.after(between(m.random.of(uint64(w.now)), workTime), func() { w.finishWork(m, life, work, done) })
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
