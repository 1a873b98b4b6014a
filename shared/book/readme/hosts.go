package readme

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Host is a machine on which commands of a page are typed. It has a network of its own,
// with the interface eth0, and a folder of its own. Its processes are those of the real
// machine.
type Host struct {
	// Name is how the page calls it, as in "# on kv1".
	Name string

	// Address is its address with the length of the prefix, such as 10.0.0.1/24.
	Address string

	// Repository is true if its current folder is the copy of the repository, and not
	// an empty folder.
	Repository bool

	// Next is a file for go build -overlay, with which the next release of the stages is
	// built: after "git pull" on this machine, go build builds that one. "" if there is
	// no other release.
	Next string
}

// TestHosts is Test for a page whose commands are typed on several machines. Each
// machine is a network namespace of Linux; a bridge connects them. That needs the
// programs unshare, nsenter and ip, and the permission to create a user namespace,
// but no root. The ports are the documented ones, since no other program can have them.
func TestHosts(t *testing.T, file string, hosts ...Host) {
	t.Helper()
	shell := shellFor(t)
	r := &runner{file: file, shell: shell, most: *most, closing: 10 * time.Second, update: *update, labels: true, hosts: hosts}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// hostOf returns the name of the machine in a block's first line, or "".
func hostOf(terminal string) string {
	if m := onHost.FindStringSubmatch(terminal); m != nil {
		return m[1]
	}
	return ""
}

// onHosts refuses a block that names no machine of the page.
func onHosts(blocks []block, hosts []Host) error {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	for _, b := range blocks {
		name := hostOf(b.terminal)
		switch {
		case hosts == nil && name != "":
			return fmt.Errorf("line %d: %q names a machine, and this README has only one", b.line, b.terminal)
		case hosts != nil && !slices.Contains(names, name):
			return fmt.Errorf("line %d: the block does not say on which machine it is typed; begin it with \"# on NAME\", where NAME is one of %s", b.line, strings.Join(names, ", "))
		}
	}
	return nil
}

// network is a bridge, and a namespace for each machine.
type network struct {
	bridge *namespace
	hosts  map[string]*namespace
}

// namespace is kept alive by a process that ends when its input does, and so also
// when this process ends.
type namespace struct {
	cmd *exec.Cmd
	end io.Closer
}

// hold starts a process in a new namespace; command creates the namespace.
func hold(command ...string) (*namespace, error) {
	n := &namespace{cmd: exec.Command(command[0], append(command[1:], "sh", "-c", "echo ready; exec cat")...)}
	in, err := n.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	n.end = in
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var problem strings.Builder
	n.cmd.Stderr = &problem
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("a page about several machines needs the program %s: %w", command[0], err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		err := n.close()
		return nil, fmt.Errorf("%s: %w: %s; a page about several machines needs user and network namespaces", strings.Join(command, " "), errors.Join(err, errors.New("no namespace")), strings.TrimSpace(problem.String()))
	}
	return n, nil
}

func (n *namespace) close() error {
	n.end.Close()
	return n.cmd.Wait()
}

// in is the beginning of a command that runs in the namespace.
func (n *namespace) in() []string {
	return []string{"nsenter", "--target", strconv.Itoa(n.cmd.Process.Pid), "--user", "--preserve-credentials", "--net", "--"}
}

// run runs commands of ip in the namespace.
func (n *namespace) run(commands ...string) error {
	for _, c := range commands {
		words := append(n.in(), append([]string{"ip"}, strings.Fields(c)...)...)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}

// connect creates the machines and the network between them.
func (w *world) connect(hosts []Host) (err error) {
	if hosts == nil {
		return nil
	}
	w.network = &network{hosts: make(map[string]*namespace)}
	w.Folders = make(map[string]string)
	if w.network.bridge, err = hold("unshare", "--user", "--map-root-user", "--net"); err != nil {
		return err
	}
	bridge := w.network.bridge
	if err := bridge.run("link add name bridge type bridge", "link set bridge up"); err != nil {
		return err
	}
	for _, h := range hosts {
		n, err := hold(append(bridge.in(), "unshare", "--net")...)
		if err != nil {
			return err
		}
		w.network.hosts[h.Name] = n
		if err := errors.Join(
			bridge.run(fmt.Sprintf("link add name %s type veth peer name eth0 netns %d", h.Name, n.cmd.Process.Pid),
				"link set "+h.Name+" master bridge up"),
			n.run("address add "+h.Address+" dev eth0", "link set eth0 up", "link set lo up"),
		); err != nil {
			return err
		}
		w.Folders[h.Name] = filepath.Join(w.dir, "hosts", h.Name)
		if h.Repository {
			w.Folders[h.Name] = w.current()
		}
		if err := os.MkdirAll(w.Folders[h.Name], 0o755); err != nil {
			return err
		}
	}
	return nil
}

// close ends the network. It must be the last one to use it: the processes of a
// namespace keep it alive.
func (n *network) close() error {
	if n == nil {
		return nil
	}
	var all error
	for _, h := range n.hosts {
		all = errors.Join(all, h.close())
	}
	if n.bridge != nil {
		all = errors.Join(all, n.bridge.close())
	}
	return all
}

// enter returns the beginning of the command of a terminal's shell, and its folder.
func (w *world) enter(terminal string) (command []string, dir string, err error) {
	if w.network == nil {
		return nil, w.current(), nil
	}
	name := hostOf(terminal)
	n := w.network.hosts[name]
	if n == nil {
		return nil, "", fmt.Errorf("there is no machine %q", name)
	}
	return n.in(), w.Folders[name], nil
}

// playGit implements git, as far as pages use it: git pull [--quiet].
func playGit(args []string) int {
	if len(args) == 0 || args[0] != "pull" || len(args) > 2 || len(args) == 2 && args[1] != "--quiet" {
		fmt.Fprintln(os.Stderr, "git: this stand-in takes pull [--quiet]")
		return 2
	}
	w, err := readWorld()
	if err == nil && w.Next == "" {
		err = errors.New("there is no other release")
	}
	if err == nil {
		err = os.WriteFile(w.Pulled, nil, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "git:", err)
		return 1
	}
	return 0
}

// playSCP implements scp, as far as pages use it: scp FILE... HOST:[PATH]. It copies
// into the folder of that machine, whether or not the network reaches it.
func playSCP(args []string) int {
	if err := copyTo(args); err != nil {
		fmt.Fprintln(os.Stderr, "scp:", err)
		return 1
	}
	return 0
}

func copyTo(args []string) error {
	if len(args) < 2 {
		return errors.New("this stand-in takes FILE... HOST:[PATH]")
	}
	w, err := readWorld()
	if err != nil {
		return err
	}
	files, to := args[:len(args)-1], args[len(args)-1]
	name, path, ok := strings.Cut(to, ":")
	dir := w.Folders[name]
	if !ok || dir == "" {
		return fmt.Errorf("%s: there is no machine of this name", to)
	}
	target := filepath.Join(dir, path)
	info, err := os.Stat(target)
	into := err == nil && info.IsDir()
	if !into && len(files) > 1 {
		return fmt.Errorf("%s: is not a folder", to)
	}
	for _, f := range files {
		at := target
		if into {
			at = filepath.Join(target, filepath.Base(f))
		}
		if _, err := os.Stat(f); err != nil {
			return err
		}
		if err := copyFile(f, at); err != nil {
			return err
		}
	}
	return nil
}
