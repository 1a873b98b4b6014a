// Stage 04 is five servers with a log, and a client that knows them all.
package main

import (
	"example.com/raftsteps/04-smart-client/client"
	"example.com/raftsteps/04-smart-client/server"
	"example.com/raftsteps/shared/run/cli"
)

var stage = cli.Stage{
	Name:      "04-smart-client",
	About:     "A replicated key-value store with a client that retries safely.",
	Ops:       server.Ops,
	New:       server.New,
	Appointed: true,
	Disk:      true,
	HTTP:      true,
	Dial:      func(endpoints []string, how ...cli.DialOption) cli.Client { return client.New(endpoints, how...) },
	Scenarios: &scenarios,
	Source:    sources,
	Demo:      demo,
}

func main() { cli.Main(stage) }
