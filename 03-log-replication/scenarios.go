package main

import (
	"example.com/raftsteps/03-log-replication/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios lists the scenarios that this stage survives and those that it does
// not.
var scenarios = scenario.Stage{
	Name: "03-log-replication",
	New:  server.New,
	Ops:  server.Ops,
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
	},
	Fails: []string{
		"lost-reply",
		"leader-crash",
		"partitioned-leader",
		"stale-read",
	},

	// The operator appoints the leader.
	Appointed: true,
}
