package tour

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/page"
	"example.com/raftsteps/shared/lab/scenario"
)

// Flag registers -tours. A test package calls it once.
func Flag() *bool {
	return flag.Bool("tours", false, "find the steps of the tours again, and write their files; read the captions after it")
}

// Test plays every tour of a stage, and checks that its captions are true. It runs
// in the folder of the stage.
func Test(t *testing.T, stage scenario.Stage, update bool) {
	t.Helper()
	tours, err := All()
	if err != nil {
		t.Fatal(err)
	}
	tours = slices.DeleteFunc(tours, func(t Tour) bool { return t.Stage != stage.Name })
	if len(tours) == 0 {
		t.Errorf("%s has no tour", stage.Name)
	}
	for _, tour := range tours {
		t.Run(tour.Name, func(t *testing.T) {
			t.Parallel()
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
