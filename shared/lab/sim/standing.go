package sim

import "slices"

// standing is what a script has set up and what goes on by itself, so that somebody
// who takes over from the script can see it and end it.
type standing struct {
	loads []*Loading

	// plans counts the calls of After that have not happened; made is how often
	// EndPlans was called.
	plans, made int
}

// Loads returns how many loads go on.
func (w *World) Loads() int {
	w.standing.loads = slices.DeleteFunc(w.standing.loads, func(g *Loading) bool { return g.stopped })
	return len(w.standing.loads)
}

// EndLoads stops all loads.
func (w *World) EndLoads() {
	for _, g := range w.standing.loads {
		g.Stop()
	}
}

// Filtered reports whether a function of Drop decides which messages are lost.
func (w *World) Filtered() bool { return w.filter != nil }

// Plans returns how many calls of After have not happened.
func (w *World) Plans() int { return w.standing.plans }

// EndPlans forgets them.
func (w *World) EndPlans() { w.standing.plans, w.standing.made = 0, w.standing.made+1 }

// Unleashed reports whether faults strike at random.
func (w *World) Unleashed() bool { return w.nemesis.active }

// EndFaults ends that, and the network's part of it. It repairs nothing: Calm does.
func (w *World) EndFaults() {
	w.nemesis.generation++
	w.nemesis.active = false
	w.network = Network{Delay: w.network.Delay}
}
