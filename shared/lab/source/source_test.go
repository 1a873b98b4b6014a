package source

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const reasons = `package raft

var Voted = &Rule{"voted", "§5.4.1", "…"}
var OldLog = &Rule{"old-log", "§5.4.1", "…"}
var Committed = &Rule{"committed", "§5.4.2", "…"}

const Early Code = "early"

func (r Reason) String() string { return describe(Voted) }
`

const rules = `package raft

// vote grants a vote.
func (r *Raft) vote(from ID) {
	if from == 0 {
		return
	}
	out.Committed = 1 // a field
	switch {
	case r.old(from):
		r.explain(Reason{Rule: OldLog, Committed: 1})
	case r.early:
		r.explain(Reason{Code: Early})
	default:
		if r.ready &&
			r.up {
			r.explain(Reason{Rule: Voted})
		}
	}
}

func (r *Raft) commit() { r.commitTo(1, Committed) }
`

func TestAPlaceIsAFunctionWithTheConditionsThatLeadToIt(t *testing.T) {
	x, err := Read(fstest.MapFS{
		"raft/reason.go": {Data: []byte(reasons)}, "raft/vote.go": {Data: []byte(rules)},
		"raft/vote_test.go": {Data: []byte("package raft\n\nfunc f() { g(Voted) }\n")}, "main.go": {Data: []byte("package main\n")},
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"raft/vote.go": rules}, x.Files)
	at := func(text string) int { return 1 + strings.Count(rules[:strings.Index(rules, text)], "\n") }
	vote := Place{File: "raft/vote.go", Function: "Raft.vote", From: at("// vote"), To: at("func (r *Raft) commit") - 2}
	place := func(line int, guard ...int) []Place {
		p := vote
		p.Lines, p.Guard = []int{line}, guard
		return []Place{p}
	}
	require.Equal(t, map[string][]Place{
		"old-log": place(at("OldLog"), at("if from"), at("case r.old")),
		"early":   place(at("Early"), at("if from"), at("case r.old"), at("case r.early")),
		"voted":   place(at("Voted"), at("if from"), at("case r.old"), at("case r.early"), at("default"), at("if r.ready"), at("r.up {")),
		"committed": {{
			File: "raft/vote.go", Function: "Raft.commit", From: at("func (r *Raft) commit"), To: at("func (r *Raft) commit"), Lines: []int{at("func (r *Raft) commit")},
		}},
	}, x.Rules)
}

func TestCodeThatDoesNotParseIsAnError(t *testing.T) {
	_, err := Read(fstest.MapFS{"raft/a.go": {Data: []byte("package")}})
	require.ErrorContains(t, err, "raft/a.go")
}
