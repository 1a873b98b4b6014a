package api

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeRefusesChanges(t *testing.T) {
	const four = `{"id":4,"address":"127.0.0.1:7074"}`
	const like = `host:port, such as "127.0.0.1:7021"`
	long := strings.Repeat("a", MaxAddress) + ":1"
	for _, c := range []struct {
		fields, want string
	}{
		{``, `the change is empty: name servers to add, or to remove`},
		{`,"add":[],"remove":[]`, `the change is empty: name servers to add, or to remove`},
		{`,"add":[` + four + `],"to":4`, `change does not take the field to`},
		{`,"add":4`, `field "add": want an array, found a number (at byte 28)`},
		{`,"add":[4]`, `field "add": want an object, found a number (at byte 29)`},
		{`,"add":[{"id":4,"adress":"x"}]`, `field "adress": unknown field; a server to add has id and address (at byte 46)`},
		{`,"add":[{"address":"127.0.0.1:7074"}]`, `field "add[0].id" is missing or 0; IDs start at 1`},
		{`,"add":[` + four + `,{"id":0,"address":"127.0.0.1:7075"}]`, `field "add[1].id" is missing or 0; IDs start at 1`},
		{`,"add":[{"id":9007199254740993,"address":"127.0.0.1:7074"}]`, `field "add[0].id" is 9007199254740993; at most 2^53 is allowed`},
		{`,"add":[{"id":4}]`, `field "add[0].address": "" is not ` + like},
		{`,"add":[{"id":4,"address":"7074"}]`, `field "add[0].address": "7074" is not ` + like},
		{`,"add":[{"id":4,"address":":7074"}]`, `field "add[0].address": ":7074" has no usable host; write ` + like},
		{`,"add":[{"id":4,"address":"a b:7074"}]`, `field "add[0].address": "a b:7074" has no usable host; write ` + like},
		{`,"add":[{"id":4,"address":"x:0"}]`, `field "add[0].address": "x:0" has no usable port; ports go from 1 to 65535`},
		{`,"add":[{"id":4,"address":"x:65536"}]`, `field "add[0].address": "x:65536" has no usable port; ports go from 1 to 65535`},
		{`,"add":[{"id":4,"address":"` + long + `"}]`, `field "add[0].address": "` + long[:64] + `"… is too long for an address, which is ` + like},
		{`,"add":[` + four + `,` + four + `]`, `n4 is added twice`},
		{`,"add":[` + four + `,{"id":5,"address":"127.0.0.1:7074"}]`, `n4 and n5 have the same address, 127.0.0.1:7074; each server has its own`},
		{`,"remove":[0]`, `field "remove[0]" is missing or 0; IDs start at 1`},
		{`,"remove":["1"]`, `field "remove": want a whole number, found a string (at byte 32)`},
		{`,"remove":[1,2,1]`, `n1 is removed twice`},
		{`,"add":[` + four + `],"remove":[4]`, `n4 is both to be added and to be removed; to move a server, add it at its new address`},
		{`,"remove":[` + strings.Repeat("1,", MaxMembers) + `1]`, `the change names 100 servers; at most 99 are allowed`},
	} {
		r, err := all().Decode(fmt.Appendf(nil, `{"id":7,"op":"change"%s}`, c.fields))
		require.Equal(t, &Error{Code: BadRequest, Message: c.want, Definite: true}, err, "%.80q", c.fields)
		require.EqualValues(t, 7, r.ID)
	}
}

func TestDecodeRefusesTransfers(t *testing.T) {
	for fields, want := range map[string]string{
		``:                 `transfer needs the field to`,
		`,"to":0`:          `field "to" is 0; IDs start at 1`,
		`,"to":"n4"`:       `field "to": want a whole number, found a string (at byte 29)`,
		`,"to":4,"term":2`: `transfer does not take the field term`,
		`,"to":4,"add":[]`: `transfer does not take the field add`,
	} {
		_, err := all().Decode(fmt.Appendf(nil, `{"id":7,"op":"transfer"%s}`, fields))
		require.Equal(t, &Error{Code: BadRequest, Message: want, Definite: true}, err, fields)
	}
}

// Other operations do not accept the fields of a change, and a server whose
// members are fixed does not know the operations of a change.
func TestChangesNeedAStageWithMembers(t *testing.T) {
	_, err := all().Decode([]byte(`{"op":"get","key":"x","add":[],"remove":[],"to":1}`))
	require.ErrorContains(t, err, "get does not take the field add, remove, to")
	_, err = Commands().Decode([]byte(`{"op":"change","remove":[1]}`))
	require.ErrorContains(t, err, `unknown op "change"; this server knows append, cas, create, delete, get, list, put`)
}

// TestSplitAddress compares splitAddress with the function it replaces, on every
// short text of the characters that have a meaning in an address.
func TestSplitAddress(t *testing.T) {
	texts := []string{""}
	for range 6 {
		for _, text := range texts {
			host, port, err := net.SplitHostPort(text)
			gotHost, gotPort, ok := splitAddress(text)
			require.Equal(t, err == nil, ok, text)
			if ok {
				require.Equal(t, []string{host, port}, []string{gotHost, gotPort}, text)
			}
		}
		var longer []string
		for _, text := range texts {
			for _, c := range []string{"a", ":", "[", "]", "1"} {
				longer = append(longer, text+c)
			}
		}
		texts = longer
	}
}
