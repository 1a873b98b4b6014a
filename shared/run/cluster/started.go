package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/node"
)

// journalName is the file that a server with data has.
const journalName = "journal"

// CheckStarted refuses a server that had data in a data folder and now has none
// there: with an empty folder, it would not keep its promises. changes is true if
// the members of the cluster can change.
func CheckStarted(dir string, id uint64, changes bool) error {
	started, err := readStarted(dir)
	if err != nil || !slices.Contains(started, node.Name(id)) {
		return err
	}
	journal := filepath.Join(dir, node.Name(id), journalName)
	if _, err := os.Stat(journal); !errors.Is(err, fs.ErrNotExist) {
		return nil // the server reports what is wrong with it
	}
	return fmt.Errorf("%s has lost its data: there is no %s any longer; %s", node.Name(id), journal, node.DiskAdvice(id, changes))
}

// NoteStarted records that a server has data in a data folder.
func NoteStarted(dir string, id uint64) error {
	started, err := readStarted(dir)
	if err != nil || slices.Contains(started, node.Name(id)) {
		return err
	}
	// Servers may start concurrently, so each line is appended with one write.
	f, err := os.OpenFile(filepath.Join(dir, startedName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(node.Name(id) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// readStarted returns the names of the servers that have had data in a folder.
func readStarted(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, startedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// forgetStarted undoes NoteStarted.
func forgetStarted(dir string, id uint64) error {
	started, err := readStarted(dir)
	if err != nil || !slices.Contains(started, node.Name(id)) {
		return err
	}
	rest := slices.DeleteFunc(started, func(name string) bool { return name == node.Name(id) })
	text := ""
	for _, name := range rest {
		text += name + "\n"
	}
	return writeFile(filepath.Join(dir, startedName), []byte(text))
}
