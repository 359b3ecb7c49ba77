package devtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// envPlain names a drover that is built as a release is built. The Makefile sets it.
const envPlain = "DROVER_TEST_PLAIN"

// Build puts drover, as a release is built, into dir, and returns its path. It copies
// the one that the Makefile has built, or builds one: linking it takes some seconds of a
// core.
func Build(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "drover")
	if plain := os.Getenv(envPlain); plain != "" {
		if out, err := exec.CommandContext(t.Context(), "cp", plain, path).CombinedOutput(); err != nil { // #nosec G204 G702 -- a path of the Makefile
			t.Fatalf("cannot copy the drover of $%s: %v\n%s", envPlain, err, out)
		}
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/drover-nomad/drover/cmd/drover")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build drover: %v\n%s", err, out)
	}
	return path
}

// Script writes a program that can be run at once. If this process wrote the file, a
// process that another test forks meanwhile would hold it open for writing, and it could
// not be run ("text file busy"). The test may have a PATH of its own.
func Script(t testing.TB, path, text string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/install", "-m", "0755", "/dev/stdin", path) // #nosec G204 -- of the test
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot write %s: %v\n%s", path, err, out)
	}
}

// Program is a program, such as drover, that is run on a cluster.
type Program struct {
	Path string
	Env  []string // NAME=VALUE, added to the environment of the test
	Dir  string   // working directory, "" for that of the test
}

// Run runs the program and returns its output and exit code. It ends the test if the
// program cannot be started or has not ended after 4 minutes.
func (p Program) Run(t testing.TB, args ...string) (out string, code int) {
	t.Helper()
	const limit = 4 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path, args...) // #nosec G204 -- of the test
	cmd.Dir, cmd.Env = p.Dir, append(os.Environ(), p.Env...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s %s: not ended after %s: %v\n%s", filepath.Base(p.Path), strings.Join(args, " "), limit, err, text)
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("%s %s: %v", filepath.Base(p.Path), strings.Join(args, " "), err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// Want is Run with a check of the exit code. It ends the test if the code differs.
func (p Program) Want(t testing.TB, code int, args ...string) string {
	t.Helper()
	out, got := p.Run(t, args...)
	if got != code {
		t.Fatalf("%s %s: got exit code %d, want %d:\n%s", filepath.Base(p.Path), strings.Join(args, " "), got, code, out)
	}
	return out
}

// Contains reports an error for each of parts that text does not contain.
func Contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("got output:\n%s\nwant it to contain %q", text, p)
		}
	}
}
