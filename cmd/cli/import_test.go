package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImport_Directory: a directory stands for the manifests directly in it, and the
// standard input is one of the files.
func TestImport_Directory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "manifests")
	for name, text := range map[string]string{
		"b.yaml":     "{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: c, image: \"example.org/b:1\"}]}}",
		"a.yml":      "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: \"example.org/a:1\"}]}}",
		"README.md":  "no manifest",
		"sub/c.yaml": "no manifest",
	} {
		file := filepath.Join(in, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(stdin string, args ...string) (string, int) {
		var out, msg bytes.Buffer
		code := Run(t.Context(), &IO{In: strings.NewReader(stdin), Out: &out, Err: &msg}, append([]string{"import"}, args...))
		return out.String() + msg.String(), code
	}
	out := filepath.Join(dir, "stack")
	text, code := run("{apiVersion: v1, kind: Pod, metadata: {name: d}, spec: {containers: [{name: c, image: \"example.org/d:1\"}]}}", in, "-", "--out", out)
	if code != 0 {
		t.Fatalf("got exit code %d, want 0: %s", code, text)
	}
	for _, name := range []string{"a", "b", "d"} {
		if _, err := os.Stat(filepath.Join(out, name+".nomad.hcl")); err != nil {
			t.Errorf("the Pod %s is not imported: %v", name, err)
		}
	}
	empty := t.TempDir()
	if text, code := run("", empty); code != exitUsage || !strings.Contains(text, "has no file that ends with .yaml") {
		t.Errorf("got exit code %d and %s, want %d and a message about the directory", code, text, exitUsage)
	}
}
