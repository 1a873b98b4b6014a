// Package engine is what the page of the lab talks to: it plays scripts of one
// stage, answers questions about them, and describes the stage. A question and its answer are each one line of
// JSON, so that any carrier will do: HTTP, the standard input and output of a
// process, or a function that a browser calls.
package engine

import (
	"bytes"
	"fmt"
	"slices"

	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/scenario"
)

// Describe is the question that is answered with a description of the stage. Every
// other question is a Question.
const Describe = `"describe"`

// Question is a script, and what to do with it.
type Question struct {
	// Ask is what is asked for.
	Ask Ask

	Script film.Script

	// Moment and Server are for Disk.
	Moment film.Moment
	Server uint64
}

// Ask is what somebody wants to know about a script.
type Ask string

// The things that can be asked for.
const (
	// Film asks for the film. Such a question is the script alone.
	Film Ask = ""

	// Test asks for a test in Go that plays the script.
	Test Ask = "test"

	// Disk asks for the files of a server at a moment.
	Disk Ask = "disk"
)

// MaxQuestion is the longest question, in bytes of JSON.
const MaxQuestion = film.MaxScript + 200

// Read reads a question. The error says where and what is wrong.
func Read(text []byte) (Question, error) {
	var q Question
	if len(text) > MaxQuestion {
		return q, fmt.Errorf("a question of %d bytes is too long; %d are allowed", len(text), MaxQuestion)
	}
	script := text
	if bytes.HasPrefix(text, []byte(`{"ask":`)) {
		d := strict.NewDecoder(text)
		d.Object(func(field []byte) {
			switch string(field) {
			case "ask":
				q.Ask = Ask(d.String())
			case "script":
				script = d.Raw()
			case "step":
				q.Moment.Step = d.Uint()
			case "half":
				q.Moment.Half = d.Bool()
			case "server":
				q.Server = d.Uint()
			default:
				d.Unknown()
			}
		})
		if err := d.End(); err != nil {
			return q, fmt.Errorf("the question: %w", err)
		}
		if q.Ask != Test && q.Ask != Disk {
			return q, fmt.Errorf("the question: ask is %.40q; it can be %q or %q", q.Ask, Test, Disk)
		}
	}
	var err error
	q.Script, err = film.Decode(script)
	return q, err
}

// AppendJSON appends the question on one line. Read reads it.
func (q Question) AppendJSON(b []byte) []byte {
	if q.Ask == Film {
		return q.Script.AppendJSON(b)
	}
	b = strict.AppendString(append(b, `{"ask":`...), q.Ask)
	b = append(b, `,"script":`...)
	b = q.Script.AppendJSON(b)
	b = strict.AppendNumber(b, "step", q.Moment.Step)
	b = strict.AppendFlag(b, "half", q.Moment.Half)
	b = strict.AppendNumber(b, "server", q.Server)
	return append(b, '}')
}

// Answer answers a question: with a description of the stage, with the film of a
// script, or with what else is asked about it. The error is about the question.
func Answer(stage scenario.Stage, question []byte) ([]byte, error) {
	question = bytes.TrimSpace(question)
	if string(question) == Describe {
		return describe(stage), nil
	}
	q, err := Read(question)
	if err != nil {
		return nil, err
	}
	switch q.Ask {
	case Disk:
		return film.Disk(stage, q.Script, q.Moment, q.Server)
	case Test:
		text, err := film.GoTest(stage, q.Script)
		if err != nil {
			return nil, err
		}
		return append(strict.AppendString([]byte(`{"text":`), text), '}'), nil
	}
	f, err := film.Play(stage, q.Script)
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
	b = append(b, `,"fields":{`...)
	for _, name := range film.Deeds() {
		b = strict.AppendArray(b, name, film.Fields(name), strict.AppendString)
	}
	b = append(b, '}')
	b = strict.AppendArray(b, "ops", ops, strict.AppendString)
	return append(b, '}')
}
