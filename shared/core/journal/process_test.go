package journal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

// killTestFolder is the environment variable that holds the folder for the
// process that is killed, which runs the same test.
const killTestFolder = "JOURNAL_TEST_FOLDER"

// A process on a real disk is killed in the middle of its rounds, three times.
// Everything that it reported as saved must be there.
func TestKilledProcessOnARealDisk(t *testing.T) {
	if path := os.Getenv(killTestFolder); path != "" {
		saveForever(t, path)
	}
	path := t.TempDir()
	for range 3 {
		said := killWhileSaving(t, path)
		d, err := disk.OpenFolder(path, disk.Options{})
		require.NoError(t, err, "the lock must end with its process")
		j, r := open(t, d)
		require.GreaterOrEqual(t, uint64(len(r.Entries)), said)
		for i, e := range r.Entries {
			require.Equal(t, fmt.Sprint(i+1), string(e.Command))
		}
		require.NoError(t, j.Close())
		require.NoError(t, d.Close())
	}
}

// saveForever saves rounds and prints after each round how much is saved.
func saveForever(t *testing.T, path string) {
	d, err := disk.OpenFolder(path, disk.Options{})
	require.NoError(t, err)
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	for {
		for range 1 + j.LastIndex()%7 {
			next := j.LastIndex() + 1
			j.Append(Entry{Index: next, Term: 1, Command: fmt.Append(nil, next)})
		}
		require.NoError(t, j.Sync())
		fmt.Println("saved", j.LastIndex())
	}
}

// killWhileSaving starts a process that runs saveForever, kills it after some
// rounds, and returns the last number that it printed.
func killWhileSaving(t *testing.T, path string) uint64 {
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledProcessOnARealDisk$")
	c.Env = append(os.Environ(), killTestFolder+"="+path)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	var said uint64
	lines := bufio.NewScanner(out)
	for rounds := 0; lines.Scan(); rounds++ {
		number, ok := strings.CutPrefix(lines.Text(), "saved ")
		require.True(t, ok, lines.Text())
		said, err = strconv.ParseUint(number, 10, 64)
		require.NoError(t, err)
		if rounds == 20 {
			require.NoError(t, c.Process.Kill())
		}
	}
	require.Error(t, c.Wait(), "the process must have been killed")
	require.Positive(t, said)
	return said
}
