package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/node"
)

// addToken adds a token with a name to a cluster.json.
func addToken(t *testing.T, path, name string) {
	t.Helper()
	require.NoError(t, ChangeAccess(path, func(p access.Policy) (access.Policy, error) {
		err := p.Add(access.Token{Name: name, Role: access.Write, Hash: [32]byte{name[0]}})
		return p, err
	}))
}

func names(p *access.Policy) (names []string) {
	if p != nil {
		for _, t := range p.Tokens {
			names = append(names, t.Name)
		}
	}
	return names
}

// A token that is created while the cluster runs is still there after a server has
// joined, and after the cluster was started again, also with a file that has none.
func TestTokensStay(t *testing.T) {
	mine := filepath.Join(t.TempDir(), "mine.json")
	f, err := open(t, OpenOptions{Dir: t.TempDir(), Servers: 3, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	require.NoError(t, f.File.Save(mine))
	stays := func(want ...string) {
		t.Helper()
		now, err := Load(f.ConfigPath())
		require.NoError(t, err)
		require.Equal(t, want, names(now.Config.Access))
	}
	addToken(t, f.ConfigPath(), "a")
	require.NoError(t, f.Join(node.Member{ID: 5, Address: "h:5"}))
	stays("a")
	addToken(t, f.ConfigPath(), "b")
	edited, err := Load(f.ConfigPath())
	require.NoError(t, err)
	edited.Config.StoreBytes = 1 << 21
	require.NoError(t, edited.Save(f.ConfigPath()))
	require.NoError(t, f.Unjoin(5))
	require.Equal(t, int64(1<<21), f.File.Config.StoreBytes, "what an operator has written into the file stays, too")
	stays("a", "b")
	require.NoError(t, f.Close())

	for _, o := range []OpenOptions{{}, {Config: mine}} {
		o.Dir, o.Needs = f.Dir, Needs{Changes: true}
		again, err := open(t, o)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, names(again.File.Config.Access))
		require.NoError(t, again.Close())
		stays("a", "b")
	}
	addToken(t, mine, "c")
	again, err := open(t, OpenOptions{Dir: f.Dir, Needs: Needs{Changes: true}, Config: mine})
	require.NoError(t, err)
	require.NoError(t, again.Close())
	stays("c") // the file says who may do what
}

// Of changes at the same time, by one program or several, none is lost.
func TestChangesAtTheSameTime(t *testing.T) {
	f, err := open(t, OpenOptions{Dir: t.TempDir(), Servers: 3, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	const writers, each = 4, 5
	var want []string
	var g errgroup.Group
	for w := range writers {
		for i := range each {
			want = append(want, fmt.Sprintf("%c-%d", 'a'+w, i))
		}
		own := want[w*each:]
		g.Go(func() error {
			for _, name := range own {
				err := ChangeAccess(f.ConfigPath(), func(p access.Policy) (access.Policy, error) {
					err := p.Add(access.Token{Name: name, Role: access.Write, Hash: sha256.Sum256([]byte(name))})
					return p, err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for id := range uint64(each) {
		require.NoError(t, f.Join(node.Member{ID: 5 + id, Address: fmt.Sprintf("h:%d", 5+id)}))
	}
	require.NoError(t, g.Wait())
	now, err := Load(f.ConfigPath())
	require.NoError(t, err)
	require.ElementsMatch(t, want, names(now.Config.Access))
	require.Len(t, now.Config.Joiners, each)
}

// A program that stands still while it changes the file stops no other one forever.
func TestAChangeThatDoesNotEnd(t *testing.T) {
	path := writeConfig(t, goodConfig)
	defer func(was time.Duration) { changeTime = was }(changeTime)
	changeTime = 0
	require.NoError(t, Alone(path, func() error {
		err := Alone(path, func() error { return errors.New("it was not alone") })
		require.EqualError(t, err, "another program has been changing the files in "+filepath.Dir(path)+" for 0s; nothing was done; try again")
		return nil
	}))
	require.NoError(t, Alone(path, func() error { return nil }))
	require.ErrorIs(t, ChangeAccess(filepath.Join(t.TempDir(), "no", "folder.json"), nil), os.ErrNotExist)
}

// The file of another cluster is not changed.
func TestAnotherClustersFile(t *testing.T) {
	f, err := open(t, OpenOptions{Dir: t.TempDir(), Servers: 3, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	other := f.File
	other.Config.Cluster = "other"
	require.NoError(t, other.Save(f.ConfigPath()))
	require.ErrorContains(t, f.Join(node.Member{ID: 5, Address: "h:5"}), `is another cluster's now: it names "other"`)
	now, err := Load(f.ConfigPath())
	require.NoError(t, err)
	require.Equal(t, other, now)
}

func TestAChangeThatFailsWritesNothing(t *testing.T) {
	path := writeConfig(t, goodConfig)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.EqualError(t, ChangeAccess(path, func(p access.Policy) (access.Policy, error) { return p, errors.New("no") }), "no")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.ErrorIs(t, ChangeAccess(path+"x", nil), os.ErrNotExist)
}

// A server follows the access in its file, and nothing else of it. A file that it
// cannot use changes nothing.
func TestFollowAccess(t *testing.T) {
	path := writeConfig(t, goodConfig)
	was, err := Load(path)
	require.NoError(t, err)
	var mu sync.Mutex
	var out bytes.Buffer
	var set []*access.Policy
	refuse := errors.New("refused")
	locked := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	addToken(t, path, "a") // before it begins to look
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		follow(ctx, path, was, func(p *access.Policy) (err error) {
			locked(func() {
				if p == nil {
					err = refuse
					return
				}
				set = append(set, p)
			})
			return err
		}, slog.New(slog.NewTextHandler(writer(func(b []byte) { locked(func() { out.Write(b) }) }), nil)), time.Millisecond)
		close(done)
	}()
	logs := func(text string) {
		t.Helper()
		require.Eventually(t, func() (found bool) {
			locked(func() { found = bytes.Contains(out.Bytes(), []byte(text)) })
			return found
		}, time.Minute, time.Millisecond, text)
	}
	logs("1 tokens; without one: none")
	addToken(t, path, "b")
	logs("2 tokens; without one: none")

	good, err := Load(path)
	require.NoError(t, err)
	write := func(f File) { require.NoError(t, f.Save(path)) }
	other := good
	other.Config.Secret, other.Config.Access = "fedcba9876543210", nil
	write(other)
	logs("another cluster or another secret")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	logs("line 1: want")
	open := good
	open.Config.Access = nil
	write(open)
	logs("error=refused")
	require.NoError(t, os.Remove(path))
	write(good) // what is in force
	addToken(t, path, "c")
	logs("3 tokens; without one: none")
	end()
	<-done
	require.Len(t, set, 3)
	require.Equal(t, []string{"a", "b", "c"}, names(set[2]))
}

type writer func(b []byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}
