package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestEvents_NamesEveryKind compares the page about events with the constants of
// type Kind in package deploy.
func TestEvents_NamesEveryKind(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("reference/events.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../deploy/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Kind" {
				return true
			}
			for _, v := range spec.Values {
				lit, ok := v.(*ast.BasicLit)
				if !ok {
					continue
				}
				found++
				kind, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(page), "`"+kind+"`") {
					t.Errorf("got no entry for the event %q in reference/events.md, want one", kind)
				}
			}
			return true
		})
	}
	if found == 0 {
		t.Error("got no constants of type Kind in package deploy, want some")
	}
}
