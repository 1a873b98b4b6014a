package cli

import (
	"path/filepath"
	"reflect"
	"testing"

	"example.com/raftsteps/shared/run/cluster"
)

// TestOldFolder checks that the data folder dir, which an earlier version of the stage
// has left, is one of the stage, that its configuration is understood, and that nothing
// of it is lost when it is written again. It needs no certificates, which expire.
func TestOldFolder(t *testing.T, s Stage, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	needs := (&app{stage: s}).needs()
	check(cluster.CheckStage(dir, s.Name))
	f, err := cluster.Load(filepath.Join(dir, cluster.ConfigName))
	check(err)
	check(f.CheckStage(needs))
	for _, m := range f.Config.Members {
		check(cluster.CheckStarted(dir, m.ID, needs.Changes))
	}
	copied := filepath.Join(t.TempDir(), cluster.ConfigName)
	check(f.Save(copied))
	again, err := cluster.Load(copied)
	check(err)
	if !reflect.DeepEqual(f, again) {
		t.Errorf("the configuration was\n%+v\nand is now\n%+v", f, again)
	}
}
