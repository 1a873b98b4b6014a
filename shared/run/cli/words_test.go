package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSplitWords(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{``, nil},
		{" \t ", nil},
		{`get x`, []string{"get", "x"}},
		{"  put\tx   1  ", []string{"put", "x", "1"}},
		{`put x "hello world"`, []string{"put", "x", "hello world"}},
		{`put x ''`, []string{"put", "x", ""}},
		{`put x a"b c"'d e'f`, []string{"put", "x", "ab cd ef"}},
		{`put x "a \"b\" \\ \n\t\z"`, []string{"put", "x", "a \"b\" \\ \n\t\\z"}},
		{`put x 'a \n "b"'`, []string{"put", "x", `a \n "b"`}},
		{`put a\ b c\\d`, []string{"put", "a b", `c\d`}},
		{`get x # why`, []string{"get", "x"}},
		{`get x#y`, []string{"get", "x#y"}},
		{`# all of it`, nil},
		{`put x größe`, []string{"put", "x", "größe"}},
	} {
		got, err := splitWords(tt.line)
		require.NoError(t, err, tt.line)
		require.Equal(t, tt.want, got, tt.line)
	}
	for line, want := range map[string]string{
		`put x "open`: "a quote is not closed",
		`put x 'open`: "a quote is not closed",
		`put x "\"`:   "a quote is not closed",
		`put x \`:     "nothing follows the backslash at the end of the line",
	} {
		_, err := splitWords(line)
		require.EqualError(t, err, want, line)
	}
}

func FuzzQuotedWordsComeBack(f *testing.F) {
	f.Add("x", "hello world")
	f.Add("", "it's")
	f.Add(`a\b`, "#no\ncomment")
	f.Fuzz(func(t *testing.T, a, b string) {
		words := []string{"put", string([]rune(a)), string([]rune(b))}
		got, err := splitWords(quoteWords(words))
		require.NoError(t, err)
		require.Equal(t, words, got)
	})
}
