// Package engine is what the page of the lab talks to: it plays scripts of one
// stage, and describes the stage. A question and its answer are each one line of
// JSON, so that any carrier will do: HTTP, the standard input and output of a
// process, or a function that a browser calls.
package engine

import (
	"bytes"
	"slices"

	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/scenario"
)

// Describe is the question that is answered with a description of the stage; every
// other question is a script.
const Describe = `"describe"`

// Answer answers a question: with a description of the stage, or with the film of a
// script. The error is about the script.
func Answer(stage scenario.Stage, question []byte) ([]byte, error) {
	if string(bytes.TrimSpace(question)) == Describe {
		return describe(stage), nil
	}
	script, err := film.Decode(question)
	if err != nil {
		return nil, err
	}
	f, err := film.Play(stage, script)
	if err != nil {
		return nil, err
	}
	return f.AppendJSON(nil), nil
}

// Failure is the answer to a question that has none.
func Failure(err error) []byte {
	return append(strict.AppendString([]byte(`{"error":`), err.Error()), '}')
}

// describe says what the page must know about a stage.
func describe(stage scenario.Stage) []byte {
	var ops []string
	for name := range stage.Ops {
		ops = append(ops, name)
	}
	slices.Sort(ops)
	var stories []scenario.Scenario
	for _, s := range scenario.All() {
		if stage.Applies(s.Name) {
			stories = append(stories, s)
		}
	}
	b := strict.AppendString([]byte(`{"stage":`), stage.Name)
	b = append(b, `,"servers":5`...)
	b = strict.AppendFlag(b, "appointed", stage.Appointed)
	b = strict.AppendArray(b, "stories", stories, func(b []byte, s scenario.Scenario) []byte {
		b = strict.AppendString(append(b, `{"name":`...), s.Name)
		b = strict.AppendText(b, "claim", s.Claim)
		b = strict.AppendFlag(b, "survives", slices.Contains(stage.Survives, s.Name))
		return append(b, '}')
	})
	b = strict.AppendArray(b, "deeds", film.Deeds(), strict.AppendString)
	b = strict.AppendArray(b, "ops", ops, strict.AppendString)
	return append(b, '}')
}
