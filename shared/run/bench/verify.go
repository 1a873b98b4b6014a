package bench

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// A run with Verify checks the promises of the servers. Each client appends unique
// tokens ("3.17;" is the 18th of client 3) to keys that no other client writes, one
// token after the other, and remembers the answer to each. At the end it reads its
// keys and checks that
//
//   - an acknowledged token is there exactly once,
//   - a token with an unknown outcome is there at most once,
//   - a token that was definitely refused is not there,
//   - acknowledged tokens are in the order in which they were sent, because each
//     was sent after the previous one was acknowledged,
//   - the new length in the answer to an append is at least that of its token,
//   - and there is nothing else.
//
// A token with an unknown outcome that is applied after the reading is not seen.
//
// The reading can be interrupted, and it ends when the servers have answered no
// read for a long time. Tokens that were not checked by then are counted on their
// own: no promise about them is known to be broken, but they have not passed.

// tokensPerKey bounds the values, because each answer contains the whole value.
const tokensPerKey = 64

// readBackLimit is how long the reading continues without an answer to any read,
// such as while the servers restart.
const readBackLimit = 30 * time.Second

// shownViolations is how many violations a report shows; it counts all.
const shownViolations = 20

// Verification is what a run with Options.Verify found.
type Verification struct {
	// Acknowledged, Refused and Unknown count the tokens by their answers.
	// UnknownFound counts the unknown tokens that were found.
	Acknowledged int64 `json:"acknowledged"`
	Refused      int64 `json:"refused"`
	Unknown      int64 `json:"unknown"`
	UnknownFound int64 `json:"unknown_found"`

	// Unchecked counts the tokens that were not checked, because the reading
	// was interrupted or, if Unread is set, because the servers did not answer.
	Unchecked int64  `json:"unchecked,omitempty"`
	Unread    string `json:"unread,omitempty"`

	// Broken is the number of violations; Violations has the first of them.
	Broken     int64       `json:"broken"`
	Violations []Violation `json:"violations"`
}

// Violation is one broken promise.
type Violation struct {
	// Kind is lost, twice, refused, order, answer or unexpected.
	Kind string `json:"kind"`

	// Key is the key of the violation.
	Key string `json:"key"`

	// Text is a sentence for people.
	Text string `json:"text"`
}

func (v *Verification) print(line func(name, format string, args ...any)) {
	found := "%d of them happened"
	if v.Unchecked > 0 {
		found = "%d of them were found"
	}
	line("verify", "%d tokens acknowledged, %d refused, %d with unknown outcome ("+found+")", v.Acknowledged, v.Refused, v.Unknown, v.UnknownFound)
	switch {
	case v.Unchecked > 0:
		why := "interrupted"
		if v.Unread != "" {
			why = "the servers stopped answering"
		}
		line("verify", "%s: %d of %d tokens were checked, and the other %d were not", why, v.sent()-v.Unchecked, v.sent(), v.Unchecked)
		if v.Broken == 0 && v.Unchecked < v.sent() {
			line("verify", "every promise about the checked tokens was kept")
		}
	case v.Broken == 0:
		line("verify", "every promise was kept")
	}
	for _, one := range v.Violations {
		line("violation", "%s: %s: %s", one.Kind, one.Key, one.Text)
	}
	if hidden := v.Broken - int64(len(v.Violations)); hidden > 0 {
		line("violation", "and %d more", hidden)
	}
}

// sent returns the number of tokens.
func (v *Verification) sent() int64 { return v.Acknowledged + v.Refused + v.Unknown }

// fate is the answer that a client got for a token.
type fate byte

const (
	unknown fate = iota
	acknowledged
	refused
)

// judge has the tokens of all clients.
type judge struct {
	clients []*tokenSource

	// lastRead is when a client last read a key, in Unix nanoseconds.
	lastRead atomic.Int64
}

// newJudge returns a judge whose keys contain a random name, so that they are new.
func newJudge(clients int) *judge {
	var name [6]byte
	rand.Read(name[:]) // never fails
	j := &judge{}
	for i := range clients {
		j.clients = append(j.clients, &tokenSource{
			client: i,
			prefix: fmt.Sprintf("verify-%s-%d-", hex.EncodeToString(name[:]), i),
		})
	}
	return j
}

func (j *judge) sources() []source {
	sources := make([]source, len(j.clients))
	for i, c := range j.clients {
		sources[i] = c
	}
	return sources
}

// tokenSource appends the tokens of one client. It is used by one goroutine at
// a time.
type tokenSource struct {
	client int
	prefix string

	// key and token are those of the last request.
	key   string
	token string

	// fates has the answers for the tokens sent so far.
	fates []fate

	// found has the violations of this client.
	found Verification
}

func (s *tokenSource) next() api.Request {
	n := len(s.fates)
	if n%tokensPerKey == 0 {
		s.key = s.keyOf(n)
	}
	s.token = token(s.client, n)
	s.fates = append(s.fates, unknown)
	return api.Request{Op: kv.Append, Key: s.key, Value: s.token}
}

func (s *tokenSource) keyOf(n int) string { return s.prefix + strconv.Itoa(n/tokensPerKey) }

func token(client, n int) string {
	b := strconv.AppendInt(make([]byte, 0, 16), int64(client), 10)
	b = strconv.AppendInt(append(b, '.'), int64(n), 10)
	return string(append(b, ';'))
}

func (s *tokenSource) answered(response api.Response, err *api.Error) {
	last := &s.fates[len(s.fates)-1]
	switch {
	case err == nil:
		*last = acknowledged
		if response.Length < uint64(len(s.token)) {
			s.found.broken("answer", s.key, "%q was acknowledged with a new length of %d, which is less than its own", s.token, response.Length)
		}
	case err.Definite:
		*last = refused
	}
}

// tail returns the end of a value, for a message.
func tail(s string) string {
	const limit = 40
	if len(s) <= limit {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-limit:], "")
}

func (v *Verification) broken(kind, key, format string, args ...any) {
	v.Broken++
	if len(v.Violations) < shownViolations {
		v.Violations = append(v.Violations, Violation{Kind: kind, Key: key, Text: fmt.Sprintf(format, args...)})
	}
}

// readBack reads and checks all keys, each client its own, until ctx is done or
// enough is closed. The clients must have ended.
func (j *judge) readBack(ctx context.Context, enough <-chan struct{}, clients []Client, timeout time.Duration) *Verification {
	j.lastRead.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancel(ctx)
	var watch, g errgroup.Group
	watch.Go(func() error {
		select {
		case <-enough:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	for i, s := range j.clients {
		g.Go(func() error {
			j.readClient(ctx, clients[i%len(clients)], s, timeout)
			return nil
		})
	}
	_ = g.Wait()
	cancel()
	_ = watch.Wait()
	sum := &Verification{Violations: []Violation{}}
	for _, s := range j.clients {
		sum.add(s)
	}
	slices.SortStableFunc(sum.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind))
	})
	sum.Violations = sum.Violations[:min(len(sum.Violations), shownViolations)]
	return sum
}

// readClient reads and checks the keys of one client.
func (j *judge) readClient(ctx context.Context, c Client, s *tokenSource, timeout time.Duration) {
	for n := 0; n < len(s.fates); n += tokensPerKey {
		key := s.keyOf(n)
		value, err := j.read(ctx, c, key, timeout)
		switch {
		case err == nil:
			s.check(key, n, value)
		default:
			s.found.Unchecked = int64(len(s.fates) - n)
			if ctx.Err() == nil {
				s.found.Unread = fmt.Sprintf("key %q: %v", key, err)
			}
			return
		}
	}
}

// read reads one key and retries until there is an answer, ctx is done, or no
// client has read a key for readBackLimit.
func (j *judge) read(ctx context.Context, c Client, key string, timeout time.Duration) (string, error) {
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, timeout)
		response, err := c.Do(short, api.Request{Op: kv.Get, Key: key})
		cancel()
		if err == nil && response.Error != nil {
			err = response.Error
		}
		switch {
		case err == nil || apiError(err).Code == api.NotFound:
			j.lastRead.Store(time.Now().UnixNano())
			return response.Value, nil
		case ctx.Err() == nil && time.Now().UnixNano()-j.lastRead.Load() > int64(readBackLimit):
			return "", err
		}
		time.Sleep(errorPause)
	}
	return "", ctx.Err()
}

// check checks one key. Its tokens are those from first on.
func (s *tokenSource) check(key string, first int, value string) {
	fates := s.fates[first:min(first+tokensPerKey, len(s.fates))]
	times := make([]int, len(fates))
	before := -1
	for value != "" {
		text, rest, whole := strings.Cut(value, ";")
		value = rest
		n := s.number(text) - first
		if !whole || n < 0 || n >= len(fates) {
			s.found.broken("unexpected", key, "holds %q, which the client has not sent to this key", tail(text))
			continue
		}
		times[n]++
		if times[n] > 1 || fates[n] != acknowledged {
			continue
		}
		if n < before {
			s.found.broken("order", key, "%q comes after %q, although it was acknowledged before the other was sent", token(s.client, first+n), token(s.client, first+before))
		}
		before = n
	}
	for n, f := range fates {
		s.judge(key, token(s.client, first+n), f, times[n])
	}
}

// judge compares the answer for a token with how often the token was found.
func (s *tokenSource) judge(key, token string, f fate, times int) {
	switch {
	case f == acknowledged && times == 0:
		s.found.broken("lost", key, "%q was acknowledged, but is missing", token)
	case f == refused && times > 0:
		s.found.broken("refused", key, "%q was definitely refused, but is there", token)
	case times > 1:
		s.found.broken("twice", key, "%q was sent once, but is there %d times", token, times)
	}
	if f == unknown && times > 0 {
		s.found.UnknownFound++
	}
}

// number returns the number of one of this client's tokens, or -1.
func (s *tokenSource) number(text string) int {
	client, n, _ := strings.Cut(text, ".")
	if client != strconv.Itoa(s.client) {
		return -1
	}
	i, err := strconv.Atoi(n)
	if err != nil || strconv.Itoa(i) != n {
		return -1
	}
	return i
}

// add adds the findings of one client.
func (v *Verification) add(s *tokenSource) {
	for _, f := range s.fates {
		switch f {
		case acknowledged:
			v.Acknowledged++
		case refused:
			v.Refused++
		default:
			v.Unknown++
		}
	}
	v.UnknownFound += s.found.UnknownFound
	v.Unchecked += s.found.Unchecked
	v.Unread = cmp.Or(v.Unread, s.found.Unread)
	v.Broken += s.found.Broken
	v.Violations = append(v.Violations, s.found.Violations...)
}
