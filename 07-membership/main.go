// Stage 07 is a cluster whose members can change.
package main

import (
	"example.com/raftsteps/07-membership/client"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "07-membership",
	About:     "A replicated key-value store whose members can change while it runs.",
	Ops:       server.Ops,
	New:       server.New,
	Disk:      true,
	Compacts:  true,
	HTTP:      true,
	Offline:   server.Offline,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
