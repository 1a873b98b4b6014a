package readme

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A run neither sees nor changes the reader's programs and data, with and without
// git. It sees no module that its commands do not name.
func TestReaderKeepsTheFilesOfOthers(t *testing.T) {
	t.Parallel()
	for name, git := range map[string]bool{"with git": true, "without git": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := repository(t, `'''console
$ ls kv pid 2>/dev/null; LC_ALL=C ls -d go.work README.md 0*
00-fake
01-other
README.md
go.work
$ echo 1 >pid; echo more >>README.md; echo more >>00-fake/go.mod
$ go build -o kv ./00-fake && ./kv echo hello
hello
$ (cd 01-other && go build ../00-fake 2>/dev/null || go build -o main.go ./00-fake)
$ go mod init x 2>/dev/null || echo $?
2
'''
`)
			root := filepath.Dir(filepath.Dir(r.file))
			theirs := map[string]string{"kv": "my program", "pid": "4711\n", "README.md": "# x\n", "02-unnamed/go.mod": "module example.com/02-unnamed\n"}
			require.NoError(t, os.Mkdir(filepath.Join(root, "02-unnamed"), 0o755))
			for name, text := range theirs {
				require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o755))
			}
			if git {
				for _, args := range [][]string{{"init", "-q"}, {"add", "go.work", "README.md", "00-fake", "01-other", "02-unnamed"}} {
					if out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput(); err != nil {
						t.Skipf("git %v: %v\n%s", args, err, out)
					}
				}
			}
			for _, module := range []string{"00-fake/go.mod", "01-other/main.go"} {
				text, err := os.ReadFile(filepath.Join(root, module))
				require.NoError(t, err)
				theirs[module] = string(text)
			}

			require.NoError(t, r.run(t.Context()))

			for name, text := range theirs {
				now, err := os.ReadFile(filepath.Join(root, name))
				require.NoError(t, err)
				require.Equal(t, text, string(now), name)
			}
		})
	}
}
