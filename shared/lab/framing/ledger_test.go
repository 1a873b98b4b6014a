package framing

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// The ledger accepts each line that was sent, once in each session, and nothing else.
func TestLedger(t *testing.T) {
	l := newLedger()
	to2 := session{to: 2, life: 1, number: 7}
	send := func(number uint64, line string, length int) payload {
		return l.send(place{from: 1, life: 3, to: 2, number: number}, []byte(line), length)
	}
	first, second, third := send(1, `{"a":1}`, 0), send(2, `{"b b":2}`, 100), send(3, `{"c":3}`, 100)
	require.Len(t, second, 100)
	for _, c := range []struct {
		b    payload
		line string
	}{{second, `{"b b":2}`}, {first, `{"a":1}`}} {
		p, line, err := l.arrive(to2, 1, c.b, false)
		require.NoError(t, err)
		require.Equal(t, c.line, string(line))
		require.Equal(t, uint64(3), p.life)
	}

	_, _, err := l.arrive(to2, 1, first, false)
	require.ErrorContains(t, err, "n2 receives line 1 from n1 twice in one session")
	_, _, err = l.arrive(session{to: 2, life: 1, number: 8}, 1, first, false)
	require.NoError(t, err)

	mixed := append(append(payload{}, second[:50]...), third[50:]...)
	other := append(append(payload{}, first...), 'x')
	for _, b := range []payload{mixed, other, payload("4 1  {}"), payload("no line"), nil} {
		_, _, err = l.arrive(session{to: 2, life: 1, number: 9}, 1, b, false)
		require.ErrorContains(t, err, "n2 receives from n1 what", fmt.Sprintf("%s", b))
	}
	_, _, err = l.arrive(session{to: 3}, 1, first, false)
	require.ErrorContains(t, err, "n3 receives from n1 what was not sent")
}

// With TCP, no line comes after a later one, in whatever connection.
func TestLedgerKeepsOrder(t *testing.T) {
	l := newLedger()
	var all []payload
	for number := range uint64(3) {
		all = append(all, l.send(place{from: 1, life: 1, to: 2, number: number + 1}, []byte("{}"), 0))
	}
	arrive := func(number, life uint64, b payload) error {
		_, _, err := l.arrive(session{to: 2, life: life, number: number}, 1, b, true)
		return err
	}
	require.NoError(t, arrive(1, 1, all[0]))
	require.NoError(t, arrive(1, 1, all[2]))
	require.ErrorContains(t, arrive(2, 1, all[1]), "n2 receives line 2 from n1 after line 3")
	require.NoError(t, arrive(3, 2, all[1]))
}
