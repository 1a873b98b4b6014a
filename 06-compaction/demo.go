package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
func demo(d *cli.Demo) error {
	d.Say("Five servers. Each writes a snapshot of its store whenever its journal has grown by 64 KiB, and deletes the log up to there.")
	d.Compact(64 << 10)
	d.Start(5)
	d.Run("put", "x", "1")
	d.Say("Ten keys are overwritten for 300 ms. LAST counts every write; SNAPSHOT is the last one that a server's snapshot covers.")
	d.Run("bench", "--mix", "put", "--keys", "10", "--duration", "300ms", "--warmup", "0s")
	d.Run("status")
	d.Say("All lose their power. Each starts from its snapshot and the few entries after it.")
	d.Kill(1, 2, 3, 4, 5)
	d.Restart(1, 2, 3, 4, 5)
	d.Run("get", "x")
	d.Shows("1\n")
	d.Say("n5 goes down, and misses more entries than the logs still have. When it is back, the leader sends it a snapshot.")
	d.Kill(5)
	d.Run("bench", "--mix", "put", "--keys", "10", "--duration", "300ms", "--warmup", "0s")
	d.Run("put", "x", "2")
	d.Restart(5)
	d.Until("2\n", "get", "x", "--endpoints", "n5", "--consistency", "stale")
	d.Say("It cannot survive the permanent loss of machines, because a lost machine stays a member. Two are lost, and the third loss stops the cluster.")
	d.Kill(1, 2)
	d.Run("put", "x", "3")
	d.Kill(3)
	d.Stuck("put", "x", "4", "--timeout", "1s")
	d.Say("Nothing here can replace a lost machine by a new one: that is the next stage.")
	return d.Err()
}
