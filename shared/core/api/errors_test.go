package api

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTextOfAnError checks that only Text says whether the operation happened,
// and never the message.
func TestTextOfAnError(t *testing.T) {
	lost := Lost("n1 gave no answer in time")
	require.Equal(t, "n1 gave no answer in time", lost.Message)
	require.Equal(t, "unknown: n1 gave no answer in time; the request may or may not have happened, or may yet happen", lost.Error())
	require.Equal(t, `{"ok":false,"error":{"code":"unknown","message":"n1 gave no answer in time","definite":false}}`, string(Failed(0, lost).AppendJSON(nil)))

	read := lost.OfRead("get")
	require.Equal(t, &Error{Code: Unavailable, Message: "n1 gave no answer in time; nothing was changed, since get only reads", Definite: true}, read)
	require.Equal(t, read.Message, read.Text())
	require.Same(t, read, read.OfRead("get"), "a definite error must stay as it is")

	require.Equal(t, Lost("filling: n1 gave no answer in time"), Wrap("filling", lost))
	require.ErrorIs(t, Wrap("filling", io.EOF), io.EOF)
	require.Equal(t, "n1 gave no answer in time", lost.Message, "Wrap must copy the error")
	require.False(t, errors.As(Wrap("filling", io.EOF), new(*Error)))
}
