// Stage 06 is five servers that compact their logs by snapshots.
package main

import (
	"example.com/raftsteps/06-compaction/client"
	"example.com/raftsteps/06-compaction/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "06-compaction",
	About:     "A replicated key-value store that compacts its log.",
	Ops:       server.Ops,
	New:       server.New,
	Disk:      true,
	Compacts:  true,
	HTTP:      true,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
