// Package access says who may do what: a client has a role, and each operation
// needs one. Package guard enforces it.
//
// A client gets its role by its certificate, if the servers speak TLS, or by a token,
// which it shows when it connects; if it has both, the higher role counts. The servers
// know only the hash of a token. A token is as random as a key, so a plain hash is
// enough: there is nothing to guess.
//
// The package links neither cryptography nor the network: a configuration has a
// policy in every world, also in a browser.
package access

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// Role is what a client may do. A role includes every role before it.
type Role int

// The roles.
const (
	// None may do nothing.
	None Role = iota

	// Read may read keys, and see the status, the log and the members.
	Read

	// Write may also change keys.
	Write

	// Operate may also change the members and the leader.
	Operate
)

var roleNames = [...]string{"none", "read", "write", "operate"}

func (r Role) String() string { return roleNames[r] }

// ParseRole returns the role of a name: read, write or operate.
func ParseRole(name string) (Role, error) {
	for r := Read; r <= Operate; r++ {
		if name == r.String() {
			return r, nil
		}
	}
	return None, fmt.Errorf("%q is not a role; the roles are read, write and operate", name)
}

// needs is the role that each operation needs.
var needs = map[string]Role{
	kv.Get:      Read,
	api.List:    Read,
	api.Watch:   Read,
	api.Status:  Read,
	api.Hash:    Read,
	api.Log:     Read,
	api.Members: Read,
	api.Barrier: Read,

	kv.Put:      Write,
	kv.Create:   Write,
	kv.Append:   Write,
	kv.Cas:      Write,
	kv.Delete:   Write,
	api.Open:    Write,
	api.Propose: Write,

	api.Lead:     Operate,
	api.Change:   Operate,
	api.Cancel:   Operate,
	api.Transfer: Operate,
}

// Needs returns the role that an operation needs. An operation that is not in the
// table needs the highest role.
func Needs(op string) Role {
	if r, known := needs[op]; known {
		return r
	}
	return Operate
}

// Unlisted returns the operations that are not in the table of roles, sorted. A
// stage has none; its tests check that.
func Unlisted(ops api.Ops) []string {
	var names []string
	for op := range ops {
		if _, known := needs[op]; !known {
			names = append(names, op)
		}
	}
	slices.Sort(names)
	return names
}

// Limits of a policy.
const (
	// MaxTokens is how many tokens there can be.
	MaxTokens = 1000

	// MaxToken is how long a token may be, in bytes.
	MaxToken = 256
)

// HashSize is the size of a SHA-256, in bytes.
const HashSize = 32

// Policy says which role a client has. It is the field "access" of cluster.json:
//
//	{"tokens": [{"name": "app", "role": "write", "sha256": "…"}], "anonymous": "read"}
type Policy struct {
	// Tokens are the tokens, each with a name of its own.
	Tokens []Token

	// Anonymous is the role of a client that shows no token.
	Anonymous Role
}

// Token is a token as the servers know it.
type Token struct {
	// Name is for people.
	Name string

	// Role is the role of a client that shows the token.
	Role Role

	// Hash is the SHA-256 of the token.
	Hash [HashSize]byte
}

// The characters of names, and those of tokens in HTTP (RFC 6750). A token can also
// end with =.
const (
	inNames  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	inTokens = inNames + "~+/"
)

// maxName is how long the name of a token may be.
const maxName = 64

// CheckToken returns what is wrong with the form of a token, or nil. The error does
// not contain the token.
func CheckToken(token string) error {
	switch {
	case token == "":
		return errors.New("the token is empty")
	case len(token) > MaxToken:
		return fmt.Errorf("the token has %d characters; it has at most %d", len(token), MaxToken)
	case token[0] == '=' || strings.Trim(strings.TrimRight(token, "="), inTokens) != "":
		return errors.New("the token has a character that tokens do not have; they have letters, digits and . _ ~ + / - =")
	}
	return nil
}

// CheckName returns what is wrong with the name of a token, or nil.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.Trim(name, inNames) != "" {
		return fmt.Errorf("%q is not a name for a token; a name has 1 to %d letters, digits, and . _ -", name, maxName)
	}
	return nil
}

// Add adds a token to the policy. Its name must be new.
func (p *Policy) Add(t Token) error {
	switch {
	case CheckName(t.Name) != nil:
		return CheckName(t.Name)
	case t.Role < Read || t.Role > Operate:
		return errors.New("the role of a token is read, write or operate")
	case p.Index(t.Name) >= 0:
		return fmt.Errorf("there is a token with the name %q already", t.Name)
	case slices.ContainsFunc(p.Tokens, func(o Token) bool { return o.Hash == t.Hash }):
		return fmt.Errorf("the token %q has the hash of another token", t.Name)
	case len(p.Tokens) == MaxTokens:
		return fmt.Errorf("there are %d tokens, which is the limit", MaxTokens)
	}
	p.Tokens = append(p.Tokens, t)
	return nil
}

// Index returns the position of the token with this name, or -1.
func (p *Policy) Index(name string) int {
	return slices.IndexFunc(p.Tokens, func(t Token) bool { return t.Name == name })
}

// Equal reports whether two policies say the same; nil is equal to nil only.
func (p *Policy) Equal(o *Policy) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.Anonymous == o.Anonymous && slices.Equal(p.Tokens, o.Tokens)
}

// String describes a policy for the log.
func (p *Policy) String() string {
	if p == nil {
		return "everyone may do everything"
	}
	return fmt.Sprintf("%d tokens; without one: %v", len(p.Tokens), p.Anonymous)
}

// Clone returns a copy of the policy that shares nothing with it; nil for nil.
func (p *Policy) Clone() *Policy {
	if p == nil {
		return nil
	}
	return &Policy{Tokens: slices.Clone(p.Tokens), Anonymous: p.Anonymous}
}

// ErrNoPolicy is the error of a server that other machines could use, and that was
// not told what they may do.
var ErrNoPolicy = errors.New(`the configuration must say what their clients may do: it needs "access" with tokens, or "access": {"anonymous": "operate"} if everyone who can reach the server may do anything`)

// CheckPublic returns ErrNoPolicy if a server with this policy must not be reachable
// from other machines.
func CheckPublic(p *Policy) error {
	if p == nil {
		return ErrNoPolicy
	}
	return nil
}

// Decode reads a policy. It reports errors to d.
func Decode(d *strict.Decoder) *Policy {
	p := &Policy{}
	d.Object(func(field []byte) {
		switch string(field) {
		case "tokens":
			d.Array(func() {
				if t := decodeToken(d); !d.Failed() {
					if err := p.Add(t); err != nil {
						d.Fail("%v", err)
					}
				}
			})
		case "anonymous":
			if name := d.String(); name != None.String() {
				p.Anonymous = role(d, name)
			}
		default:
			d.Fail("unknown field; access has tokens, and anonymous: the role of a client that shows no token")
		}
	})
	return p
}

func decodeToken(d *strict.Decoder) (t Token) {
	hashed := false
	d.Object(func(field []byte) {
		switch string(field) {
		case "name":
			t.Name = d.String()
		case "role":
			t.Role = role(d, d.String())
		case "sha256":
			text := d.Bytes()
			if n, err := hex.Decode(t.Hash[:], text[:min(len(text), 2*HashSize)]); err != nil || n != len(t.Hash) || len(text) != 2*HashSize {
				d.Fail("want the %d hexadecimal digits of a token's SHA-256", 2*HashSize)
			}
			hashed = true
		default:
			d.Fail("unknown field; a token has name, role and sha256")
		}
	})
	if !hashed && !d.Failed() {
		d.Fail("a token without sha256")
	}
	return t
}

// role reads the name of a role.
func role(d *strict.Decoder, name string) Role {
	r, err := ParseRole(name)
	if err != nil && !d.Failed() {
		d.Fail("%v", err)
	}
	return r
}

// onDisk and tokenOnDisk are the form of a policy in cluster.json.
type onDisk struct {
	Tokens    []tokenOnDisk `json:"tokens,omitempty"`
	Anonymous string        `json:"anonymous,omitempty"`
}

type tokenOnDisk struct {
	Name string `json:"name"`
	Role string `json:"role"`
	Hash string `json:"sha256"`
}

// Encoded returns a value that encoding/json writes in the form that Decode reads;
// nil for nil.
func (p *Policy) Encoded() any {
	if p == nil {
		return nil
	}
	out := onDisk{}
	if p.Anonymous != None {
		out.Anonymous = p.Anonymous.String()
	}
	for _, t := range p.Tokens {
		out.Tokens = append(out.Tokens, tokenOnDisk{t.Name, t.Role.String(), hex.EncodeToString(t.Hash[:])})
	}
	return out
}
