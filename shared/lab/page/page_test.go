package page

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFiles checks that the page is complete and works offline, and that no data
// becomes markup.
func TestFiles(t *testing.T) {
	names, err := fs.Glob(Files, "*.*")
	require.NoError(t, err)
	require.Contains(t, names, "index.html")
	refers := regexp.MustCompile(`(?:from '\./|src="|href=")([^'"]+)['"]`)
	for _, name := range names {
		b, err := fs.ReadFile(Files, name)
		require.NoError(t, err)
		text := string(b)
		for _, m := range refers.FindAllStringSubmatch(text, -1) {
			if m[1] != "data:," {
				require.Contains(t, names, m[1], "%s refers to it", name)
			}
		}
		require.NotContains(t, text, "innerHTML", name)
		require.NotContains(t, text, "insertAdjacentHTML", name)
		text = strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")
		require.NotContains(t, text, "http://", name)
		require.NotContains(t, text, "https://", name)
	}
}
