// Package guard decides what the clients of a server may do, by the policy of
// package access and the tokens that they show.
//
// A program that can read cluster.json has the cluster's secret, so it may do
// anything anyway. It derives a token with the role operate from the secret, so
// that the commands of the operator need no other token.
package guard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
)

// Public reports whether other machines can reach a server that listens on an address.
func Public(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// NewToken draws a token, which has at least 128 random bits.
func NewToken() string { return rand.Text() }

// Hash returns the hash of a token.
func Hash(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// OperatorToken returns the token with the role operate that is derived from the
// secret of a cluster. Another cluster with the same secret has another one.
func OperatorToken(cluster, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "raftsteps operator token\x00%s", cluster)
	return hex.EncodeToString(mac.Sum(nil))
}

// Guard decides what the clients of one server may do. Its methods are safe for
// concurrent use. A nil Guard allows everything.
type Guard struct {
	log *slog.Logger

	// operator is the token of the operator, if there is one.
	operator []access.Token

	rules atomic.Pointer[rules]

	// mu guards the limit on log messages: wrong is when the last one was written,
	// and quiet is how many wrong tokens there were since.
	mu    sync.Mutex
	wrong time.Time
	quiet int
}

// rules are a policy as it is in force. They do not change.
type rules struct {
	// open is true if there is no policy: then everyone may do everything.
	open      bool
	anonymous access.Role
	tokens    []access.Token
}

// New returns a guard. operator is the token of OperatorToken, "" for none.
// With no policy (nil) everyone may do everything, and no token is wrong. With no
// log (nil) nothing is logged.
func New(p *access.Policy, operator string, log *slog.Logger) *Guard {
	g := &Guard{log: log}
	if operator != "" {
		g.operator = []access.Token{{Role: access.Operate, Hash: Hash(operator)}}
	}
	g.Set(p)
	return g
}

// Set replaces the policy. It also counts for clients that are connected: a token
// that is no longer there is worth nothing from now on.
func (g *Guard) Set(p *access.Policy) {
	r := &rules{open: p == nil}
	if p != nil {
		r.anonymous, r.tokens = p.Anonymous, slices.Concat(g.operator, p.Tokens)
	}
	g.rules.Store(r)
}

// Open reports whether everyone may do everything.
func (g *Guard) Open() bool { return g == nil || g.rules.Load().open }

// find returns the token with this hash. It compares the hash with each, so that
// the time it takes says nothing about them.
func (r *rules) find(hash [sha256.Size]byte) (t access.Token, found bool) {
	for _, other := range r.tokens {
		if subtle.ConstantTimeCompare(hash[:], other.Hash[:]) == 1 {
			t, found = other, true
		}
	}
	return t, found
}

// Client is one client as the guard knows it. Its zero value may do everything. It
// must be used by one goroutine at a time.
type Client struct {
	guard *Guard
	rules *rules

	// shown is true if the client has shown a token, and hash is that token's.
	shown bool
	hash  [sha256.Size]byte

	// certified is the role of the client's certificate.
	certified access.Role

	// role is the highest role that the client has by now. token is the token that
	// it has shown, and known says whether the servers still know that one.
	role  access.Role
	token access.Token
	known bool
}

// Client returns a client that has shown nothing but perhaps a certificate, with
// this role; None if it has shown none.
func (g *Guard) Client(certified access.Role) Client {
	c := Client{guard: g, certified: certified}
	if g != nil {
		c.settle(g.rules.Load())
	}
	return c
}

// settle computes the role of the client.
func (c *Client) settle(r *rules) {
	c.rules = r
	if r.open {
		c.role = access.Operate
		return
	}
	c.role = max(r.anonymous, c.certified)
	if c.shown {
		c.token, c.known = r.find(c.hash)
		c.role = max(c.role, c.token.Role)
	}
}

// Show takes the token of the client, which comes from this address. The error
// says that the token is wrong.
func (c *Client) Show(token string, from string) *api.Error {
	if c.guard == nil {
		return nil
	}
	err := access.CheckToken(token)
	if err == nil {
		c.shown, c.hash = true, Hash(token)
	}
	c.settle(c.guard.rules.Load())
	switch {
	case c.rules.open || c.known:
		return nil
	case err == nil:
		err = errors.New("this server does not know the token that was shown")
	}
	c.guard.note(from)
	return denied("%v", err)
}

// Denied says why the client may not have an operation carried out; nil means that
// it may.
func (c *Client) Denied(op string) *api.Error {
	what := op
	if op == api.Open {
		what = "a write" // a client opens a session before its first write
	}
	return c.Lacks(what, access.Needs(op))
}

// Lacks says that the client lacks the role that something needs; nil means that it
// has it.
func (c *Client) Lacks(what string, need access.Role) *api.Error {
	if c.guard == nil {
		return nil
	}
	if now := c.guard.rules.Load(); now != c.rules {
		c.settle(now)
	}
	if c.role >= need {
		return nil
	}
	who := "a client that shows no token"
	switch {
	case c.shown && !c.known:
		return denied("this server no longer knows the token that was shown")
	case c.shown && c.token.Role >= c.certified:
		who = fmt.Sprintf("the token %q", c.token.Name)
	case c.certified != access.None:
		who = "the client's certificate"
	}
	if c.role == access.None {
		return denied("%s needs the role %v, and %s may do nothing here", what, need, who)
	}
	return denied("%s needs the role %v, and %s has the role %v", what, need, who, c.role)
}

// Shown reports whether the client has shown a token that this server knows.
func (c *Client) Shown() bool { return c.shown && c.known }

func denied(format string, args ...any) *api.Error {
	return &api.Error{Code: api.Denied, Definite: true, Message: fmt.Sprintf(format, args...)}
}

// note logs a wrong token, at most once per second.
func (g *Guard) note(from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if !g.wrong.IsZero() && now.Sub(g.wrong) < time.Second {
		g.quiet++
		return
	}
	if g.log != nil {
		g.log.Warn("a client has shown a wrong token", "client", from, "wrong_before", g.quiet)
	}
	g.wrong, g.quiet = now, 0
}
