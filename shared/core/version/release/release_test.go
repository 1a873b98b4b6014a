package release

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/version"
)

func TestOverlay(t *testing.T) {
	text, err := os.ReadFile(Overlay(t, 1, 2))
	require.NoError(t, err)
	var overlay struct{ Replace map[string]string }
	require.NoError(t, json.Unmarshal(text, &overlay))
	require.Len(t, overlay.Replace, 3)
	for path, by := range overlay.Replace {
		before, _, have, err := read(path)
		require.NoError(t, err)
		after, _, later, err := read(by)
		require.NoError(t, err)
		require.Equal(t, version.Between(have.Oldest+1, have.Newest+2), later)
		back, err := Change(by, ^uint64(0), ^uint64(1)) // 1 and 2 less
		require.NoError(t, err)
		require.Equal(t, before, back)
		require.NotEqual(t, before, after)
	}
	for _, have := range []version.Range{TCP(t), UDP(t), GRPC(t)} {
		require.True(t, have.Has(have.Newest))
	}
}

func TestFilesWithoutVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.go")
	for _, text := range []string{
		"",
		"const (\n\tprotocol = 5\n\toldestProtocol = 5\n)\n",
		"const (\n\tprotocol       = 5\n\n\toldestProtocol = 5\n)\n",
		"const (\n\tprotocol       = 5\n\toldestProtocol = protocol\n)\n",
		"const (\n\tprotocol       = 5\n\toldestProtocol = 6\n)\n",
		"const (\n\tprotocol       = 5\n\toldestProtocol = 0\n)\n",
		"\tprotocol       = 5\n\toldestProtocol = 5\n\tprotocol       = 5\n\toldestProtocol = 5\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := Change(path, 0, 1)
		require.ErrorContains(t, err, path, text)
	}
}
