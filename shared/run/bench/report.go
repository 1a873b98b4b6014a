package bench

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
)

// Report is the result of a run. It marshals to JSON; String formats it as
// text.
type Report struct {
	// Clients, Conns, Mix, ValueSize and Keys say what was run. Conns is 0 if
	// each client had a connection of its own. Mix is "verify" in a run with
	// Options.Verify.
	Clients   int    `json:"clients"`
	Conns     int    `json:"conns"`
	Mix       string `json:"mix"`
	ValueSize int    `json:"value_size"`
	Keys      int    `json:"keys"`

	// Seconds is the measured time. Interrupted is true if the end of the context
	// made it shorter than Options.Duration.
	Seconds     float64 `json:"seconds"`
	Interrupted bool    `json:"interrupted,omitempty"`

	// Ops is the number of operations that were answered, OpsPerSecond that
	// number per second.
	Ops          int64   `json:"ops"`
	OpsPerSecond float64 `json:"ops_per_second"`

	// Latency is the latency of the operations that were answered.
	Latency Latency `json:"latency_us"`

	// Answers counts the operations among Ops that changed or found nothing:
	// codes not_found, mismatch, exists and too_large.
	Answers map[api.Code]Ended `json:"answers"`

	// Errors counts the operations that were not answered, by code.
	Errors map[api.Code]Ended `json:"errors"`

	// Gap is the longest time in which no client was answered.
	Gap Gap `json:"longest_gap"`

	// Verify is what a run with Options.Verify found.
	Verify *Verification `json:"verify,omitempty"`
}

// Latency is a distribution of times, in microseconds, with an error of one
// percent; Max is exact.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Gap is a time without a success, in seconds, to a tenth of a millisecond.
// Began counts from the start of the measured time.
type Gap struct {
	Seconds float64 `json:"seconds"`
	Began   float64 `json:"began"`
}

// report returns the report after all clients have ended.
func (r *run) report() Report {
	r.collect()
	to := time.Duration(r.to.Load())
	length := max(0, to-r.from)
	t := r.total
	report := Report{
		Clients:     r.o.Clients,
		Conns:       r.o.Conns,
		Mix:         r.o.Mix,
		ValueSize:   r.o.ValueSize,
		Keys:        r.o.Keys,
		Seconds:     length.Seconds(),
		Interrupted: r.interrupted,
		Ops:         t.answered(),
		Latency: Latency{
			P50:  microseconds(t.percentile(50)),
			P99:  microseconds(t.percentile(99)),
			P999: microseconds(t.percentile(99.9)),
			Max:  microseconds(t.longest),
		},
		Answers: make(map[api.Code]Ended),
		Errors:  make(map[api.Code]Ended),
	}
	if r.o.Verify {
		report.Mix, report.ValueSize, report.Keys = "verify", 0, 0
	}
	for code, e := range t.ended {
		if code.FromStore() {
			report.Answers[code] = e
		} else {
			report.Errors[code] = e
		}
	}
	if length > 0 {
		report.OpsPerSecond = float64(report.Ops) / length.Seconds()
		gap, began := r.gap.longestUntil(to)
		report.Gap = Gap{Seconds: gap.Seconds(), Began: max(0, began-r.from).Seconds()}
	}
	return report
}

// ErrInterrupted is what Report.Err wraps if Verify was interrupted.
var ErrInterrupted = errors.New("interrupted")

// Err returns nil if the run succeeded. It returns an error if Verify found a
// violation, was interrupted or got no more answers, or if no operation was
// answered. If the servers did not answer, the error is an *api.Error with the
// most frequent code.
func (r Report) Err() error {
	if r.Verify != nil && r.Verify.Broken > 0 {
		return fmt.Errorf("the servers broke their promises: %s", count(r.Verify.Broken, "violation"))
	}
	if r.Verify != nil && r.Verify.Unread != "" {
		return &api.Error{Code: api.Unavailable, Definite: true,
			Message: fmt.Sprintf("of %s, %d were not checked: %s", count(r.Verify.sent(), "token"), r.Verify.Unchecked, r.Verify.Unread)}
	}
	if r.Verify != nil && r.Verify.Unchecked > 0 {
		return fmt.Errorf("%w: of %s, %d were not checked", ErrInterrupted, count(r.Verify.sent(), "token"), r.Verify.Unchecked)
	}
	if r.Ops > 0 || len(r.Errors) == 0 {
		return nil
	}
	code := slices.MaxFunc(codes(r.Errors), func(a, b api.Code) int { return cmp.Compare(r.Errors[a].Count, r.Errors[b].Count) })
	return &api.Error{Code: code, Message: "no operation was answered: " + r.Errors[code].Example, Definite: code != api.Unknown}
}

// String returns the report as text of several lines.
func (r Report) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	line("load", "%s", r.load())
	switch {
	case r.Seconds == 0:
		line("throughput", "nothing measured: interrupted in the warm-up")
	case r.Interrupted:
		line("throughput", "%.0f ops/s (%d operations in %.1f s, interrupted)", r.OpsPerSecond, r.Ops, r.Seconds)
	default:
		line("throughput", "%.0f ops/s (%d operations in %.1f s)", r.OpsPerSecond, r.Ops, r.Seconds)
	}
	if r.Ops > 0 {
		l := r.Latency
		line("latency", "p50 %s, p99 %s, p99.9 %s, max %s", us(l.P50), us(l.P99), us(l.P999), us(l.Max))
	}
	for _, code := range codes(r.Answers) {
		line("answers", "%s: %d", code, r.Answers[code].Count)
	}
	if len(r.Errors) == 0 {
		line("errors", "none")
	}
	for _, code := range codes(r.Errors) {
		line("errors", "%s: %d, such as: %s", code, r.Errors[code].Count, r.Errors[code].Example)
	}
	if r.Seconds > 0 {
		line("longest gap", "%s without a success, %.1f s after the start", us(r.Gap.Seconds*1e6), r.Gap.Began)
	}
	if r.Verify != nil {
		r.Verify.print(line)
	}
	return b.String()
}

// load describes the load in a phrase.
func (r Report) load() string {
	s := count(int64(r.Clients), "client")
	if r.Conns > 0 {
		s += " over " + count(int64(r.Conns), "connection")
	}
	if r.Verify != nil {
		return s + ", appending tokens"
	}
	return fmt.Sprintf("%s, %s, values of %s, %s", s, r.Mix, count(int64(r.ValueSize), "byte"), count(int64(r.Keys), "key"))
}

func codes(m map[api.Code]Ended) []api.Code { return slices.Sorted(maps.Keys(m)) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// us formats a time in microseconds with three digits.
func us(v float64) string { return latency(time.Duration(v * float64(time.Microsecond))) }

// latency formats a time with three digits.
func latency(d time.Duration) string {
	unit, name := time.Microsecond, "µs"
	switch {
	case d >= time.Second:
		unit, name = time.Second, "s"
	case d >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	}
	v := float64(d) / float64(unit)
	digits := 0
	switch {
	case v < 10:
		digits = 2
	case v < 100:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + name
}

// rate formats operations per second.
func rate(n int64, d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	return strconv.FormatFloat(float64(n)/d.Seconds(), 'f', 0, 64)
}

// count formats a number and a noun: "1 error", "2 errors".
func count(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatInt(n, 10) + " " + noun
}
