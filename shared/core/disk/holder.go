package disk

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// WriteHolder writes into a locked file who has locked it: this process, and the
// user that it runs as. It is for a message to the next process, so it does not
// matter if the disk is too full to take it.
func WriteHolder(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), userName(os.Geteuid())), 0)
	}
}

// Holder says who has locked a file: "process 12 of alice (user 1000)", or as much
// of it as is known.
func Holder(f *os.File) string {
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, 200)) // what cannot be read is not known
	pid, name, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	switch {
	case pid == "":
		return "another process"
	case name == "":
		return "process " + pid
	}
	return "process " + pid + " of " + name
}
