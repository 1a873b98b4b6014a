package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// both runs a test on a real folder and on a simulated one: both must do what the
// interface promises.
func both(t *testing.T, test func(t *testing.T, d Disk)) {
	t.Run("folder", func(t *testing.T) {
		d, err := OpenFolder(t.TempDir(), Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, d.Close()) })
		test(t, d)
	})
	t.Run("sim", func(t *testing.T) { test(t, NewSim("n1")) })
}

func put(t *testing.T, d Disk, name, content string) {
	t.Helper()
	f, err := d.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func get(t *testing.T, d Disk, name string) string {
	t.Helper()
	b, err := ReadFile(d, name)
	require.NoError(t, err)
	return string(b)
}

func TestFilesAreWrittenReadCutAndListed(t *testing.T) {
	both(t, func(t *testing.T, d Disk) {
		_, err := d.Open("a")
		require.ErrorIs(t, err, fs.ErrNotExist)
		put(t, d, "b", "bbb")
		f, err := d.Create("a")
		require.NoError(t, err)
		n, err := f.WriteAt([]byte("end"), 4)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, "\x00\x00\x00\x00end", get(t, d, "a"), "a gap reads as zeros")
		_, err = f.WriteAt([]byte("begin"), 0)
		require.NoError(t, err)
		require.Equal(t, "beginnd", get(t, d, "a"))
		require.NoError(t, f.Truncate(5))
		require.NoError(t, f.Sync())
		require.Equal(t, "begin", get(t, d, "a"))
		require.NoError(t, f.Truncate(7))
		require.Equal(t, "begin\x00\x00", get(t, d, "a"))
		size, err := f.Size()
		require.NoError(t, err)
		require.Equal(t, int64(7), size)
		require.NoError(t, d.Sync())
		names, err := d.List()
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, names)
		put(t, d, "a", "")
		require.Empty(t, get(t, d, "a"), "a file that is created again is empty")
		require.NoError(t, f.Close())
		_, err = f.Size()
		require.ErrorIs(t, err, fs.ErrClosed)
		require.Error(t, f.Sync())
	})
}

func TestRenameAndRemove(t *testing.T) {
	both(t, func(t *testing.T, d Disk) {
		require.ErrorIs(t, d.Rename("a", "b"), fs.ErrNotExist)
		require.ErrorIs(t, d.Remove("a"), fs.ErrNotExist)
		put(t, d, "a", "new")
		put(t, d, "b", "old")
		f, err := d.Open("a")
		require.NoError(t, err)
		require.NoError(t, d.Rename("a", "b"))
		_, err = f.WriteAt([]byte("N"), 0)
		require.NoError(t, err, "an open file outlives its name")
		require.NoError(t, f.Close())
		require.Equal(t, "New", get(t, d, "b"))
		_, err = d.Open("a")
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, d.Remove("b"))
		names, err := d.List()
		require.NoError(t, err)
		require.Empty(t, names)
	})
}

func TestReplaceLeavesOneFile(t *testing.T) {
	both(t, func(t *testing.T, d Disk) {
		for _, content := range []string{"first", "second", ""} {
			f, err := Replace(d, "a", []byte(content))
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.Equal(t, content, get(t, d, "a"))
			names, err := d.List()
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, names)
		}
	})
}

func TestFolderIsMadeWithThoseAboveIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x", "y", "n1")
	d, err := OpenFolder(path, Options{})
	require.NoError(t, err)
	require.Equal(t, path, d.Path())
	require.EqualValues(t, 3, d.Syncs(), "the folder above each new folder must be synced, or a power cut may remove the new one")
	put(t, d, "a", "1")
	require.NoError(t, d.Close())

	d, err = OpenFolder(path, Options{})
	require.NoError(t, err)
	require.Equal(t, "1", get(t, d, "a"))
	require.Zero(t, d.Syncs(), "no folder was created")
	require.NoError(t, d.Close())

	_, err = OpenFolder(filepath.Join(path, "a"), Options{})
	require.ErrorContains(t, err, "a file with that name exists")
	_, err = OpenFolder(filepath.Join(path, "a", "b"), Options{})
	require.ErrorContains(t, err, "a file with that name exists")
}

// Only the owner can read what a server writes, even if the umask allows more.
func TestFolderIsPrivate(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	top := t.TempDir()
	d, err := OpenFolder(filepath.Join(top, "x", "n1"), Options{})
	require.NoError(t, err)
	defer d.Close()
	put(t, d, "a", "1")
	f, err := Replace(d, "b", []byte("2"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for path, want := range map[string]os.FileMode{"x": 0o700, "x/n1": 0o700, "x/n1/a": 0o600, "x/n1/b": 0o600, "x/n1/lock": 0o600} {
		info, err := os.Stat(filepath.Join(top, path))
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm(), path)
	}
}

// Syncs counts the syncs of the folder and of its files.
func TestSyncsAreCounted(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		d, err := OpenFolder(t.TempDir(), Options{NoSync: noSync})
		require.NoError(t, err)
		defer d.Close()
		f, err := d.Create("a")
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, f.Sync())
		require.NoError(t, d.Sync())
		if noSync {
			require.Zero(t, d.Syncs())
		} else {
			require.Equal(t, uint64(2), d.Syncs())
		}
	}
}

// If a user may not use a folder, the error says who owns it.
func TestFolderOfAnotherUser(t *testing.T) {
	if path := os.Getenv(ownerTestFolder); path != "" {
		_, err := OpenFolder(path, Options{})
		require.ErrorContains(t, err, "the folder "+path+" belongs to root (user 0), and this process runs as ")
		require.ErrorContains(t, err, "run the server as the owner of its data")
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("", "raftsteps")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o755))
	d, err := OpenFolder(filepath.Join(dir, "n1"), Options{})
	require.NoError(t, err)
	defer d.Close()
	program, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	binary := filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(binary, program, 0o755))
	second := exec.Command(binary, "-test.run=^TestFolderOfAnotherUser$", "-test.v")
	second.Dir = dir
	second.Env = append(os.Environ(), ownerTestFolder+"="+d.Path())
	second.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := second.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS", "the second process must have run the test")
}

// ownerTestFolder is the environment variable that holds the folder for the
// second process.
const ownerTestFolder = "DISK_TEST_OWNER"

// A lock file may name no user, and one that was locked a moment ago names no
// process yet.
func TestHolder(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "another process",
		"12\n":                   "process 12",
		"12 alice (user 1000)\n": "process 12 of alice (user 1000)",
	} {
		path := filepath.Join(t.TempDir(), "lock")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		require.Equal(t, want, holder(f))
	}
}

func TestFolderRefusesOtherNames(t *testing.T) {
	d, err := OpenFolder(t.TempDir(), Options{NoSync: true})
	require.NoError(t, err)
	defer d.Close()
	for _, name := range []string{"", ".", "..", "../a", "a/b", "/a", lockName} {
		_, err := d.Create(name)
		require.ErrorContains(t, err, "cannot be the name of a file", name)
	}
}

// lockTestFolder is the environment variable that holds the folder for the second
// process, which runs the same test.
const lockTestFolder = "DISK_TEST_FOLDER"

func TestFolderBelongsToOneProcess(t *testing.T) {
	if path := os.Getenv(lockTestFolder); path != "" {
		_, err := OpenFolder(path, Options{})
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.ErrorContains(t, err, fmt.Sprintf("is in use by process %d of %s: ", os.Getppid(), userName(os.Geteuid())))
		return
	}
	path := t.TempDir()
	d, err := OpenFolder(path, Options{})
	require.NoError(t, err)
	second := exec.Command(os.Args[0], "-test.run=^TestFolderBelongsToOneProcess$", "-test.v")
	second.Env = append(os.Environ(), lockTestFolder+"="+path)
	out, err := second.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS", "the second process must have run the test")

	_, err = OpenFolder(path, Options{})
	require.ErrorContains(t, err, "in use", "this process must not open the folder twice")
	require.NoError(t, d.Close())
	d, err = OpenFolder(path, Options{})
	require.NoError(t, err, "Close must release the lock")
	require.NoError(t, d.Close())
}

// Free shortens a file that has lost its name to a small rest before it closes
// it, so the space is not freed in one piece. The file that has the name now does
// not change.
func TestFree(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		d, err := OpenFolder(t.TempDir(), Options{NoSync: noSync})
		require.NoError(t, err)
		defer d.Close()
		old, err := d.Create("a")
		require.NoError(t, err)
		require.NoError(t, old.Truncate(3*freed+7))
		put(t, d, "b", "new")
		reader, err := d.Open("a")
		require.NoError(t, err)
		defer reader.Close()
		require.NoError(t, d.Rename("b", "a"))
		require.NoError(t, d.Sync())

		require.NoError(t, Free(old))
		_, err = old.Size()
		require.ErrorIs(t, err, fs.ErrClosed)
		size, err := reader.Size()
		require.NoError(t, err)
		if !noSync && runtime.GOOS == "linux" {
			require.Equal(t, int64(7), size)
		}
		require.Equal(t, "new", get(t, d, "a"))

		// A file that still has its name keeps its content.
		named, err := d.Create("c")
		require.NoError(t, err)
		require.NoError(t, named.Truncate(3*freed))
		require.NoError(t, Free(named))
		require.Len(t, get(t, d, "c"), 3*freed)
	}
	f, err := NewSim("d").Create("a")
	require.NoError(t, err)
	require.NoError(t, Free(f))
	require.Error(t, f.Sync())
}

// The test uses a pipe, which cannot be synced.
func TestFailedSyncOfARealFileIsPermanent(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	f := &osFile{f: w, syncs: new(syncMeter)}
	defer f.Close()
	err = f.Sync()
	require.ErrorContains(t, err, "nothing written since the last sync can be trusted")
	_, got := f.WriteAt([]byte("x"), 0)
	require.Equal(t, err, got)
	_, got = f.ReadAt(make([]byte, 1), 0)
	require.Equal(t, err, got)
	_, got = f.Size()
	require.Equal(t, err, got)
	require.Equal(t, err, f.Truncate(0))
	require.Equal(t, err, f.Sync())
}

func TestFailedSyncOfARealFolderIsPermanent(t *testing.T) {
	d, err := OpenFolder(t.TempDir(), Options{})
	require.NoError(t, err)
	require.NoError(t, d.dir.Close(), "a closed folder cannot be synced")
	defer d.lock.Close()
	put(t, d, "a", "1")
	err = d.Sync()
	require.ErrorContains(t, err, "nothing in it can be trusted")
	_, got := d.Create("b")
	require.Equal(t, err, got)
	require.Equal(t, err, d.Rename("a", "b"))
	require.Equal(t, err, d.Remove("a"))
	require.Equal(t, err, d.Sync())
}

func TestUnsyncedDataIsLostInTheWorstCase(t *testing.T) {
	d := NewSim("n1")
	f, err := d.Create("a")
	require.NoError(t, err)
	writeAt(t, f, "one", 0)
	d2 := d.Clone()
	d2.CrashWorst()
	_, err = d2.Open("a")
	require.ErrorIs(t, err, fs.ErrNotExist, "the name was not synced")

	require.NoError(t, d.Sync())
	require.Empty(t, get(t, d.Durable(), "a"), "the name was synced, the content was not")
	require.NoError(t, f.Sync())
	writeAt(t, f, "two", 3)
	require.Equal(t, "onetwo", get(t, d, "a"))
	require.Equal(t, "one", get(t, d.Durable(), "a"))
	require.NoError(t, d.Rename("a", "b"))
	require.Equal(t, "one", get(t, d.Durable(), "a"), "the rename was not synced")

	d.CrashWorst()
	require.Equal(t, "one", get(t, d, "a"))
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, fs.ErrClosed, "the process that had the file open has ended")
}

func TestKillLosesNothingThatWasWritten(t *testing.T) {
	d := NewSim("n1")
	put(t, d, "a", "one")
	d.Kill()
	require.Equal(t, "one", get(t, d, "a"))
	d.CrashWorst()
	names, err := d.List()
	require.NoError(t, err)
	require.Empty(t, names, "the name was not synced")
}

// Over many seeds, every possible result of a crash occurs, and no impossible
// one.
func TestCrashLeavesEveryMixtureAndNothingElse(t *testing.T) {
	d := NewSim("n1")
	put(t, d, "old", "x")
	f, err := d.Create("a")
	require.NoError(t, err)
	writeAt(t, f, string(make([]byte, 3*SectorSize)), 0)
	require.NoError(t, f.Sync())
	require.NoError(t, d.Sync())
	full := func(c byte) []byte {
		b := make([]byte, 3*SectorSize-100)
		for i := range b {
			b[i] = c
		}
		return b
	}
	_, err = f.WriteAt(full('1'), 100)
	require.NoError(t, err)
	require.NoError(t, d.Rename("a", "b"))
	require.NoError(t, d.Remove("old"))

	seen := map[string]bool{}
	for seed := range uint64(400) {
		c := d.Clone()
		c.Crash(rand.New(rand.NewPCG(seed, 0)))
		names, err := c.List()
		require.NoError(t, err)
		name := "a"
		for _, n := range names {
			seen["name "+n] = true
			if n == "b" {
				name = "b"
			}
		}
		data := []byte(get(t, c, name))
		require.Len(t, data, 3*SectorSize)
		require.Equal(t, make([]byte, 100), data[:100])
		sectors, torn := writtenSectors(t, data)
		seen["torn"] = seen["torn"] || torn
		seen[sectors] = true
		require.Equal(t, min(1, c.Stats().Lost), c.Stats().Lost)
	}
	for _, want := range []string{"000", "001", "010", "011", "100", "101", "110", "111", "torn", "name a", "name b", "name old"} {
		require.True(t, seen[want], want)
	}
}

// A crash that loses a truncation has lost something.
func TestALostTruncationIsCounted(t *testing.T) {
	for seed := range uint64(100) {
		d := NewSim("n1")
		f, err := Replace(d, "a", []byte("abc"))
		require.NoError(t, err)
		require.NoError(t, f.Truncate(1))
		d.Crash(rand.New(rand.NewPCG(seed, 0)))
		if get(t, d, "a") == "a" {
			require.Zero(t, d.Stats().Lost, "seed %d", seed)
		} else {
			require.Equal(t, 1, d.Stats().Lost, "seed %d", seed)
		}
	}
}

// writtenSectors returns for each sector whether it was written, 1, or not, 0,
// and whether one is torn.
func writtenSectors(t *testing.T, data []byte) (sectors string, torn bool) {
	t.Helper()
	for from := 0; from < len(data); from += SectorSize {
		s := data[max(from, 100) : from+SectorSize]
		ones := bytes.Count(s, []byte("1"))
		require.Equal(t, len(s), ones+bytes.Count(s, []byte{0}), "a byte that was never written")
		if 0 < ones && ones < len(s) {
			require.False(t, torn, "only one sector may be torn")
			torn = true
			require.NotContains(t, sectors, "0", "the bytes before the tear must have been written")
			require.Equal(t, ones, bytes.LastIndexByte(s, '1')+1)
		}
		sectors += strconv.Itoa(ones / len(s))
	}
	return sectors, torn
}

func TestSameSeedSameCrash(t *testing.T) {
	run := func() string {
		d := NewSim("n1")
		rng := rand.New(rand.NewPCG(7, 7))
		for i := range 20 {
			f, err := d.Create(strconv.Itoa(i % 7))
			require.NoError(t, err)
			writeAt(t, f, string(make([]byte, i*100)), int64(i))
			if i%5 == 0 {
				require.NoError(t, d.Sync())
				d.Crash(rng)
			}
		}
		d.Crash(rng)
		out := ""
		names, err := d.List()
		require.NoError(t, err)
		for _, n := range names {
			out += n + get(t, d, n)
		}
		return out
	}
	require.Equal(t, run(), run())
}

func TestAFailedSyncLosesTheUnsyncedData(t *testing.T) {
	d := NewSim("n1")
	f, err := d.Create("a")
	require.NoError(t, err)
	require.NoError(t, d.Sync())
	writeAt(t, f, "one", 0)
	require.NoError(t, f.Sync())
	d.FailSync(2)
	writeAt(t, f, "two", 3)
	require.NoError(t, f.Sync())
	writeAt(t, f, "three", 6)
	err = f.Sync()
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, err, f.Truncate(0), "the file must refuse every call")
	_, got := f.WriteAt([]byte("x"), 0)
	require.Equal(t, err, got)

	d.Kill()
	require.Equal(t, "onetwothree", get(t, d, "a"), "the lost data can still be read")
	f, err = d.Open("a")
	require.NoError(t, err)
	require.NoError(t, f.Sync(), "a later sync must succeed")
	require.Equal(t, "onetwo", get(t, d.Durable(), "a"), "a later sync must not save the lost data")
	writeAt(t, f, "three", 6)
	require.NoError(t, f.Sync())
	require.Equal(t, "onetwothree", get(t, d.Durable(), "a"), "the data must be saved after it is written and synced again")
}

func TestSyncsFailByChance(t *testing.T) {
	d := NewSim("n1")
	put(t, d, "a", "")
	d.FailSyncs(0.5, rand.New(rand.NewPCG(1, 1)))
	failed := 0
	for range 100 {
		f, err := d.Open("a")
		require.NoError(t, err)
		if f.Sync() != nil {
			failed++
		}
	}
	require.InDelta(t, 50, failed, 20)
}

func TestAFullDiskWritesAPart(t *testing.T) {
	d := NewSim("n1")
	f, err := d.Create("a")
	require.NoError(t, err)
	writeAt(t, f, "12345", 0)
	d.Fill(3)
	n, err := f.WriteAt([]byte("abcdef"), 4)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 4, n)
	require.Equal(t, "1234abcd", get(t, d, "a"))
	writeAt(t, f, "87654321", 0)
	_, err = f.WriteAt([]byte("x"), 8)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Truncate(7), "truncating must free space")
	writeAt(t, f, "x", 7)
	d.Fill(-1)
	writeAt(t, f, "more", 8)
}

func TestPowerIsCutBeforeAnOperation(t *testing.T) {
	for nth, want := range []string{1: "", 2: "", 3: "one", 4: "one", 5: "onetwo"} {
		if nth == 0 {
			continue
		}
		d := NewSim("n1")
		f, err := d.Create("a")
		require.NoError(t, err)
		require.NoError(t, d.Sync())
		d.CutPower(nth)
		for i, word := range []string{"one", "two"} {
			f.WriteAt([]byte(word), int64(3*i))
			err = f.Sync()
		}
		if nth < 5 {
			require.ErrorIs(t, err, ErrPowerCut)
			_, err = d.Open("a")
			require.ErrorIs(t, err, ErrPowerCut)
			_, err = d.List()
			require.ErrorIs(t, err, ErrPowerCut)
			require.ErrorIs(t, d.Sync(), ErrPowerCut)
		}
		d.CrashWorst()
		require.Equal(t, want, get(t, d, "a"), "operation %d", nth)
	}
}

func TestTheHookCanStopOperations(t *testing.T) {
	d := NewSim("n1")
	var kinds []OpKind
	d.Hook = func(op Op) error {
		kinds = append(kinds, op.Kind)
		if op.Kind == OpRename {
			require.Equal(t, Op{Kind: OpRename, File: "a" + Aside, To: "a"}, op)
			return syscall.EACCES
		}
		return nil
	}
	_, err := Replace(d, "a", []byte("x"))
	require.ErrorIs(t, err, syscall.EACCES)
	require.Equal(t, []OpKind{OpCreate, OpWrite, OpSync, OpRename}, kinds)
	require.Equal(t, len(kinds), d.Stats().Ops)
	require.Equal(t, Stats{Ops: 4, Writes: 1, Syncs: 1, Bytes: 1}, d.Stats())
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{"a" + Aside}, names)
}

func TestCloneSharesNothing(t *testing.T) {
	d := NewSim("n1")
	put(t, d, "a", "one")
	c := d.Clone()
	f, err := d.Open("a")
	require.NoError(t, err)
	writeAt(t, f, "two", 0)
	put(t, d, "b", "x")
	require.NoError(t, d.Sync())
	require.Equal(t, "one", get(t, c, "a"))
	_, err = c.Open("b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	g, err := c.Open("a")
	require.NoError(t, err)
	writeAt(t, g, "three", 0)
	require.NoError(t, g.Sync())
	require.NoError(t, c.Sync())
	require.Equal(t, "three", get(t, c.Durable(), "a"))
	require.Equal(t, "two", get(t, d, "a"))
}

func TestNoSyncLosesEverything(t *testing.T) {
	d := NewSim("n1")
	d.NoSync = true
	f, err := Replace(d, "a", []byte("one"))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.Equal(t, "one", get(t, d, "a"))
	d.CrashWorst()
	names, err := d.List()
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestCorruptChangesOneByte(t *testing.T) {
	d := NewSim("n1")
	f, err := Replace(d, "a", []byte("abc"))
	require.NoError(t, err)
	writeAt(t, f, "d", 3)
	require.True(t, d.Corrupt("a", 1, 0x20))
	require.True(t, d.Corrupt("a", 3, 0x20))
	require.False(t, d.Corrupt("a", 4, 1))
	require.False(t, d.Corrupt("b", 0, 1))
	require.Equal(t, "aBcD", get(t, d, "a"))
	d.CrashWorst()
	require.Equal(t, "aBc", get(t, d, "a"))
}

func TestDurableCannotBeChanged(t *testing.T) {
	d := NewSim("n1")
	_, err := Replace(d, "a", []byte("abc"))
	require.NoError(t, err)
	v := d.Durable()
	_, err = v.Create("b")
	require.Error(t, err)
	require.Error(t, v.Rename("a", "b"))
	require.Error(t, v.Remove("a"))
	require.Error(t, v.Sync())
	f, err := v.Open("a")
	require.NoError(t, err)
	require.Equal(t, "n1/a", f.Name())
	_, err = f.WriteAt([]byte("x"), 0)
	require.Error(t, err)
	require.Error(t, f.Truncate(0))
	require.Error(t, f.Sync())
	require.NoError(t, f.Close())
	_, err = v.Open("b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	names, err := v.List()
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
}

func writeAt(t *testing.T, f File, s string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(s), off)
	require.NoError(t, err)
}

// Check detects that another program has deleted, moved or replaced a file or the
// folder, and accepts the changes that were made through the Folder.
func TestCheckDetectsMissingData(t *testing.T) {
	under := func(d *Folder, name string) string { return filepath.Join(d.Path(), name) }
	for name, c := range map[string]struct {
		lose func(t *testing.T, d *Folder) error
		want string
	}{
		"the file is deleted": {
			func(_ *testing.T, d *Folder) error { return os.Remove(under(d, "journal")) },
			"/n1/journal was deleted, moved or replaced",
		},
		"the file is moved": {
			func(_ *testing.T, d *Folder) error { return os.Rename(under(d, "journal"), under(d, "old")) },
			"/n1/journal was deleted, moved or replaced",
		},
		"another file has its name": {
			func(_ *testing.T, d *Folder) error {
				return errors.Join(os.WriteFile(under(d, "copy"), []byte("1"), 0o600), os.Rename(under(d, "copy"), under(d, "journal")))
			},
			"/n1/journal was deleted, moved or replaced",
		},
		"the folder is deleted": {
			func(_ *testing.T, d *Folder) error { return os.RemoveAll(d.Path()) },
			"/n1 was deleted, moved or replaced",
		},
		"the folder above is moved": {
			func(_ *testing.T, d *Folder) error {
				return os.Rename(filepath.Dir(d.Path()), filepath.Dir(d.Path())+".old")
			},
			"/n1 was deleted, moved or replaced",
		},
		"another folder has its name": {
			func(t *testing.T, d *Folder) error {
				if err := os.Rename(d.Path(), d.Path()+".old"); err != nil {
					return err
				}
				return os.CopyFS(d.Path(), os.DirFS(d.Path()+".old"))
			},
			"/n1 was deleted, moved or replaced",
		},
		"the lock is deleted": {
			func(_ *testing.T, d *Folder) error { return os.Remove(under(d, lockName)) },
			"nothing keeps a second server out of the folder",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := OpenFolder(filepath.Join(t.TempDir(), "data", "n1"), Options{})
			require.NoError(t, err)
			defer d.Close()
			put(t, d, "journal", "0")
			put(t, d, "b", "2")
			j, err := Replace(d, "journal", []byte("1"))
			require.NoError(t, err)
			defer j.Close()
			require.NoError(t, d.Remove("b"))
			require.NoError(t, d.Check())

			require.NoError(t, c.lose(t, d))
			require.ErrorContains(t, d.Check(), c.want)
			if f, err := d.Open("journal"); err == nil {
				require.NoError(t, f.Close())
			}
			require.ErrorContains(t, d.Check(), c.want, "opening the file that has the name now must not hide the loss")
		})
	}
}

// A run under a seed tells the same on every system, so what a disk says must not
// come from the system.
func TestSimSaysTheSameOnEverySystem(t *testing.T) {
	d := NewSim("n1")
	d.Fill(0)
	f, err := d.Create("a")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, ": no space left on device")
	d.FailSync(1)
	err = f.Sync()
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, ": input/output error")
}
