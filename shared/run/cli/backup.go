package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/backup"
	"example.com/raftsteps/shared/run/cluster"
)

// restoring is how many writes of a restore are under way at once.
const restoring = 64

// backupCommands returns the commands that save keys to a file and write them back.
func (a *app) backupCommands() []*cobra.Command {
	if _, known := a.stage.Ops[api.Watch]; !known {
		return nil
	}
	var force bool
	save := &cobra.Command{
		Use: "backup FILE", Short: "Save all keys to a file", GroupID: groupClient, SuggestFor: []string{"dump", "export"},
		Long: `Writes all keys and values to FILE, as they were at one index of the log, while clients go on writing. The file has a line of
JSON for each key, with a checksum. Sessions and members are not in it: restore writes the keys into another cluster.`,
		Args: a.takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0], force) },
	}
	save.Flags().BoolVar(&force, "force", false, "replace FILE if it exists")
	var again bool
	restore := &cobra.Command{
		Use: "restore FILE", Short: "Write the keys of a backup into a new cluster", GroupID: groupClient, SuggestFor: []string{"import"},
		Long: `Writes the keys of a backup into a cluster that has none. Start a new one for it, with a name and a secret of its own:
cluster --fresh. Nothing is written if the file is not whole. If restore is interrupted, --again continues: keys that have
their value already are left, and a key with another value is an error.`,
		Args: a.takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), args[0], again) },
	}
	restore.Flags().BoolVar(&again, "again", false, "continue a restore that was interrupted")
	return append([]*cobra.Command{save}, mark(acting, "keys", restore)...)
}

// recoverCommands returns the command that saves what a cluster without a majority has
// left.
func (a *app) recoverCommands() []*cobra.Command {
	if a.stage.Offline == nil {
		return nil
	}
	var force bool
	cmd := &cobra.Command{
		Use: "recover SERVER FILE", Short: "Save the keys of a cluster that has lost its majority", GroupID: groupServers,
		Long: `Reads the folder of a server that does not run, and writes its keys to FILE, as backup does. It is the last resort, for a
cluster whose majority is lost with its disks: restore then writes the keys into a new cluster. recover opens the folder as
the server does when it starts: what a crash has left incomplete there is removed.

If several servers are left, save the keys of each, and take the one whose last entry has the highest term; of those, the one
with the longest log. recover prints both. Its log may lack the last writes that the lost servers had acknowledged, and may
have writes whose clients got no answer. recover says from which entry on nothing is certain.

The servers of the old cluster must never run again: with a lost server that comes back, they would be the old cluster, and
both clusters would accept writes.`,
		Args: a.takes(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.recover(args[0], args[1], force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it exists")
	return mark(reach, reachFolder, cmd)
}

// backup saves the keys of the cluster.
func (a *app) backup(ctx context.Context, path string, force bool) error {
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	ask := func(r api.Request) (api.Response, error) {
		ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
		defer cancel()
		return client.Do(ctx, r)
	}
	from := backup.Info{Stage: a.stage.Name}
	if file, found, err := a.clusterFile(); err == nil && found && !a.elsewhere() {
		from.Cluster = file.Config.Cluster
	}
	i, err := a.writeBackup(path, force, func(out io.Writer) error {
		_, err := backup.Take(ask, out, from)
		return err
	})
	if err != nil {
		return err
	}
	return a.saved(path, i)
}

func (a *app) saved(path string, i backup.Info) error {
	if a.flags.output == "json" {
		fmt.Fprintf(a.stdout, `{"keys":%d,"index":%d}`+"\n", i.Keys, i.Index)
		return nil
	}
	fmt.Fprintf(a.stderr, "%s saved to %s, as of index %d\n", keyCount(i.Keys), path, i.Index)
	return nil
}

// writeBackup writes a new file beside path, reads it again, and then gives it its
// name. After an error there is no new file, and an old one stays.
func (a *app) writeBackup(path string, force bool, write func(io.Writer) error) (i backup.Info, err error) {
	if _, err := os.Lstat(path); !force && !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return i, err
		}
		return i, usagef("%s exists; name another file, or replace it with --force", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return i, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(f.Name()) // it has no use
		}
	}()
	if err := write(f); err != nil {
		return i, err
	}
	if err := f.Sync(); err != nil {
		return i, err
	}
	if i, err = readBackup(f, func(kv.Item) error { return nil }); err != nil {
		return i, fmt.Errorf("%s was written and cannot be read again: %w", f.Name(), err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return i, err
	}
	return i, disk.SyncPath(filepath.Dir(path))
}

func readBackup(f *os.File, each func(kv.Item) error) (backup.Info, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return backup.Info{}, err
	}
	return backup.Read(f, each)
}

// restore writes the keys of a backup into a cluster that has none.
func (a *app) restore(ctx context.Context, path string, again bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	if err := a.checkEmpty(ctx, client, again); err != nil {
		return err
	}
	writes, ctx := errgroup.WithContext(ctx)
	writes.SetLimit(restoring)
	i, err := readBackup(f, func(item kv.Item) error {
		writes.Go(func() error { return a.restoreKey(ctx, client, item, again) })
		return ctx.Err() // the first write that failed ends the reading
	})
	if failed := writes.Wait(); failed != nil {
		return failed
	}
	if err != nil {
		return fmt.Errorf("%s is no backup that can be used: %w", path, err)
	}
	if a.flags.output == "json" {
		fmt.Fprintf(a.stdout, `{"keys":%d,"index":%d}`+"\n", i.Keys, i.Index)
		return nil
	}
	from := ""
	if i.Cluster != "" {
		from = " of cluster " + i.Cluster
	}
	fmt.Fprintf(a.stderr, "%s restored, as of index %d%s\n", keyCount(i.Keys), i.Index, from)
	return nil
}

func keyCount(n int) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d keys", n)
}

// checkEmpty refuses a cluster that has keys.
func (a *app) checkEmpty(ctx context.Context, client Client, again bool) error {
	if again {
		return nil
	}
	page, err := a.page(ctx, client, api.Request{Op: api.List, Limit: 1, KeysOnly: true})
	if err == nil && len(page.Items) > 0 {
		err = refused(api.Refused, "the cluster has keys already, such as %s: start a new one with cluster --fresh; to continue a restore that was interrupted, use --again", printable(page.Items[0].Key))
	}
	return err
}

// restoreKey writes one key.
func (a *app) restoreKey(ctx context.Context, client Client, item kv.Item, again bool) error {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	_, err := client.Do(ctx, api.Request{Op: kv.Create, Key: item.Key, Value: item.Value})
	var e *api.Error
	if !again || !errors.As(err, &e) || e.Code != api.Exists {
		return err
	}
	found, err := client.Do(ctx, api.Request{Op: kv.Get, Key: item.Key})
	if err == nil && found.Value != item.Value {
		err = refused(api.Exists, "the key %s has another value than in the backup", printable(item.Key))
	}
	return err
}

// recover saves the keys of a server that does not run.
func (a *app) recover(word, path string, force bool) error {
	id, err := serverID(word)
	if err != nil {
		return err
	}
	file, found, err := a.clusterFile()
	switch {
	case err != nil:
		return err
	case !found:
		return usagef("there is no cluster in %s", a.flags.data)
	}
	name := filepath.Join(file.Data(filepath.Join(a.flags.data, cluster.ConfigName)), node.Name(id))
	if _, err := os.Stat(name); err != nil {
		return usagef("there is no folder %s: recover needs the folder of a server of the old cluster", name)
	}
	folder, err := disk.OpenFolder(name, disk.Options{})
	var locked *disk.LockedError
	switch {
	case errors.As(err, &locked):
		return usagef("%s is running; if its cluster has a leader, save the keys with backup; if not, stop it first", node.Name(id))
	case err != nil:
		return err
	}
	defer folder.Close()
	s, err := a.stage.Offline(node.World{ID: id, Config: file.Config, Disk: folder, Rand: rand.New(rand.NewPCG(rand.Uint64(), id))})
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	i, err := a.writeBackup(path, force, func(out io.Writer) error {
		_, err := backup.Save(s.Store, s.Last, out, backup.Info{Stage: a.stage.Name, Cluster: file.Config.Cluster})
		return err
	})
	if err != nil {
		return err
	}
	if a.flags.output == "json" {
		fmt.Fprintf(a.stdout, `{"keys":%d,"index":%d,"committed":%d,"term":%d}`+"\n", i.Keys, i.Index, s.Committed, s.LastTerm)
		return nil
	}
	if err := a.saved(path, i); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, `What is certain, and what is not:
  entries 1 to %d were committed.
  entries %d to %d are in this log; each may have been acknowledged, or its client may have got no answer.
  what the lost servers acknowledged after entry %d (term %d) is lost, if there was anything.
Next: start a new cluster in another folder with cluster --fresh, and write the keys into it with restore %s.
The servers of cluster %s must never run again.
`, s.Committed, s.Committed+1, s.Last, s.Last, s.LastTerm, quoteWords([]string{path}), file.Config.Cluster)
	return nil
}
