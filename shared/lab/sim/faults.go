package sim

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/node"
)

// Faults says which faults a run has, and how many. Probabilities are per
// message or request; rates are faults per virtual second in the whole cluster.
type Faults struct {
	// Loss, Duplicate, Reorder and Break have the same meaning as in Network.
	Loss      float64
	Duplicate float64
	Reorder   float64
	Break     float64

	// ReorderBy is the longest extra delay of a reordered message and of a
	// duplicate. A message that is delayed until a later term is a different
	// danger from one that is only out of order.
	ReorderBy time.Duration

	// Crash kills a process. PowerCut cuts a machine's power, half of the time
	// during its next disk operation. Blackout cuts the power of all machines.
	Crash    float64
	PowerCut float64
	Blackout float64

	// Downtime is how long a server stays down.
	Downtime [2]time.Duration

	// Pause pauses a server for a while, ClockJump moves its clock ahead,
	// SlowDisk makes it handle its input slowly.
	Pause     float64
	ClockJump float64
	SlowDisk  float64

	// Partition splits the cluster in two, OneWay cuts one direction between
	// two servers; both heal after a while.
	Partition float64
	OneWay    float64

	// Skew is how much the speeds of the clocks differ: 0.1 means that each
	// clock runs at a speed between 0.9 and 1.1.
	Skew float64

	// MaxDown bounds how many servers are down or paused at once, apart from
	// blackouts.
	MaxDown int
}

// Swarm draws the faults of a run. Each kind occurs in only about half of the
// runs: a run without message loss reaches states that no run with message loss
// reaches.
func Swarm(rng *rand.Rand, servers int) Faults {
	f := Faults{MaxDown: (servers - 1) / 2, Downtime: [2]time.Duration{50 * time.Millisecond, time.Second}}
	some := func(p *float64, low, high float64) {
		// Draw the same number of random values in both cases. Each order of
		// magnitude is equally likely.
		exists, size := rng.IntN(2) == 0, rng.Float64()
		if exists {
			*p = low * power(high/low, size)
		}
	}
	some(&f.Loss, 0.001, 0.2)
	some(&f.Duplicate, 0.001, 0.2)
	some(&f.Reorder, 0.001, 0.3)
	some(&f.Break, 0.0005, 0.005)
	some(&f.Crash, 0.2, 4)
	some(&f.PowerCut, 0.2, 4)
	some(&f.Blackout, 0.05, 0.5)
	some(&f.Pause, 0.2, 4)
	some(&f.ClockJump, 0.1, 2)
	some(&f.SlowDisk, 0.1, 1)
	some(&f.Partition, 0.3, 3)
	some(&f.OneWay, 0.2, 4)
	some(&f.Skew, 0.01, 0.2)
	f.ReorderBy = time.Duration(float64(5*time.Millisecond) * power(300, rng.Float64()))
	if rng.IntN(4) == 0 {
		f.MaxDown = servers
	}
	return f
}

// power returns base to the power of exponent, which is at least 0 and less than 1.
// math.Pow gives another last digit on some processors, and a run under a seed must be
// the same everywhere. Products and square roots are exactly rounded on all of them.
func power(base, exponent float64) float64 {
	result, root := 1.0, base
	for range 53 {
		root = math.Sqrt(root)
		exponent *= 2
		if exponent >= 1 {
			exponent--
			result = float64(result * root)
		}
	}
	return result
}

// nemesis injects the faults.
type nemesis struct {
	faults Faults

	// generation counts the calls of Unleash and Calm. A fault that was
	// scheduled in an earlier generation does not happen.
	generation uint64
	active     bool
}

// Unleash injects faults from now on.
func (w *World) Unleash(f Faults) {
	n := &w.nemesis
	n.generation++
	n.active, n.faults = true, f
	w.network.Loss, w.network.Duplicate, w.network.Break = f.Loss, f.Duplicate, f.Break
	w.network.Reorder, w.network.ReorderBy = f.Reorder, f.ReorderBy
	for _, m := range w.machines {
		w.SetClock(m.id, 1+float64(f.Skew*(2*w.stream("clock", m.id, n.generation).Float64()-1)))
	}
	for _, d := range []struct {
		name   string
		rate   float64
		strike func(rng *rand.Rand)
	}{
		{"crash", f.Crash, w.strikeCrash},
		{"power cut", f.PowerCut, w.strikePowerCut},
		{"blackout", f.Blackout, func(*rand.Rand) { w.PowerCut(w.InUse()...) }},
		{"pause", f.Pause, w.strikePause},
		{"clock jump", f.ClockJump, w.strikeClockJump},
		{"slow disk", f.SlowDisk, w.strikeSlowDisk},
		{"partition", f.Partition, w.strikePartition},
		{"one way", f.OneWay, w.strikeOneWay},
	} {
		if d.rate > 0 {
			w.plague(d.name, 0, d.rate, d.strike)
		}
	}
}

// plague repeats a kind of fault at random moments. Each fault has its own
// random stream, which decides when it happens and whom it hits.
func (w *World) plague(name string, number uint64, rate float64, strike func(rng *rand.Rand)) {
	rng := w.stream(name, w.nemesis.generation, number)
	w.later(time.Duration(rng.ExpFloat64()/rate*float64(time.Second)), func() {
		strike(rng)
		w.plague(name, number+1, rate, strike)
	})
}

// later calls f after d, unless the generation has changed by then.
func (w *World) later(d time.Duration, f func()) {
	generation := w.nemesis.generation
	w.after(d, func() {
		if w.nemesis.generation == generation {
			f()
		}
	})
}

// Calm ends all faults: it heals the links, resets the clocks and starts every
// server. It returns an error if a server does not start.
func (w *World) Calm() error {
	w.nemesis.generation++
	w.nemesis.active = false
	delay := w.network.Delay
	w.network = Network{Delay: delay}
	w.HealAll()
	for _, m := range w.machines {
		w.SetClock(m.id, 1)
		m.latency, m.mute = DefaultLatency, 0
		m.disk.CutPower(0)
		w.Resume(m.id)
	}
	for _, m := range w.machines {
		if m.life == 0 {
			continue
		}
		if err := w.Restart(m.id); err != nil {
			return err
		}
	}
	return nil
}

// revive schedules the restart of a server that a fault took down.
func (w *World) revive(m *machine) {
	if !w.nemesis.active {
		return
	}
	w.later(between(w.stream("down", m.id, m.life), w.nemesis.faults.Downtime), func() {
		if err := w.Restart(m.id); err != nil {
			w.fail(err)
		}
	})
}

// leader returns a server that believes it is the leader, or nil. Faults that
// hit leaders reveal more than others.
func (w *World) leader(rng *rand.Rand) *machine {
	var leaders []*machine
	for _, m := range w.machines {
		in, ok := m.server.(node.Inspector)
		if !ok || m.paused {
			continue
		}
		var s node.State
		if in.Inspect(&s); s.Role == node.Leader {
			leaders = append(leaders, m)
		}
	}
	if len(leaders) == 0 {
		return nil
	}
	return leaders[rng.IntN(len(leaders))]
}

// target returns the leader half of the time, and any server otherwise.
func (w *World) target(rng *rand.Rand) *machine {
	if rng.IntN(2) == 0 {
		if m := w.leader(rng); m != nil {
			return m
		}
	}
	return w.machine(w.anybody(rng))
}

// victim picks a running server, if one more may be down; nil otherwise.
func (w *World) victim(rng *rand.Rand) *machine {
	var running []*machine
	started := 0
	for _, m := range w.machines {
		if m.life > 0 && !m.retired {
			started++
		}
		if m.server != nil && !m.paused {
			running = append(running, m)
		}
	}
	if len(running) == 0 || started-len(running) >= w.nemesis.faults.MaxDown {
		return nil
	}
	if m := w.target(rng); m.server != nil && !m.paused {
		return m
	}
	return running[rng.IntN(len(running))]
}

func (w *World) strikeCrash(rng *rand.Rand) {
	if m := w.victim(rng); m != nil {
		w.Crash(m.id)
	}
}

func (w *World) strikePowerCut(rng *rand.Rand) {
	m := w.victim(rng)
	if m == nil {
		return
	}
	if rng.IntN(2) == 0 {
		w.PowerCut(m.id)
		return
	}
	m.disk.CutPower(1 + rng.IntN(6))
}

func (w *World) strikePause(rng *rand.Rand) {
	m := w.victim(rng)
	if m == nil {
		return
	}
	w.Pause(m.id)
	w.later(between(rng, [2]time.Duration{20 * time.Millisecond, time.Second}), func() { w.Resume(m.id) })
}

func (w *World) strikeClockJump(rng *rand.Rand) {
	w.JumpClock(w.target(rng).id, 3+rng.IntN(60))
}

// anybody returns a random machine in use, running or not.
func (w *World) anybody(rng *rand.Rand) uint64 {
	ids := w.InUse()
	return ids[rng.IntN(len(ids))]
}

func (w *World) strikeSlowDisk(rng *rand.Rand) {
	id := w.target(rng).id
	w.SetLatency(id, [2]time.Duration{time.Millisecond, 40 * time.Millisecond})
	w.later(between(rng, [2]time.Duration{100 * time.Millisecond, time.Second}), func() { w.SetLatency(id, DefaultLatency) })
}

// strikePartition cuts the cluster in two. Half of the time the leader, if
// there is one, is on the smaller side.
func (w *World) strikePartition(rng *rand.Rand) {
	ids := w.InUse()
	if len(ids) < 2 {
		return
	}
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	first := w.target(rng).id
	i := slices.Index(ids, first)
	ids[0], ids[i] = ids[i], ids[0]
	at := 1 + rng.IntN(len(ids)-1)
	if rng.IntN(2) == 0 {
		at = 1 + rng.IntN(max(1, (len(ids)-1)/2))
	}
	w.Partition(ids[:at], ids[at:])
	w.later(between(rng, [2]time.Duration{100 * time.Millisecond, 2 * time.Second}), w.HealAll)
}

func (w *World) strikeOneWay(rng *rand.Rand) {
	from, to := w.target(rng).id, w.anybody(rng)
	if from == to {
		return
	}
	if rng.IntN(2) == 0 {
		from, to = to, from
	}
	w.Cut(from, to)
	w.later(between(rng, [2]time.Duration{50 * time.Millisecond, time.Second}), func() { w.Heal(from, to) })
}
