package journal

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/longtest"
)

// seeds is the number of random outcomes of each crash that are tested.
const seeds = 6

// stride is the step from one place to the next in the exhaustive tests. Long tests
// try every place, except with the race detector, which makes them ten times
// slower and can find nothing in code with one goroutine.
var stride = func() int {
	if race {
		return 5
	}
	return longtest.Pick(5, 1)
}()

// The power is cut at every disk operation of a server's life, with several
// random outcomes each time. The journal must hold everything that was synced and
// a prefix of the rest, and Open must never refuse it.
func TestPowerCutAtEveryOperation(t *testing.T) {
	cutOff, kept, torn := 0, 0, 0
	for script := range uint64(5) {
		ops := operations(t, script)
		for at := 0; at < ops; at += stride {
			for seed := range uint64(seeds) {
				r := newLife(t, script)
				r.d.CutPower(at + 1)
				require.ErrorIs(t, r.live(), disk.ErrPowerCut)
				r.d.Crash(rand.New(rand.NewPCG(seed, 1)))
				torn += r.d.Stats().Torn

				before, certain := r.d.Clone(), len(r.certain.Entries)
				_, rec, err := Open(r.d, "journal", header)
				require.NoError(t, err)
				got := r.expect(rec)
				if rec.Torn != "" {
					cutOff++
				}
				if len(got.Entries) > certain {
					kept++
				}
				powerCutInRecovery(t, r, before, seed)
				r.goOn(got)
			}
		}
	}
	// The test proves nothing unless these cases have occurred.
	require.Greater(t, torn, 10/stride, "writes torn apart")
	require.Greater(t, cutOff, 5/stride, "lines cut off")
	require.Greater(t, kept, 20/stride, "records kept that had not been reported as saved")
	t.Logf("%d writes torn apart, %d times lines cut off, %d times more kept than promised", torn, cutOff, kept)
}

// The power is cut while a round is being synced, and any of its sectors or any
// prefix of it may be on the disk. This is the most important crash, so the test
// has many random outcomes of it.
func TestPowerCutInTheMiddleOfARound(t *testing.T) {
	cutOff, behind := 0, 0
	for script := range uint64(20) {
		r := newLife(t, script)
		for _, step := range []func() error{r.open, r.round, r.round, r.rewrite, r.round} {
			require.NoError(t, step())
		}
		r.d.CutPower(2)
		if r.round() == nil {
			continue // the round was empty
		}
		for seed := range uint64(200 / stride) {
			again := *r
			again.d = r.d.Clone()
			again.d.Crash(rand.New(rand.NewPCG(seed, 4)))
			rest := bytes.TrimRight(fileOf(t, again.d), "\t\x00")
			_, rec, err := Open(again.d, "journal", header)
			require.NoError(t, err)
			again.expect(rec)
			if rec.Torn != "" {
				cutOff++
				if bytes.Contains(rest[len(rest)-rec.TornBytes:], []byte("}\n")) {
					behind++
				}
			}
		}
	}
	require.Greater(t, cutOff, 1000/stride, "rounds cut off")
	require.Greater(t, behind, 150/stride, "rounds cut off although whole lines follow")
}

// powerCutInRecovery cuts the power again at every operation of Open.
func powerCutInRecovery(t *testing.T, r *life, before *disk.Sim, seed uint64) {
	for at := 1; ; at++ {
		again := *r
		again.d = before.Clone()
		again.d.CutPower(at)
		_, _, err := Open(again.d, "journal", header)
		if err == nil {
			return
		}
		require.ErrorIs(t, err, disk.ErrPowerCut)
		again.d.Crash(rand.New(rand.NewPCG(seed, 2)))
		_, rec, err := Open(again.d, "journal", header)
		require.NoError(t, err)
		again.expect(rec)
	}
}

// goOn checks that what Open returned is on the disk, and that a server can
// continue from there.
func (r *life) goOn(shown content) {
	r.t.Helper()
	r.certain, r.after = shown, nil
	for range 2 {
		r.d.CrashWorst()
		require.NoError(r.t, r.open())
		require.NoError(r.t, r.round())
		require.NoError(r.t, r.round())
	}
	r.d.CrashWorst()
	_, rec := open(r.t, r.d)
	require.Empty(r.t, rec.Torn, "no round was being written")
	r.expect(rec)
}

// The process is killed at every disk operation, and the machine keeps running.
// The next process reads data that is only in memory; when Open has returned this
// data, it must be on the disk.
func TestKillAtEveryOperationThenPowerCut(t *testing.T) {
	for script := range uint64(10) {
		ops := operations(t, script)
		for at := 0; at < ops; at += stride {
			r := newLife(t, script)
			n, killed := 0, syscall.EINTR
			r.d.Hook = func(disk.Op) error {
				if n++; n > at {
					return killed
				}
				return nil
			}
			require.ErrorIs(t, r.live(), killed)
			r.d.Hook = nil
			r.d.Kill()
			require.NoError(t, r.open())
			r.goOn(r.certain)
		}
	}
}

// Each sync fails in turn. The journal must not save anything afterwards. The
// next process can read the lost data, and must not take it for saved.
func TestFailedSyncAtEverySync(t *testing.T) {
	for script := range uint64(10) {
		for nth := 1; ; nth += stride {
			r := newLife(t, script)
			r.d.FailSync(nth)
			err := r.live()
			if err == nil {
				break
			}
			require.ErrorIs(t, err, syscall.EIO)
			if r.j != nil && r.j.Err() != nil {
				requireStopped(t, r)
			}
			r.d.FailSync(0)
			lost := *r
			lost.d = r.d.Clone()

			// The machine keeps running.
			r.d.Kill()
			require.NoError(t, r.open())
			r.goOn(r.certain)

			// The machine is switched off.
			lost.d.CrashWorst()
			require.NoError(t, lost.open())
			lost.goOn(lost.certain)
		}
	}
}

// requireStopped checks that a failed journal saves nothing more.
func requireStopped(t *testing.T, r *life) {
	t.Helper()
	want, before := r.j.Err(), r.d.Stats()
	require.ErrorContains(t, want, "nothing since the last sync that succeeded may be trusted")
	r.j.SetState(State{Term: 1000})
	r.j.Append(Entry{Index: r.j.LastIndex() + 1, Term: 1000})
	r.j.Truncate(1)
	require.Equal(t, want, r.j.Sync())
	require.Equal(t, want, r.j.Rewrite(State{Term: 1000}, Base{}, nil))
	require.Equal(t, want, r.j.Err())
	after := r.d.Stats()
	require.Equal(t, before, after, "a failed journal must write nothing")
	r.j.Close()
	require.Equal(t, before, r.d.Stats(), "Close must write nothing either")
}

// The disk becomes full at every byte.
func TestFullDiskAtEveryByte(t *testing.T) {
	small := func(r *life) error {
		for _, changes := range [][]change{
			{setState(State{Term: 1, Vote: 2}), add(Entry{Index: 1, Term: 1, Kind: "noop"})},
			{add(Entry{Index: 2, Term: 1, Command: []byte(`"x"`)})},
			{truncate(2), setState(State{Term: 2}), add(Entry{Index: 2, Term: 2, Command: []byte(`"y"`)})},
		} {
			c := r.certain.clone()
			r.after = nil
			for _, ch := range changes {
				ch.write(r.j)
				ch.expect(&c)
				r.after = append(r.after, c.clone())
			}
			if err := r.j.Sync(); err != nil {
				return err
			}
			r.certain, r.after = c, nil
		}
		return r.rewrite()
	}
	// The first round needs space for a whole step of the file's growth, so sizes
	// of room between make no difference and are skipped.
	for room := int64(0); ; room += int64(stride) {
		if room == int64(600/stride*stride) {
			room = 2*minStep - 1200
		}
		r := newLife(t, 1)
		require.NoError(t, r.open())
		r.d.Fill(room)
		err := small(r)
		if err == nil {
			require.Greater(t, room, int64(minStep))
			return
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		requireStopped(t, r)

		full := *r
		for _, power := range []bool{true, false} {
			r := full
			r.d = full.d.Clone()
			if power {
				r.d.Crash(rand.New(rand.NewPCG(uint64(room), 3)))
			} else {
				r.d.Kill()
			}
			r.d.Fill(0)
			if err := r.open(); err != nil {
				// Only a line break was missing, and there is no space for it.
				require.ErrorIs(t, err, syscall.ENOSPC)
				r.d.Kill()
				r.d.Fill(-1)
				require.NoError(t, r.open())
			}
			r.d.Fill(-1)
			r.goOn(r.certain)
		}
	}
}

// An empty journal was created and renamed, but the process died before it synced
// the folder. The next process must not rely on a name that is not on the disk.
func TestRenameThatWasNotSynced(t *testing.T) {
	d := disk.NewSim("n2")
	d.Hook = func(op disk.Op) error {
		if op.Kind == disk.OpSyncFolder {
			return syscall.EINTR
		}
		return nil
	}
	_, _, err := Open(d, "journal", header)
	require.ErrorIs(t, err, syscall.EINTR)
	d.Hook = nil
	d.Kill()

	j, _ := open(t, d)
	j.SetState(State{Term: 3, Vote: 1})
	require.NoError(t, j.Sync())
	d.CrashWorst()
	_, rec := open(t, d)
	require.Equal(t, State{Term: 3, Vote: 1}, rec.State)
}

// The new journal was renamed over the old one, and the crash undoes the rename.
func TestRenameThatIsLost(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	j.Append(Entry{Index: 1, Term: 1, Kind: "noop"})
	require.NoError(t, j.Sync())
	d.Hook = func(op disk.Op) error {
		if op.Kind == disk.OpSyncFolder {
			return syscall.EIO
		}
		return nil
	}
	require.ErrorIs(t, j.Rewrite(State{Term: 1}, Base{Index: 1, Term: 1}, nil), syscall.EIO)
	require.ErrorIs(t, j.Sync(), syscall.EIO)
	d.Hook = nil
	d.CrashWorst()
	_, rec := open(t, d)
	require.Equal(t, Base{}, rec.Base)
	require.Len(t, rec.Entries, 1)
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{"journal", "journal.length"}, names, "Open must remove the files that the crash has left")
}

// The round after a torn line must begin where the good lines end. After the torn
// line it could not be read.
func TestRoundAfterTornLineCanBeRead(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	j.Append(Entry{Index: 1, Term: 1, Kind: "noop"})
	require.NoError(t, j.Sync())
	require.NoError(t, j.Close())
	text := fileOf(t, d)
	for cut := range len(text) - len(appendHeader(nil, header, 1, 0)) {
		d := onDisk(t, text[:len(text)-cut])
		j, _ := open(t, d)
		j.SetState(State{Term: 2, Vote: 3})
		require.NoError(t, j.Sync())
		d.CrashWorst()
		_, rec := open(t, d)
		require.Equal(t, State{Term: 2, Vote: 3}, rec.State)
		require.Empty(t, rec.Torn)
	}
}
