package client

import (
	"errors"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// check refuses what the server would refuse.
func check(r api.Request) error {
	if r.Op != kv.Get && !kv.Writes(r.Op) {
		return nil // not a command; the server checks it
	}
	if e := api.CheckCommand(r.Command()); e != nil {
		return e
	}
	return nil
}

// explain turns the error of a request into the one that the caller gets: it is
// always an *api.Error, and a read without an answer is a definite failure,
// because a read changes nothing.
func explain(r api.Request, err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		e = api.Lost(err.Error())
	}
	if !api.OnlyReads(r.Op) {
		return e
	}
	return e.OfRead(r.Op)
}
