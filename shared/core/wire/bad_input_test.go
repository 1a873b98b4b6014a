package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/longtest"
)

// badInput is bad input, and how the server must answer it.
type badInput struct {
	name string
	send string

	// answers are the beginnings of the lines that the server sends.
	answers []string

	// ends is true if the server must close the connection; otherwise the
	// connection must still work.
	ends bool
}

const (
	bad0 = `{"ok":false,"error":{"code":"bad_request","message":"`
	long = `"ok":false,"error":{"code":"too_large","message":"`
	bad7 = `{"id":7,"ok":false,"error":{"code":"bad_request","message":"`
	like = `a request is a JSON object on one line, such as {\"id\":1,\"op\":\"get\",\"key\":\"x\"}: `
)

var badInputs = []badInput{
	{name: "not JSON", send: "get x\n", answers: []string{bad0 + like + `want an object, found 'g' (at byte 0)"`}},
	{name: "HTTP", send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", answers: []string{bad0 + "this server speaks lines of JSON, not HTTP; the connection is closed"}, ends: true},
	{name: "a page of another site", send: "POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nContent-Type: text/plain\r\n\r\n" +
		`{"id":7,"op":"put","key":"mine","value":"evil"}` + "\n", answers: []string{bad0 + "this server speaks lines of JSON, not HTTP"}, ends: true},
	{name: "TLS", send: "\x16\x03\x01\x02\x00\x01\x00\n", answers: []string{bad0 + `this server speaks no TLS"`}, ends: true},
	{name: "an array", send: "[1,2]\n", answers: []string{bad0 + like + `want an object, found an array (at byte 0)"`}},
	{name: "a string", send: `"get x"` + "\n", answers: []string{bad0 + like + `want an object, found a string (at byte 0)"`}},
	{name: "only spaces", send: "   \n", answers: []string{bad0 + like + `want an object, found the end of the text (at byte 3)"`}},
	{name: "cut off", send: `{"id":7,"op":"get","key":"x"` + "\n", answers: []string{bad7 + `field \"key\": want \",\" or \"}\", found the end of the text`}},
	{name: "two values", send: `{"id":7,"op":"get","key":"x"}{}` + "\n", answers: []string{bad7 + `something follows the end of the JSON value (at byte 29)"`}},
	{name: "no op", send: `{"id":7,"key":"x"}` + "\n", answers: []string{bad7 + `field \"op\" is missing; this server knows append, cas, create, delete, get, list, put"`}},
	{name: "an unknown op", send: `{"id":7,"op":"incr","key":"x"}` + "\n", answers: []string{bad7 + `unknown op \"incr\"; this server knows append, cas, create, delete, get, list, put"`}},
	{name: "an op in capitals", send: `{"id":7,"op":"GET","key":"x"}` + "\n", answers: []string{bad7 + `unknown op \"GET\"`}},
	{name: "no key", send: `{"id":7,"op":"get"}` + "\n", answers: []string{bad7 + `get needs the field key"`}},
	{name: "an empty key", send: `{"id":7,"op":"get","key":""}` + "\n", answers: []string{bad7 + `the key is empty"`}},
	{name: "a put without a value", send: `{"id":7,"op":"put","key":"x"}` + "\n", answers: []string{bad7 + `put needs the field value"`}},
	{name: "a field that the op does not have", send: `{"id":7,"op":"get","key":"x","value":"1"}` + "\n", answers: []string{bad7 + `get does not take the field value"`}},
	{name: "an unknown field", send: `{"id":7,"op":"get","key":"x","ttl":1}` + "\n", answers: []string{bad7 + `field \"ttl\": unknown field`}},
	{name: "a field twice", send: `{"id":7,"op":"get","key":"x","key":"y"}` + "\n", answers: []string{bad7 + `field \"key\": this field appears twice`}},
	{name: "a key of the wrong type", send: `{"id":7,"op":"get","key":1}` + "\n", answers: []string{bad7 + `field \"key\": want a string, found a number`}},
	{name: "a null", send: `{"id":7,"op":"put","key":"x","value":null}` + "\n", answers: []string{bad7 + `field \"value\": want a string, found null`}},
	{name: "an id of the wrong type", send: `{"id":"7","op":"get","key":"x"}` + "\n", answers: []string{bad0 + `field \"id\": want a whole number, found a string`}},
	{name: "a negative id", send: `{"id":-7,"op":"get","key":"x"}` + "\n", answers: []string{bad0 + `field \"id\": want a whole number, found a minus sign`}},
	{name: "an id after the mistake", send: `{"op":"get","key":1,"id":7}` + "\n", answers: []string{bad7 + `field \"key\": want a string`}},
	{name: "1000 nested arrays", send: strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "\n", answers: []string{bad0 + like + `want an object, found an array`}},
	{name: "1000 nested arrays in a field", send: `{"id":7,"op":` + strings.Repeat("[", 1000) + "\n", answers: []string{bad7 + `field \"op\": want a string, found an array`}},
	{name: "1000 nested objects", send: strings.Repeat(`{"id":`, 1000) + "\n", answers: []string{bad0 + `field \"id\": want a whole number, found an object`}},
	{name: "invalid UTF-8", send: "{\"id\":7,\"op\":\"put\",\"key\":\"k\xff\",\"value\":\"1\"}\n", answers: []string{bad7 + `not valid UTF-8 (at byte 27)"`}},
	{name: "half a surrogate pair", send: `{"id":7,"op":"get","key":"\ud800"}` + "\n", answers: []string{bad7 + `field \"key\": \\ud800 is half of a surrogate pair`}},
	{name: "base64 without padding", send: `{"id":7,"op":"get","key_b64":"/w"}` + "\n", answers: []string{bad7 + `field \"key_b64\": want base64`}},
	{name: "text and base64", send: `{"id":7,"op":"get","key":"x","key_b64":"eA=="}` + "\n", answers: []string{bad7 + `field \"key_b64\": this field appears as text too`}},
	{name: "a raw NUL", send: "{\"id\":7,\"op\":\"get\",\"key\":\"a\x00b\"}\n", answers: []string{bad7 + `field \"key\": control character U+0000 in a string (write \\u0000)`}},
	{name: "a key that is too long", send: `{"id":7,"op":"get","key":"` + strings.Repeat("k", kv.MaxKey+1) + `"}` + "\n", answers: []string{`{"id":7,` + long + `the key has 1025 bytes; at most 1024 are allowed"`}},
	{name: "a value that is too long", send: `{"id":7,"op":"put","key":"x","value":"` + strings.Repeat("v", kv.MaxValue+1) + `"}` + "\n", answers: []string{`{"id":7,` + long + `the value has 131073 bytes; at most 131072 are allowed"`}},
	{name: "an op that is very long", send: `{"id":7,"op":"` + strings.Repeat("o", 500_000) + `"}` + "\n", answers: []string{bad7 + `unknown op \"ooooo`}},
	{name: "a peer's message", send: `{"from":2,"to":1,"term":9}` + "\n", answers: []string{bad0 + `field \"op\" is missing`}},
	{name: "a peer's message with a MAC", send: string(newSeal(nil).append(nil, []byte(`{"from":2,"term":9}`))), answers: []string{bad0 + like}},
	{name: "a hello where there are no peers", send: `{"hello":{"version":1}}` + "\n", answers: []string{bad0 + `this server has no peers`}, ends: true},
	{name: "good lines between bad ones", send: "x\n" + `{"id":8,"op":"put","key":"good","value":"1"}` + "\r\n\r\n\ny\n" + `{"id":9,"op":"get","key":"good"}` + "\n",
		answers: []string{bad0, `{"id":8,"ok":true}`, bad0, `{"id":9,"ok":true,"value":"1"}`}},
	{name: "a line over the limit", send: `{"id":8,"op":"put","key":"good","value":"1"}` + "\n" + strings.Repeat("x", 5<<20),
		answers: []string{`{"id":8,"ok":true}`, `{` + long + `a line is longer than 1048576 bytes, which is the limit; the connection is closed"`}, ends: true},
	{name: "a line just over the limit", send: strings.Repeat("x", 1<<20+1) + "\n", answers: []string{`{` + long + `a line is longer than 1048576 bytes`}, ends: true},
	{name: "a line just within the limit", send: strings.Repeat("x", 1<<20) + "\r\n", answers: []string{bad0 + like}},
}

// bystander is a client that writes and reads all the time while others send bad
// input.
type bystander struct {
	c    *Conn
	stop atomic.Bool
	g    errgroup.Group
	done atomic.Int64
}

func newBystander(t *testing.T, address string) *bystander {
	c, err := Dial(t.Context(), address, Limits{})
	require.NoError(t, err)
	b := &bystander{c: c}
	b.g.Go(func() error {
		for !b.stop.Load() {
			value := fmt.Sprint(b.done.Load())
			if _, err := c.Do(context.Background(), api.Request{Op: kv.Put, Key: "mine", Value: value}); err != nil {
				return err
			}
			a, err := c.Do(context.Background(), api.Request{Op: kv.Get, Key: "mine"})
			if err != nil || a.Value != value {
				return fmt.Errorf("the bystander wrote %s and read %s: %w", value, a.Value, err)
			}
			b.done.Add(1)
		}
		return nil
	})
	return b
}

// unharmed asserts that the bystander is still making progress.
func (b *bystander) unharmed(t *testing.T) {
	t.Helper()
	before := b.done.Load()
	require.Eventually(t, func() bool { return b.done.Load() > before+1 }, 5*time.Second, time.Millisecond)
}

func (b *bystander) end(t *testing.T) {
	t.Helper()
	b.stop.Store(true)
	require.NoError(t, b.g.Wait())
	require.NoError(t, b.c.Close())
}

func listen(t *testing.T) net.Listener {
	ln, err := Listen("127.0.0.1:0")
	require.NoError(t, err)
	return ln
}

// Every bad input gets a clear answer, and the server keeps serving other
// clients.
func TestBadInput(t *testing.T) {
	r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, listen(t))
	other := newBystander(t, r.ln.Addr().String())
	for _, in := range badInputs {
		t.Run(in.name, func(t *testing.T) {
			c := r.dial()
			c.t = t
			_, err := io.WriteString(c.c, in.send)
			require.True(t, err == nil || in.ends)
			for _, want := range in.answers {
				have := c.line()
				require.True(t, strings.HasPrefix(have, want), "have %.300s\nwant %.300s", have, want)
				require.Less(t, len(have), 1000)
				if strings.HasPrefix(want, bad0) || strings.HasPrefix(want, bad7) {
					require.True(t, strings.HasSuffix(have, `,"definite":true}}`), have)
				}
			}
			if !in.ends {
				c.in.Discard(c.in.Buffered())
				c.send(`{"id":70,"op":"delete","key":"nothing"}` + "\n")
				require.Contains(t, c.line(), `"id":70`)
				require.NoError(t, c.c.(*net.TCPConn).CloseWrite())
			}
			c.over()
			other.unharmed(t)
		})
	}
	other.end(t)
	require.NoError(t, r.end())
}

// A client may close its sending side and still get its answers, as happens with
// a pipe into nc.
func TestClientThatClosesItsSendingSide(t *testing.T) {
	r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, listen(t))
	c := r.dial()
	c.send(put1 + get2 + `{"id":3,"op":"put","key":"half","value":"1"}`)
	require.NoError(t, c.c.(*net.TCPConn).CloseWrite())
	require.Equal(t, `{"id":1,"ok":true}`, c.line())
	require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, c.line())
	c.over()
	c = r.dial()
	c.send(`{"id":4,"op":"get","key":"half"}` + "\n")
	require.Contains(t, c.line(), "not_found", "a line without its newline is not carried out")
	require.NoError(t, r.end())
}

// A real socket has buffers, so a client that never reads can send more than
// through a pipe; but its connection must end in the same way.
func TestClientThatNeverReadsASocket(t *testing.T) {
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{Write: 200 * time.Millisecond}}, listen(t))
	other := newBystander(t, r.ln.Addr().String())
	greedy := r.dial()
	greedy.send(`{"id":1,"op":"put","key":"big","value":"` + strings.Repeat("v", kv.MaxValue) + `"}` + "\n")
	require.NoError(t, greedy.c.SetWriteDeadline(time.Now().Add(20*time.Second)))
	var err error
	for err == nil {
		_, err = greedy.c.Write([]byte(strings.Repeat(`{"op":"get","key":"big"}`+"\n", 100)))
	}
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server must end the connection")
	other.unharmed(t)
	other.end(t)
	require.NoError(t, r.end())
}

// Far more clients connect than the server accepts: ten thousand in long tests.
func TestThousandsOfConnections(t *testing.T) {
	limits := DefaultLimits()
	n := 10_000
	if !longtest.On() {
		n, limits.Conns = 2_000, 1_000
	}
	if files := openFiles(); files < n+limits.Conns+500 {
		n, limits.Conns = files/3, files/6
		t.Logf("this process may open %d files only, so there are %d connections and a limit of %d", files, n, limits.Conns)
	}
	limits.PerAddress = limits.Conns
	r := serve(t, &Server{Ops: api.Commands(), Handler: store(), Limits: limits}, listen(t))
	other := newBystander(t, r.ln.Addr().String())
	other.unharmed(t)
	conns := make([]net.Conn, n)
	var served, busy atomic.Int64
	var g errgroup.Group
	const dialers = 8
	for d := range dialers {
		g.Go(func() error {
			for i := d; i < n; i += dialers {
				c, err := net.Dial("tcp", r.ln.Addr().String())
				if err != nil {
					return err
				}
				conns[i] = c
				switch line, err := firstAnswer(c); {
				case err != nil:
					return err
				case line == `{"id":1,"ok":true}`:
					served.Add(1)
				case strings.Contains(line, `"code":"busy"`):
					busy.Add(1)
				default:
					return fmt.Errorf("unexpected answer %q", line)
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.EqualValues(t, limits.Conns-1, served.Load())
	require.EqualValues(t, n-limits.Conns+1, busy.Load())
	other.unharmed(t)
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool { // clients that have left make room for others
		c := r.dial()
		line, err := firstAnswer(c.c)
		return c.c.Close() == nil && err == nil && line == `{"id":1,"ok":true}`
	}, 5*time.Second, 5*time.Millisecond)
	other.end(t)
	require.NoError(t, r.end())
}

// firstAnswer sends a request and returns the first line of the answer.
func firstAnswer(c net.Conn) (string, error) {
	if _, err := io.WriteString(c, put1); err != nil {
		return "", err
	}
	in := lines{r: c, limit: 1000}
	for {
		line, ok, err := in.next()
		if ok || err != nil {
			return string(line), err
		}
		if err := in.fill(); err != nil {
			return "", errors.Join(errors.New("no answer"), err)
		}
	}
}
