package formats_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
	"github.com/drover-nomad/drover/importer/nomad"
)

// nomadCase is a row of CASES.tsv of old Nomad jobs.
type nomadCase struct {
	file               string
	accepted, complete bool
}

func nomadCases(t *testing.T, root string) []nomadCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "nomad-2016", "CASES.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var all []nomadCase
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
		col := strings.Split(line, "\t")
		all = append(all, nomadCase{filepath.Join(root, "nomad-2016", col[0]), col[1] == "yes", col[2] == "yes"})
	}
	return all
}

// TestCorpus_Upgrade upgrades every old job file, and prints the share that is not
// refused of those that Nomad of its time accepted.
func TestCorpus_Upgrade(t *testing.T) {
	root := importertest.Data(t)
	accepted, upgraded, refused, others := 0, 0, 0, 0
	for _, c := range nomadCases(t, root) {
		rel, _ := filepath.Rel(root, c.file)
		t.Run(rel, func(t *testing.T) {
			text, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			l := importer.NewLedger(nil)
			out, _ := nomad.Upgrade(c.file, text, l)
			for _, f := range l.Findings() {
				if !importer.IsRule(f.Rule) || f.Severity == importer.Refusal && (f.Line == 0 || f.Remedy == "") {
					t.Errorf("got %s, want a known rule, a line and a remedy", f)
				}
			}
			switch {
			case c.accepted && l.Refused():
				t.Errorf("got %v, want none: Nomad accepted it", l.Findings())
				accepted++
				return
			case c.accepted:
				accepted++
				upgraded++
			case l.Refused():
				refused++
				others++
				return
			default:
				others++
				t.Log("Nomad refused it, and it was upgraded")
			}
			for _, comment := range strings.Split(string(text), "\n") {
				if comment = strings.TrimSpace(comment); strings.HasPrefix(comment, "#") && !strings.Contains(string(out), comment) {
					t.Errorf("got no comment %q", comment)
				}
			}
			again := importer.NewLedger(nil)
			if _, changes := nomad.Upgrade(c.file, out, again); len(changes) > 0 || again.Refused() {
				t.Errorf("got a second upgrade with %v and %v of\n%s", changes, again.Findings(), out)
			}
		})
	}
	t.Logf("nomad: upgraded %d of %d; refused %d of the %d that Nomad refused", upgraded, accepted, refused, others)
}

// TestCorpus_Nomad imports every old job file, and prints the share that is not refused
// of those that Nomad of its time accepted.
func TestCorpus_Nomad(t *testing.T) {
	root := importertest.Data(t)
	accepted, imported := 0, 0
	for _, c := range nomadCases(t, root) {
		rel, _ := filepath.Rel(root, c.file)
		t.Run(rel, func(t *testing.T) {
			res := run(t, "nomad", importer.Source{Inputs: inputs(t, filepath.Dir(c.file), []string{filepath.Base(c.file)}), Root: root})
			for _, f := range res.Findings {
				if f.Severity == importer.Refusal && f.Line == 0 {
					t.Errorf("got a refusal without a line: %s", f)
				}
			}
			if !c.accepted {
				if !res.Refused() {
					t.Error("got no refusal: Nomad refused it")
				}
				return
			}
			accepted++
			if res.Refused() {
				t.Errorf("got %v, want no refusal: Nomad accepted it", res.Findings)
				return
			}
			imported++
		})
	}
	t.Logf("nomad: imported %d of %d without a refusal", imported, accepted)
}

// TestDetect_Nomad: job files are recognised.
func TestDetect_Nomad(t *testing.T) {
	for _, c := range nomadCases(t, importertest.Data(t)) {
		f, err := formats.Detect(inputs(t, filepath.Dir(c.file), []string{filepath.Base(c.file)}))
		if err != nil || f.Name != "nomad" {
			t.Errorf("%s: got %q, %v; want nomad", c.file, f.Name, err)
		}
	}
}
