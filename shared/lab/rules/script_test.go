package rules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// scripted is a stage whose servers do nothing but tell what they are given.
var scripted = &Stage[*puppet, entry, message, struct{}]{
	New: func(_ *Cluster[*puppet, entry, message, struct{}], s *Server[*puppet, entry, message, struct{}]) *puppet {
		p := &puppet{match: map[ID]uint64{}, next: map[ID]uint64{}, log: s.Disk.Log}
		p.view = View{ID: s.ID, State: s.Disk.State, Last: lastOf(s.Disk.Log)}
		return p
	},
	NewEntry: func(at Position, command []byte) entry { return entry{at, string(command)} },
	Command: func(s *Script[*puppet, entry, message, struct{}], name string, _ []string) (bool, error) {
		if name == "betray" {
			s.Broken(ElectionSafety, "n1 and n2 lead")
		}
		return name == "betray", nil
	},
}

// TestPlayedByAnother plays the scripts in the working directory. It is for
// TestWrongScriptsFail, which runs it in another process.
func TestPlayedByAnother(t *testing.T) {
	if os.Getenv("RULES_SCRIPTS") == "" {
		t.Skip("it needs RULES_SCRIPTS=1 and scripts in testdata/scripts")
	}
	scripted.TestScripts(t)
}

// A script that is right passes. One that expects another trace, or that says nothing
// or something wrong about the invariants that it breaks, fails, and so does one with
// a command that is not understood.
func TestWrongScriptsFail(t *testing.T) {
	const head, right = "# A claim.\n- cluster 2\n", "- given n1 1:x term=1\n> log\n    n1  | 1:x\n    n2 \n"
	betrayed := "- betray\n" + fmt.Sprintf(Effect+"BROKEN %s: n1 and n2 lead\n", ElectionSafety)
	for _, c := range []struct{ script, says string }{
		{head + right, ""},
		{head + "- breaks " + ElectionSafety + "\n" + betrayed, ""},
		{head + "- given n1 1:x term=1\n> log\n    n1  | 1:y\n    n2 \n", "The trace of testdata/scripts/a-script.txt has changed"},
		{head + "- given n1 1:x term=1\n> log\n", "The trace of testdata/scripts/a-script.txt has changed"},
		{head + betrayed, "the invariants that the script breaks"},
		{head + "- breaks " + ElectionSafety + "\n" + right, "the invariants that the script breaks"},
		{head + "- breaks " + LogMatching + "\n" + betrayed, "the invariants that the script breaks"},
		{head + "> jump n1\n", `a-script.txt:3: > jump n1: there is no command "jump"`},
		{head + "> crash n3\n", "a-script.txt:3: > crash n3"},
		{"> cluster 2\n", "a script begins with its claim"},
		{"# A claim.\n> log\n", "the first command must be cluster"},
	} {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "testdata", "scripts"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "testdata", "scripts", "a-script.txt"), []byte(c.script), 0o644))
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(self, "-test.run=^TestPlayedByAnother$")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "RULES_SCRIPTS=1")
		out, err := cmd.CombinedOutput()
		if c.says == "" {
			require.NoError(t, err, "%s\n%s", c.script, out)
			continue
		}
		require.Error(t, err, "it passes:\n%s", c.script)
		require.Contains(t, string(out), c.says, c.script)
	}
}
