// Stage 03 is five servers with a log on disk, and a leader that the operator
// appoints.
package main

import (
	"example.com/raftsteps/03-log-replication/client"
	"example.com/raftsteps/03-log-replication/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "03-log-replication",
	About:     "A key-value store on five servers with a replicated log.",
	Ops:       server.Ops,
	New:       server.New,
	Appointed: true,
	Disk:      true,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
