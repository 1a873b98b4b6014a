package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// terminal is a program at a terminal at which the test types.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	screen buffer
}

// atTerminal starts the program of a stage at a new terminal.
func atTerminal(t *testing.T, stage, dir string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine has no free terminal: %v", err)
	}
	unlock, number := int32(0), uint32(0)
	ioctl(t, master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(t, master, syscall.TIOCGPTN, unsafe.Pointer(&number))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	defer slave.Close()

	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), stageVariable+"="+stage, "TERM=xterm", "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	cmd.Dir = dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	p := &terminal{t: t, cmd: cmd, master: master}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.screen.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		<-read
		master.Close()
	})
	return p
}

func ioctl(t *testing.T, f *os.File, request uintptr, argument unsafe.Pointer) {
	t.Helper()
	conn, err := f.SyscallConn()
	require.NoError(t, err)
	var errno syscall.Errno
	require.NoError(t, conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument))
	}))
	require.Zero(t, errno)
}

// shows waits for a text on the screen, and then forgets everything up to it.
func (p *terminal) shows(text string) {
	p.t.Helper()
	if !p.waitFor(text) {
		require.Fail(p.t, "the text did not appear on the screen", "%q is not in %q", text, p.screen.String())
	}
}

func (p *terminal) waitFor(text string) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if p.screen.forget(text) {
			return true
		}
	}
	return false
}

// forget removes everything up to a text and reports whether it was there.
func (b *buffer) forget(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, rest, found := strings.Cut(b.b.String(), text)
	if found {
		b.b.Reset()
		b.b.WriteString(rest)
	}
	return found
}

func (p *terminal) types(keys string) {
	p.t.Helper()
	_, err := p.master.WriteString(keys)
	require.NoError(p.t, err)
}

const (
	ctrlD   = "\x04"
	arrowUp = "\x1b[A"
)

func TestTheShellAtATerminal(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	dir := t.TempDir()
	p := atTerminal(t, "91-single", dir, "shell", "--endpoints", live)
	p.shows("help lists the commands, ^D ends the shell")
	p.shows("> ")
	p.types("put x \"1 2\"\r")
	p.shows("ok\r\n")
	p.types("get none\r")
	p.shows("error: the key has no value (not_found)\r\n")
	p.types("this will not be run\x03")
	p.shows("\r\n> ")
	p.types("ge\tx\r")
	p.shows("get x\r\n1 2\r\n")
	p.types(arrowUp + "y\r")
	p.shows("get xy\r\nerror: the key has no value")
	p.shows("> ")
	p.types(ctrlD)
	require.NoError(t, p.cmd.Wait(), "at a terminal, a failed line must not change the exit code of the shell")
	require.NotContains(t, p.screen.String(), "there is no command")

	p = atTerminal(t, "91-single", dir, "shell", "--endpoints", live)
	p.shows("> ")
	p.types(arrowUp + arrowUp + "\r")
	p.shows("\r\n1 2\r\n")
	p.types("st\t--o\t\r")
	p.shows("status --output")
	p.shows("error: ")
	p.types("\t")
	p.shows("get  put  create  append  cas  delete  list  status  kill  pause  resume  restart  help\r\n")
	p.types("quit\r")
	require.NoError(t, p.cmd.Wait())
	info, err := os.Stat(filepath.Join(dir, "state", "raftsteps", "history"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestInterruptEndsTheCommandAndNotTheShell(t *testing.T) {
	address, asked := deafServer(t)
	p := atTerminal(t, "91-single", t.TempDir(), "shell", "--endpoints", address, "--timeout", "1h")
	p.shows("> ")
	p.types("put x 1\r")
	<-asked
	p.types("\x03")
	p.shows("(unknown); read the key before you try again")
	p.shows("> ")
	p.types("exit\r")
	require.NoError(t, p.cmd.Wait())
}

func TestTheClusterAtATerminal(t *testing.T) {
	p := atTerminal(t, "92-cluster", t.TempDir(), "cluster", "--config", configFor(t, 2, 1), "--data", "data")
	p.shows("\x1b[36mn1 |\x1b[0m ")
	p.shows("^C stops all servers.")
	p.types("\x03")
	p.shows("\x1b[1m-- |\x1b[0m stopping 2 servers; ^C again to kill")
	require.NoError(t, p.cmd.Wait())
}

func TestNoColorIsRespected(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	p := atTerminal(t, "92-cluster", t.TempDir(), "cluster", "--config", configFor(t, 1, 1), "--data", "data")
	p.shows("n1 | ")
	p.shows("^C stops all servers.")
	require.NotContains(t, p.screen.String(), "\x1b[")
	p.types("\x03")
	require.NoError(t, p.cmd.Wait())
}

func TestADemoAtATerminalGivesTimeToRead(t *testing.T) {
	p := atTerminal(t, "91-single", t.TempDir(), "demo")
	p.shows("A story.")
	p.shows("\x1b[1mput x 1\x1b[0m")
	p.types("\x03")
	p.shows("The story was interrupted; its servers have stopped.")
	p.cmd.Wait()
	require.Equal(t, exitInterrupted, p.cmd.ProcessState.ExitCode())
	require.NotContains(t, p.screen.String(), "get x")
}
