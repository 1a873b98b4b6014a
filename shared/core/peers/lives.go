package peers

import (
	"log/slog"
	"slices"
)

// keptStarts is how many starts of a peer before the present one are remembered.
const keptStarts = 8

// Lives has the starts of a peer that this server has seen. Each time a server starts,
// it draws a number that tells this start from others: two programs that run with
// copies of one folder have different ones, although everything else is the same.
type Lives struct {
	now    uint64
	place  string
	before []uint64

	// told is true once a log says that the peer runs twice.
	told bool
}

// See records where the peer is and the number of its start, 0 if that is not known. If
// an earlier start appears again, then the process that another one seemed to have
// replaced is still running: See returns the place of the other one, but only the first
// time; else "".
func (l *Lives) See(start uint64, place string) (other string) {
	if start != 0 && start != l.now {
		if slices.Contains(l.before, start) && !l.told {
			other, l.told = l.place, true
		}
		if l.now != 0 {
			l.before = append(l.before, l.now)
		}
		if len(l.before) > keptStarts {
			l.before = l.before[1:]
		}
		l.now = start
	}
	l.place = place
	return other
}

// LogTwice logs that a peer runs twice. one and other are the places.
func LogTwice(log *slog.Logger, peer uint64, one, other string) {
	log.Error("a peer runs twice, on copies of one folder; stop one of the two, and delete its folder", "peer", peer, "one", one, "other", other)
}
