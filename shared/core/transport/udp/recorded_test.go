package udp

import (
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/version"
)

var update = flag.Bool("update", false, "write the recorded conversations anew")

// conversations are the datagrams of two servers that were recorded, one file for each
// version of the protocol that this program can use. Those of the side that says hello
// begin with D, those of the other side with A.
var conversations = map[uint64]string{1: "testdata/conversation-1.txt"}

// counted returns a source of bytes that are the same each time.
func counted(first byte) func([]byte) {
	return func(b []byte) {
		for i := range b {
			b[i] = first
			first++
		}
	}
}

// recorded starts the two servers of a conversation, which are not yet running.
func recorded(t *testing.T, n *internet, v uint64) (a, b *station) {
	a, b = n.start(t, 1, nil), n.start(t, 2, nil)
	a.can = version.Between(oldestProtocol, protocol)
	b.can = version.Between(v, v) // an older program
	a.start, b.start = 1, 2
	a.random, b.random = counted(10), counted(20)
	a.whole, b.whole = false, false
	return a, b
}

// conversation returns the datagrams of b's session with a.
func conversation(all []parcel) string {
	var text strings.Builder
	for _, p := range all {
		kind := p.b[0]
		switch {
		case p.from == place(2) && (kind == kindHello || kind == kindMessage):
			text.WriteString("D ")
		case p.from == place(1) && (kind == kindAnswer || kind == kindAck):
			text.WriteString("A ")
		default:
			continue
		}
		text.WriteString(hex.EncodeToString(p.b) + "\n")
	}
	return text.String()
}

// A server of this program understands a server of an older one, as it was recorded,
// and answers it with the same bytes. And it still says the same to an older one.
func TestRecordedConversations(t *testing.T) {
	for v := uint64(oldestProtocol); v <= protocol; v++ {
		require.Contains(t, conversations, v, "record the conversation of version %d", v)
	}
	for v, path := range conversations {
		synctest.Test(t, func(t *testing.T) {
			n := newInternet()
			a, b := recorded(t, n, v)
			a.run()
			b.run(1)
			pass(time.Second)
			require.True(t, b.Send(1, []byte(`{"term":3,"vote":{}}`)))
			pass(time.Second)
			said := conversation(n.record())
			a.end()
			b.end()
			if *update && v == protocol {
				require.NoError(t, os.WriteFile(path, []byte(said), 0o644))
			}
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(text), said)

			// A new server hears the recorded datagrams, of which nothing was made here.
			n = newInternet()
			a, _ = recorded(t, n, v)
			a.run()
			for line := range strings.Lines(string(text)) {
				if side, line, _ := strings.Cut(line, " "); side == "D" {
					datagram, err := hex.DecodeString(strings.TrimSpace(line))
					require.NoError(t, err)
					n.deliver(parcel{datagram, place(2), place(1)})
					pass(time.Millisecond)
				}
			}
			require.Equal(t, []string{`n2 {"term":3,"vote":{}}`}, a.took())
			require.Equal(t, answers(string(text)), answers(conversation(n.record())))
			a.end()
		})
	}
}

// answers returns the lines of the side that has not said hello.
func answers(conversation string) (lines []string) {
	for line := range strings.Lines(conversation) {
		if strings.HasPrefix(line, "A ") {
			lines = append(lines, line)
		}
	}
	return lines
}
