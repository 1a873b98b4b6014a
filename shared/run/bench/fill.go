package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// fillPatience is how long the write of a key may take with its retries, so that
// an election does not end the filling.
const fillPatience = 30 * time.Second

// fill writes every key once, before the clock starts: the store then has its
// full size from the beginning, and a get finds a value.
func (r *run) fill(ctx context.Context, clients []Client) error {
	value := randomText(r.o.Seed, r.o.ValueSize)
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for i := range r.o.Clients {
		g.Go(func() error {
			for key := next.Add(1) - 1; key < int64(r.o.Keys); key = next.Add(1) - 1 {
				if err := r.put(ctx, clients[i%len(clients)], keyName(int(key)), value); err != nil {
					return api.Wrap(fmt.Sprintf("filling: %d of %d keys are written", done.Load(), r.o.Keys), err)
				}
				done.Add(1)
			}
			return nil
		})
	}
	ended := make(chan struct{})
	var watch errgroup.Group
	watch.Go(func() error {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return nil
			case <-ticker.C:
				r.say("filling: %d of %d keys", done.Load(), r.o.Keys)
			}
		}
	})
	began := time.Now()
	err := g.Wait()
	close(ended)
	_ = watch.Wait() // always nil
	if err == nil {
		r.say("filled %d keys in %.1f s", r.o.Keys, time.Since(began).Seconds())
	}
	return err
}

// put writes one key and retries while a retry may help.
func (r *run) put(ctx context.Context, c Client, key, value string) error {
	for began := time.Now(); ; time.Sleep(errorPause) {
		short, cancel := context.WithTimeout(ctx, r.o.Timeout)
		response, err := c.Do(short, api.Request{Op: kv.Put, Key: key, Value: value})
		cancel()
		if err == nil && response.Error != nil {
			err = response.Error
		}
		if err == nil {
			return nil
		}
		e := apiError(err)
		again := e.Code == api.Unknown || e.Code == api.Unavailable || e.Code == api.Busy || e.Code == api.NotLeader
		if !again || ctx.Err() != nil || time.Since(began) > fillPatience {
			return e
		}
	}
}
