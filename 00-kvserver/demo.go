package main

import "example.com/raftsteps/shared/run/cli"

// demo tells the story of this stage.
func demo(d *cli.Demo) error {
	d.Say("One server, one map. A request is a line of JSON, and so is its answer; talk sends what is typed.")
	d.Start(1)
	d.Talk(
		`{"op":"put","key":"x","value":"1"}`,
		`{"op":"append","key":"x","value":"2"}`,
		`{"id":7,"op":"get","key":"x"}`,
	)
	d.Shows(`{"id":7,"ok":true,"value":"12"}`)
	d.Say("cas changes a value only if it is the one you expect. It makes a lost race visible.")
	d.Talk(`{"op":"cas","key":"x","old":"1","value":"3"}`)
	d.Shows(`"code":"mismatch"`)
	d.Say("What makes no sense is refused in words, and the connection goes on.")
	d.Talk(`put x 1`, `{"op":"putt","key":"x"}`, `{"op":"get","key":"x"}`)
	d.Shows(`unknown op`)
	d.Shows(`"value":"12"`)
	d.Say("What it cannot survive: a restart. The map was in memory, and the next one is empty.")
	d.Kill(1)
	d.Restart(1)
	d.Talk(`{"op":"get","key":"x"}`)
	d.Shows(`"code":"not_found"`)
	d.Say("And in a conversation nobody can tell a write that was lost from one whose answer was: that is the next stage.")
	return d.Err()
}
