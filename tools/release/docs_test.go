package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
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
