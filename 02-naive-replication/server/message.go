package server

import (
	"fmt"
	"strconv"

	"example.com/raftsteps/02-naive-replication/naive"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// appendMessage appends a message between servers to b as one line of JSON:
//
//	{"replicate":{"seq":3,"command":{"op":"put","key":"x","value":"1"}}}
//	{"replicateReply":{"seq":3}}
func appendMessage(b []byte, body naive.Body) []byte {
	switch m := body.(type) {
	case naive.Replicate:
		b = append(b, `{"replicate":{"seq":`...)
		b = strconv.AppendUint(b, uint64(m.Seq), 10)
		b = append(b, `,"command":`...)
		b = append(b, m.Command...)
	case naive.ReplicateReply:
		b = append(b, `{"replicateReply":{"seq":`...)
		b = strconv.AppendUint(b, uint64(m.Seq), 10)
	}
	return append(b, "}}"...)
}

// decodeMessage reads what appendMessage wrote. A command that the store could
// not apply is refused here, before it reaches the rules.
func decodeMessage(line []byte) (naive.Body, error) {
	var body naive.Body
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if body != nil {
			d.Fail("a second body")
		}
		switch string(field) {
		case "replicate":
			body = decodeReplicate(&d)
		case "replicateReply":
			body = decodeReplicateReply(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return nil, fmt.Errorf("a message: %w", err)
	}
	if body == nil {
		return nil, fmt.Errorf("a message: it is empty")
	}
	return body, nil
}

func decodeReplicate(d *strict.Decoder) naive.Replicate {
	var m naive.Replicate
	d.Object(func(field []byte) {
		switch string(field) {
		case "seq":
			m.Seq = naive.Seq(d.Uint())
		case "command":
			m.Command = d.Raw()
			if _, err := kv.Decode(m.Command); err != nil {
				d.Fail("%v", err)
			}
		default:
			d.Unknown()
		}
	})
	if m.Command == nil {
		d.Fail("a replicate without a command")
	}
	return m
}

func decodeReplicateReply(d *strict.Decoder) naive.ReplicateReply {
	var m naive.ReplicateReply
	d.Object(func(field []byte) {
		switch string(field) {
		case "seq":
			m.Seq = naive.Seq(d.Uint())
		default:
			d.Unknown()
		}
	})
	return m
}
