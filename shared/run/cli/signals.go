package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// cleanUpTime is how long a command may clean up after the second signal.
const cleanUpTime = 3 * time.Second

// signals ends a context when this process receives a signal.
type signals struct {
	// ctx ends at the first signal.
	ctx context.Context

	// second is closed at the second signal.
	second chan struct{}

	mu sync.Mutex

	// cleansUp is true while a command must see second closed before the process ends.
	cleansUp bool

	// interrupt, if set, is called at ^C, and ctx does not end: the shell ends a
	// command in this way, but not itself.
	interrupt func()
}

// watchSignals handles ^C, SIGTERM and SIGHUP until the process ends.
func watchSignals() *signals {
	ctx, cancel := context.WithCancel(context.Background())
	s := &signals{ctx: ctx, second: make(chan struct{})}
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		// Under nohup the process must survive the end of the terminal.
		signal.Notify(c, syscall.SIGHUP)
	}
	go func() {
		for sig := range c {
			s.take(sig, cancel)
		}
	}()
	return s
}

func (s *signals) take(sig os.Signal, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupt != nil && sig == os.Interrupt {
		s.interrupt()
		return
	}
	if s.ctx.Err() == nil {
		cancel()
		return
	}
	select {
	case <-s.second:
		os.Exit(exitInterrupted)
	default:
		close(s.second)
	}
	if !s.cleansUp {
		os.Exit(exitInterrupted)
	}
	time.AfterFunc(cleanUpTime, func() { os.Exit(exitInterrupted) })
}

// cleanUp makes the process stay alive for cleanUpTime after the second signal,
// so that a command can clean up, such as by killing its processes. The returned
// channel is closed at that signal.
func (s *signals) cleanUp() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleansUp = true
	return s.second
}

// onInterrupt makes ^C call f, until it is called with nil.
func (s *signals) onInterrupt(f func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = f
}
