// Package loglimit keeps messages in a log few, although others decide how often there
// is a reason for them.
package loglimit

import (
	"sync"
	"time"
)

// Again is how long the same text is not logged again.
const Again = 10 * time.Minute

// maxTold is how many texts are remembered.
const maxTold = 64

// Limit limits a message to one per second, and the same text to one in ten minutes. It
// is safe for concurrent use.
type Limit struct {
	mu    sync.Mutex
	last  time.Time
	quiet int

	// told is when each text was logged.
	told map[string]time.Time
}

// Say calls log, unless there was a message within the last second, or this text was
// logged within the last ten minutes. before is how many calls of Say did nothing since
// the last message. A message without a text is limited only by the second.
func (l *Limit) Say(text string, log func(before int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	at, told := l.told[text]
	if !l.last.IsZero() && now.Sub(l.last) < time.Second || told && now.Sub(at) < Again {
		l.quiet++
		return
	}
	log(l.quiet)
	l.last, l.quiet = now, 0
	if text != "" {
		l.remember(text, now)
	}
}

// remember records when a text was logged. If there are too many, the oldest is
// forgotten. l.mu must be held.
func (l *Limit) remember(text string, now time.Time) {
	if l.told == nil {
		l.told = make(map[string]time.Time)
	}
	l.told[text] = now
	if len(l.told) <= maxTold {
		return
	}
	oldest := text
	for other, at := range l.told {
		if at.Before(l.told[oldest]) {
			oldest = other
		}
	}
	delete(l.told, oldest)
}
