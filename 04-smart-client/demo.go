package main

import "example.com/raftsteps/shared/run/cli"

// demo tells the story of this stage.
func demo(d *cli.Demo) error {
	d.Say("Five servers with a log, and n1 leads. A session by hand: ask for an index, draw a number, append, and send the same append again, as a client does that heard no answer.")
	d.Start(5)
	d.Talk(`{"op":"open"}`,
		`{"op":"append","key":"x","value":"once.","session":4711,"since":1,"seq":1}`,
		`{"op":"append","key":"x","value":"once.","session":4711,"since":1,"seq":1}`)
	d.Run("get", "x", "--endpoints", "n1")
	d.Shows("once.\n")
	d.Say("It is in the log twice and was done once: the servers know its number.")
	d.Run("log", "1")
	d.Shows("2      1")
	d.Say("So the client may ask again, and go from server to server until it finds the leader.")
	d.Run("put", "y", "1", "--endpoints", "n4")
	d.Kill(4, 5)
	d.Run("append", "x", "more.", "--endpoints", "n5,n4,n3")
	d.Run("get", "x", "--endpoints", "n1")
	d.Shows("once.more.\n")
	d.Say("What it cannot survive. The leader dies, and the others wait for a person:")
	d.Kill(1)
	d.Restart(4, 5)
	d.Fails(5, "put", "y", "2", "--timeout", "1s")
	d.Run("lead", "2")
	d.Run("put", "y", "2")
	d.Say("And a follower that has missed the news answers a read with what is old:")
	d.Scenario("stale-read", 1)
	d.Say("What is missing are elections, and reads that ask a majority: the next stage.")
	return d.Err()
}
