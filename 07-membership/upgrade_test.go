package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/version"
	"example.com/raftsteps/shared/core/version/release"
	"example.com/raftsteps/shared/run/cluster"
)

// program is a program of this stage, of this release or of a later one.
type program struct {
	path string

	// can are the versions of the peers' protocol that it can use.
	can version.Range
}

// releases are this program, and the two releases after it: the next one can also use a
// newer version of the protocol, and the one after it none of the present ones.
type releases struct{ this, next, after program }

// buildReleases builds them. can are the versions that this program can use.
func buildReleases(t *testing.T, dir string) (r releases) {
	t.Helper()
	var g errgroup.Group
	build := func(p *program, name string, flags ...string) {
		p.path = filepath.Join(dir, name)
		args := append([]string{"build", "-o", p.path}, flags...)
		if *over == "grpc" {
			args = append(args, "-tags", "grpc")
		}
		g.Go(func() error {
			if out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput(); err != nil {
				return fmt.Errorf("go %v: %w: %s", args, err, out)
			}
			return nil
		})
	}
	build(&r.this, "this")
	build(&r.next, "next", "-overlay", release.Overlay(t, release.Next))
	build(&r.after, "after", "-overlay", release.Overlay(t, release.After))
	require.NoError(t, g.Wait())
	return r
}

// using returns the releases with the versions of a transport.
func (r releases) using(can version.Range) releases {
	r.this.can, r.next.can, r.after.can = can, release.Next(can), release.After(can)
	return r
}

// fleet are three servers, each with a program of its own.
type fleet struct {
	*processes
	load *load

	config   string
	protocol string
	servers  map[uint64]*running
}

// running is a server that is running.
type running struct {
	program
	cmd *exec.Cmd
	log *output
}

func newFleet(t *testing.T, transport, protocol string) *fleet {
	dir := t.TempDir()
	f := &fleet{processes: &processes{t: t, data: dir}, config: filepath.Join(dir, cluster.ConfigName), protocol: protocol, servers: make(map[uint64]*running)}
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(stage.Name, 3, ports.First(), 0)
	require.NoError(t, err)
	file.Config.Transport = transport
	for _, m := range file.Config.Members {
		f.endpoints = append(f.endpoints, m.Address)
	}
	require.NoError(t, file.Save(f.config))
	t.Cleanup(func() {
		for id, s := range f.servers {
			_ = s.cmd.Process.Kill() // it may have ended
			_ = s.cmd.Wait()
			if t.Failed() {
				t.Logf("n%d:\n%s", id, s.log)
			}
		}
	})
	return f
}

// start starts a server with a program, in the folder that it has.
func (f *fleet) start(id uint64, p program) {
	f.t.Helper()
	s := &running{program: p, log: &output{}}
	s.cmd = exec.Command(p.path, "node", "--config", f.config, "--id", fmt.Sprint(id), "--data", f.data)
	s.cmd.Stderr = s.log
	require.NoError(f.t, s.cmd.Start())
	f.servers[id] = s
	f.until(id, func(log string) bool { return strings.Contains(log, node.Name(id)+": listening") })
}

// until waits until the log of a server says something.
func (f *fleet) until(id uint64, said func(log string) bool) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return said(f.servers[id].log.String()) }, patient, 5*time.Millisecond, "the log of n%d", id)
}

// upgrade does what the page about deployment says: it transfers the leadership away,
// stops the server, and starts it with another program.
func (f *fleet) upgrade(id uint64, p program) {
	f.t.Helper()
	for next := id%3 + 1; f.leader() == id; {
		f.try("transfer", fmt.Sprint(next)) // it may have to be tried again
	}
	f.replace(id, p)
}

// replace stops a server and starts it with another program.
func (f *fleet) replace(id uint64, p program) {
	f.t.Helper()
	s := f.servers[id]
	require.NoError(f.t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(f.t, s.cmd.Wait(), s.log)
	f.start(id, p)
}

// row is a server in the output of status.
type row struct {
	ID        uint64
	Reachable bool
	Ready     bool
	Leader    uint64
}

// inTouch waits until servers are ready and follow one leader, and until each uses with
// each other one the newest version that both can use. Then the clients must go on.
func (f *fleet) inTouch(ids ...uint64) {
	f.t.Helper()
	var out string
	require.Eventually(f.t, func() bool {
		var rows []row
		_, out, _ = f.try("status", "-o", "json")
		if json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 3 {
			return false
		}
		var leader uint64
		for _, id := range ids {
			r := rows[id-1]
			if leader == 0 {
				leader = r.Leader
			}
			if r.ID != id || !r.Reachable || !r.Ready || r.Leader == 0 || r.Leader != leader {
				return false
			}
		}
		return true
	}, patient, 10*time.Millisecond, "%v in touch", ids)
	for _, a := range ids {
		for _, b := range ids {
			if a != b {
				f.speaks(a, b)
			}
		}
	}
	f.load.goesOn(fmt.Sprintf("all of %v are in touch", ids))
}

// connected is what a server logs of the version that it uses with a peer.
var connected = regexp.MustCompile(`connected to a peer peer=(\d+) .*version=(\d+)`)

// speaks waits until a server has said which version it uses with another one. It says
// nothing of the newest that it can use, unless another one was in use before.
func (f *fleet) speaks(a, b uint64) {
	f.t.Helper()
	own, want := f.servers[a].can.Newest, min(f.servers[a].can.Newest, f.servers[b].can.Newest)
	f.until(a, func(log string) bool {
		said := fmt.Sprint(own)
		for _, m := range connected.FindAllStringSubmatch(log, -1) {
			if m[1] == fmt.Sprint(b) {
				said = m[2]
			}
		}
		return said == fmt.Sprint(want)
	})
}

// refused waits until two servers have said why they do not talk to each other.
func (f *fleet) refused(a, b uint64) {
	f.t.Helper()
	for range 2 {
		f.until(a, func(string) bool { return f.saysRefused(a, b) > 0 && f.saysOwnRefusal(a, b) > 0 })
		a, b = b, a
	}
}

// once checks that two servers have said only once why they do not talk to each other.
// After another error, as on a busy machine, a server says again that it is refused.
func (f *fleet) once(a, b uint64) {
	f.t.Helper()
	for range 2 {
		require.Equal(f.t, 1, f.saysRefused(a, b), "n%d of n%d:\n%s", a, b, f.servers[a].log)
		require.LessOrEqual(f.t, f.saysOwnRefusal(a, b), 2, "n%d of n%d:\n%s", a, b, f.servers[a].log)
		a, b = b, a
	}
}

// saysRefused counts how often a has logged that it refuses b.
func (f *fleet) saysRefused(a, b uint64) int {
	return f.count(a, "a peer was refused", fmt.Sprintf("n%d uses %v of %s, this server %v: run programs on both that have a version in common", b, f.servers[b].can, f.protocol, f.servers[a].can))
}

// saysOwnRefusal counts how often a has logged that b refuses it.
func (f *fleet) saysOwnRefusal(a, b uint64) int {
	return f.count(a, "the peer refuses", fmt.Sprintf("peer=%d ", b), f.servers[a].can.String(), f.servers[b].can.String())
}

// count counts the lines of a log that have all of some texts.
func (f *fleet) count(id uint64, texts ...string) (n int) {
	for in := bufio.NewScanner(strings.NewReader(f.servers[id].log.String())); in.Scan(); {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(in.Text(), text)
		}
		if all {
			n++
		}
	}
	return n
}

// lonely waits until a server's own row of status says that it has no leader.
func (f *fleet) lonely(id uint64) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		var rows []row
		_, out, _ := f.try("status", "-o", "json")
		return json.Unmarshal([]byte(out), &rows) == nil && len(rows) == 3 && rows[id-1].Reachable && rows[id-1].Leader == 0 && !rows[id-1].Ready
	}, patient, 10*time.Millisecond, "n%d without a leader", id)
}

// One server after the other is upgraded from this release to the next, and from that
// to the one after it, while clients write; and one goes back. A server that skips a
// release is refused, and both sides say why.
func TestUpgrade(t *testing.T) {
	if !longtest.On() {
		t.Skip("only with RAFTSTEPS_LONG=1: it builds three programs, and takes half a minute")
	}
	all := buildReleases(t, t.TempDir())
	for _, c := range []struct {
		transport, protocol string
		can                 version.Range
	}{
		{"tcp", "the peers' protocol", release.TCP(t)},
		{"udp", "the protocol over UDP", release.UDP(t)},
		{"grpc", "the protocol over gRPC", release.GRPC(t)},
	} {
		if c.transport != *over && (*over != "" || c.transport == "grpc") {
			continue
		}
		t.Run(c.transport, func(t *testing.T) {
			t.Parallel()
			play(newFleet(t, c.transport, c.protocol), all.using(c.can))
		})
	}
}

// play is the story of TestUpgrade.
func play(f *fleet, r releases) {
	for id := range uint64(3) {
		f.start(id+1, r.this)
	}
	f.load = startLoad(f.t, f.endpoints)
	readers := startReaders(f.t, f.endpoints)
	f.inTouch(1, 2, 3)

	// n3 skips a release. The others go on without it, and it loses nothing.
	f.upgrade(3, r.after)
	f.refused(1, 3)
	f.refused(2, 3)
	f.lonely(3)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); { // they try again each second
		f.load.goesOn("a server was refused")
	}
	f.once(1, 3)
	f.once(2, 3)
	f.inTouch(1, 2)
	f.replace(3, r.this)
	f.inTouch(1, 2, 3)

	for id := range uint64(3) {
		f.upgrade(id+1, r.next)
		f.inTouch(1, 2, 3)
	}

	// The next release is bad, and n1 goes back. Then n2 gets the release after it: n1
	// and n2 do not talk to each other, but n3 to both.
	f.replace(1, r.this)
	f.inTouch(1, 2, 3)
	f.upgrade(2, r.after)
	f.refused(1, 2)
	f.speaks(2, 3)
	f.load.goesOn("three releases at once")

	f.replace(1, r.next)
	f.inTouch(1, 2, 3)
	f.upgrade(3, r.after)
	f.upgrade(1, r.after)
	f.inTouch(1, 2, 3)
	require.Contains(f.t, f.run("status", "--verify", "--timeout", "1m"), "n1, n2, n3 hold the same at index ")
	readers.judge()
	f.load.judge()
}
