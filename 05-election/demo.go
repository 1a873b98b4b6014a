package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
func demo(d *cli.Demo) error {
	d.Say("Five servers without an appointed leader: one of them starts an election, and a majority votes for it.")
	d.Start(5)
	d.Run("put", "x", "1")
	d.Run("status")
	d.Shows("leader")
	d.Say("The leader dies. The others elect another, and the write waits until they have.")
	d.Run("kill", "leader")
	d.Run("put", "x", "2")
	d.Say("A read is never stale, on any server: the server asks the leader, and the leader asks a majority.")
	d.Restart(1, 2, 3, 4, 5)
	for _, server := range []string{"n1", "n2", "n3", "n4", "n5"} {
		d.Run("get", "x", "--endpoints", server)
		d.Shows("2\n")
	}
	d.Say("All five lose their power at once. Terms, votes and logs are on their disks.")
	d.Kill(1, 2, 3, 4, 5)
	d.Restart(1, 2, 3, 4, 5)
	d.Run("append", "x", "3")
	d.Run("get", "x")
	d.Shows("23\n")
	d.Say("What it cannot survive is its own success. Ten keys are overwritten for 300 ms:")
	d.Run("bench", "--mix", "put", "--keys", "10", "--duration", "300ms", "--warmup", "0s")
	d.Run("status")
	d.Say("The log keeps every write forever, and a server that starts replays them all. The next stage compacts the log.")
	return d.Err()
}
