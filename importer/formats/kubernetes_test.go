package formats_test

import (
	"bytes"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// workload matches the kind of an object that runs something.
var workload = regexp.MustCompile(`(?m)^\s*"?kind"?:\s*"?(Deployment|StatefulSet|DaemonSet|ReplicaSet|ReplicationController|Pod|Job|CronJob)"?,?\s*$`)

// kubernetesInputs are the manifests with workloads: each file alone, and the files of
// each folder together. A file is no input of its own, if kubectl does not accept it.
func kubernetesInputs(t *testing.T, root string) map[string][]importer.Input {
	t.Helper()
	all := map[string][]importer.Input{}
	for _, folder := range []string{"kubernetes", "helm-templated", "rosetta"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, _ fs.DirEntry, err error) error {
			ext := filepath.Ext(file)
			if err != nil || ext != ".yaml" && ext != ".yml" && ext != ".json" {
				return err
			}
			in := inputs(t, filepath.Dir(file), []string{filepath.Base(file)})
			if !bytes.Contains(in[0].Text, []byte("apiVersion")) || !bytes.Contains(in[0].Text, []byte("kind")) {
				return nil
			}
			rel, _ := filepath.Rel(root, file)
			all[filepath.Dir(rel)+"/"] = append(all[filepath.Dir(rel)+"/"], in...)
			all[rel] = in
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, in := range all {
		if !slices.ContainsFunc(in, func(i importer.Input) bool { return workload.Match(i.Text) }) || strings.Contains(name, "helm-chart") {
			delete(all, name)
		}
	}
	return all
}

// TestCorpus_Kubernetes imports every manifest with workloads alone, and those of each
// folder together, and prints the share that is not refused.
func TestCorpus_Kubernetes(t *testing.T) {
	root := importertest.Data(t)
	all := kubernetesInputs(t, root)
	total, imported := map[bool]int{}, map[bool]int{}
	rules := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			folder := strings.HasSuffix(name, "/")
			total[folder]++
			res := run(t, "kubernetes", importer.Source{Inputs: all[name], Root: root})
			if !res.Refused() {
				imported[folder]++
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
	t.Logf("kubernetes: imported %d of %d files and %d of %d folders without a refusal; refusals by rule: %v", imported[false], total[false], imported[true], total[true], rules)
	for _, folder := range []bool{false, true} {
		if total[folder] == 0 || imported[folder]*100 < total[folder]*90 {
			t.Errorf("got %d of %d imported, want at least 90 %%", imported[folder], total[folder])
		}
	}
}

// TestDetect_Kubernetes: manifests are recognised.
func TestDetect_Kubernetes(t *testing.T) {
	root := importertest.Data(t)
	for name, in := range kubernetesInputs(t, root) {
		f, err := formats.Detect(in)
		if err != nil || f.Name != "kubernetes" {
			t.Errorf("%s: got %q, %v; want kubernetes", name, f.Name, err)
		}
	}
}
