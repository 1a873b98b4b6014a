package steps_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/book/readme"
)

// root is the repository that contains this package. The go command does not know
// that these tests depend on the whole repository, so run them with -count=1.
const root = "../../.."

// The commands of the top README print the output that it shows.
func TestTopREADME(t *testing.T) { readme.Test(t, filepath.Join(root, "README.md")) }

// The table of the top README agrees with what the stages declare in their
// scenarios.go. The tests of each stage check what it declares, and steps table
// --check runs all scenarios.
func TestTopREADMETable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(text), "<!-- steps table -->\n")
	table, _, _ = strings.Cut(table, "<!-- end of steps table -->")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	says := make(map[string]string)
	stages := cells(lines[0])[1:]
	for _, line := range lines[2:] {
		row := cells(line)
		for i, stage := range stages {
			if row[i+1] != "" {
				says[stage+" "+row[0]] = strings.Trim(row[i+1], "*")
			}
		}
	}
	require.NotEmpty(t, says)
	declared := make(map[string]string)
	for _, stage := range stages {
		files, err := filepath.Glob(filepath.Join(root, stage+"-*", "scenarios.go"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		source, err := os.ReadFile(files[0])
		require.NoError(t, err)
		for list, outcome := range map[string]string{"Survives": "survives", "Fails": "breaks"} {
			_, names, found := strings.Cut(string(source), list+": []string{")
			if !found {
				_, names, _ = strings.Cut(string(source), list+":    []string{")
			}
			names, _, _ = strings.Cut(names, "}")
			for _, name := range regexp.MustCompile(`"([a-z0-9-]+)"`).FindAllStringSubmatch(names, -1) {
				declared[stage+" "+name[1]] = outcome
			}
		}
	}
	require.Equal(t, declared, says, "go run ./shared/cmd/steps table --write README.md")
}

// cells returns the texts of a row of a Markdown table.
func cells(line string) []string {
	row := strings.Split(strings.Trim(line, "|"), "|")
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	return row
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
