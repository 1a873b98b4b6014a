package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
func demo(d *cli.Demo) error {
	d.Say("Five servers. n1 leads: it sends each write to the others, and when a majority has it, it is done.")
	d.Start(5)
	d.Run("put", "x", "1")
	d.Until("1\n", "get", "x", "--endpoints", "n4")
	d.Fails(1, "put", "x", "2", "--endpoints", "n2")
	d.Say("Two servers may die, and clients notice nothing.")
	d.Kill(4, 5)
	d.Run("put", "y", "1")
	d.Run("get", "y")
	d.Shows("1\n")
	d.Say("It cannot survive a restart. A restarted server has lost its data, and no server sends it again:")
	d.Restart(4, 5)
	d.Fails(3, "get", "x", "--endpoints", "n4")
	d.Say("And without a majority the leader refuses, but those that heard of the write keep it:")
	d.Kill(3, 4, 5)
	d.Fails(6, "put", "x", "3")
	d.Run("get", "x")
	d.Shows("1\n")
	d.Run("get", "x", "--endpoints", "n2")
	d.Shows("3\n")
	d.Say("n1 says 1 and n2 says 3, forever. The simulator shows that a single lost message is enough:")
	d.Scenario("missed-message", 1)
	d.Say("Still missing is a log: the next stage.")
	return d.Err()
}
