package main

import (
	"example.com/raftsteps/02-naive-replication/server"
	"example.com/raftsteps/shared/lab/scenario"
)

// scenarios lists the scenarios that this stage survives and those that it does
// not.
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

	// The operator appoints the leader.
	Appointed: true,
}
