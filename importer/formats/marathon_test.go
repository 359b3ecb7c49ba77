package formats_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

func marathonFiles(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(filepath.Join(root, "marathon"), func(file string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, ".json") {
			all = append(all, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCorpus_Marathon imports every file of Marathon, and prints the share that is not
// refused.
func TestCorpus_Marathon(t *testing.T) {
	root := importertest.Data(t)
	total, imported := 0, 0
	rules := map[string]int{}
	for _, file := range marathonFiles(t, root) {
		rel, _ := filepath.Rel(root, file)
		t.Run(rel, func(t *testing.T) {
			total++
			res := run(t, "marathon", importer.Source{Inputs: inputs(t, filepath.Dir(file), []string{filepath.Base(file)}), Root: root})
			if !res.Refused() {
				imported++
			}
			for _, f := range res.Findings {
				if f.Severity == importer.Refusal {
					rules[f.Rule]++
					t.Log(f)
				}
				if f.Rule == importer.RuleNotImported {
					t.Log(f)
				}
			}
		})
	}
	t.Logf("marathon: imported %d of %d without a refusal; refusals by rule: %v", imported, total, rules)
	if imported*100 < total*95 {
		t.Errorf("got %d of %d imported, want at least 95 %%", imported, total)
	}
}

// TestDetect_Marathon: files of Marathon are recognised.
func TestDetect_Marathon(t *testing.T) {
	root := importertest.Data(t)
	for _, file := range marathonFiles(t, root) {
		f, err := formats.Detect(inputs(t, filepath.Dir(file), []string{filepath.Base(file)}))
		if err != nil || f.Name != "marathon" {
			t.Errorf("%s: got %q, %v; want marathon", file, f.Name, err)
		}
	}
}
