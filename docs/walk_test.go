package docs_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	participant = regexp.MustCompile(`(?m)^\s*participant (\w+) as (.+)$`)
	call        = regexp.MustCompile(`(?m)^\s*(\w+)->>(\w+): (.+)$`)
)

// TestArchitecture_WalkFollowsTheImports compares the sequence diagram of architecture.md
// with the imports of the code. A call goes to a participant that the caller imports, and
// down: no participant imports, directly or not, one that calls it. So a request that
// follows the calls does not come back to a package on its way down.
func TestArchitecture_WalkFollowsTheImports(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, diagram, _ := strings.Cut(string(text), "```mermaid")
	diagram, _, _ = strings.Cut(diagram, "```")
	packages := map[string][]string{}
	var order []string
	for _, m := range participant.FindAllStringSubmatch(diagram, -1) {
		order = append(order, m[1])
		for name := range strings.SplitSeq(m[2], ",") {
			packages[m[1]] = append(packages[m[1]], directoryOf(strings.TrimSpace(name)))
		}
	}
	calls := call.FindAllStringSubmatch(diagram, -1)
	if len(order) < 5 || len(calls) < 10 {
		t.Fatalf("got %d participants and %d calls, want the diagram of a deploy", len(order), len(calls))
	}
	imports := map[string]map[string]bool{}
	for _, m := range calls {
		from, to, what := m[1], m[2], m[3]
		if from == to {
			continue // its own work
		}
		if !slices.Contains(order, from) || !slices.Contains(order, to) {
			t.Errorf("%s->>%s: %s: got no such participant", from, to, what)
			continue
		}
		if slices.Index(order, from) >= slices.Index(order, to) {
			t.Errorf("%s->>%s: %s: the call goes up", from, to, what)
		}
		if !reaches(t, imports, packages[from], packages[to]) {
			t.Errorf("%s->>%s: %s: %q do not import %q", from, to, what, packages[from], packages[to])
		}
		if reaches(t, imports, packages[to], packages[from]) {
			t.Errorf("%s->>%s: %s: %q import %q, which call them", from, to, what, packages[to], packages[from])
		}
	}
}

// directoryOf returns the directory of a package that the diagram names. Nomad and
// Consul are servers; the packages of their clients take their place.
func directoryOf(name string) string { return strings.ToLower(name) }

// reaches reports whether one of the packages imports, directly or not, one of the others.
func reaches(t *testing.T, seen map[string]map[string]bool, from, to []string) bool {
	t.Helper()
	for _, f := range from {
		for _, o := range to {
			if importsOf(t, seen, f)[o] {
				return true
			}
		}
	}
	return false
}

// importsOf returns the packages of drover that a package imports, directly or not.
func importsOf(t *testing.T, seen map[string]map[string]bool, dir string) map[string]bool {
	t.Helper()
	if got, ok := seen[dir]; ok {
		return got
	}
	out := map[string]bool{}
	seen[dir] = out
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got no Go files in %s, %v", dir, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if other, ours := strings.CutPrefix(imported, modulePath); ours {
				out[other] = true
				for far := range importsOf(t, seen, other) {
					out[far] = true
				}
			}
		}
	}
	return out
}
