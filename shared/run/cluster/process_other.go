//go:build !unix

package cluster

import (
	"errors"
	"os"
	"os/exec"
)

// isolate does nothing: this system has no process groups.
func isolate(*exec.Cmd) {}

// terminate does nothing: the end of its standard input tells a server to stop.
func terminate(*os.Process) {}

var errNoSignals = errors.New("this system has no signal that pauses a process")

func pauseProcess(*os.Process) error  { return errNoSignals }
func resumeProcess(*os.Process) error { return errNoSignals }
