package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
func demo(d *cli.Demo) error {
	d.Say("The server of the previous stage, and a client for it. Its exit code says how a command ended.")
	d.Start(1)
	d.Run("put", "x", "1")
	d.Run("append", "x", "2")
	d.Run("get", "x")
	d.Shows("12\n")
	d.Fails(3, "get", "y")
	d.Fails(4, "cas", "x", "1", "3")
	d.Say("Now the server is paused, as in a long garbage collection. A write is sent, and no answer comes.")
	d.Pause(1)
	d.Fails(6, "put", "x", "3", "--timeout", "300ms")
	d.Say("6 means unknown: the write may have happened, or not, or may yet happen. Here it happens after the client gave up:")
	d.Resume(1)
	d.Until("3\n", "get", "x")
	d.Say("So a client that retries after a 6 may apply the append twice.")
	d.Pause(1)
	d.Fails(6, "append", "x", "4", "--timeout", "300ms")
	d.Resume(1)
	d.Until("34\n", "get", "x")
	d.Run("append", "x", "4")
	d.Run("get", "x")
	d.Shows("344\n")
	d.Say("5 is a promise: it did not happen, because there was no server to ask.")
	d.Kill(1)
	d.Fails(5, "put", "x", "5")
	d.Say("It cannot survive the loss of the server's machine. The data is lost with it.")
	d.Restart(1)
	d.Fails(3, "get", "x")
	d.Say("The next stage has five servers.")
	return d.Err()
}
