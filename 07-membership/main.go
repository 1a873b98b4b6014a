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
	Dial:      func(endpoints []string) cli.Client { return client.New(endpoints) },
	Scenarios: &scenarios,
	Demo:      demo,
}

func main() { cli.Main(stage) }

// demo tells the story of this stage.
func demo(d *cli.Demo) error {
	d.Say("Three servers, and three more that know nothing, have no vote, and wait.")
	d.Start(3)
	d.Join(4, 5, 6)
	d.Run("status")
	d.Shows("new")
	d.Say("Four clients append without a pause, and keep account of what they were promised. Then the machine of n1 is gone for good. n4 takes its place, in one change: it gets the log first, and votes when it has caught up.")
	d.Meanwhile("bench", "--verify", "--clients", "4", "--duration", "1h", "--warmup", "0s", "--timeout", "30s")
	d.Kill(1)
	d.Run("change", "--add", "4", "--remove", "1")
	d.Shows("the members are n2, n3, n4\n")
	d.Say("n2 is to make place for n5, which has no power yet: the change waits for it. In the middle of that the leader dies, and it is n2 itself.")
	d.Run("transfer", "2")
	d.Kill(5)
	d.Run("change", "--add", "5", "--remove", "2", "--no-wait")
	d.Run("members")
	d.Shows("learner")
	d.Kill(2)
	d.Say("The next leader has the change in its log, and goes on with it.")
	d.Restart(5)
	d.Until("No change is under way.", "members")
	d.Shows("n5")
	d.Say("The last of the first three leads, and removes itself: it hands the lead on.")
	d.Run("transfer", "3")
	d.Run("change", "--add", "6", "--remove", "3")
	d.Shows("the members are n4, n5, n6\n")
	d.Kill(3)
	d.Say("None of the first three is left. Was a promise broken?")
	d.Interrupt()
	d.Shows("every promise was kept")
	d.Say("What it cannot survive is a majority that fails at once: to take the lost ones off the list is a change too, and a change needs a majority.")
	d.Kill(4, 5)
	d.Stuck("put", "x", "1", "--timeout", "1s")
	d.Stuck("remove", "4", "5", "--timeout", "1s")
	d.Say("One of the two comes back with its disk, and that is enough.")
	d.Restart(5)
	d.Run("put", "x", "1")
	d.Say("And if no disk comes back? The README says what can be done then, and what it costs.")
	return d.Err()
}
