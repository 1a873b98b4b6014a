package strict

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestObjectTextReturnsWhatItRead(t *testing.T) {
	d := NewDecoder([]byte(` [ {"a":{"b":1}} , {} ] `))
	var texts []string
	d.Array(func() {
		text := d.ObjectText(func([]byte) { d.Raw() })
		texts = append(texts, string(text))
	})
	require.NoError(t, d.End())
	require.Equal(t, []string{`{"a":{"b":1}}`, `{}`}, texts)

	d = NewDecoder([]byte(`{"a":1`))
	require.Nil(t, d.ObjectText(func([]byte) { d.Uint() }))
	require.Error(t, d.End())
}
