// Stage 02 is five servers: one leads, and sends each write to the others.
package main

import (
	"example.com/raftsteps/02-naive-replication/client"
	"example.com/raftsteps/02-naive-replication/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "02-naive-replication",
	About:     "A key-value store on five servers, replicated naively.",
	Ops:       server.Ops,
	New:       server.New,
	Appointed: true,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
