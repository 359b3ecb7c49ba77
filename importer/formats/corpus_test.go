package formats_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// composeCase is a row of a CASES.tsv.
type composeCase struct {
	folder  string
	files   []string
	environ []string
	refused string // what compose-go says
	remark  string
}

func composeCases(t *testing.T, dir string) []composeCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "CASES.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var all []composeCase
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Scan() // the names of the columns
	for scan.Scan() {
		col := append(strings.Split(scan.Text(), "\t"), "", "", "", "", "")
		c := composeCase{folder: filepath.Join(dir, col[0]), files: strings.Fields(col[1]), environ: strings.Fields(col[2]), remark: col[4]}
		if strings.HasPrefix(col[3], "refuses") {
			c.refused = col[3]
		}
		all = append(all, c)
	}
	return all
}

// run imports files and checks what holds for every input: no panic, no value that is
// neither mapped nor reported, the same bytes twice, a place and a remedy for each
// refusal.
func run(t *testing.T, format string, src importer.Source) *importer.Result {
	t.Helper()
	start := time.Now()
	res, err := formats.Run(t.Context(), format, src)
	if err != nil {
		t.Fatalf("got error %v, want a result", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s, want at most 10s", took)
	}
	c := res.Counts
	if c.Values != c.Mapped+c.LeftOut+c.Reported {
		t.Errorf("got %+v, want every value in one count", c)
	}
	for _, f := range res.Findings {
		if f.Severity == importer.Refusal && (f.Line == 0 && f.File == "" || f.Remedy == "") {
			t.Errorf("got a refusal without a place or a remedy: %s", f)
		}
		if !importer.IsRule(f.Rule) {
			t.Errorf("got a finding of rule %q, which is not in Rules", f.Rule)
		}
	}
	if res.Refused() {
		if res.Files != nil {
			t.Error("got files after a refusal")
		}
		return res
	}
	if len(res.Jobs) == 0 {
		t.Error("got no jobs")
	}
	for _, j := range res.Jobs {
		j.Job.Canonicalize()
	}
	second, err := formats.Run(t.Context(), format, src)
	if err != nil {
		t.Fatalf("got error %v from a second import", err)
	}
	if len(second.Files) != len(res.Files) {
		t.Fatalf("got %d files from a second import, want %d", len(second.Files), len(res.Files))
	}
	for i, f := range res.Files {
		if !bytes.Equal(f.Text, second.Files[i].Text) || f.Path != second.Files[i].Path {
			t.Errorf("a second import gives another %s", f.Path)
		}
	}
	return res
}

func inputs(t *testing.T, dir string, names []string) []importer.Input {
	t.Helper()
	var all []importer.Input
	for _, name := range names {
		file := filepath.Join(dir, name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, importer.Input{Name: file, Text: text})
	}
	return all
}

// TestCorpus_Compose imports every Compose file and Swarm stack, and prints the share
// that is not refused of those that compose-go accepts.
func TestCorpus_Compose(t *testing.T) {
	root := importertest.Data(t)
	for _, folder := range []string{"compose", "swarm", "rosetta"} {
		t.Run(folder, func(t *testing.T) {
			accepted, imported := 0, 0
			rules := map[string]int{}
			for _, c := range composeCases(t, filepath.Join(root, folder)) {
				rel, _ := filepath.Rel(root, c.folder)
				t.Run(rel+" "+strings.Join(c.files, " "), func(t *testing.T) {
					res := run(t, "compose", importer.Source{Inputs: inputs(t, c.folder, c.files), Environ: c.environ, Profiles: []string{"*"}, Root: root})
					own := c.refused == "" || strings.HasPrefix(c.remark, "version 1")
					if own {
						accepted++
						if !res.Refused() {
							imported++
						}
					}
					for _, f := range res.Findings {
						if own && f.Severity == importer.Refusal {
							rules[f.Rule]++
							t.Log(f)
						}
						if f.Rule == importer.RuleNotImported {
							t.Log(f)
						}
					}
					if !own && !res.Refused() {
						t.Logf("compose-go refuses it (%s), and it was imported", c.refused)
					}
				})
			}
			t.Logf("%s: imported %d of %d without a refusal; refusals by rule: %v", folder, imported, accepted, rules)
			if imported*100 < accepted*85 {
				t.Errorf("got %d of %d imported, want at least 85 %%", imported, accepted)
			}
		})
	}
}
