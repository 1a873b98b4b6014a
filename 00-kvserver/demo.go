package main

import "example.com/raftsteps/shared/run/cli"

// demo shows what this stage adds and what it still cannot survive.
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
	d.Say("An invalid request gets an error message, and the connection stays open.")
	d.Talk(`put x 1`, `{"op":"putt","key":"x"}`, `{"op":"get","key":"x"}`)
	d.Shows(`unknown op`)
	d.Shows(`"value":"12"`)
	d.Say("It cannot survive a restart. The map was in memory, and the new one is empty.")
	d.Kill(1)
	d.Restart(1)
	d.Talk(`{"op":"get","key":"x"}`)
	d.Shows(`"code":"not_found"`)
	d.Say("And a person who types requests cannot distinguish a lost write from a lost answer: that is the next stage.")
	return d.Err()
}
