package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.com/raftsteps/shared/core/strict"
)

// Limits of a change.
const (
	// MaxMembers is how many servers a cluster may have, and how many a change
	// may name.
	MaxMembers = 99

	// MaxID is the highest ID of a server: each program that reads JSON knows
	// the whole numbers up to here.
	MaxID = 1 << 53

	// MaxAddress is how long an address may be, in bytes: a host name and a
	// port.
	MaxAddress = 260
)

// Member is one server of a cluster.
type Member struct {
	// ID is 1 or more, and never used again for another server.
	ID uint64

	// Address is where clients and peers reach it: host:port.
	Address string
}

// CheckChange says what is wrong with Add and Remove, independently of who the members are,
// or nil.
func (r Request) CheckChange() error {
	switch n := len(r.Add) + len(r.Remove); {
	case n == 0:
		return fmt.Errorf("the change is empty: name servers to add, or to remove")
	case n > MaxMembers:
		return fmt.Errorf("the change names %d servers; at most %d are allowed", n, MaxMembers)
	}
	for i, m := range r.Add {
		if err := checkAdded(i, m, r.Add[:i]); err != nil {
			return err
		}
	}
	for i, id := range r.Remove {
		if err := checkID(fmt.Sprintf("remove[%d]", i), id); err != nil {
			return err
		}
		switch {
		case slices.Contains(r.Remove[:i], id):
			return fmt.Errorf("n%d is removed twice", id)
		case slices.ContainsFunc(r.Add, func(m Member) bool { return m.ID == id }):
			return fmt.Errorf("n%d is both to be added and to be removed; to move a server, add it at its new address", id)
		}
	}
	return nil
}

// checkAdded checks the i-th server to add, which follows before.
func checkAdded(i int, m Member, before []Member) error {
	at := fmt.Sprintf("add[%d]", i)
	if err := checkID(at+".id", m.ID); err != nil {
		return err
	}
	if err := CheckMemberAddress(m.Address); err != nil {
		return fmt.Errorf("field %q: %w", at+".address", err)
	}
	for _, other := range before {
		switch {
		case other.ID == m.ID:
			return fmt.Errorf("n%d is added twice", m.ID)
		case other.Address == m.Address:
			return fmt.Errorf("n%d and n%d have the same address, %s; each server has its own", other.ID, m.ID, m.Address)
		}
	}
	return nil
}

func checkID(field string, id uint64) error {
	switch {
	case id == 0:
		return fmt.Errorf("field %q is missing or 0; IDs start at 1", field)
	case id > MaxID:
		return fmt.Errorf("field %q is %d; at most 2^53 is allowed", field, id)
	}
	return nil
}

// CheckAddress says what is wrong with an address that should be host:port, or
// nil.
func CheckAddress(address string) error {
	const like = `host:port, such as "127.0.0.1:7021"`
	if len(address) > MaxAddress {
		return fmt.Errorf("%s is too long for an address, which is %s", quote(address), like)
	}
	host, port, ok := splitAddress(address)
	if !ok {
		return fmt.Errorf("%q is not %s", address, like)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "" || strings.ContainsFunc(host, unusable):
		return fmt.Errorf("%q has no usable host; write %s", address, like)
	case err != nil || n == 0:
		return fmt.Errorf("%q has no usable port; ports go from 1 to 65535", address)
	}
	return nil
}

// splitAddress splits host:port, or [host]:port, as net.SplitHostPort does. This
// package is part of the lab's engine in the browser, where net would be a fifth of
// its size.
func splitAddress(address string) (host, port string, ok bool) {
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return "", "", false
	}
	host, port = address[:colon], address[colon+1:]
	if inside, bracketed := strings.CutPrefix(host, "["); bracketed {
		if host, bracketed = strings.CutSuffix(inside, "]"); !bracketed {
			return "", "", false
		}
	} else if strings.Contains(host, ":") {
		return "", "", false
	}
	return host, port, !strings.ContainsAny(host, "[]") && !strings.ContainsAny(port, "[]")
}

// CheckMemberAddress says what is wrong with an address at which other servers
// and clients must reach a server, or nil. It refuses addresses that are only for
// listening, and addresses of many machines.
func CheckMemberAddress(address string) error {
	if err := CheckAddress(address); err != nil {
		return err
	}
	host, _, _ := splitAddress(address)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil // a name
	}
	switch ip = ip.Unmap(); {
	case ip.IsUnspecified():
		return fmt.Errorf("nobody can reach a server at %q, which means every address of its own machine; write the address that the others use, and in cluster.json \"listen\": %[1]q next to it", address)
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%q is not the address of one machine", address)
	}
	return nil
}

// unusable reports whether no host name has r in it.
func unusable(r rune) bool { return r <= ' ' || r == 0x7F || r == utf8.RuneError }

func decodeMembers(d *strict.Decoder) (members []Member) {
	d.Array(func() {
		var m Member
		d.Object(func(field []byte) {
			switch string(field) {
			case "id":
				m.ID = d.Uint()
			case "address":
				m.Address = d.String()
			default:
				d.Fail("unknown field; a server to add has id and address")
			}
		})
		members = append(members, m)
	})
	return members
}

// decodeIDs reads an array of IDs. An empty one is not nil.
func decodeIDs(d *strict.Decoder) []uint64 {
	ids := []uint64{}
	d.Array(func() { ids = append(ids, d.Uint()) })
	return ids
}

// appendMember appends a server to add.
func appendMember(b []byte, m Member) []byte {
	b = strconv.AppendUint(append(b, `{"id":`...), m.ID, 10)
	return append(strict.AppendString(strict.AppendName(b, "address"), m.Address), '}')
}
