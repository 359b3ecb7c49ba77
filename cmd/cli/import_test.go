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

// TestImport_Format: the name of a format is the format if files follow it, also where a
// directory has this name.
func TestImport_Format(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("compose/a.yaml", "services: {a: {image: \"example.org/a:1\"}}")
	write("b.yaml", "services: {b: {image: \"example.org/b:1\"}}")
	run := func(args ...string) (string, int) {
		var out, msg bytes.Buffer
		code := Run(t.Context(), &IO{In: strings.NewReader(""), Out: &out, Err: &msg}, append([]string{"import"}, args...))
		return out.String() + msg.String(), code
	}
	for _, c := range []struct {
		args         []string
		has, without string
	}{
		{[]string{"compose", "b.yaml"}, "b", "a"},
		{[]string{"compose"}, "a", "b"},
		{[]string{"./compose", "b.yaml"}, "a", ""},
	} {
		out := filepath.Join(t.TempDir(), "out")
		if text, code := run(append(c.args, "--name", "x", "--out", out)...); code != 0 {
			t.Errorf("%q: got exit code %d, want 0: %s", c.args, code, text)
		}
		if _, err := os.Stat(filepath.Join(out, c.has+".nomad.hcl")); err != nil {
			t.Errorf("%q: the service %s is not imported: %v", c.args, c.has, err)
		}
		if _, err := os.Stat(filepath.Join(out, c.without+".nomad.hcl")); c.without != "" && err == nil {
			t.Errorf("%q: the service %s is imported", c.args, c.without)
		}
	}
	if text, code := run("kubernetes"); code != exitUsage || !strings.Contains(text, "give FILE") {
		t.Errorf("got exit code %d and %s, want %d and how to call it", code, text, exitUsage)
	}
	for _, route := range []string{"b", "b=", "b=Shop.example", "b=shop.example/a b", "=shop.example"} {
		if text, code := run("b.yaml", "--route", route); code != exitUsage || !strings.Contains(text, "is not of the form SERVICE=HOST/PATH") {
			t.Errorf("--route %s: got exit code %d and %s, want %d", route, code, text, exitUsage)
		}
	}
}
