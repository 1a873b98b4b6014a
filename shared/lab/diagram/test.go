package diagram

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
)

// Test checks that a picture in a stage's folder shows the story as it is played now;
// with -update, which the tests of the README define, it draws it again.
func Test(t *testing.T, s scenario.Stage, name, path string) {
	t.Helper()
	var events []trace.Event
	if _, err := scenario.Play(s, name, 1, func(e trace.Event) { events = append(events, e) }); err != nil {
		t.Fatal(err)
	}
	drawn := Draw(name, events)
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(path, drawn, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, drawn) {
		t.Errorf("%s does not show %s as it is played now; look at what has changed, and draw it again with -update", path, name)
	}
}
