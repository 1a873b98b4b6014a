package readme

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatchLine(t *testing.T) {
	for _, test := range []struct {
		want, got string
		matches   bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a  ", "a", true},
		{"a", "a\t", true},
		{"a…", "a", true},
		{"a…", "abc", true},
		{"…c", "abc", true},
		{"a…c", "abc", true},
		{"a…c", "abd", false},
		{"a…a", "a", false},
		{"a…b…c", "a-b-c", true},
		{"a…b…c", "a-c-b", false},
		{"a…b…b…c", "a-b-c", false},
		{"…", "", true},
		{"…b…", "abc", true},
		{"…b…", "ac", false},
		{"n1 | took … ms", "n1 | took 17.3 ms", true},
	} {
		require.Equal(t, test.matches, matchLine(test.want, test.got), "%q %q", test.want, test.got)
	}
}

// in returns the words of a text as lines.
func in(text string) []string { return strings.Fields(text) }

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		want, got string
		matches   bool

		// prefix is the number of lines of the shortest beginning that matches,
		// or -1.
		prefix int
	}{
		{"", "", true, 0},
		{"", "a", false, 0},
		{"a b", "a b", true, 2},
		{"a b", "a", false, -1},
		{"a b", "a b c", false, 2},
		{"a …", "a b c", true, 1},
		{"… c", "a b c", true, 3},
		{"… c", "c", true, 1},
		{"… c", "a c b c d", false, 2},
		{"a … b … c", "a x b c", true, 4},
		{"…", "", true, 0},
		{"… …", "a", true, 0},
		{"a x…y b", "a xzy b", true, 3},
	} {
		want, got := in(test.want), in(test.got)
		require.Equal(t, test.matches, match(want, got), "%q %q", test.want, test.got)
		n, ok := prefix(want, got)
		require.Equal(t, test.prefix >= 0, ok, "%q %q", test.want, test.got)
		require.Equal(t, test.prefix, n, "%q %q", test.want, test.got)
		require.False(t, test.matches && hopeless(want, got), "%q %q", test.want, test.got)
	}
	reports := []string{"bash: line 1: 12 Terminated   sleep", "a", "Killed"}
	require.True(t, match([]string{"[1] 17", "a", "[1]+  Done sleep"}, reports))
	require.False(t, match([]string{"a", "b"}, reports))
	require.True(t, match(nil, reports[:1]))
}

func TestHopeless(t *testing.T) {
	for _, test := range []struct {
		want, got string
		hopeless  bool
	}{
		{"a b c", "", false},
		{"a b c", "a b", false},
		{"a b c", "a c", true},
		{"a b", "a b c", true},
		{"a …", "a b c", false},
		{"… z", "a b c", false},
		{"", "a", true},
	} {
		require.Equal(t, test.hopeless, hopeless(in(test.want), in(test.got)), "%q %q", test.want, test.got)
	}
}

func TestRewrite(t *testing.T) {
	for _, test := range []struct{ want, got, result string }{
		{"", "", ""},
		{"", "a b", "a b"},
		{"a b", "", ""},
		{"a b c", "a x c", "a x c"},
		{"a… b", "ab b", "a… b"},
		{"a… x b", "ab b", "a… b"},
		{"a … z", "a b c z", "a … z"},
		{"a … z", "a b c y", "a … y"},
		{"a …", "b c d", "b …"},
		{"…", "a", "…"},
		{"a b c", "c", "c"},
		{"a b c", "a b c d", "a b c d"},
		{"t…1 t…2", "t-2", "t…2"},
	} {
		got := rewrite(in(test.want), in(test.got))
		require.Equal(t, test.result, strings.Join(got, " "), "%q %q", test.want, test.got)
		require.True(t, match(got, in(test.got)))
	}
}

func TestReplacePorts(t *testing.T) {
	ports := map[int]int{7000: 12300, 7001: 12301}
	require.Equal(t, "127.0.0.1:12300 12301, 17000 700 7002 x7000 {12300}", replacePorts("127.0.0.1:7000 7001, 17000 700 7002 x7000 {7000}", ports))
}

func TestContinued(t *testing.T) {
	for _, test := range []struct {
		first string
		below string
		lines int
	}{
		{"a", "> b", 0},
		{`a \`, "> b\n> c", 1},
		{"a |", "> b |\n> c\nd", 2},
		{"a <<'x'", "> b\n>\n> x\n> c", 3},
		{"a <<-x", "> b\nc", 1},
		{"a &&", "b", 0},
	} {
		require.Len(t, continued(test.first, strings.Split(test.below, "\n")), test.lines, test.first)
	}
}
