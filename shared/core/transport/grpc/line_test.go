package grpc

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
)

// golden returns messages as the servers and the replicas of 07 write them, of every
// kind and with every field. Tests of 07 keep the files complete.
func golden(t testing.TB) [][]byte {
	t.Helper()
	var lines [][]byte
	for _, name := range []string{"messages.jsonl", "forwards.jsonl"} {
		data, err := os.ReadFile("testdata/" + name)
		require.NoError(t, err)
		lines = append(lines, bytes.Split(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})...)
	}
	require.Greater(t, len(lines), 20)
	return lines
}

// disksOf are two disks as the host puts them before a line.
const disksOf = "005eed0fa11d15c5 0000000000000000 "

// thereAndBack converts a line, sends it as bytes, and converts it back.
func thereAndBack(t testing.TB, line []byte) *raftpb.Message {
	t.Helper()
	m, err := FromLine(line)
	require.NoError(t, err, "%s", line)
	sent, err := proto.Marshal(m)
	require.NoError(t, err)
	var got raftpb.Message
	require.NoError(t, proto.Unmarshal(sent, &got))
	back, err := AppendLine([]byte("before "), &got)
	require.NoError(t, err)
	require.Equal(t, "before "+string(line), string(back))
	return &got
}

func TestGoldenMessagesThereAndBack(t *testing.T) {
	for _, line := range golden(t) {
		require.Nil(t, thereAndBack(t, line).Disks)
		require.Equal(t, uint64(0x5eed0fa11d15c5), thereAndBack(t, append([]byte(disksOf), line...)).Disks.Own)
	}
}

// The golden messages set every field that a message of raft.proto has: so no field
// is there that no server sends.
func TestGoldenMessagesSetEveryField(t *testing.T) {
	set := make(map[protoreflect.FullName]bool)
	var see func(m protoreflect.Message)
	see = func(m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if set[f.FullName()] = set[f.FullName()] || m.Has(f); !m.Has(f) || f.Message() == nil {
				continue
			}
			if !f.IsList() {
				see(m.Get(f).Message())
				continue
			}
			for j := range m.Get(f).List().Len() {
				see(m.Get(f).List().Get(j).Message())
			}
		}
	}
	for _, line := range golden(t) {
		m, err := FromLine(append([]byte("0000000000000001 0000000000000002 "), line...))
		require.NoError(t, err)
		see(m.ProtoReflect())
	}
	for name, ok := range set {
		require.True(t, ok, "no golden message sets %s", name)
	}
}

// Each body has its fields in the same order and under the same names in raft.proto
// and in a line.
func TestFieldsHaveTheSameNames(t *testing.T) {
	bodies := (&raftpb.Message{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		f := bodies.Get(i)
		m := &raftpb.Message{}
		list := newBody(m, f.JSONName())
		require.NotNil(t, list, f.JSONName())
		require.True(t, m.ProtoReflect().Has(f), "%s makes another body", f.JSONName())
		var names, want []string
		for _, p := range list {
			names = append(names, p.name)
		}
		for j := range f.Message().Fields().Len() {
			want = append(want, f.Message().Fields().Get(j).JSONName())
		}
		require.Equal(t, want, names, f.JSONName())
	}
}

// What cannot be sent as it is must not be sent as something else.
func TestLinesThatCannotBeExpressedAreRefused(t *testing.T) {
	for line, why := range map[string]string{
		``:         "object",
		`{}`:       "no body",
		`hello`:    "two disks",
		`{"term":`: "whole number",
		`{"term":1,"appendEntries":{},"appendEntriesReply":{}}`:                            "second body",
		`{"term":1,"launchMissiles":{}}`:                                                   "launchMissiles",
		`{"term":1,"appendEntries":{"leader":2}}`:                                          "leader",
		`{"term":1,"appendEntries":{"round":0}}`:                                           "not written as a server writes it",
		`{"term":1, "appendEntries":{}}`:                                                   "not written as a server writes it",
		`{"appendEntries":{}}`:                                                             "not written as a server writes it",
		`{"appendEntries":{},"term":1}`:                                                    "not written as a server writes it",
		`{"term":1,"appendEntries":{"round":7,"leaderCommit":2}}`:                          "not written as a server writes it",
		`{"term":1,"appendEntries":{"entries":[]}}`:                                        "not written as a server writes it",
		`{"term":1,"installSnapshot":{"data":"\u0061"}}`:                                   "not written as a server writes it",
		`{"term":1,"installSnapshot":{"data_b64":"/w=="}}`:                                 "unknown field",
		`{"term":1,"forward":{"command_b64":"YQ=="}}`:                                      "not written as a server writes it",
		`{"term":1,"forward":{"command":""}}`:                                              "not written as a server writes it",
		`{"term":1,"appendEntries":{"entries":[{"index":1,"term":1,"kind":"x"}]}}`:         `kind "x"`,
		`{"term":1,"appendEntries":{"entries":[{"term":1,"index":1}]}}`:                    "not written as a server writes it",
		`{"term":1,"timeoutNow":{}} `:                                                      "not written as a server writes it",
		`{"term":1,"timeoutNow":{"now":true}}`:                                             "now",
		`005EED0FA11D15C5 7d0c6f1be2a95318 {"term":1,"timeoutNow":{}}`:                     "not written as a server writes it",
		`005eed0fa11d15c5 {"term":1,"timeoutNow":{}}`:                                      "two disks",
		`005eed0fa11d15c5  7d0c6f1be2a95318 {"term":1,"timeoutNow":{}}`:                    "two disks",
		`005eed0fa11d15c5 7d0c6f1be2a95318`:                                                "two disks",
		"{\"term\":1,\"installSnapshot\":{\"data\":\"\xff\"}}":                             "UTF-8",
		"{\"term\":1,\"appendEntries\":{\"entries\":[{\"index\":1,\"term\":1,\t\"\":1}]}}": "at byte",
	} {
		_, err := FromLine([]byte(line))
		require.ErrorContains(t, err, "a message that raft.proto cannot express: ", line)
		require.ErrorContains(t, err, why, line)
	}
}

// A peer that runs another program, or means harm, can send messages that no line
// expresses.
func TestMessagesWithoutALineAreRefused(t *testing.T) {
	newer := func(m proto.Message) { m.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01}) }
	entry := func(change func(e *raftpb.Entry)) *raftpb.Message {
		e := &raftpb.Entry{Index: 1, Term: 1, Command: []byte(`{"op":"put"}`)}
		change(e)
		return &raftpb.Message{Term: 1, Body: &raftpb.Message_AppendEntries{AppendEntries: &raftpb.AppendEntries{Entries: []*raftpb.Entry{e}}}}
	}
	message := func(change func(m *raftpb.Message, body *raftpb.TimeoutNow)) *raftpb.Message {
		body := &raftpb.TimeoutNow{}
		m := &raftpb.Message{Term: 1, Body: &raftpb.Message_TimeoutNow{TimeoutNow: body}, Disks: &raftpb.Disks{}}
		change(m, body)
		return m
	}
	for _, c := range []struct {
		m   *raftpb.Message
		why string
	}{
		{&raftpb.Message{}, "no body"},
		{message(func(m *raftpb.Message, _ *raftpb.TimeoutNow) { newer(m) }), "newer program"},
		{message(func(m *raftpb.Message, _ *raftpb.TimeoutNow) { newer(m.Disks) }), "newer program"},
		{message(func(_ *raftpb.Message, body *raftpb.TimeoutNow) { newer(body) }), "newer program"},
		{entry(func(e *raftpb.Entry) { newer(e) }), "newer program"},
		{entry(func(e *raftpb.Entry) { e.Index = 0 }), "no index"},
		{entry(func(e *raftpb.Entry) { e.Term = 0 }), "no index or no term"},
		{entry(func(e *raftpb.Entry) { e.Kind = 9 }), "kind 9"},
		{entry(func(e *raftpb.Entry) { e.Command = []byte(`1},{"index":2,"term":1`) }), "not JSON"},
		{entry(func(e *raftpb.Entry) { e.Command = []byte("{\n}") }), "one line"},
		{entry(func(e *raftpb.Entry) { e.Command = []byte(" 1") }), "not JSON"},
		{entry(func(e *raftpb.Entry) { e.Command = []byte(`[[[[[1]]]]]`) }), "not JSON"},
		{entry(func(e *raftpb.Entry) { e.Command = []byte(`"` + "\xff" + `"`) }), "not JSON"},
		{&raftpb.Message{Body: &raftpb.Message_InstallSnapshot{InstallSnapshot: &raftpb.InstallSnapshot{Data: []byte{0xff}}}}, "UTF-8"},
	} {
		_, err := AppendLine(nil, c.m)
		require.ErrorContains(t, err, c.why, "%v", c.m)
	}
	_, err := AppendLine(nil, entry(func(*raftpb.Entry) {}))
	require.NoError(t, err)
	_, err = AppendLine(nil, message(func(*raftpb.Message, *raftpb.TimeoutNow) {}))
	require.NoError(t, err)
}

// The Go code says what raft.proto says. See package raftpb for how to make it again.
// The test reads only as much of the language as raft.proto uses.
func TestGeneratedCodeMatchesTheProto(t *testing.T) {
	source, err := os.ReadFile("raftpb/raft.proto")
	require.NoError(t, err)
	field := regexp.MustCompile(`^(?:(repeated) )?(\w+) (\w+) = (\d+);$`)
	value := regexp.MustCompile(`^(\w+) = (\d+);$`)
	block := regexp.MustCompile(`^(message|enum) (\w+) \{(\})?$`)
	var want []string
	in := ""
	for line := range strings.Lines(string(source)) {
		line = strings.TrimSpace(line)
		if m := block.FindStringSubmatch(line); m != nil {
			in = m[2]
			want = append(want, in)
		} else if m := field.FindStringSubmatch(line); m != nil {
			want = append(want, strings.TrimSpace(fmt.Sprintf("%s.%s = %s %s %s", in, m[3], m[4], m[2], m[1])))
		} else if m := value.FindStringSubmatch(line); m != nil {
			want = append(want, fmt.Sprintf("%s.%s = %s", in, m[1], m[2]))
		}
	}
	require.ElementsMatch(t, want, described(raftpb.File_shared_core_transport_grpc_raftpb_raft_proto))
}

// described lists the messages and enums of a descriptor, with their fields.
func described(file protoreflect.FileDescriptor) (all []string) {
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		all = append(all, string(m.Name()))
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			kind, many := f.Kind().String(), ""
			switch {
			case f.Message() != nil:
				kind = string(f.Message().Name())
			case f.Enum() != nil:
				kind = string(f.Enum().Name())
			}
			if f.IsList() {
				many = "repeated"
			}
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s.%s = %d %s %s", m.Name(), f.Name(), f.Number(), kind, many)))
		}
	}
	for i := range file.Enums().Len() {
		e := file.Enums().Get(i)
		all = append(all, string(e.Name()))
		for j := range e.Values().Len() {
			all = append(all, fmt.Sprintf("%s.%s = %d", e.Name(), e.Values().Get(j).Name(), e.Values().Get(j).Number()))
		}
	}
	return all
}

func FuzzFromLine(f *testing.F) {
	for _, line := range golden(f) {
		f.Add(line)
		f.Add(slices.Concat([]byte(disksOf), line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, err := FromLine(line); err == nil {
			thereAndBack(t, line)
		}
	})
}

func FuzzAppendLine(f *testing.F) {
	for _, line := range golden(f) {
		m, err := FromLine(line)
		require.NoError(f, err)
		data, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m raftpb.Message
		if proto.Unmarshal(data, &m) != nil {
			return
		}
		line, err := AppendLine(nil, &m)
		if err != nil {
			return
		}
		back, err := FromLine(line)
		require.NoError(t, err, "%s", line)
		require.True(t, proto.Equal(&m, back), "%s", line)
	})
}

func BenchmarkThereAndBack(b *testing.B) {
	for _, size := range []int{0, 100, 100_000} {
		line := []byte(`{"term":1,"appendEntries":{"prevLogIndex":4,"prevLogTerm":1}}`)
		if size > 0 {
			line = fmt.Appendf(nil, `{"term":1,"appendEntries":{"prevLogIndex":4,"prevLogTerm":1,"entries":[{"index":5,"term":1,"command":{"op":"put","key":"k","value":"%s"}}]}}`, strings.Repeat("v", size))
		}
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				m, err := FromLine(line)
				require.NoError(b, err)
				_, err = AppendLine(nil, m)
				require.NoError(b, err)
			}
		})
	}
}
