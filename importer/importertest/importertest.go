// Package importertest has what the tests of the readers share: the files and the
// findings of an import, real inputs, and inputs that are changed at random.
package importertest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/importer"
)

// File returns a file of the stack without the spaces that align it, "" if there is none.
func File(res *importer.Result, name string) string {
	for _, f := range res.Files {
		if f.Path == name {
			var lines []string
			for _, line := range strings.Split(string(f.Text), "\n") {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			return strings.Join(lines, "\n")
		}
	}
	return ""
}

// Findings returns the findings of an import, one a line, with the base names of the
// files.
func Findings(res *importer.Result) string {
	var b strings.Builder
	for _, f := range res.Findings {
		f.File = filepath.Base(f.File)
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

// Compare looks for texts in the files of a stack, and in the findings, whose name is
// "findings". None of the texts of not may be there.
func Compare(t *testing.T, res *importer.Result, has, not map[string][]string) {
	t.Helper()
	text := func(name string) string {
		if name == "findings" {
			return Findings(res)
		}
		return File(res, name)
	}
	for name, want := range has {
		for _, w := range want {
			if !strings.Contains(text(name), w) {
				t.Errorf("%s: got\n%s\nwant %q in it", name, text(name), w)
			}
		}
	}
	for name, want := range not {
		for _, w := range want {
			if strings.Contains(text(name), w) {
				t.Errorf("%s: got\n%s\nwant no %q in it", name, text(name), w)
			}
		}
	}
}

// Imported is Compare for an input that must not be refused.
func Imported(t *testing.T, res *importer.Result, has map[string][]string) {
	t.Helper()
	if res.Refused() {
		t.Fatal(Findings(res))
	}
	Compare(t, res, has, nil)
}

// CheckValid reports a panic of a reader, and a stack that would not be valid: mistakes of
// the importer, for which no input is a reason.
func CheckValid(t *testing.T, res *importer.Result, text []byte) {
	t.Helper()
	for _, f := range res.Findings {
		if strings.Contains(f.Message, importer.Mistake) || strings.Contains(f.Message, "the stack would not be valid") {
			t.Errorf("%s\nof\n%s", f, text)
		}
	}
}

// Data returns a folder of real inputs of public projects, which lie beside the checkout
// and are not in the repository: ../shared/data/import from its root. It skips the test
// without them.
func Data(t testing.TB, below ...string) string {
	t.Helper()
	top, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		}
		if top == filepath.Dir(top) {
			t.Fatal("there is no go.mod above the test")
		}
		top = filepath.Dir(top)
	}
	dir := filepath.Join(append([]string{filepath.Dir(top), "shared", "data", "import"}, below...)...)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("not tested: the real inputs of public projects are not in this repository, and %s is absent (docs/reference/import.md, How much is imported)", dir)
	}
	return dir
}

// Rounds is how often an input is changed: standard, unless the environment variable
// DROVER_TEST_MUTATIONS says another number.
func Rounds(t *testing.T, standard int) int {
	t.Helper()
	if text := os.Getenv("DROVER_TEST_MUTATIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return standard
}

// Mutate returns YAML or JSON with one to three values, and seldom a key, replaced by one
// of odd. It returns the text itself if it is neither.
func Mutate(text []byte, odd []string, random *rand.Rand) []byte {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var docs []*yaml.Node
	var scalars []*yaml.Node
	var walk func(*yaml.Node, bool)
	walk = func(n *yaml.Node, key bool) {
		if n.Kind == yaml.ScalarNode && !key {
			scalars = append(scalars, n)
		}
		for j, child := range n.Content {
			walk(child, n.Kind == yaml.MappingNode && j%2 == 0 && random.IntN(20) > 0)
		}
	}
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return text
		}
		docs = append(docs, &doc)
		walk(&doc, false)
	}
	for range 1 + random.IntN(3) {
		if len(scalars) > 0 {
			n := scalars[random.IntN(len(scalars))]
			n.Value, n.Tag, n.Style = odd[random.IntN(len(odd))], "", 0
		}
	}
	var out bytes.Buffer
	for i, doc := range docs {
		if b, err := yaml.Marshal(doc); err == nil {
			if i > 0 {
				out.WriteString("---\n")
			}
			out.Write(b)
		}
	}
	return out.Bytes()
}
