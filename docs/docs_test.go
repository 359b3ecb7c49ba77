// Package docs_test keeps the documentation to what is so.
package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// mention is a test in backquotes, with a subtest or without.
	mention = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)((?:/[^`/]+)*)`")
	defined = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
)

// TestNamedTestsExist: a table that says which test proves what is worth
// nothing when there is no such test.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	root := os.DirFS("..")
	where := map[string]string{}  // test → its directory
	source := map[string]string{} // directory → its tests
	pages := map[string]string{}
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "dist" || d.Name() == "bin"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".txtar"): // a script, in testdata/GROUP/NAME.txtar
			dir := filepath.Dir(filepath.Dir(filepath.Dir(path)))
			source[dir] += `"` + strings.TrimSuffix(d.Name(), ".txtar") + `"`
			return nil
		case !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".md"):
			return nil
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".md") {
			pages[path] = string(b)
			return nil
		}
		dir := filepath.Dir(path)
		source[dir] += string(b)
		for _, m := range defined.FindAllStringSubmatch(string(b), -1) {
			where[m[1]] += dir + " "
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for path, text := range pages {
		for i, line := range strings.Split(text, "\n") {
			for _, m := range mention.FindAllStringSubmatch(line, -1) {
				total++
				if where[m[1]] == "" {
					t.Errorf("%s:%d names %s, which does not exist", path, i+1, m[1])
					continue
				}
				for _, sub := range strings.Split(m[2], "/")[1:] {
					if !named(sub, strings.Fields(where[m[1]]), source) {
						t.Errorf("%s:%d names %s%s, and no subtest %q is in %s", path, i+1, m[1], m[2], sub, where[m[1]])
					}
				}
			}
		}
	}
	if total < 50 {
		t.Errorf("only %d tests are named", total)
	}
}

// named reports whether a subtest, or a script, is in one of the directories:
// the test binary writes spaces as underscores. One that ends with … stands for
// all that begin so.
func named(sub string, dirs []string, source map[string]string) bool {
	sub, several := strings.CutSuffix(sub, "…")
	end := `"`
	if several {
		end = ""
	}
	for _, dir := range dirs {
		for _, name := range []string{sub, strings.ReplaceAll(sub, "_", " ")} {
			if strings.Contains(source[dir], `"`+name+end) {
				return true
			}
		}
	}
	return false
}

// TestDecisions_HaveNumbersOfTheirOwn: a decision has the number of its file, and no
// other decision has it.
func TestDecisions_HaveNumbersOfTheirOwn(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("decisions/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d decisions: %v", len(files), err)
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("# %d. ", i+1); !strings.HasPrefix(filepath.Base(file), fmt.Sprintf("%04d-", i+1)) || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s: got %.20q, want the number %d in its name and title", file, text, i+1)
		}
	}
}
