// Package words_test keeps the language of the repository plain: it finds the phrases
// and names that docs/style.md rules out.
package words_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// phrases are what a text must not contain. A space matches a line break too.
var phrases = compile(
	`(?i)whoever`, `(?i)somebody`, `(?i)nobody`,
	`(?i)(?:is|are|was|were|be|been) told`, `(?i)(?:is|are) said to`,
	`(?i)(?:go|goes|going|gone|went) on with`, `(?i)(?:comes?|came) to nothing`,
	`(?i)(?:comes?|came) out well`, `(?i)(?:as it was|as they were)(?: before)?`,
	`(?i)he`, `(?i)his`, `(?i)him`,
)

func compile(exprs ...string) *regexp.Regexp {
	for i, e := range exprs {
		exprs[i] = strings.ReplaceAll(e, " ", `\s+`)
	}
	return regexp.MustCompile(`\b(?:` + strings.Join(exprs, "|") + `)\b`)
}

var (
	// clause is a sentence whose subject is a clause: "Who watches … does not".
	clause = regexp.MustCompile(`(?:^|[.;:!?]\s+|\n\s*\n)(?:Who|Whose|What)\s+[a-z]`)
	// predicate is the doc comment of a predicate that does not say "reports".
	predicate = regexp.MustCompile(`^[A-Za-z_]\w*\s+(?:says|tells)\s+(?:that|whether|if|what|how)\b`)
	// names are whole names that say nothing.
	names = regexp.MustCompile(`(?i)^(?:again|goon|tell|told|back|stays|left|wants|mend|ask|moved|ours)$`)

	fence  = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	inline = regexp.MustCompile("`[^`\n]*`")
)

// finding is one phrase or name that is ruled out.
type finding struct {
	file    string
	line    int
	match   string // the phrase or the name
	context string // the line around it
}

// exception is a line of exceptions.txt: where, text, reason.
type exception struct {
	where, text string
	used        bool
}

func TestWords(t *testing.T) {
	t.Parallel()
	found, err := scan(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	exceptions, err := readExceptions("exceptions.txt")
	if err != nil {
		t.Fatal(err)
	}
	found = slices.DeleteFunc(found, func(f finding) bool {
		for _, e := range exceptions {
			if strings.HasPrefix(f.file, e.where) && strings.Contains(strings.ToLower(f.context), e.text) {
				e.used = true
				return true
			}
		}
		return false
	})
	for _, e := range exceptions {
		if !e.used {
			t.Errorf("exceptions.txt: nothing in %s contains %q: remove the line", e.where, e.text)
		}
	}
	for _, f := range found {
		t.Errorf("%s:%d: got %q in %q; docs/style.md says how to write instead", f.file, f.line, f.match, f.context)
	}
}

// scan returns the findings in the sources, pages and stacks below root.
func scan(root fs.FS) ([]finding, error) {
	var found []finding
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch {
			case name == "tests/words", name == "docs/reference/cli", d.Name() == "testdata", name == "bin", name == "dist":
				return fs.SkipDir // the phrases themselves, what is generated, and what others wrote
			case d.Name() != "." && d.Name() != ".ci" && d.Name() != ".github" && strings.HasPrefix(d.Name(), "."):
				return fs.SkipDir
			}
			return nil
		}
		var texts []text
		switch base := d.Name(); {
		case strings.HasSuffix(base, ".go"):
			b, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			if texts, err = goTexts(name, b); err != nil {
				return err
			}
		case name == "docs/style.md": // has the phrases
		case strings.HasSuffix(base, ".md"), strings.HasSuffix(base, ".hcl"), strings.HasSuffix(base, ".yml"), base == "Makefile", name == ".ci/run":
			b, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			texts = []text{{line: 1, s: plain(name, string(b)), page: true}}
		}
		for _, x := range texts {
			for _, f := range x.findings() {
				f.file = name
				found = append(found, f)
			}
		}
		return nil
	})
	return found, err
}

// text is a comment group, a string, a declared name or a page.
type text struct {
	line       int
	s          string
	name, page bool // s is a name; s is a whole page
}

// findings returns what is ruled out in x, without the file.
func (x text) findings() []finding {
	if x.name {
		if names.MatchString(x.s) {
			return []finding{{line: x.line, match: x.s, context: x.s}}
		}
		return nil
	}
	var found []finding
	for _, m := range phrases.FindAllStringIndex(x.s, -1) {
		found = append(found, x.at(m))
	}
	for _, m := range clause.FindAllStringIndex(x.s, -1) {
		if end := strings.IndexAny(x.s[m[1]:], ".?"); end >= 0 && x.s[m[1]+end] == '?' {
			continue // a question
		}
		found = append(found, x.at(m))
	}
	if m := predicate.FindStringIndex(x.s); m != nil && !x.page {
		found = append(found, x.at(m))
	}
	return found
}

func (x text) at(m []int) finding {
	start := m[0] + len(x.s[m[0]:m[1]]) - len(strings.TrimLeft(x.s[m[0]:m[1]], ".;:!? \t\n"))
	from := strings.LastIndexByte(x.s[:start], '\n') + 1
	to := len(x.s)
	if n := strings.IndexByte(x.s[m[1]:], '\n'); n >= 0 {
		to = m[1] + n
	}
	return finding{
		line: x.line + strings.Count(x.s[:start], "\n"), match: strings.Join(strings.Fields(x.s[start:m[1]]), " "),
		context: strings.Join(strings.Fields(x.s[from:to]), " "),
	}
}

// goTexts returns the comments, the declared names, and the strings of more than one
// word of a Go file.
func goTexts(name string, src []byte) ([]text, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	base := path.Base(name)
	texts := []text{{line: 1, s: strings.TrimSuffix(strings.TrimSuffix(base, ".go"), "_test"), name: true}}
	for _, g := range file.Comments {
		texts = append(texts, text{line: line(g.Pos()), s: g.Text()})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			texts = append(texts, text{line: line(n.Pos()), s: n.Name.Name, name: true})
		case *ast.TypeSpec:
			texts = append(texts, text{line: line(n.Pos()), s: n.Name.Name, name: true})
		case *ast.Field:
			if n.Tag != nil { // not a text
				n.Tag = nil
			}
		case *ast.ImportSpec:
			return false
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				if s, err := strconv.Unquote(n.Value); err == nil && strings.Contains(s, " ") {
					texts = append(texts, text{line: line(n.Pos()), s: s})
				}
			}
		}
		return true
	})
	return texts, nil
}

// plain removes the code from a page, and the signs of comments from the
// others; lines keep their numbers.
func plain(name, s string) string {
	blank := func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) }
	if strings.HasSuffix(name, ".md") {
		return inline.ReplaceAllStringFunc(fence.ReplaceAllStringFunc(s, blank), func(string) string { return "x" })
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, " \t#/*")
	}
	return strings.Join(lines, "\n")
}

func readExceptions(file string) ([]*exception, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []*exception
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, " | ")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%s:%d: want WHERE | TEXT | REASON", file, i+1)
		}
		all = append(all, &exception{where: parts[0], text: strings.ToLower(parts[1])})
	}
	return all, nil
}

func TestFindings_OfATextAndAName(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{
		"Who ends in order gives the lock back.":    1,
		"Who ends in order?":                        0,
		"anyone who can reach the API":              0,
		"A job. What was refused is retried.":       1,
		"the value is\ntold to it":                  1,
		"isOpen says whether it is open":            1,
		"isOpen reports whether it is open":         0,
		"the header, this, the chimera":             0,
		"he reads; everything is as\nit was before": 2,
	} {
		if got := len((text{s: s}).findings()); got != want {
			t.Errorf("%q: got %d findings, want %d", s, got, want)
		}
	}
	src := "package x\n\nfunc f() { println(\"nobody is told\") }\n"
	for _, name := range []string{"x.go", "x_test.go"} {
		texts, err := goTexts(name, []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, x := range texts {
			got += len(x.findings())
		}
		if got != 2 {
			t.Errorf("the string of %s: got %d findings, want 2", name, got)
		}
	}
	for s, want := range map[string]int{"goon": 1, "Told": 1, "leftOver": 0} {
		if got := len((text{s: s, name: true}).findings()); got != want {
			t.Errorf("name %q: got %d findings, want %d", s, got, want)
		}
	}
}
