package replica

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that embeds a replica carries the standard library, this project,
// errgroup and a B-tree, and none of the libraries of the command line, of the metrics
// or of gRPC. This is also true with the transport over UDP.
func TestEmbeddingIsLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".", "./example", "example.com/raftsteps/shared/core/transport/udp").Output()
	require.NoError(t, err)
	modules := make(map[string]bool)
	for _, path := range strings.Fields(string(out)) {
		modules[path] = true
	}
	require.Equal(t, map[string]bool{
		"example.com/raftsteps/07-membership": true, "example.com/raftsteps/shared": true, "golang.org/x/sync": true,
		"github.com/google/btree": true,
	}, modules)
}
