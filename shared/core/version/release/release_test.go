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
	text, err := os.ReadFile(Overlay(t, After))
	require.NoError(t, err)
	var overlay struct{ Replace map[string]string }
	require.NoError(t, json.Unmarshal(text, &overlay))
	require.Len(t, overlay.Replace, 3)
	for path, by := range overlay.Replace {
		before, _, have, err := read(path)
		require.NoError(t, err)
		after, _, later, err := read(by)
		require.NoError(t, err)
		require.Equal(t, After(have), later)
		back, err := Change(by, func(version.Range) version.Range { return have })
		require.NoError(t, err)
		require.Equal(t, before, back)
		require.NotEqual(t, before, after)
	}
	for _, have := range []version.Range{TCP(t), UDP(t), GRPC(t)} {
		require.True(t, have.Has(have.Newest))
		next, after := Next(have), After(have)
		for _, c := range []struct {
			a, b   version.Range
			agreed uint64
		}{{have, next, have.Newest}, {next, after, next.Newest}, {have, after, 0}} {
			agreed, _ := c.a.Agree(c.b, "", "")
			require.Equal(t, c.agreed, agreed, "%v and %v", c.a, c.b)
		}
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
		_, err := Change(path, Next)
		require.ErrorContains(t, err, path, text)
	}
}
