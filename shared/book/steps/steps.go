// Package steps is the tool for learners: it lists the stages, shows
// what a stage changes, and checks the stages against what their READMEs say.
//
// # The diff table of a stage
//
// The README of every stage but the first has a section that names each file
// the stage adds, changes or removes, and says why:
//
//	## The diff
//
//	| file | why |
//	| --- | --- |
//	| `raft/election.go` | who may lead: RequestVote, votes, timeouts |
//	| `server/server.go` | saves the vote before it is sent |
//	| `client/` | new: a client that knows every server |
//
// Paths are relative to the stage's folder and stand in backticks in the first
// column; one row may name several. A path that ends in a slash covers all that
// is below that folder. Test files (_test.go), README.md, go.mod, go.sum and
// everything below a folder testdata need no row.
//
// Check compares the table with the files. What it knows to be the same in both
// stages, but for the stage's own import path, is the same.
//
// # The ladder
//
// The top README has one table whose first column holds the names of the stages
// in backticks, and then what a stage adds and what it still cannot survive.
// List reads it, and Check holds it to the folders that exist.
package steps
