package tour

import (
	"flag"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/lab/page"
	"example.com/raftsteps/shared/lab/scenario"
)

var update = flag.Bool("update", false, "write the list of the tours again")

func TestIndex(t *testing.T) {
	tours, err := All()
	require.NoError(t, err)
	text, err := Index(tours)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("../page/"+index, text, 0o644))
		return
	}
	is, err := fs.ReadFile(page.Files, index)
	require.NoError(t, err)
	require.Equal(t, string(is), string(text), "write the list again: go test ./shared/lab/tour -update")
}

// lost is a tour of toy servers, whose first message to n2 is lost.
func lost() Tour {
	return Tour{
		Name: "lost", Stage: "toy", Seed: 3, Servers: 3, Steps: 300,
		Deeds: []Deed{
			{When: Pattern{Kind: "start", Node: 3, Later: 20}, Do: map[string]any{"do": "request", "server": 1, "client": 1, "request": `{"op":"put","key":"x","value":"1"}`}},
			{When: Pattern{Kind: "send", From: 1, To: 2}, Do: map[string]any{"do": "lose"}},
			{When: Pattern{Kind: "drop", To: 2, Later: 20}, Do: map[string]any{"do": "kill", "server": 2}},
		},
		Stops: []Stop{
			{When: Pattern{Kind: "request", Node: 1}},
			{When: Pattern{Kind: "drop", To: 2}, None: []Pattern{{Kind: "deliver", To: 2}}, Servers: map[string]map[string]any{"n2": {"up": true}}},
			{When: Pattern{Kind: "crash", Node: 2, Code: "-"}, Servers: map[string]map[string]any{"n2": {"up": false}, "n3": {"up": true}}},
		},
	}
}

var toys = scenario.Stage{Name: "toy", New: toy.New(toy.Flaws{Stale: true}), Ops: toy.Ops, Appointed: true}

func TestATourFindsItsSteps(t *testing.T) {
	found, f, err := lost().Find(toys)
	require.NoError(t, err)
	require.Empty(t, found.Check(f))
	last := uint64(0)
	for _, s := range found.Stops {
		require.Greater(t, s.At.Step, last)
		last = s.At.Step
		require.Equal(t, 1, s.At.Nth)
	}
	require.Len(t, f.Script.Deeds, 3)
	require.NotZero(t, f.Script.Deeds[1].Number)

	text, err := found.Encode()
	require.NoError(t, err)
	read, err := Decode(text)
	require.NoError(t, err)
	again, _, err := read.Find(toys)
	require.NoError(t, err)
	require.Equal(t, string(found.Script), string(again.Script))
}

func TestACaptionThatIsNotTrueBreaksTheTour(t *testing.T) {
	wrong := lost()
	wrong.Stops[1].Servers["n2"]["up"] = false
	wrong.Stops[2].None = []Pattern{{Kind: "send", From: 1}}
	wrong.Stops[1].None = []Pattern{{Kind: "send", From: 1, To: 3}}
	found, f, err := wrong.Find(toys)
	require.NoError(t, err)
	said := found.Check(f)
	require.Len(t, said, 2)
	require.Contains(t, said[0], "tour lost, stop 2: before it, in step ")
	require.Contains(t, said[1], "up of n2 is true, not false")

	gone := lost()
	gone.Stops[0].When.Node = 9
	_, _, err = gone.Find(toys)
	require.ErrorContains(t, err, `tour lost, stop 1: no event after event -1 matches {"kind":"request","node":9}`)

	late := lost()
	late.Deeds[1].When.Kind = "deliver"
	_, _, err = late.Find(toys)
	require.ErrorContains(t, err, "tour lost: deed 2 did not apply: that message is not in transit")

	_, err = Decode([]byte(`{"titel":"x"}`))
	require.ErrorContains(t, err, "titel")
}
