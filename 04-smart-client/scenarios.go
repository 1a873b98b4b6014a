package main

import (
	"example.com/raftsteps/04-smart-client/client/route"
	"example.com/raftsteps/04-smart-client/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios are what this stage can be put through: what it survives, and what
// breaks it.
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

	// A person appoints the leader.
	Appointed: true,
}
