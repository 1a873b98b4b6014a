// Stage 05 is five servers that elect their leader.
package main

import (
	"example.com/raftsteps/05-election/client"
	"example.com/raftsteps/05-election/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "05-election",
	About:     "A replicated key-value store that elects its leader.",
	Ops:       server.Ops,
	New:       server.New,
	Disk:      true,
	HTTP:      true,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
