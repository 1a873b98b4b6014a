package cli

import (
	"errors"
	"strings"
)

// splitWords splits a line of the shell into words at blanks. 'Single quotes'
// keep their content unchanged; "double quotes" do too, except for \" \\ \n \t;
// outside of quotes a backslash keeps the next character. A # at the beginning of
// a word begins a comment.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	rest := []rune(line)
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == '#' && !inWord:
			return words, nil
		case c == '\'' || c == '"':
			text, n := quoted(rest[i+1:], c)
			if n < 0 {
				return nil, errors.New("a quote is not closed")
			}
			word.WriteString(text)
			inWord, i = true, i+n
		case c == '\\' && i+1 == len(rest):
			return nil, errors.New("nothing follows the backslash at the end of the line")
		case c == '\\':
			i++
			word.WriteRune(rest[i])
			inWord = true
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted reads up to the closing quote. It returns the text and the number of
// characters read, including the quote; -1 if there is no closing quote.
func quoted(rest []rune, quote rune) (string, int) {
	var text strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == quote:
			return text.String(), i + 1
		case c == '\\' && quote == '"' && i+1 < len(rest):
			i++
			text.WriteString(unescape(rest[i]))
		default:
			text.WriteRune(c)
		}
	}
	return "", -1
}

func unescape(c rune) string {
	switch c {
	case 'n':
		return "\n"
	case 't':
		return "\t"
	case '"', '\\':
		return string(c)
	}
	return `\` + string(c)
}
