package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
)

// pieces is a reader that returns a text in pieces of n bytes.
type pieces struct {
	text []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.text[:min(p.n, len(p.text))])
	p.text = p.text[n:]
	return n, nil
}

// cut does what lines must do, in the simplest way.
func cut(text []byte, limit int) (all []string, tooLong bool) {
	for {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		whole := bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case !found:
			return all, len(line) > limit+1
		case len(whole) > limit:
			return all, true
		}
		all = append(all, string(whole))
		text = rest
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbb\r\n\n\r\nhalf"), 3, 1)
	f.Add([]byte(strings.Repeat("x", 9000)+"\n"+strings.Repeat("y", 9001)), 9000, 5000)
	f.Fuzz(func(t *testing.T, text []byte, limit, n int) {
		if limit < 1 || n < 1 || limit > 1<<20 {
			return
		}
		want, tooLong := cut(text, limit)
		l := lines{r: &pieces{text, n}, limit: limit}
		var have []string
		for {
			line, ok, err := l.next()
			if err == nil && !ok {
				err = l.fill()
			}
			if err != nil {
				require.Equal(t, tooLong, errors.Is(err, errLong), "%v", err)
				break
			}
			if ok {
				have = append(have, string(line))
			}
			require.LessOrEqual(t, len(l.buf), max(keepBuffer, limit+2))
		}
		require.Equal(t, want, have)
	})
}

// For any input, each line gets one answer, in order, and the server keeps
// running.
func FuzzServer(f *testing.F) {
	const limit = 300
	ops := api.Commands()
	echo := func(r api.Request, reply func(api.Response)) {
		reply(api.Response{Value: r.Key + r.Value + r.Old, HasValue: true})
	}
	ln := newPipes()
	s := &Server{Ops: ops, Handler: echo, Limits: Limits{Line: limit}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), ln) }()
	f.Cleanup(func() {
		s.Close()
		<-done
	})
	f.Add([]byte(put1+"nonsense\n"+get2), 7)
	f.Add([]byte("\nGET / HTTP/1.1\r\n"+put1), 7)
	f.Add([]byte(`{"token":"t"}`+"\n"+put1+`{"token":"t"}`+"\n"+put1), 7)
	f.Add([]byte(`{"token":1}`+"\n"+put1), 7)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		const last = `{"id":4242,"op":"get","key":"the end"}` + "\n"
		want, ends := answers(ops, append(bytes.Clone(text), "\n"+last...), limit)
		c, err := ln.dial()
		require.NoError(t, err)
		var g errgroup.Group
		g.Go(func() error {
			_, err := io.CopyBuffer(struct{ io.Writer }{c}, &pieces{append(bytes.Clone(text), "\n"+last...), max(n, 1)}, make([]byte, 1<<16))
			if ends {
				return nil // the server may have stopped reading
			}
			return err
		})
		in := bufReader(c)
		for _, w := range want {
			have, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, w, have)
		}
		if ends {
			_, err := in.ReadByte()
			require.ErrorIs(t, err, io.EOF)
		}
		require.NoError(t, c.Close())
		require.NoError(t, g.Wait())
	})
}

// answers returns the answers that a server must send to text.
func answers(ops api.Ops, text []byte, limit int) (all []string, ends bool) {
	say := func(r api.Response) { all = append(all, string(r.AppendJSON(nil))+"\n") }
	if text[0] == handshakeByte {
		say(api.Failed(0, &api.Error{Code: api.BadRequest, Definite: true, Message: "this server speaks no TLS"}))
		return all, true
	}
	whole, long := cut(text, limit)
	first := true
	for _, line := range whole {
		if line == "" {
			continue
		}
		if first && strings.HasPrefix(line, `{"hello":`) {
			say(api.Failed(0, &api.Error{Code: api.BadRequest, Definite: true, Message: "this server has no peers, so it does not accept a hello"}))
			return all, true
		}
		if first && line[0] != '{' && strings.Contains(line, " HTTP/") {
			say(api.Failed(0, &api.Error{Code: api.BadRequest, Definite: true, Message: "this server speaks lines of JSON, not HTTP; the connection is closed"}))
			return all, true
		}
		if strings.HasPrefix(line, `{"token":`) {
			_, err := decodeToken([]byte(line))
			switch {
			case first && err == nil: // everyone may do everything, so no token is wrong
				first = false
				continue
			case first:
				say(api.Failed(0, &api.Error{Code: api.BadRequest, Definite: true, Message: "a malformed token line: " + err.Error()}))
			default:
				say(api.Failed(0, &api.Error{Code: api.BadRequest, Definite: true, Message: "a token must be the first line of its connection; the connection is closed"}))
			}
			return all, true
		}
		first = false
		r, err := ops.Decode([]byte(line))
		var refusal *api.Error
		if errors.As(err, &refusal) {
			say(api.Failed(r.ID, refusal))
			continue
		}
		say(api.Response{ID: r.ID, Value: r.Key + r.Value + r.Old, HasValue: true})
	}
	if long {
		say(api.Failed(0, tooLong(limit)))
	}
	return all, long
}

// A hello that was decoded does not change when it is encoded and decoded again.
func FuzzHello(f *testing.F) {
	f.Add(fromN2().appendJSON(nil))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, err := decodeHello(line)
		if err != nil {
			require.Less(t, len(err.Error()), 500)
			return
		}
		require.Len(t, h.nonce, 32)
		again, err := decodeHello(h.appendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, h, again)
		p := &Peers{Self: Identity{Cluster: "north", Secret: secret, ID: 1}}
		if err := p.check(h); err != nil {
			require.Less(t, len(err.Error()), 500)
		} else {
			require.NoError(t, api.CheckAddress(h.address))
			require.Equal(t, hello{version: h.version, oldest: h.oldest, cluster: "north", from: h.from, to: 1, address: h.address, disk: h.disk, known: h.known, start: h.start, probe: h.probe, nonce: h.nonce}, h)
			require.NotContains(t, []uint64{0, 1}, h.from)
		}
	})
}

func FuzzSeal(f *testing.F) {
	f.Add([]byte(`cff7d56a {"a":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		_, err := newSeal([]byte("key")).open(line)
		require.Error(t, err, "no fuzzer finds a MAC")
		require.Less(t, len(err.Error()), 500)
		here, there := newSeal([]byte("key")), newSeal([]byte("key"))
		for range 2 {
			opened, err := there.open(bytes.TrimSuffix(here.append(nil, line), []byte("\n")))
			require.NoError(t, err)
			require.Equal(t, string(line), string(opened))
		}
	})
}
