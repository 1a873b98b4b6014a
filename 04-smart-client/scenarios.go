package main

import (
	"example.com/raftsteps/04-smart-client/client/route"
	"example.com/raftsteps/04-smart-client/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios lists the scenarios that this stage survives and those that it does
// not.
var scenarios = scenario.Stage{
	Name:  "04-smart-client",
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
	},
	Fails: []string{
		"leader-crash",
		"partitioned-leader",
		"stale-read",
	},

	// The operator appoints the leader.
	Appointed: true,
}
