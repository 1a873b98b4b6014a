package strict

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAppendWritesWhatADecoderReads(t *testing.T) {
	b := AppendNumber([]byte{'{'}, "none", uint64(0))
	b = AppendText(b, "empty", "")
	b = AppendFlag(b, "no", false)
	b = AppendNumber(b, "id", uint64(7))
	b = AppendText(b, "key", "a\"b\n")
	b = AppendFlag(b, "yes", true)
	b = AppendNumbers(b, "list", []uint64{1, 2})
	b = AppendNumbers(b, "nobody", []uint64(nil))
	b = AppendArray(b, "members", []string{"x", "y"}, func(b []byte, v string) []byte {
		return append(AppendText(append(b, '{'), "name", v), '}')
	})
	b = append(AppendName(b, "raw"), "null}"...)
	require.Equal(t, `{"id":7,"key":"a\"b\n","yes":true,"list":[1,2],"nobody":[],"members":[{"name":"x"},{"name":"y"}],"raw":null}`, string(b))
	d := NewDecoder(b)
	d.Raw()
	require.NoError(t, d.End())
}
