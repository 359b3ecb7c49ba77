package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

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

func TestScripts(t *testing.T) { testscript.Run(t, scripts("script")) }
