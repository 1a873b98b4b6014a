package source

import (
	"os"
	"slices"
	"testing"

	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/scenario"
)

// Test checks that every decision of a stage's stories leads to one function. It
// runs in the folder of the stage.
func Test(t *testing.T, s scenario.Stage) {
	t.Helper()
	x, err := Read(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for code, places := range x.Rules {
		if len(places) != 1 {
			t.Errorf("the rule %s is named by %d functions: %v", code, len(places), places)
		}
	}
	decided := make(map[string]bool)
	for _, story := range slices.Concat(s.Survives, s.Fails) {
		f, err := film.Play(s, film.Script{Stage: s.Name, Seed: 1, Story: story, Steps: 1500})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range f.Events {
			if e.Reason == nil || e.Node == 0 || decided[e.Reason.Code] {
				continue
			}
			decided[e.Reason.Code] = true
			if len(x.Rules[e.Reason.Code]) == 0 {
				t.Errorf("%s: no function names the rule %s of: %s", story, e.Reason.Code, e.Reason.Text)
			}
		}
	}
	if len(decided) == 0 {
		t.Error("no server decided anything")
	}
}
