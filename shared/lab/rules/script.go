package rules

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The scripts in testdata/scripts are stories: a claim, and then commands, each
// followed by what it causes. A line that begins with > is a command; so is one
// that begins with -, whose trace is not shown. A line that begins with # is for
// the reader. All others are written by this test:
//
//	n1 → n2  RequestVote, term 2: my log ends in 1@3   a message arrives
//	    n2 votes for n1 in term 2: … (§5.4.1)          a decision, and its section
//	    n2 saves term 2 and its vote for n1, sends RequestVoteReply to n1
//
// An entry is written term@index, then its command. What a server does with an
// output stands on one line, in the order in which it happens: what it sends
// before the word "saves" does not wait for its disk.
//
// The commands:
//
//	cluster 5 [batch=N]       servers n1 to n5, which know nothing yet; N bytes of commands an AppendEntries
//	given n1 1 1:x 4 term=5   n1 starts with this on its disk: entries of these terms, one with a command; its term
//	propose n1 x y            clients propose x, then y
//	deliver [messages]        the chosen messages arrive: those in flight now, not those that they cause
//	stabilize                 messages arrive until none is in flight
//	drop [messages]           the network loses them
//	duplicate [messages]      a copy of each is put after the others
//	delay [messages]          the network keeps them back
//	late [messages]           what was kept back arrives
//	forge n1->n2 after=1@3 commit=4   an AppendEntries without entries, in n1's term, that n1 would not send here
//	partition n1 n2 | n3      messages across the bar get lost; heal ends it
//	tick n1 20                20 units of time pass on n1; "tick all" on each server that is up
//	crash n1 n2               they lose what is not on their disks
//	powercut n1 1             in n1's next save the power fails after 1 record: the state, the truncation, each entry
//	restart n1 n2             they start with what is on their disks
//	backup n1                 a copy of its disk is kept
//	restore n1, wipe n1       n1 stops, and that copy, or an empty disk, replaces its disk
//	hold n1, release n1       inputs gather in between, and one save carries them all
//	status [n1 n2], log, network [messages]   show the servers, their logs, what is in flight
//	breaks NAME, …            says that the script breaks these invariants, and no others
//
// Messages are chosen by sender and receiver (n1->n2, n1->, ->n2), by type
// (RequestVote), and by place (first, last); all is the same as nothing.
// A stage has commands of its own: see stageCommand in its raft/harness_stage_test.go.

var update = flag.Bool("update", false, "write again what the scripts cause; commit it only if you understand each changed line")

// TestScripts plays the scripts of a stage.
func (g *Stage[R, E, M, S]) TestScripts(t *testing.T) {
	t.Helper()
	paths, err := filepath.Glob("testdata/scripts/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		t.Run(strings.ReplaceAll(name, "-", " "), func(t *testing.T) {
			t.Helper()
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			got := g.Play(t, path, string(want))
			if *update {
				require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got, "The trace of %s has changed. If that is meant, write it again with -update; commit it only if you understand each changed line.", path)
		})
	}
}

// Script is a script that is being played.
type Script[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	*Cluster[R, E, M, S]
	stage *Stage[R, E, M, S]

	// out is the text of the script as it should be.
	out strings.Builder

	// quiet is true while nothing is shown.
	quiet bool

	// late are messages that the network keeps back.
	late []M

	// breaks are the invariants that the script says it breaks, broke those that
	// it did.
	breaks, broke []string
}

// Play plays a script and returns it with what it causes. Failures name the script
// and the line.
func (g *Stage[R, E, M, S]) Play(t testing.TB, name, text string) string {
	t.Helper()
	s := &Script[R, E, M, S]{stage: g}
	claimed := false
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			s.out.WriteString(line + "\n")
			claimed = true
		case strings.HasPrefix(line, "> "), strings.HasPrefix(line, "- "):
			require.True(t, claimed, "%s:%d: a script begins with its claim, in a line that begins with #", name, i+1)
			s.out.WriteString(line + "\n")
			s.quiet = line[0] == '-'
			if err := s.command(strings.Fields(line[1:])); err != nil {
				t.Fatalf("%s:%d: %s: %v", name, i+1, line, err)
			}
		}
	}
	slices.Sort(s.breaks)
	slices.Sort(s.broke)
	require.Equal(t, s.breaks, s.broke, "%s: the invariants that the script breaks. The trace:\n%s", name, s.out.String())
	return s.out.String()
}

// Print writes a line of the trace.
func (s *Script[R, E, M, S]) Print(line string) {
	if !s.quiet {
		s.out.WriteString(line + "\n")
	}
}

// report notes a broken invariant, once.
func (s *Script[R, E, M, S]) report(name, format string, args ...any) {
	if !slices.Contains(s.broke, name) {
		s.broke, s.quiet = append(s.broke, name), false
		s.Print(fmt.Sprintf(Effect+"BROKEN %s: %s", name, fmt.Sprintf(format, args...)))
	}
}

// command carries out a line of the script.
func (s *Script[R, E, M, S]) command(words []string) error {
	if len(words) == 0 {
		return fmt.Errorf("there is no command")
	}
	name, args := words[0], words[1:]
	if name == "cluster" {
		return s.setUp(args)
	}
	if s.Cluster == nil {
		return fmt.Errorf("the first command must be cluster")
	}
	if name == "breaks" {
		for _, b := range strings.Split(strings.Join(args, " "), ",") {
			s.breaks = append(s.breaks, strings.TrimSpace(b))
		}
		return nil
	}
	for _, known := range []func(string, []string) (bool, error){s.world, s.serverCommand, s.messageCommand, s.show} {
		if done, err := known(name, args); done {
			return err
		}
	}
	return fmt.Errorf("there is no command %q", name)
}

// setUp makes the cluster.
func (s *Script[R, E, M, S]) setUp(args []string) error {
	n, err := strconv.Atoi(First(args))
	if err != nil {
		return fmt.Errorf("how many servers? %w", err)
	}
	s.Cluster = newCluster(s.stage, n)
	s.tell, s.Broken = s.Print, s.report
	for _, arg := range args[1:] {
		value, is := strings.CutPrefix(arg, "batch=")
		if !is {
			return fmt.Errorf("%s is not understood", arg)
		}
		if s.MaxBatch, err = strconv.Atoi(value); err != nil {
			return err
		}
	}
	for _, server := range s.Servers {
		s.Start(server)
	}
	return nil
}

// world has the commands about the network as a whole.
func (s *Script[R, E, M, S]) world(name string, args []string) (bool, error) {
	if len(args) > 0 && (name == "stabilize" || name == "heal") {
		return true, fmt.Errorf("%s is about all servers", name)
	}
	switch name {
	case "stabilize":
		s.Settle()
	case "partition":
		side, n := map[ID]int{}, 0
		for _, arg := range args {
			if arg == "|" {
				n++
				continue
			}
			server, err := s.Named(arg)
			if err != nil {
				return true, err
			}
			side[server.ID] = n
		}
		s.cut = func(from, to ID) bool { return side[from] != side[to] }
	case "heal":
		s.cut = func(ID, ID) bool { return false }
	case "forge":
		return true, s.forge(args)
	default:
		return false, nil
	}
	return true, nil
}

// forge puts an AppendEntries of our own making into the network.
func (s *Script[R, E, M, S]) forge(args []string) error {
	var from, to ID
	var m Append[E]
	if _, err := fmt.Sscanf(strings.Join(args, " "), "n%d->n%d after=%d@%d commit=%d", &from, &to, &m.Prev.Term, &m.Prev.Index, &m.Commit); err != nil {
		return err
	}
	head := Head{From: from, To: to, Term: s.Server(from).Raft.View().State.CurrentTerm}
	s.Network = append(s.Network, s.stage.Forge(head, m))
	return nil
}

// serverCommand has the commands about servers.
func (s *Script[R, E, M, S]) serverCommand(name string, args []string) (bool, error) {
	if do := s.eachServer(name); do != nil {
		for _, arg := range args {
			server, err := s.Named(arg)
			if err != nil {
				return true, err
			}
			do(server)
		}
		return true, nil
	}
	do := s.oneServer(name)
	if do == nil {
		if s.stage.Command == nil {
			return false, nil
		}
		return s.stage.Command(s, name, args)
	}
	if name == "tick" && First(args) == "all" {
		for _, server := range s.Servers {
			if err := do(server, args[1:]); err != nil {
				return true, err
			}
		}
		return true, nil
	}
	server, err := s.Named(First(args))
	if err != nil {
		return true, err
	}
	return true, do(server, args[1:])
}

// eachServer has the commands that take a list of servers.
func (s *Script[R, E, M, S]) eachServer(name string) func(*Server[R, E, M, S]) {
	switch name {
	case "crash":
		return s.Crash
	case "restart":
		return func(server *Server[R, E, M, S]) { s.Crash(server); s.Start(server) }
	case "backup":
		return func(server *Server[R, E, M, S]) {
			server.backup = server.Disk
			server.backup.Log = slices.Clone(server.Disk.Log)
		}
	case "restore":
		return func(server *Server[R, E, M, S]) { s.Crash(server); s.replaceDisk(server, server.backup) }
	case "wipe":
		return func(server *Server[R, E, M, S]) { s.Crash(server); s.replaceDisk(server, Disk[E]{}) }
	case "hold":
		return func(server *Server[R, E, M, S]) { server.Held = true }
	case "release":
		return func(server *Server[R, E, M, S]) { server.Held = false; s.flush(server) }
	}
	return nil
}

// oneServer has the commands that take a server and something else.
func (s *Script[R, E, M, S]) oneServer(name string) func(*Server[R, E, M, S], []string) error {
	switch name {
	case "given":
		return s.given
	case "propose":
		return func(server *Server[R, E, M, S], args []string) error {
			for _, command := range args {
				s.propose(server, command)
			}
			return nil
		}
	case "tick":
		return func(server *Server[R, E, M, S], args []string) error {
			n, err := strconv.Atoi(First(args))
			for range n {
				s.Input(server, R.Tick)
			}
			return err
		}
	case "powercut":
		return func(server *Server[R, E, M, S], args []string) (err error) {
			server.PowerFails, err = strconv.Atoi(First(args))
			return err
		}
	}
	return nil
}

// propose gives a server a command of a client.
func (s *Script[R, E, M, S]) propose(server *Server[R, E, M, S], command string) {
	s.Input(server, func(r R) {
		if err := r.ProposeCommand([]byte(command)); err != nil {
			s.Print(fmt.Sprintf(Effect+"%v does not take %s: %v", server.ID, command, err))
		}
	})
}

// given writes a server's disk and starts the server.
func (s *Script[R, E, M, S]) given(server *Server[R, E, M, S], args []string) error {
	var d Disk[E]
	for _, arg := range args {
		value, isTerm := strings.CutPrefix(arg, "term=")
		value, command, _ := strings.Cut(value, ":")
		term, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return err
		}
		d.State.CurrentTerm = max(d.State.CurrentTerm, term)
		if !isTerm {
			d.Log = append(d.Log, s.stage.NewEntry(Position{term, uint64(len(d.Log) + 1)}, []byte(command)))
		}
	}
	server.Disk = d
	s.Start(server)
	return nil
}

// messageCommand has the commands about chosen messages.
func (s *Script[R, E, M, S]) messageCommand(name string, args []string) (bool, error) {
	from := &s.Network
	if name == "late" {
		from = &s.late
	}
	if !slices.Contains([]string{"deliver", "drop", "duplicate", "delay", "late"}, name) {
		return false, nil
	}
	chosen, rest, err := choose[E](*from, args)
	if err != nil {
		return true, err
	}
	if name != "duplicate" {
		*from = rest
	}
	for _, m := range chosen {
		switch name {
		case "deliver", "late":
			s.Arrive(m)
		case "drop":
			s.Print(Describe[E](m) + " is lost")
		case "duplicate":
			s.Network = append(s.Network, m)
		case "delay":
			s.late = append(s.late, m)
		}
	}
	return true, nil
}

// choose splits messages into those that the words choose, and the others.
func choose[E any, M Message[E]](messages []M, words []string) (chosen, rest []M, err error) {
	var which, kind, from, to string
	for _, word := range words {
		a, b, arrow := strings.Cut(word, "->")
		switch {
		case arrow:
			from, to = a, b
		case word == "first", word == "last":
			which = word
		case word != "all":
			kind = word
		}
	}
	var places []int
	for i, m := range messages {
		h := m.Head()
		if (from == "" || h.From.String() == from) && (to == "" || h.To.String() == to) && (kind == "" || h.Kind() == kind) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return nil, nil, fmt.Errorf("no such message is in flight")
	}
	switch which {
	case "first":
		places = places[:1]
	case "last":
		places = places[len(places)-1:]
	}
	for i, m := range messages {
		if slices.Contains(places, i) {
			chosen = append(chosen, m)
		} else {
			rest = append(rest, m)
		}
	}
	return chosen, rest, nil
}

// show has the commands that change nothing.
func (s *Script[R, E, M, S]) show(name string, args []string) (bool, error) {
	switch name {
	case "status":
		for _, server := range s.Servers {
			if len(args) == 0 || slices.Contains(args, server.ID.String()) {
				s.Print(Effect + server.statusWords())
			}
		}
	case "log":
		for _, server := range s.Servers {
			s.Print(Effect + server.logWords())
		}
	case "network":
		chosen, _, err := choose[E](s.Network, args)
		if err != nil {
			s.Print(Effect + err.Error())
		}
		for _, m := range chosen {
			s.Print(Describe[E](m))
		}
	default:
		return false, nil
	}
	return true, nil
}

func (s *Server[R, E, M, S]) statusWords() string {
	v, up := s.view()
	if !up {
		return fmt.Sprintf("%v  is down; its disk has %v, log ends in %v", s.ID, s.Disk.State, s.Disk.Last())
	}
	of, snapshot := "", ""
	if v.Role == "follower" && v.Leader != 0 {
		of = " of " + v.Leader.String()
	}
	if v.Snapshot.Index > 0 {
		snapshot = fmt.Sprintf(", snapshot up to %v", v.Snapshot)
	}
	return fmt.Sprintf("%v  %s%s, %v, log ends in %v, commit %d%s", s.ID, v.Role, of, v.State, v.Last, v.Commit, snapshot)
}

// logWords shows a log as the figures of the paper do: the terms of the entries.
// A bar follows the last that the server knows to be committed.
func (s *Server[R, E, M, S]) logWords() string {
	v, _ := s.view()
	words := []string{s.ID.String() + " "}
	if s.Disk.Base.Index > 0 {
		words = append(words, fmt.Sprintf("…%v", s.Disk.Base))
	}
	for _, e := range s.Disk.Log {
		at := e.Place()
		if at.Index == v.Commit+1 {
			words = append(words, "|")
		}
		word := fmt.Sprint(at.Term)
		if command := e.Payload(); len(command) > 0 {
			word += ":" + string(command)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// Named returns a server by its name.
func (s *Script[R, E, M, S]) Named(name string) (*Server[R, E, M, S], error) {
	for _, server := range s.Servers {
		if server.ID.String() == name {
			return server, nil
		}
	}
	return nil, fmt.Errorf("there is no server %q", name)
}

// First returns the first argument, or nothing.
func First(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
