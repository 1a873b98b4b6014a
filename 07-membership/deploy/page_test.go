// Package deploy holds no code: its page and its files run a cluster on several
// machines, and its test types the page's commands on machines of its own.
package deploy

import (
	"flag"
	"testing"

	"example.com/raftsteps/shared/book/readme"
	"example.com/raftsteps/shared/core/version/release"
)

var hosts = flag.Bool("hosts", false, "type the commands of README.md on five machines, each with a network namespace of its own")

func TestREADME(t *testing.T) {
	if !*hosts {
		t.Skip("needs network namespaces, and half a minute; -hosts runs it, and .ci/run does")
	}
	readme.TestHosts(t, "README.md",
		readme.Host{Name: "admin", Address: "10.0.0.9/24", Repository: true, Next: release.Overlay(t, release.Next)},
		readme.Host{Name: "kv1", Address: "10.0.0.1/24"},
		readme.Host{Name: "kv2", Address: "10.0.0.2/24"},
		readme.Host{Name: "kv3", Address: "10.0.0.3/24"},
		readme.Host{Name: "kv4", Address: "10.0.0.4/24"},
	)
}
