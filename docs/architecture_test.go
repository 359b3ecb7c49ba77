package docs_test

import (
	"flag"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/drover-nomad/drover/"

var updateTable = flag.Bool("update", false, "write the imports into architecture.md")

var quoted = regexp.MustCompile("`([^`]+)`")

// TestArchitecture_TableIsTheImportGraph compares the table of
// architecture.md with the imports of the code, in both directions. Tests may
// import anything.
func TestArchitecture_TableIsTheImportGraph(t *testing.T) {
	t.Parallel()
	allowed := readTable(t) // row → rows; nil allows all
	got := map[string]map[string]string{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "dist"):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || !strings.Contains(name, "/"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path.Join("..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from := rowOf(path.Dir(name), allowed)
		if from == "" {
			t.Errorf("architecture.md has no row for %s: add one", path.Dir(name))
			return nil
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			dir, ours := strings.CutPrefix(imported, modulePath)
			to := rowOf(dir, allowed)
			if ours && to == "" {
				t.Errorf("architecture.md has no row for %s: add one", dir)
			} else if ours && to != from {
				if got[from] == nil {
					got[from] = map[string]string{}
				}
				got[from][to] = name
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if *updateTable {
		writeTable(t, allowed, got)
		return
	}
	for _, from := range slices.Sorted(maps.Keys(allowed)) {
		if allowed[from] == nil {
			continue
		}
		for _, to := range slices.Sorted(maps.Keys(got[from])) {
			if !slices.Contains(allowed[from], to) {
				t.Errorf("%s imports %s, which architecture.md does not allow: remove the import, or add `%s` to the row of `%s/` (go test ./docs -run Table -update)", got[from][to], to, to, from)
			}
		}
		for _, to := range allowed[from] {
			if got[from][to] == "" {
				t.Errorf("architecture.md allows %s to import %s, and it does not: remove it from the row (go test ./docs -run Table -update)", from, to)
			}
		}
	}
}

// rowOf returns the directory of the table's row that dir belongs to: the
// longest that contains it. It returns "" if there is none.
func rowOf(dir string, rows map[string][]string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := rows[dir]; ok {
			return dir
		}
	}
	return ""
}

// readTable returns the directories that each row of architecture.md may
// import; nil allows all. Directories in one cell are separate rows with the
// same imports, which may also import each other.
func readTable(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		may := []string{}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			may = append(may, strings.TrimSuffix(m[1], "/"))
		}
		if strings.Contains(cells[3], "everything") {
			may = nil
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			rows[strings.TrimSuffix(m[1], "/")] = may
		}
	}
	if len(rows) < 15 {
		t.Fatalf("architecture.md: got %d rows, want at least 15", len(rows))
	}
	return rows
}

// writeTable replaces the imports in the rows of architecture.md by got, except
// in rows that allow all.
func writeTable(t *testing.T, allowed map[string][]string, got map[string]map[string]string) {
	t.Helper()
	b, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		dir := strings.TrimSuffix(quoted.FindStringSubmatch(cells[1])[1], "/")
		if allowed[dir] == nil {
			continue
		}
		cells[3] = " nothing "
		if imports := slices.Sorted(maps.Keys(got[dir])); len(imports) > 0 {
			cells[3] = " `" + strings.Join(imports, "`, `") + "` "
		}
		lines[i] = strings.Join(cells, "|")
	}
	if err := os.WriteFile("architecture.md", []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
