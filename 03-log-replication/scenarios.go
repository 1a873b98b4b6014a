package main

import (
	"example.com/raftsteps/03-log-replication/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios are what this stage can be put through: what it survives, and what
// breaks it.
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

	// A person appoints the leader.
	Appointed: true,
}
