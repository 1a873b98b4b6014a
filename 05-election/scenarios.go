package main

import (
	"example.com/raftsteps/05-election/client/route"
	"example.com/raftsteps/05-election/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios lists the scenarios that this stage survives and those that it does
// not.
var scenarios = scenario.Stage{
	Name:  "05-election",
	New:   server.New,
	Ops:   server.Ops,
	Route: route.New,
	Survives: []string{
		"minority-down",
		"restart",
		"missed-message",
		"reordered-messages",
		"refused-write",
		"conflicting-logs",
		"figure-8",
		"full-disk",
		"failed-fsync",
		"crash-in-write",
		"wiped-follower",
		"restored-backup",
		"lost-reply",
		"leader-crash",
		"partitioned-leader",
		"split-vote",
		"stale-read",
		"chaos",
	},
	Fails: []string{
		"bounded-log",
		"lagging-follower",
		"grow",
		"shrink",
		"replace",
		"removed-server",
		"partial-partition",
	},
}
