package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli"
)

// The pages say what the commands are now; make docs writes them.
func TestReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	pages, err := markdown()
	if err != nil {
		t.Fatal(err)
	}
	const dir = "docs/reference/cli"
	for name, want := range pages {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s/%s is not what the command says now: run make docs (%v)", dir, name, err)
		}
	}
	files, err := filepath.Glob(dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if pages[filepath.Base(f)] == nil {
			t.Errorf("%s is of no command: run make docs", f)
		}
	}
}

// Every command says what it is for and shows at least one command line of
// its own, that its flags accept.
func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	err := walk(cli.Root(), func(cmd *cobra.Command) error {
		path := cmd.CommandPath()
		if strings.HasPrefix(path, "drover completion") || path == "drover help" {
			return nil // cobra's own
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: Short %q, Example %q: both are needed", path, cmd.Short, cmd.Example)
			return nil
		}
		for line := range strings.Lines(cmd.Example) {
			_, rest, ok := strings.Cut(line, "drover ")
			if !strings.HasPrefix(line, "  ") || !ok {
				t.Errorf("%s: example %q: two spaces and a command line of drover are expected", path, line)
				continue
			}
			rest, _, _ = strings.Cut(rest, " | ")
			rest, _, _ = strings.Cut(rest, " < ")
			args := strings.Fields(strings.Trim(strings.TrimSpace(rest), `)"`))
			root := cli.Root()
			found, args, err := root.Find(args)
			if err != nil {
				t.Errorf("%s: example %q: %v", path, line, err)
				continue
			}
			if !strings.HasPrefix(found.CommandPath(), path) {
				t.Errorf("%s: example %q is of %s", path, line, found.CommandPath())
			}
			if err := found.ParseFlags(args); err != nil {
				t.Errorf("%s: example %q: %v", path, line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: example %q: %v", path, line, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
