package main

import (
	"example.com/raftsteps/02-naive-replication/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios are what this stage can be put through: what it survives, and what
// breaks it.
var scenarios = scenario.Stage{
	Name: "02-naive-replication",
	New:  server.New,
	Ops:  server.Ops,
	Survives: []string{
		"minority-down",
	},
	Fails: []string{
		"restart",
		"missed-message",
		"reordered-messages",
		"refused-write",
	},

	// A person appoints the leader.
	Appointed: true,
}
