// Stage 03 is five servers with a log on disk, and a leader that a person appoints.
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
	Dial:      func(endpoints []string) cli.Client { return client.New(endpoints) },
	Scenarios: &scenarios,
	Demo:      demo,
}

func main() { cli.Main(stage) }

// demo tells the story of this stage.
func demo(d *cli.Demo) error {
	d.Say("Five servers, and each writes the commands into a log on disk before it says that it has them.")
	d.Start(5)
	d.Run("put", "x", "1")
	d.Run("append", "x", "2")
	d.Until("append x+=2", "log", "4")
	d.Say("A server that was away has missed something. It says so, and gets what it lacks:")
	d.Kill(4)
	d.Run("append", "x", "3")
	d.Restart(4)
	d.Until("123\n", "get", "x", "--endpoints", "n4")
	d.Say("All five die at once. What was acknowledged is on a majority of disks, and so it is there again, once somebody leads.")
	d.Kill(1, 2, 3, 4, 5)
	d.Restart(1, 2, 3, 4, 5)
	d.Fails(1, "append", "x", "4")
	d.Run("lead", "1")
	d.Run("append", "x", "4")
	d.Run("get", "x", "--endpoints", "n1")
	d.Shows("1234\n")
	d.Say("What it cannot survive. A dead leader waits for a person, who must find a server that has all:")
	d.Until("append x+=4", "log", "2")
	d.Kill(1)
	d.Fails(5, "append", "x", "5")
	d.Run("lead", "2")
	d.Run("append", "x", "5", "--endpoints", "n2")
	d.Run("get", "x", "--endpoints", "n2")
	d.Shows("12345\n")
	d.Until("append x+=5", "log", "4")
	d.Say("And the person may be wrong. Two servers are down and miss a write; then one of them is appointed:")
	d.Restart(1)
	d.Kill(4, 5)
	d.Run("put", "x", "acknowledged", "--endpoints", "n2")
	d.Kill(1, 2, 3)
	d.Restart(3, 4, 5)
	d.Run("lead", "4")
	d.Run("append", "x", "6", "--endpoints", "n4")
	d.Run("get", "x", "--endpoints", "n4")
	d.Shows("123456\n")
	d.Say("The write that was acknowledged is gone: only votes can prevent that. And a retry still happens twice:")
	d.Scenario("lost-reply", 1)
	d.Say("A client that can ask again without harm is the next stage.")
	return d.Err()
}
