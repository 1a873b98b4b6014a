package steps_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/book/readme"
	"example.com/raftsteps/shared/book/steps"
)

// root is the repository that this package is in. The go command does not know
// that these tests depend on all of it: run them with -count=1.
const root = "../../.."

// The commands of the top README print what it says.
func TestTopREADME(t *testing.T) { readme.Test(t, filepath.Join(root, "README.md")) }

// The ladder of the top README names the stages that exist, and its table is
// the one that the scenarios give.
func TestTopREADMETable(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds every stage and plays every story; it is done without -short")
	}
	var stdout, stderr bytes.Buffer
	code := steps.Run(t.Context(), root, []string{"table", "--check", "README.md"}, &stdout, &stderr)
	require.Equal(t, 0, code, "%s%s", &stdout, &stderr)
}

// Every folder and file that the top README links to exists, and so does every
// stage that one of its commands names.
func TestTopREADMELinks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	links := regexp.MustCompile(`\]\(([^)#:]+)\)|\./([0-9]{2}-[a-z-]+|shared/[a-z/]+)`).FindAllSubmatch(text, -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		path := strings.TrimSpace(string(link[1]) + string(link[2]))
		_, err := os.Stat(filepath.Join(root, path))
		require.NoError(t, err)
	}
}
