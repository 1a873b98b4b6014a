package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// The exit codes.
const (
	exitDone        = 0
	exitRefused     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitMismatch    = 4
	exitUnavailable = 5
	exitUnknown     = 6

	// exitInterrupted is what shells use for a program that ^C ended.
	exitInterrupted = 130
)

// The help topic about the exit codes, in three parts: the second is for stages
// whose members can be changed.
const (
	exitCodesHelp = `The exit code says whether the operation happened:

  0  done
  1  refused, or another error: it did not happen, and repeating the same request will not help
  2  usage: the command line is wrong, or names a server that the cluster does not have
  3  not found: the key has no value
  4  mismatch: cas found a value other than OLD, or create found a key with a value
  5  unavailable: no server could do it now; it did not happen and can be repeated
  6  unknown: it was sent, but no answer came; it may or may not have happened, or may still happen

130  interrupted by ^C; the error says what is known about the outcome

^C is the normal end of a server and of cluster, lab, talk and watch: they end with 0.

After 6 or 130, read the key before you write again: a second append may add the text twice.
`
	exitCodesOfChanges = `After add, remove, change, cancel or transfer, run members instead: an accepted change continues by itself.
`
	exitCodesOfGoRun = `
"go run" hides the code: it ends with 1 for all codes but 0. Build the program to see the code,
as in: go build -o kv . && ./kv get x; echo $?`
)

// exitCodesHelp returns the help topic.
func (a *app) exitCodesHelp() string {
	if !a.needs().Changes {
		return exitCodesHelp + exitCodesOfGoRun
	}
	return exitCodesHelp + exitCodesOfChanges + exitCodesOfGoRun
}

// usageError is the error for a wrong command line.
type usageError struct {
	message string

	// hint says what to do, such as which help to read; "" for none.
	hint string
}

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...)}
}

// errInterrupted is the error of a command that ^C has interrupted.
var errInterrupted = errors.New("interrupted")

// interruptedError is the error of a command that ^C has cut short. err says what
// is known about its outcome.
type interruptedError struct{ err error }

func (e *interruptedError) Error() string { return "interrupted: " + e.err.Error() }
func (e *interruptedError) Unwrap() error { return e.err }

// interrupted marks an error that ^C may have caused: no server could do it, the
// outcome is unknown, or the context was canceled. Other errors, such as a
// violation that bench found, have another cause.
func interrupted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	switch code := exitCode(err); {
	case code == exitUnavailable, code == exitUnknown, errors.Is(err, context.Canceled):
		return &interruptedError{err}
	}
	return err
}

// exitError is an error that was already reported.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	var usage *usageError
	var failed *api.Error
	var end exitError
	var ended *endError
	var cut *interruptedError
	var none *cluster.NoServerError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &cut):
		return exitInterrupted
	case errors.As(err, &ended):
		return ended.code
	case errors.As(err, &end):
		return int(end)
	case errors.As(err, &usage), errors.As(err, &none):
		return exitUsage
	case errors.Is(err, cluster.ErrNotRunning):
		return exitUnavailable
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case !errors.As(err, &failed):
		return exitRefused
	case !failed.Definite:
		return exitUnknown
	}
	switch failed.Code {
	case api.NotFound:
		return exitNotFound
	case api.Mismatch, api.Exists:
		return exitMismatch
	case api.Busy, api.Unavailable:
		return exitUnavailable
	case api.Unknown:
		return exitUnknown
	}
	return exitRefused
}

// reportError writes an error to stderr in one line. With -o json it also
// writes the error to stdout as a line of JSON, as a server does, unless the
// command has written a result.
func (a *app) reportError(err error) {
	var end exitError
	if errors.As(err, &end) {
		return
	}
	if a.json != nil && !a.json.written {
		fmt.Fprintf(a.json, "%s\n", api.Response{Error: asAnswer(err)}.AppendJSON(nil))
	}
	fmt.Fprintf(a.stderr, "error: %s\n", oneLine(a.describe(err)))
}

// usageCode is the code of a wrong command line. No server uses it.
const usageCode api.Code = "usage"

// asAnswer converts an error to the form that a server uses.
func asAnswer(err error) *api.Error {
	var failed *api.Error
	if errors.As(err, &failed) {
		return failed
	}
	answer := &api.Error{Code: api.Refused, Message: err.Error(), Definite: true}
	switch exitCode(err) {
	case exitUsage:
		answer.Code = usageCode
	case exitUnavailable:
		answer.Code = api.Unavailable
	case exitUnknown, exitInterrupted:
		answer.Code, answer.Definite = api.Unknown, false
	}
	return answer
}

// jsonOutput is stdout with -o json. It records whether anything was written.
type jsonOutput struct {
	io.Writer
	written bool
}

func (o *jsonOutput) Write(b []byte) (int, error) {
	o.written = o.written || len(b) > 0
	return o.Writer.Write(b)
}

// describe says what went wrong and what to do.
func (a *app) describe(err error) string {
	var usage *usageError
	if errors.As(err, &usage) && usage.hint != "" {
		return err.Error() + "; " + usage.hint
	}
	var failed *api.Error
	if !errors.As(err, &failed) {
		return err.Error()
	}
	text := failed.Text() + " (" + string(failed.Code) + ")"
	var cut *interruptedError
	if errors.As(err, &cut) {
		text = "interrupted: " + text
		if failed.Definite {
			// The wait was cut short, so a missing answer says nothing about the
			// servers.
			return text
		}
	}
	if hint := a.hint(failed); hint != "" {
		text += "; " + hint
	}
	return text
}

// hint says what to do about a server's error; "" if its message is enough.
func (a *app) hint(e *api.Error) string {
	switch {
	case !e.Definite:
		return "read the key before you try again"
	case e.Code == api.NotLeader && e.Leader != "":
		return "try --endpoints " + e.Leader
	case e.Code == api.NotLeader && a.stage.Appointed && a.knows(api.Lead):
		return "appoint a leader with: " + a.clusterLine("lead", "SERVER")
	case e.Code == api.Unavailable:
		return a.unavailableHint()
	case e.Code == api.Busy:
		return "try again later"
	case e.Code == api.Denied:
		return a.deniedHint()
	}
	return ""
}

// knows reports whether the stage has an operation.
func (a *app) knows(op string) bool {
	_, known := a.stage.Ops[op]
	return known
}

// unavailableHint says how to restart servers, or how to start the first one.
func (a *app) unavailableHint() string {
	ctx := context.Background()
	states := a.processes(ctx)
	asked, _ := a.targets()
	if _, known := a.stage.Ops[api.Members]; known && states != nil {
		// Some of the servers that were asked may have been removed: they are not
		// needed.
		if v, err := a.askMembers(ctx); err == nil {
			if missing := v.missing(states); len(missing) > 0 {
				return a.comeBack(missing...)
			}
			asked = nil
		}
	}
	var away []cluster.Server
	for i, address := range asked {
		if s, known := states[address]; known && s.State != cluster.Running {
			away = append(away, s)
		}
		if i == 0 && a.stage.Appointed && len(away) > 0 {
			break // the leader comes first, and nothing replaces it
		}
	}
	if len(away) > 0 {
		slices.SortFunc(away, func(a, b cluster.Server) int { return cmp.Compare(a.ID, b.ID) })
		return a.comeBack(away...)
	}
	if states != nil && a.stage.Appointed && a.knows(api.Lead) {
		return fmt.Sprintf("see the servers with: %s; if none of them is the leader, appoint one with: %s", a.clusterLine("status"), a.clusterLine("lead", "SERVER"))
	}
	if states != nil {
		return fmt.Sprintf("see the servers with: %s", a.clusterLine("status"))
	}
	return a.startHint()
}

// startHint says how to start a server that does not answer.
func (a *app) startHint() string {
	return fmt.Sprintf("is the server running? (%s%s)", a.startCommand(), a.dataFlag())
}

// comeBack says how to restart or resume servers that are not running.
func (a *app) comeBack(servers ...cluster.Server) string {
	if a.stage.Serve != nil {
		return a.singleBack(servers[0])
	}
	var paused, down []cluster.Server
	for _, s := range servers {
		if s.State == cluster.Paused {
			paused = append(paused, s)
		} else {
			down = append(down, s)
		}
	}
	var parts []string
	switch {
	case len(down) == 1:
		parts = append(parts, fmt.Sprintf("%s is not running (%s); bring it back with: %s", node.Name(down[0].ID), down[0].State, a.onServers("restart", down)))
	case len(down) > 1:
		parts = append(parts, fmt.Sprintf("%s are not running; bring them back with: %s", serverNames(down), a.onServers("restart", down)))
	}
	switch {
	case len(paused) == 1:
		parts = append(parts, fmt.Sprintf("%s is paused; resume it with: %s", node.Name(paused[0].ID), a.onServers("resume", paused)))
	case len(paused) > 1:
		parts = append(parts, fmt.Sprintf("%s are paused; resume them with: %s", serverNames(paused), a.onServers("resume", paused)))
	}
	return strings.Join(parts, "; ")
}

func serverNames(servers []cluster.Server) string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = node.Name(s.ID)
	}
	return strings.Join(names, ", ")
}

// onServers returns the command line for an action on servers.
func (a *app) onServers(do string, servers []cluster.Server) string {
	words := []string{do}
	for _, s := range servers {
		words = append(words, strconv.FormatUint(s.ID, 10))
	}
	return a.folderLine(words...)
}

// oneLine replaces control characters by blanks, so that a text from a server
// stays on one line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}

// refused returns an error of the form that a server returns, for a problem that
// this program has found.
func refused(code api.Code, format string, args ...any) error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...), Definite: true}
}

// errTooLong returns the error for a value that is too long.
func errTooLong() error {
	return refused(api.TooLarge, "standard input holds more than %d bytes, the maximum length of a value", kv.MaxValue)
}
