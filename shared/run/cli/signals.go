package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// lastWish is how long a command that must clean up has after the second
// signal.
const lastWish = 3 * time.Second

// signals turns the signals of this process into the end of a context.
type signals struct {
	// ctx ends at the first signal.
	ctx context.Context

	// second is closed at the second signal.
	second chan struct{}

	mu sync.Mutex

	// cleansUp is true while a command must see second closed before the process ends.
	cleansUp bool

	// interrupt, if set, takes ^C in place of ctx: the shell ends a command with
	// it and not itself.
	interrupt func()
}

// watchSignals takes over ^C, SIGTERM and SIGHUP until the process ends.
func watchSignals() *signals {
	ctx, cancel := context.WithCancel(context.Background())
	s := &signals{ctx: ctx, second: make(chan struct{})}
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		// Under nohup the end of the terminal is to be survived.
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
	time.AfterFunc(lastWish, func() { os.Exit(exitInterrupted) })
}

// cleanUp says that the command in hand has something to do at the second
// signal, such as processes to end. It returns what is closed then.
func (s *signals) cleanUp() <-chan struct{} {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleansUp = true
	return s.second
}

// onInterrupt gives ^C to f, until it is called with nil.
func (s *signals) onInterrupt(f func()) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = f
}
