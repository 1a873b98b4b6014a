package cli

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"example.com/raftsteps/shared/core/access"
)

// programVariable makes a test binary act as the program of its stage.
const programVariable = "RAFTSTEPS_TEST_IS_PROGRAM"

// RunTests is the TestMain of a stage whose tests start servers as processes:
// a server is the stage's own program, which in a test is the test binary, run
// again.
func RunTests(m *testing.M, s Stage) {
	if os.Getenv(programVariable) != "" {
		Main(s)
	}
	if ops := access.Unlisted(s.Ops); len(ops) > 0 {
		panic(fmt.Sprintf("package access gives no role to %s", strings.Join(ops, ", ")))
	}
	os.Setenv(programVariable, "1")
	// Most tests live for a fraction of a second, on a heap of a few MB: collecting
	// it all the time would cost a fifth of the time.
	debug.SetGCPercent(400)
	// Tests with processes mostly wait for elections and timeouts.
	if err := flag.Set("test.parallel", fmt.Sprint(max(8, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	// The race detector makes each process that ends wait for a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// TestDemo runs the demo of a stage and fails if the demo fails. The stage
// needs RunTests.
func TestDemo(t *testing.T, s Stage) {
	t.Helper()
	t.Parallel() // it mostly waits
	var out strings.Builder
	if code := Run(t.Context(), s, []string{"demo", "--fast"}, strings.NewReader(""), &out, &out); code != exitDone {
		t.Fatalf("the demo ended with exit code %d:\n%s", code, out.String())
	}
}
