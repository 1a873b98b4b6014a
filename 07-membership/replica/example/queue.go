package main

import (
	"bytes"
	"fmt"
	"slices"

	"example.com/raftsteps/07-membership/server"
)

// queue is the state machine: jobs that wait for workers, in the order in which they
// were added. A command is an operation, a name and, for add, the work:
//
//	add door paint the door
//	take ann
//	done door
//
// A client that gets no answer may send a command again. So each command can be carried out
// twice without harm: the second add finds the job, the second take returns the job
// that ann has already, and the second done finds no job.
type queue struct{ jobs []job }

type job struct {
	Name string

	// Work is what should be done: any bytes.
	Work []byte

	// Worker is the worker that has taken the job, or "".
	Worker string
}

func newQueue() *queue { return &queue{} }

// result is what a command gives. Job is the job it is about, if there is one.
type result struct {
	Text string
	Job  *job
}

// Apply is server.Machine.Apply. It uses no clock, no randomness and nothing else
// that differs between two servers.
func (q *queue) Apply(_ uint64, command []byte) any {
	op, rest, _ := bytes.Cut(command, []byte{' '})
	name, work, _ := bytes.Cut(rest, []byte{' '})
	switch string(op) {
	case "add":
		return q.add(job{Name: string(name), Work: work})
	case "take":
		return q.take(string(name))
	case "done":
		return q.done(string(name))
	}
	return result{Text: fmt.Sprintf("there is no operation %q", op)}
}

func (q *queue) add(j job) result {
	if i := q.find(j.Name); i >= 0 {
		return result{Text: "is in the queue already", Job: &q.jobs[i]}
	}
	q.jobs = append(q.jobs, j)
	return result{Text: "added", Job: &j}
}

func (q *queue) take(worker string) result {
	has := slices.IndexFunc(q.jobs, func(j job) bool { return j.Worker == worker })
	if has < 0 {
		has = slices.IndexFunc(q.jobs, func(j job) bool { return j.Worker == "" })
	}
	if has < 0 {
		return result{Text: "no job waits"}
	}
	q.jobs[has].Worker = worker
	return result{Text: "taken by " + worker, Job: &q.jobs[has]}
}

func (q *queue) done(name string) result {
	i := q.find(name)
	if i < 0 {
		return result{Text: "there is no job " + name}
	}
	j := q.jobs[i]
	q.jobs = slices.Delete(q.jobs, i, i+1)
	return result{Text: "done", Job: &j}
}

func (q *queue) find(name string) int {
	return slices.IndexFunc(q.jobs, func(j job) bool { return j.Name == name })
}

// Snapshot is server.Machine.Snapshot. Commands are applied while the view is written,
// so it has a copy of the list. The work is shared, because nobody changes its bytes.
func (q *queue) Snapshot() server.View { return view(slices.Clone(q.jobs)) }

// view is the queue at one moment.
type view []job

// Save is server.View.Save: a job is a line.
func (v view) Save(line func(add func(b []byte) []byte)) error {
	for _, j := range v {
		line(func(b []byte) []byte { return append(fmt.Appendf(b, "%s %s ", j.Name, j.Worker), j.Work...) })
	}
	return nil
}

// Close is server.View.Close.
func (v view) Close() {}

// Restore is server.Machine.Restore: it reads a line that Save has written.
func (q *queue) Restore(line []byte) error {
	part := bytes.SplitN(line, []byte{' '}, 3)
	if len(part) != 3 {
		return fmt.Errorf("this is not a job: %.40q", line)
	}
	q.jobs = append(q.jobs, job{Name: string(part[0]), Worker: string(part[1]), Work: bytes.Clone(part[2])})
	return nil
}
