// Stage 06 is five servers whose log forgets what a snapshot holds.
package main

import (
	"example.com/raftsteps/07-membership/client"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/cli"
)

var stage = cli.Stage{
	Name:      "07-membership",
	About:     "A replicated key-value store that compacts its log.",
	Ops:       server.Ops,
	New:       server.New,
	Disk:      true,
	Compacts:  true,
	HTTP:      true,
	Dial:      func(endpoints []string) cli.Client { return client.New(endpoints) },
	Scenarios: &scenarios,
	Demo:      demo,
}

func main() { cli.Main(stage) }

// demo tells the story of this stage.
func demo(d *cli.Demo) error {
	d.Say("Five servers overwrite ten keys, again and again. In stage 05 their logs would grow for ever.")
	d.Run("scenario", "bounded-log", "-o", "json")
	d.Shows(`"survived":true`)
	d.Say("Each server takes a snapshot now and then, and its log forgets what is in it. A follower that needs the rest gets the snapshot.")
	d.Run("scenario", "lagging-follower", "-o", "json")
	d.Shows(`"survived":true`)
	d.Say("On real disks it is the same store as before:")
	d.Start(5)
	d.Run("put", "x", "1")
	d.Kill(1, 2, 3, 4, 5)
	d.Restart(1, 2, 3, 4, 5)
	d.Run("get", "x")
	d.Shows("1\n")
	d.Say("What it cannot survive: a machine that is gone for good stays a member. Two are lost, and the third ends it.")
	d.Kill(1, 2)
	d.Run("put", "x", "2")
	d.Kill(3)
	d.Fails(5, "put", "x", "3", "--timeout", "2s")
	d.Say("Nothing here can put a new machine in the place of an old one: the next stage.")
	return d.Err()
}
