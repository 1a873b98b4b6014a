package tour

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/raftsteps/shared/lab/compile"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/page"
	"example.com/raftsteps/shared/lab/scenario"
)

// Flags are those of a test package with tours.
type Flags struct {
	// update writes the files, long plays the tours of edited code too.
	update, long *bool

	// edits are the edits that this test was built with, unchecked the invariants that
	// are not checked then.
	edits, unchecked *string
}

// NewFlags registers the flags. A test package calls it once.
func NewFlags() Flags {
	return Flags{
		update:    flag.Bool("tours", false, "find the steps of the tours again, and write their files; read the captions after it"),
		long:      flag.Bool("tours.long", false, "play the tours of edited code too, which has to be compiled"),
		edits:     flag.String("tours.edits", "", "the edits that this test was built with, for the test itself"),
		unchecked: flag.String("tours.unchecked", "", "the invariants that are not checked, for the test itself"),
	}
}

// Test plays every tour of a stage, and checks that its captions are true. It runs
// in the folder of the stage. The tours of edited code are played by a test of the
// stage that is built with the edits.
func Test(t *testing.T, stage scenario.Stage, flags Flags) {
	t.Helper()
	tours, err := All()
	if err != nil {
		t.Fatal(err)
	}
	tours = slices.DeleteFunc(tours, func(t Tour) bool { return t.Stage != stage.Name })
	if len(tours) == 0 {
		t.Errorf("%s has no tour", stage.Name)
	}
	update := *flags.update
	stage.Edits, stage.Unchecked = list(*flags.edits), list(*flags.unchecked)
	for _, tour := range tours {
		t.Run(tour.Name, func(t *testing.T) {
			t.Parallel()
			if !slices.Equal(tour.Edits, stage.Edits) {
				if len(stage.Edits) == 0 && (*flags.long || update) {
					edited(t, tour, update)
					return
				}
				t.Skip("it needs other code; -tours.long compiles it")
			}
			found, f, err := tour.Find(stage)
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range found.Check(f) {
				t.Error(wrong)
			}
			if tour.Title == "" || tour.About == "" || len(tour.Stops) < 3 {
				t.Errorf("tour %s needs a title, a sentence about it, and three stops", tour.Name)
			}
			name := filepath.Join(folder, tour.Name+".json")
			text, err := found.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if update {
				if err := os.WriteFile(filepath.Join("..", "shared", "lab", "page", name), text, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			is, err := page.Files.Open(filepath.ToSlash(name))
			if err != nil {
				t.Fatal(err)
			}
			defer is.Close()
			var b bytes.Buffer
			if _, err := b.ReadFrom(is); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), text) {
				t.Errorf("the steps of tour %s have moved; find them again: go test ./%s -run Tours -tours", tour.Name, stage.Name)
			}
			if _, err := film.Decode(found.Script); err != nil {
				t.Error(err)
			}
		})
	}
}

// list reads a list with commas.
func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// edited compiles this test with the edits of a tour, and plays the tour there.
func edited(t *testing.T, tour Tour, update bool) {
	t.Helper()
	tree, err := compile.Find(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(tour.Edits) != 1 {
		t.Fatalf("tour %s has the edits %q; a site holds films of one edit", tour.Name, tour.Edits)
	}
	edit, err := tree.Edit(tour.Edits[0])
	if err != nil {
		t.Fatal(err)
	}
	script, err := edit.Script(tour.Stage)
	if err != nil {
		t.Fatal(err)
	}
	is, err := film.Decode(tour.Script)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(is, script) {
		t.Errorf("the script of tour %s is not that of the edit %s in %s, so a site cannot play it:\n%s\n%s", tour.Name, edit.Name, tour.Stage, is.AppendJSON(nil), script.AppendJSON(nil))
	}
	args := []string{"-test.run", "^TestTours$/^" + tour.Name + "$", "-test.v", "-tours.edits", edit.Name, "-tours.unchecked", strings.Join(edit.Unchecked, ",")}
	if update {
		args = append(args, "-tours")
	}
	out, err := tree.RunTest(t.Context(), compile.Target{Stage: tour.Stage, Edits: tour.Edits}, args...)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestTours/"+tour.Name)) {
		t.Errorf("tour %s with edited code: %v\n%s", tour.Name, err, out)
	}
}
