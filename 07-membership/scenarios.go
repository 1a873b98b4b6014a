package main

import (
	"example.com/raftsteps/07-membership/client/route"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios lists the scenarios that this stage survives and those that it does
// not.
var scenarios = scenario.Stage{
	Name:  "07-membership",
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
		"bounded-log",
		"lagging-follower",
		"crash-in-snapshot",
		"grow",
		"shrink",
		"replace",
		"removed-server",
		"partial-partition",
		"hand-over",
		"crash-in-change",
	},

	// The servers compact their logs.
	Compacts: true,
}
