package jobs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

// The edges have the files that they share, and those are no stack.
func TestStack_EdgesHaveTheirBase(t *testing.T) {
	t.Parallel()
	if slices.Contains(Names(), edgeBase) {
		t.Errorf("%s is listed as a stack: %q", edgeBase, Names())
	}
	for _, name := range []string{"edge", "edge-nginx"} {
		files, err := Stack(name)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		if err := fs.WalkDir(files, ".", func(path string, _ fs.DirEntry, err error) error {
			found[path] = true
			return err
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range []string{"_base.nomad.hcl", "stack.hcl", "variables.hcl", "environments/dev.hcl"} {
			if _, err := fs.ReadFile(files, want); err != nil || !found[want] {
				t.Errorf("%s: %s is listed: %v, and read: %v", name, want, found[want], err)
			}
		}
	}
	files, err := Stack("ocis")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(files, "environments/dev.hcl"); err != nil {
		t.Error(err)
	}
	if _, err := Stack("nosuch"); err == nil {
		t.Error("nosuch is a stack")
	}
}

// The edges run the image that was tested, and no other of its tag.
func TestStack_EdgeImagesArePinned(t *testing.T) {
	t.Parallel()
	image := regexp.MustCompile(`variable "image" \{[^}]*default\s+= "([^"]+)"`)
	for _, name := range []string{"edge", "edge-nginx"} {
		files, err := Stack(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := fs.ReadFile(files, "variables.hcl")
		if err != nil {
			t.Fatal(err)
		}
		found := image.FindSubmatch(text)
		if found == nil {
			t.Fatalf("%s: variables.hcl has no default of image", name)
		}
		if !regexp.MustCompile(`^[a-z]+:[0-9.]+@sha256:[0-9a-f]{64}$`).Match(found[1]) {
			t.Errorf("%s: got image %s, want NAME:VERSION@sha256:DIGEST", name, found[1])
		}
	}
}

// healthy_deadline counts from the placement: an image that takes a minute to download
// must not fail a deployment.
func TestStack_DeadlinesCoverDownloads(t *testing.T) {
	t.Parallel()
	deadline := regexp.MustCompile(`healthy_deadline\s+= "([^"]+)"`)
	found := 0
	for _, name := range append(Names(), edgeBase) {
		files, err := fs.Glob(os.DirFS(name), "*.hcl")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(name, file))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range deadline.FindAllSubmatch(text, -1) {
				found++
				if d, err := time.ParseDuration(string(m[1])); err != nil || d < 3*time.Minute {
					t.Errorf("%s/%s: healthy_deadline = %q (%v), want at least 3m", name, file, m[1], err)
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("found %d deadlines, want at least 4", found)
	}
}
