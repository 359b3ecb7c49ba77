package cli

import (
	"io"
	"strings"
	"testing"
)

func TestDetailedExitCode_Given(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]bool{
		"plan .":                                               false,
		"plan . --detailed-exitcode":                           true,
		"plan . --detailed-exitcode=true":                      true,
		"plan . --detailed-exitcode=1":                         true,
		"plan . --detailed-exitcode=false":                     false,
		"plan . --detailed-exitcode=0":                         false,
		"plan . --detailed-exitcode=perhaps":                   true,
		"plan . --detailed-exitcode --detailed-exitcode=false": false,
		"plan . --detailed-exitcodes":                          false,
		"plan -- --detailed-exitcode":                          false,
	} {
		if got := isDetailed(strings.Fields(args)); got != want {
			t.Errorf("%s: got %v, want %v", args, got, want)
		}
	}
}

// A mistake on the command line is 2, and 1 only where 2 says that there are
// changes.
func TestDetailedExitCode_OfAMistake(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]int{"": exitUsage, "--detailed-exitcode=false": exitUsage, "-detailed-exitcode=false": exitUsage, "--detailed-exitcode": exitError, "-detailed-exitcode": exitError} {
		streams := &IO{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}
		if got := Run(t.Context(), streams, append([]string{"plan", "/no/such/stack"}, strings.Fields(flag)...)); got != want {
			t.Errorf("plan %s ended with %d, want %d", flag, got, want)
		}
	}
}
