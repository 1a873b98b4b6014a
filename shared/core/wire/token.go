package wire

import (
	"bytes"
	"fmt"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/strict"
)

// A client shows its token in the first line of a connection:
//
//	{"token":"…"}
//
// A token that the server knows has no answer, so the client can send its requests
// right behind it. Any other token ends the connection, with an error that has no
// id: it is about all requests that follow.

const tokenStart = `{"token":`

func isToken(line []byte) bool { return bytes.HasPrefix(line, []byte(tokenStart)) }

// appendToken appends the line of a token.
func appendToken(b []byte, token string) []byte {
	return append(strict.AppendString(append(b, tokenStart...), token), "}\n"...)
}

// token takes the token of the client.
func (c *conn) token(line []byte) error {
	token, err := decodeToken(line)
	if err != nil {
		return &api.Error{Code: api.BadRequest, Definite: true, Message: fmt.Sprintf("a malformed token line: %v", err)}
	}
	if e := c.client.Show(token, c.nc.RemoteAddr().String()); e != nil {
		return e
	}
	return nil
}

func decodeToken(line []byte) (token string, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if string(field) != "token" {
			d.Unknown()
			return
		}
		token = d.String()
	})
	return token, d.End()
}
