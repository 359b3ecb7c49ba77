package formats_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
)

// guestbook is the application of tests/imported in each format.
var guestbook = map[string]struct {
	files  []string
	src    importer.Source
	volume string // "" for a path of the node
}{
	"compose":    {[]string{"compose.yaml"}, importer.Source{}, "db-data"},
	"kubernetes": {[]string{"guestbook.yaml"}, importer.Source{}, "db-data"},
	"marathon":   {[]string{"guestbook.json"}, importer.Source{}, "db-pgdata"},
	"ecs": {[]string{"db-task.json", "backend-task.json", "frontend-task.json", "services.json"},
		importer.Source{Allow: []string{"volume-driver"}, Routes: map[string][]string{"frontend": {"guestbook.example.org"}}}, "db-data"},
	"nomad": {[]string{"guestbook.nomad"}, importer.Source{}, ""},
}

// TestGuestbook_Name: an application that is imported twice with two names is two stacks
// that have nothing in common: neither a volume nor a certificate.
func TestGuestbook_Name(t *testing.T) {
	t.Parallel()
	for format, g := range guestbook {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			src := g.src
			src.Name = "other"
			for _, name := range g.files {
				file := filepath.Join("..", "..", "tests", "imported", "testdata", "guestbook", format, name)
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				src.Inputs = append(src.Inputs, importer.Input{Name: file, Text: text})
			}
			res, err := formats.Run(t.Context(), "", src)
			if err != nil {
				t.Fatal(err)
			}
			if res.Refused() || res.Format != format {
				t.Fatalf("got format %s and %v, want %s and no refusal", res.Format, res.Findings, format)
			}
			stack := ""
			for _, f := range res.Files {
				text := string(f.Text)
				if f.Path == "stack.hcl" {
					stack = text
				}
				if f.Path != "secrets.yaml" && strings.Contains(text, "tulip") {
					t.Errorf("%s: got the password of the database", f.Path)
				}
			}
			want := []string{`stack "other"`, "certificate \"other\" {"}
			if g.volume != "" {
				want = append(want, `volume "other-`+g.volume+`"`)
			}
			for _, w := range want {
				if !strings.Contains(stack, w) {
					t.Errorf("got\n%s\nwant %s", stack, w)
				}
			}
		})
	}
}
