package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
func demo(d *cli.Demo) error {
	d.Say("Five servers with a log, and n1 leads. A session by hand: ask for an index, draw a number, append, and send the same append again, as a client does if it gets no answer.")
	d.Start(5)
	d.Talk(`{"op":"open"}`,
		`{"op":"append","key":"x","value":"once.","session":4711,"since":1,"seq":1}`,
		`{"op":"append","key":"x","value":"once.","session":4711,"since":1,"seq":1}`)
	d.Run("get", "x", "--endpoints", "n1")
	d.Shows("once.\n")
	d.Say("It is in the log twice but was applied once: the servers know its number.")
	d.Run("log", "1")
	d.Shows("2      1")
	d.Say("So the client may retry, and try one server after the other until it finds the leader.")
	d.Run("put", "y", "1", "--endpoints", "n4")
	d.Kill(4, 5)
	d.Run("append", "x", "more.", "--endpoints", "n5,n4,n3")
	d.Run("get", "x", "--endpoints", "n1")
	d.Shows("once.more.\n")
	d.Say("It cannot survive the loss of its leader without an operator. The leader dies, and the others wait:")
	d.Kill(1)
	d.Restart(4, 5)
	d.Fails(5, "put", "y", "2", "--timeout", "1s")
	d.Run("lead", "2")
	d.Run("put", "y", "2")
	d.Say("And a follower that has missed a write returns a stale value:")
	d.Scenario("stale-read", 1)
	d.Say("Still missing are elections, and reads that ask a majority: the next stage.")
	return d.Err()
}
