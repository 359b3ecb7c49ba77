package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// envPlain names a drover that is built as a release is built, see plainDrover. The
// Makefile sets it.
const envPlain = "DROVER_TEST_PLAIN"

// plainDrover is the path of the program for commands that repeat what other
// tests do under the race detector, with which they take three times the CPU.
// Without envPlain it is the test binary, as for all other commands. make race runs these
// tests with the race detector, make test without.
func plainDrover(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(envPlain); path != "" {
		return path
	}
	path, err := exec.LookPath("drover") // testscript.Main puts it there
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	// A drover with the race detector would sleep for a second before it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"drover": func() { os.Exit(Main(os.Args[1:])) },
	})
}

// scripts are those in a directory under testdata, run with these variables.
// They run drover as a user does: in a directory of their own, with what it
// prints and the code it ends with.
func scripts(dir string, env ...string) testscript.Params {
	return testscript.Params{
		Dir:                "testdata/" + dir,
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Vars = append(append(e.Vars, "GORACE="+os.Getenv("GORACE")), env...)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "forget": forgetRecord, "byhand": changeByHand},
	}
}

// plainPath is the variable PATH with which a script runs plainDrover.
func plainPath(t testing.TB) string {
	t.Helper()
	return "PATH=" + filepath.Dir(plainDrover(t)) + string(filepath.ListSeparator) + os.Getenv("PATH")
}

// The tests of stack, render and lint run the same code under the race detector.
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts("script", plainPath(t)))
}
