package wire

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the recorded conversations anew")

// conversations are the conversations of two servers that were recorded, one for each
// version of the protocol that this program can use. The lines of the side that dials
// begin with D, those of the other side with A.
var conversations = map[uint64]string{5: "testdata/conversation-5.txt"}

// A server of this program understands a server of an older one, as it was recorded,
// and answers it with the same bytes.
func TestRecordedConversations(t *testing.T) {
	for version := uint64(oldestProtocol); version <= protocol; version++ {
		require.Contains(t, conversations, version, "record the conversation of version %d", version)
	}
	for version, path := range conversations {
		synctest.Test(t, func(t *testing.T) {
			var got received
			s := member1(&got, &logged{})
			s.Peers.Self.nonce = bytes.Repeat([]byte{9}, 32)
			s.Peers.Self.Disks = &book{own: 1}
			r := serve(t, s, newPipes())
			e := r.dial()
			if *update && version == protocol {
				require.NoError(t, os.WriteFile(path, []byte(record(e)), 0o644))
			} else {
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				for line := range strings.Lines(string(text)) {
					switch side, line, _ := strings.Cut(line, " "); side {
					case "D":
						e.send(line)
					case "A":
						require.Equal(t, strings.TrimSuffix(line, "\n"), e.line())
					default:
						require.Fail(t, "a line of neither side", line)
					}
				}
			}
			synctest.Wait()
			require.Equal(t, []string{`n2 {"from":2,"term":3,"vote":{}}`, `n2 {"from":2,"term":3,"append":{"entries":[]}}`}, got.all())
			require.NoError(t, e.c.Close())
			require.NoError(t, r.end())
		})
	}
}

// record speaks for the side that dials, and returns the conversation.
func record(e *peerEnd) string {
	var text strings.Builder
	say := func(line []byte) {
		text.WriteString("D " + string(line))
		e.send(string(line))
	}
	hear := func() { text.WriteString("A " + e.line() + "\n") }
	h := fromN2()
	h.disk, h.known, h.start = 2, 1, 5
	say(append(h.appendJSON(nil), '\n'))
	hear()
	nonce := bytes.Repeat([]byte{9}, 32)
	proof := h.proof(dialer, secret, nonce, welcome{})
	say([]byte(`{"proof":"` + hex.EncodeToString(proof) + `"}` + "\n"))
	hear()
	messages := sealOf(e.t, h, nonce)
	say(messages.append(nil, []byte(`{"from":2,"term":3,"vote":{}}`)))
	say([]byte("\n")) // it keeps the connection alive
	say(messages.append(nil, []byte(`{"from":2,"term":3,"append":{"entries":[]}}`)))
	return text.String()
}
