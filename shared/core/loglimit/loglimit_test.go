package loglimit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		var said []string
		say := func(text string) {
			l.Say(text, func(before int) { said = append(said, fmt.Sprint(text, before)) })
		}
		took := func() []string {
			defer func() { said = nil }()
			return said
		}
		say("a")
		say("b") // within a second
		require.Equal(t, []string{"a0"}, took())
		for range 5 {
			time.Sleep(time.Second)
			say("a") // the same
		}
		require.Empty(t, took())
		time.Sleep(time.Second)
		say("b")
		require.Equal(t, []string{"b6"}, took())
		time.Sleep(Again)
		say("a")
		time.Sleep(time.Second)
		say("b")
		require.Equal(t, []string{"a0", "b0"}, took())

		// Without a text, only the time counts.
		time.Sleep(time.Second)
		say("")
		time.Sleep(time.Second)
		say("")
		require.Equal(t, []string{"0", "0"}, took())
	})
}

// Somebody who always says something else cannot make a server remember everything.
func TestRememberedTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		said := 0
		say := func(text string) {
			time.Sleep(time.Second)
			l.Say(text, func(int) { said++ })
		}
		for i := range maxTold + 3 {
			say(fmt.Sprint(i))
		}
		require.Len(t, l.told, maxTold)
		require.Equal(t, maxTold+3, said)
		say("3") // the oldest that is remembered
		require.Equal(t, maxTold+3, said)
		say("2")
		require.Equal(t, maxTold+4, said)
		require.Len(t, l.told, maxTold)
	})
}
