package stack_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// TestParseHCL_Bounds: input that would overflow the stack of HCL's parser, which ends the
// process, is an error with its place.
func TestParseHCL_Bounds(t *testing.T) {
	t.Parallel()
	const n = 200_000
	for name, text := range map[string]string{
		"lists":       "a = " + strings.Repeat("[", n),
		"parentheses": "a = " + strings.Repeat("(", n),
		"objects":     "a = " + strings.Repeat("{a=", n),
		"blocks":      strings.Repeat("a {\n", n),
		"templates":   "a = " + strings.Repeat("\"${", n),
		"calls":       "a = " + strings.Repeat("f(", n),
		"negations":   "a = " + strings.Repeat("!", n) + "true",
		"minus":       "a = " + strings.Repeat("-", n) + "1",
		"conditions":  "a = " + strings.Repeat("b ? c : ", n) + "d",
		"sums":        "a = 1" + strings.Repeat(" + 1", n),
		"indexes":     "a = [" + strings.Repeat("b[", n),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, diags := stack.ParseHCL([]byte(text), "x.hcl")
			if !diags.HasErrors() || diags[0].Subject == nil || !strings.Contains(diags[0].Detail, "Write at most") {
				t.Errorf("got %v, want an error with its place", diags)
			}
		})
	}
	wide := "a = [" + strings.Repeat("[1, -1],\n", 20_000) + "]\nb = {\n" + strings.Repeat("  c = 1 + 1\n", 1) + "}\n" + strings.Repeat("d {\n  e = \"${1 + 2}\"\n}\n", 20_000)
	if _, diags := stack.ParseHCL([]byte(wide), "x.hcl"); diags.HasErrors() {
		t.Errorf("got %v of a long file, want none", diags)
	}
}

// TestLoad_DeepJob: a job file alone is bounded, in the native syntax and in JSON.
func TestLoad_DeepJob(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"api.nomad.hcl":  "a = " + strings.Repeat("[", 200_000),
		"api.nomad.json": "{\"job\": " + strings.Repeat("[", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, err := stack.Load(t.Context(), stack.Options{Path: file})
			if err == nil {
				_, err = render.Stack(t.Context(), loaded, render.Options{})
			}
			if err == nil || !strings.Contains(err.Error(), "too deep") {
				t.Errorf("got %v, want an error about brackets", err)
			}
		})
	}
}

// TestLoad_Deep: each file of a stack is bounded.
func TestLoad_Deep(t *testing.T) {
	t.Parallel()
	deep := "a = " + strings.Repeat("[", 200_000)
	for _, file := range []string{"stack.hcl", "variables.hcl", "environments/default.hcl", "api.nomad.hcl", "_base.nomad.hcl"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			files := fstest.MapFS{
				"stack.hcl":     {Data: []byte("stack \"shop\" {}\nservice \"api\" {}\n")},
				"api.nomad.hcl": {Data: []byte("job \"shop-api\" {}\n")},
			}
			files[file] = &fstest.MapFile{Data: []byte(deep)}
			loaded, err := stack.Load(t.Context(), stack.Options{Path: "shop", FS: files})
			if err == nil {
				_, err = render.Stack(t.Context(), loaded, render.Options{})
			}
			if err == nil || !strings.Contains(err.Error(), "too deep") {
				t.Errorf("got %v, want an error about brackets", err)
			}
		})
	}
}
