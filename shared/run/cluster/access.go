package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"example.com/raftsteps/shared/core/access"
)

// ChangeAccess changes who may do what in a cluster.json. change gets the policy, an
// empty one if there is none, and returns the new one. The servers that use the file
// follow it; see FollowAccess.
func ChangeAccess(path string, change func(access.Policy) (access.Policy, error)) error {
	return Alone(path, func() error {
		file, err := Load(path)
		if err != nil {
			return err
		}
		var p access.Policy
		if file.Config.Access != nil {
			p = *file.Config.Access.Clone()
		}
		if p, err = change(p); err != nil {
			return err
		}
		file.Config.Access = &p
		return file.Save(path)
	})
}

// followInterval is how often FollowAccess looks at the file.
const followInterval = time.Second

// FollowAccess gives the access that a cluster.json says to set, whenever it changes,
// until ctx is done. was is the configuration that the server has started with. A file
// that is not valid, or that has become another cluster's, changes nothing.
func FollowAccess(ctx context.Context, path string, was File, set func(*access.Policy) error, log *slog.Logger) {
	follow(ctx, path, was, set, log, followInterval)
}

func follow(ctx context.Context, path string, was File, set func(*access.Policy) error, log *slog.Logger, interval time.Duration) {
	last, _ := os.Stat(path) // nil if it is gone; then any file is new
	// The file may have changed since the server has read it.
	f := &follower{path: path, was: was, set: set, log: log}
	f.look()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := os.Stat(path)
		if err != nil || last != nil && os.SameFile(last, now) && last.ModTime().Equal(now.ModTime()) && last.Size() == now.Size() {
			continue
		}
		last = now
		f.look()
	}
}

// follower follows one file.
type follower struct {
	path string

	// was is the configuration with the access that is in force.
	was File
	set func(*access.Policy) error
	log *slog.Logger
}

// look reads the file, and sets its access if that is new.
func (f *follower) look() {
	now, err := Load(f.path)
	switch {
	case err == nil && (now.Config.Cluster != f.was.Config.Cluster || now.Config.Secret != f.was.Config.Secret):
		err = fmt.Errorf("%s has another cluster or another secret than when this server was started; restart the server", f.path)
	case err == nil && f.was.Config.Access.Equal(now.Config.Access):
		return
	case err == nil:
		err = f.set(now.Config.Access)
	}
	if err != nil {
		f.log.Error("the changed configuration is not used; who may do what stays as it was", "error", err)
		return
	}
	f.was.Config.Access = now.Config.Access
	f.log.Info("who may do what has changed", "access", now.Config.Access.String())
}
