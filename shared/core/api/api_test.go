package api

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/kv"
)

// all returns every operation, with every field that it can have.
func all() Ops {
	ops := Commands()
	for name := range ops {
		op := ops[name]
		op.May = Session | Since | Seq | Ack | Consistency
		ops[name] = op
	}
	ops[Status] = Op{}
	ops[Log] = Op{May: From}
	ops[Lead] = Op{Needs: Term}
	ops[Open] = Op{}
	ops[Members] = Op{}
	ops[Change] = Op{May: Add | Remove}
	ops[Cancel] = Op{}
	ops[Transfer] = Op{Needs: To}
	ops[Propose] = Op{Needs: Value}
	ops[Barrier] = Op{}
	return ops
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		line string
		want Request
	}{
		{`{"id":7,"op":"put","key":"x","value":"1"}`, Request{ID: 7, Op: kv.Put, Key: "x", Value: "1"}},
		{`{"op":"get","key":"x"}`, Request{Op: kv.Get, Key: "x"}},
		{` { "key" : "x" , "op" : "delete" , "id" : 0 } ` + "\r", Request{Op: kv.Delete, Key: "x"}},
		{`{"id":1,"op":"append","key":"é","value":""}`, Request{ID: 1, Op: kv.Append, Key: "é"}},
		{`{"id":1,"op":"cas","key":"x","old":"","value":"2"}`, Request{ID: 1, Op: kv.Cas, Key: "x", Value: "2"}},
		{`{"id":18446744073709551615,"op":"status"}`, Request{ID: 1<<64 - 1, Op: Status}},
		{`{"id":1,"op":"log","from":9}`, Request{ID: 1, Op: Log, From: 9}},
		{`{"id":1,"op":"log"}`, Request{ID: 1, Op: Log}},
		{`{"id":1,"op":"lead","term":3}`, Request{ID: 1, Op: Lead, Term: 3}},
		{`{"id":1,"op":"put","key":"x","value":"1","session":2,"since":9,"seq":3,"ack":1}`,
			Request{ID: 1, Op: kv.Put, Key: "x", Value: "1", Session: 2, Since: 9, Seq: 3, Ack: 1}},
		{`{"id":1,"op":"members"}`, Request{ID: 1, Op: Members}},
		{`{"id":1,"op":"cancel"}`, Request{ID: 1, Op: Cancel}},
		{`{"id":1,"op":"transfer","to":3}`, Request{ID: 1, Op: Transfer, To: 3}},
		{`{"id":1,"op":"change","add":[{"address":"127.0.0.1:7074","id":4}],"remove":[1,2]}`,
			Request{ID: 1, Op: Change, Add: []Member{{ID: 4, Address: "127.0.0.1:7074"}}, Remove: []uint64{1, 2}}},
		{`{"id":1,"op":"change","add":[],"remove":[1]}`, Request{ID: 1, Op: Change, Remove: []uint64{1}}},
		{`{"id":1,"op":"get","key":"x","consistency":"stale"}`, Request{ID: 1, Op: kv.Get, Key: "x", Consistency: "stale"}},
	} {
		have, err := all().Decode([]byte(c.line))
		require.NoError(t, err, c.line)
		require.Equal(t, c.want, have, c.line)
	}
}

// The error for a bad line says what is wrong, and the request has the id if the
// line has one.
func TestDecodeRefuses(t *testing.T) {
	const known = "this server knows append, cas, create, delete, get, list, put"
	const like = `a request is a JSON object on one line, such as {"id":1,"op":"get","key":"x"}: `
	long := strings.Repeat("x", 1000)
	for _, c := range []struct {
		line string
		id   uint64
		want string
	}{
		{`get x`, 0, like + `want an object, found 'g' (at byte 0)`},
		{``, 0, like + `want an object, found the end of the text (at byte 0)`},
		{`[1,2]`, 0, like + `want an object, found an array (at byte 0)`},
		{`"x"`, 0, like + `want an object, found a string (at byte 0)`},
		{strings.Repeat("[", 1000), 0, like + `want an object, found an array (at byte 0)`},
		{`{"id":7,"op":"get","key":"x"`, 7, `field "key": want "," or "}", found the end of the text (at byte 28)`},
		{`{"id":7,"op":"get","key":"x"} x`, 7, `something follows the end of the JSON value (at byte 30)`},
		{`{"id":7}`, 7, `field "op" is missing; ` + known},
		{`{"id":7,"op":""}`, 7, `field "op" is missing; ` + known},
		{`{"id":7,"op":"inc","key":"x"}`, 7, `unknown op "inc"; ` + known},
		{`{"id":7,"op":"` + long + `"}`, 7, `unknown op "` + long[:64] + `"…; ` + known},
		{`{"id":7,"op":"status"}`, 7, `unknown op "status"; ` + known},
		{`{"id":7,"op":7,"key":"x"}`, 7, `field "op": want a string, found a number (at byte 13)`},
		{`{"id":7,"op":"get"}`, 7, `get needs the field key`},
		{`{"id":7,"op":"cas","key":"x"}`, 7, `cas needs the field value, old`},
		{`{"id":7,"op":"put","key":"x"}`, 7, `put needs the field value`},
		{`{"id":7,"op":"create","key":"x"}`, 7, `create needs the field value`},
		{`{"id":7,"op":"get","key":"x","value":"1"}`, 7, `get does not take the field value`},
		{`{"id":7,"op":"put","key":"x","value":"1","old":"0"}`, 7, `put does not take the field old`},
		{`{"id":7,"op":"get","key":"x","seq":1}`, 7, `get does not take the field seq`},
		{`{"id":7,"op":"get","key":""}`, 7, `the key is empty`},
		{`{"id":7,"op":"get","key_b64":"/w"}`, 7, `field "key_b64": want base64 with padding, such as "/w==" (at byte 33)`},
		{`{"id":7,"op":"put","key":"x","value":"1","value_b64":"MQ=="}`, 7, `field "value_b64": this field appears as text too; leave one of them out (at byte 52)`},
		{`{"id":7,"op":"cas","key":"x","value":"1","old_b64":"MQ==","old":"1"}`, 7, `field "old": this field appears in base64 too; leave one of them out (at byte 63)`},
		{`{"id":7,"op":"get","key":"` + strings.Repeat("k", kv.MaxKey+1) + `"}`, 7, `the key has 1025 bytes; at most 1024 are allowed`},
		{`{"id":7,"op":"put","key":"x","value":"` + strings.Repeat("v", kv.MaxValue+1) + `"}`, 7,
			`the value has 131073 bytes; at most 131072 are allowed`},
		{`{"id":7,"op":"get","key":null}`, 7, `field "key": want a string, found null (at byte 25)`},
		{`{"id":7,"op":"get","Key":"x"}`, 7, `field "Key": unknown field (at byte 25)`},
		{`{"id":7,"op":"get","op":"put","key":"x"}`, 7, `field "op": this field appears twice (at byte 23)`},
		{`{"id":7,"op":"get","key":[` + strings.Repeat("[", 1000) + `}`, 7, `field "key": want a string, found an array (at byte 25)`},
		{"{\"id\":7,\"op\":\"get\",\"key\":\"k\xff\"}", 7, `not valid UTF-8 (at byte 27)`},
		{`{"op":"put","key":1,"value":{"a":[1,null]},"id":7}`, 7, `field "key": want a string, found a number (at byte 18)`},
		{`{"id":"7","op":"get","key":"x"}`, 0, `field "id": want a whole number, found a string (at byte 6)`},
		{`{"id":-7,"op":"get","key":"x"}`, 0, `field "id": want a whole number, found a minus sign (at byte 6)`},
		{`{"id":18446744073709551616,"op":"get","key":"x"}`, 0, `field "id": a number above 2^64-1 (at byte 25)`},
	} {
		r, err := Commands().Decode([]byte(c.line))
		code := BadRequest
		if strings.HasSuffix(c.want, "are allowed") {
			code = TooLarge // as when an append makes the value too long
		}
		require.Equal(t, &Error{Code: code, Message: c.want, Definite: true}, err, "%.80q", c.line)
		require.Equal(t, c.id, r.ID, "%.80q", c.line)
	}
}

func TestRequestRoundTrip(t *testing.T) {
	for _, r := range []Request{
		{ID: 7, Op: kv.Put, Key: "x", Value: ""},
		{Op: kv.Get, Key: "\"\\\n\x01é😀"},
		{ID: 1, Op: kv.Cas, Key: "x", Old: "", Value: "v"},
		{ID: 1, Op: kv.Create, Key: "x", Value: ""},
		{ID: 1, Op: kv.Append, Key: "x", Value: "v", Session: 1<<64 - 1, Seq: 2, Ack: 1},
		{ID: 1, Op: Lead, Term: 4},
		{ID: 1, Op: Log, From: 12},
		{ID: 1, Op: kv.Get, Key: "x", Consistency: "linearizable"},
		{ID: 1, Op: Members},
		{ID: 1, Op: Cancel},
		{ID: 1, Op: Transfer, To: 3},
		{ID: 1, Op: Propose, Value: `{"a":1}`},
		{ID: 1, Op: Barrier},
		{ID: 1, Op: Change, Add: []Member{{ID: 4, Address: "127.0.0.1:7074"}, {ID: MaxID, Address: "[::1]:1"}}, Remove: []uint64{1, 2}},
		{Op: Change, Add: []Member{{ID: 4, Address: "n4.example:7074"}}},
		{Op: Change, Remove: []uint64{1}},
	} {
		have, err := all().Decode(r.AppendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, r, have)
	}
}

// Check finds the same errors in a request as Decode finds in its line.
func TestCheck(t *testing.T) {
	four := Member{ID: 4, Address: "127.0.0.1:7074"}
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Op: kv.Put, Key: "x", Session: 1, Seq: 2, Ack: 1}, ""},
		{Request{Op: kv.Cas, Key: "x"}, ""},
		{Request{Op: Log}, ""},
		{Request{Op: Log, From: 3}, ""},
		{Request{Op: Change, Add: []Member{four}, Remove: []uint64{1}}, ""},
		{Request{Op: Transfer, To: 2}, ""},
		{Request{}, `field "op" is missing; this server knows append, `},
		{Request{Op: "inc"}, `unknown op "inc"; this server knows append, `},
		{Request{Op: kv.Get}, `the key is empty`},
		{Request{Op: kv.Put, Key: "x", Old: "v"}, `put does not take the field old`},
		{Request{Op: kv.Get, Key: "x", From: 3, To: 4}, `get does not take the field from, to`},
		{Request{Op: Status, Key: "x"}, `status does not take the field key`},
		{Request{Op: Change}, `the change is empty`},
		{Request{Op: Change, Add: []Member{four, four}}, `n4 is added twice`},
		{Request{Op: Change, Add: []Member{{ID: 4, Address: "\xff:1"}}}, `has no usable host`},
		{Request{Op: Transfer}, `field "to" is 0`},
	} {
		err := all().Check(c.r)
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		var e *Error
		require.ErrorAs(t, err, &e, "%+v", c.r)
		require.Equal(t, BadRequest, e.Code)
		require.Contains(t, e.Message, c.want)
	}
}

// A value at its limit fits into a line of 1 MiB, even if each of its bytes
// has to be escaped, on its way in and on its way out.
func TestLargestValueFitsALine(t *testing.T) {
	const line = 1 << 20
	worst := strings.Repeat("\x01", kv.MaxValue)
	key := strings.Repeat("\x01", kv.MaxKey)
	r := Request{ID: 1<<64 - 1, Op: kv.Put, Key: key, Value: worst, Session: 1<<64 - 1, Seq: 1<<64 - 1, Ack: 1<<64 - 1}
	require.Less(t, len(r.AppendJSON(nil)), line)
	require.Less(t, len(Response{ID: 1<<64 - 1, Value: worst, HasValue: true, Index: 1<<64 - 1}.AppendJSON(nil)), line)
}

func TestResult(t *testing.T) {
	long := strings.Repeat("é", 100)
	for _, c := range []struct {
		op     string
		result kv.Result
		want   string
	}{
		{kv.Put, kv.Result{}, `{"id":3,"ok":true}`},
		{kv.Get, kv.Result{Value: ""}, `{"id":3,"ok":true,"value":""}`},
		{kv.Append, kv.Result{Length: 2}, `{"id":3,"ok":true,"length":2}`},
		{kv.Get, kv.Result{Outcome: kv.NotFound},
			`{"id":3,"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}`},
		{kv.Create, kv.Result{}, `{"id":3,"ok":true}`},
		{kv.Create, kv.Result{Outcome: kv.Exists},
			`{"id":3,"ok":false,"error":{"code":"exists","message":"the key already has a value","definite":true}}`},
		{kv.Cas, kv.Found("b"),
			`{"id":3,"ok":false,"error":{"code":"mismatch","message":"the value is \"b\", not the old one given","definite":true}}`},
		{kv.Cas, kv.Found(long),
			`{"id":3,"ok":false,"error":{"code":"mismatch","message":"the value is \"` + long[:64] + `\"…, not the old one given","definite":true}}`},
		{kv.Append, kv.Result{Outcome: kv.TooLarge},
			`{"id":3,"ok":false,"error":{"code":"too_large","message":"the value would be longer than 131072 bytes","definite":true}}`},
	} {
		require.Equal(t, c.want, string(Result(3, c.op, c.result).AppendJSON(nil)))
	}
}

func TestResponseRoundTrip(t *testing.T) {
	for _, r := range []Response{
		{},
		{ID: 7},
		{ID: 7, HasValue: true},
		{ID: 7, Value: "v\n\"", HasValue: true, Index: 118},
		{ID: 7, HasLength: true},
		{ID: 7, Length: 12, HasLength: true, Index: 118},
		{Data: []byte(`{"a":[1,null,"x"]}`)},
		Failed(8, &Error{Code: NotLeader, Message: "n2 leads", Leader: "127.0.0.1:7002", Definite: true}),
		Failed(0, &Error{Code: Unknown, Message: "lost"}),
	} {
		have, err := DecodeResponse(r.AppendJSON(nil))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(r, have))
	}
}

func TestDecodeResponseRefuses(t *testing.T) {
	for _, c := range []struct {
		line string
		id   uint64
		want string
	}{
		{`{"id":7,"ok":true,"error":{"code":"busy","message":"m","definite":true}}`, 7, `either "ok":true or an error`},
		{`{"id":7,"ok":false}`, 7, `either "ok":true or an error`},
		{`{}`, 0, `either "ok":true or an error`},
		{`{"id":7,"ok":true,"more":1}`, 7, `field "more": unknown field`},
		{`{"id":7,"ok":1}`, 7, `want true or false, found a number`},
		{`{"id":7,"ok":true,"value":null}`, 7, `want a string, found null`},
		{`nonsense`, 0, `want an object, found 'n'`},
	} {
		r, err := DecodeResponse([]byte(c.line))
		require.ErrorContains(t, err, c.want, c.line)
		require.Equal(t, Response{ID: c.id}, r, c.line)
	}
}

func TestDecodeAllocatesKeyAndValueOnly(t *testing.T) {
	ops, line := Commands(), []byte(`{"id":7,"op":"put","key":"some key","value":"some value"}`)
	n := testing.AllocsPerRun(100, func() {
		if _, err := ops.Decode(line); err != nil {
			panic(err)
		}
	})
	require.LessOrEqual(t, n, 2.0)
}

// For any line, Decode returns a request that does not change when it is encoded
// and decoded again, or a short error that can be sent.
func FuzzDecode(f *testing.F) {
	ops := all()
	f.Add([]byte(`{"id":7,"op":"put","key":"x","value":"1"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ops.Decode(line)
		if err == nil {
			_, known := ops[r.Op]
			require.True(t, known)
			again, err := ops.Decode(r.AppendJSON(nil))
			require.NoError(t, err)
			require.Equal(t, r, again)
			return
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, BadRequest, e.Code)
		require.True(t, e.Definite)
		require.NotEmpty(t, e.Message)
		require.Less(t, len(e.Message), 600)
		require.True(t, utf8.ValidString(e.Message), "%q", e.Message)
		refusal, err := DecodeResponse(Failed(r.ID, e).AppendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, Failed(r.ID, e), refusal)
	})
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add([]byte(`{"id":8,"ok":false,"error":{"code":"busy","message":"m","definite":true}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeResponse(line)
		if err != nil {
			require.Equal(t, Response{ID: r.ID}, r)
			return
		}
		again, err := DecodeResponse(r.AppendJSON(nil))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(r, again))
	})
}

func BenchmarkDecode(b *testing.B) {
	ops := Commands()
	line := Request{ID: 123456, Op: kv.Put, Key: "k1234", Value: strings.Repeat("abcdefgh", 8)}.AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ops.Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	var out []byte
	r := Response{ID: 123456, Value: strings.Repeat("abcdefgh", 8), HasValue: true, Index: 99}
	b.ReportAllocs()
	for b.Loop() {
		out = r.AppendJSON(out[:0])
	}
}

// A member's address is one at which others can reach one machine.
func TestCheckMemberAddress(t *testing.T) {
	for _, good := range []string{"127.0.0.1:1", "[::1]:7021", "host:7021", "10.0.0.255:7021", "[fe80::1%eth0]:7021"} {
		require.NoError(t, CheckMemberAddress(good))
	}
	for _, bad := range []string{"0.0.0.0:7021", "[::]:7021", "[::ffff:0.0.0.0]:7021", "255.255.255.255:7021", "224.0.0.1:7021", "[ff02::1]:7021", ":7021", "host"} {
		require.Error(t, CheckMemberAddress(bad), bad)
	}
	r := Request{Op: Change, Add: []Member{{ID: 4, Address: "0.0.0.0:7074"}}}
	require.ErrorContains(t, r.CheckChange(), `field "add[0].address": nobody can reach a server at "0.0.0.0:7074"`)
}
