package client

import (
	"errors"
	"unicode/utf8"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// check refuses what the server would refuse. One reason is speed, the better
// one is that JSON cannot even ask it: text that is not UTF-8 would arrive as
// other text, and be stored.
func check(r api.Request) error {
	if r.Op != kv.Get && !kv.Writes(r.Op) {
		return nil // not a command; the server knows what it takes
	}
	if e := api.CheckCommand(r.Command()); e != nil {
		return e
	}
	for _, field := range []struct{ name, text string }{{"key", r.Key}, {"value", r.Value}, {"old value", r.Old}} {
		if !utf8.ValidString(field.text) {
			return &api.Error{Code: api.BadRequest, Message: "the " + field.name + " is not valid UTF-8; keys and values are text", Definite: true}
		}
	}
	return nil
}

// explain turns the error of a request into the one that the caller gets: it
// is an *api.Error in any case, and a read whose answer was lost is a definite
// failure, for there is nothing that it could have changed.
func explain(r api.Request, err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		e = api.Lost(err.Error())
	}
	if !onlyReads(r.Op) {
		return e
	}
	return e.OfRead(r.Op)
}

func onlyReads(op string) bool { return op == kv.Get || op == api.Status || op == api.Log }
