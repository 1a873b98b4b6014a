package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/source"
)

// compiler is a stand-in for the command go: the program that it builds is an engine
// that repeats questions.
const compiler = `#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
cat > "$out" <<'END'
#!/bin/sh
echo $$ >> LOG
while read -r line; do
	case "$line" in
	*crash*) echo "out of memory" >&2; exit 2 ;;
	*refuse*) echo '{"error":"the script is empty"}' ;;
	*) echo "[$line,\"$*\"]" ;;
	esac
done
END
chmod +x "$out"
`

// otherEngines returns the engines of a lab in a source tree with other stages, and
// a function that returns the IDs of the processes that were started.
func otherEngines(t *testing.T) (*labEngines, func() []int) {
	t.Helper()
	root, bin := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	files := map[string]string{"go.work": "", "shared/go.mod": "", "shared/book/edits/harm.json": `{"about": "It does harm.", "unchecked": ["I10"], "changes": [{"file": "raft/a.go", "old": "a < b", "new": "a > b"}], "films": {"92-cluster": {"seed": 4, "story": "missed-message"}, "81-other": {"seed": 1}}}`}
	for i := range maxEngines + 1 {
		stage := fmt.Sprintf("8%d-other", i)
		files[stage+"/main.go"], files[stage+"/scenarios.go"], files[stage+"/raft/a.go"] = "", "", "a < b"
	}
	files["92-cluster/main.go"], files["92-cluster/scenarios.go"], files["92-cluster/raft/a.go"] = "", "", "a < b"
	for name, text := range files {
		name = filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o700))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(bin, "go"), []byte(strings.Replace(compiler, "LOG", log, 1)), 0o700))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	e := newLabEngines(t.Context(), scenario.Stage{Name: "92-cluster"})
	e.where = filepath.Join(root, "shared")
	t.Cleanup(e.close)
	return e, func() (ids []int) {
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		for _, word := range strings.Fields(string(text)) {
			var id int
			_, err := fmt.Sscan(word, &id)
			require.NoError(t, err)
			ids = append(ids, id)
		}
		return ids
	}
}

// gone waits until a process does not exist.
func gone(t *testing.T, id int) {
	t.Helper()
	require.Eventually(t, func() bool { return syscall.Kill(id, 0) == syscall.ESRCH }, time.Minute, time.Millisecond)
}

func TestAnotherStagesEngineIsBuiltOnceAndKept(t *testing.T) {
	e, started := otherEngines(t)
	for _, question := range []string{"1", "2"} {
		text, err := e.answer("81-other", nil, []byte(question))
		require.NoError(t, err)
		require.Equal(t, `[`+question+`,"lab --engine"]`, string(text))
	}
	_, err := e.answer("81-other", nil, []byte(`"refuse"`))
	require.EqualError(t, err, "the script is empty")
	require.Len(t, started(), 1)

	text, err := e.answer("81-other", []string{"harm"}, []byte("3"))
	require.NoError(t, err)
	require.Equal(t, `[3,"lab --engine --edit harm --unchecked I10"]`, string(text))
	require.Len(t, started(), 2)

	e.close()
	for _, id := range started() {
		gone(t, id)
	}
}

func TestAnEngineThatEndedStartsAgain(t *testing.T) {
	e, started := otherEngines(t)
	_, err := e.answer("81-other", nil, []byte(`"crash"`))
	require.EqualError(t, err, "the engine of 81-other has ended: out of memory")
	_, err = e.answer("81-other", nil, []byte("1"))
	require.NoError(t, err)
	require.Len(t, started(), 2)
}

func TestOneEngineTooManyEndsTheOldest(t *testing.T) {
	e, started := otherEngines(t)
	for i := range maxEngines + 1 {
		_, err := e.answer(fmt.Sprintf("8%d-other", i), nil, []byte("1"))
		require.NoError(t, err)
	}
	ids := started()
	require.Len(t, ids, maxEngines+1)
	gone(t, ids[0])
	require.NoError(t, syscall.Kill(ids[1], 0))
}

func TestEnginesSayWhatIsMissing(t *testing.T) {
	e, _ := otherEngines(t)
	_, err := e.answer("99-none", nil, []byte("1"))
	require.ErrorContains(t, err, `build 99-none: there is no stage "99-none"; there are 80-other, `)
	_, err = e.answer("81-other", []string{"good"}, []byte("1"))
	require.EqualError(t, err, `build 81-other with good: there is no edit "good"; shared/book/edits holds harm`)
	_, err = e.answer("82-other", []string{"harm"}, []byte("1"))
	require.EqualError(t, err, "build 82-other with harm: the edit harm does not fit 82-other; it fits 81-other, 92-cluster")
	require.ErrorContains(t, e.check([]string{"good"}), `there is no edit "good"`)
	require.NoError(t, e.check([]string{"harm"}))
	require.Equal(t, []string{"harm"}, e.complete())
	require.Empty(t, e.processes)

	t.Setenv("PATH", t.TempDir())
	_, err = e.answer("81-other", nil, []byte("1"))
	require.EqualError(t, err, "build 81-other: the command go is needed, and it is not in PATH")
	e.where = t.TempDir()
	_, err = e.answer("81-other", nil, []byte("1"))
	require.ErrorContains(t, err, "this program plays only 92-cluster; start the lab of 81-other, or start this one inside the source tree: "+e.where+" is not inside")
	require.Empty(t, e.complete())
	_, err = e.source(nil, "81-other", nil)
	require.ErrorContains(t, err, "this program plays only 92-cluster; start the lab of 81-other, ")
	_, err = e.answer("92-cluster", []string{"harm"}, []byte("1"))
	require.ErrorContains(t, err, "an edit changes the source; start the lab inside the source tree: ")
	require.ErrorContains(t, e.check([]string{"harm"}), "an edit changes the source; start the lab inside the source tree: ")
}

func TestTheFilmOfAnEdit(t *testing.T) {
	e, _ := otherEngines(t)
	s, err := e.film("harm")
	require.NoError(t, err)
	require.Equal(t, `{"stage":"92-cluster","seed":4,"story":"missed-message","edits":["harm"]}`, string(s.AppendJSON(nil)))
	_, err = e.film("good")
	require.ErrorContains(t, err, `there is no edit "good"`)
}

func TestTheCodeOfAnotherStageAndOfAnEdit(t *testing.T) {
	e, _ := otherEngines(t)
	const text = "package raft\n\nconst Early Code = \"early\"\n\nfunc f() bool { explain(Early); return a < b }\n"
	require.NoError(t, os.WriteFile(filepath.Join(e.where, "..", "81-other", "raft", "a.go"), []byte(text), 0o600))
	own := func() (*source.Index, error) { return &source.Index{}, nil }
	x, err := e.source(own, "", nil)
	require.NoError(t, err)
	require.Empty(t, x.Files)
	x, err = e.source(own, "81-other", nil)
	require.NoError(t, err)
	require.Equal(t, text, x.Files["raft/a.go"])
	x, err = e.source(own, "81-other", []string{"harm"})
	require.NoError(t, err)
	require.Equal(t, strings.Replace(text, "<", ">", 1), x.Files["raft/a.go"])
	_, err = e.source(own, "../81-other", nil)
	require.ErrorContains(t, err, "there is no stage")
}
