package formats_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// TestCorpusOnCluster_Validates has Nomad validate each job of each input that is
// imported, as nomad job validate does.
func TestCorpusOnCluster_Validates(t *testing.T) {
	devtest.NeedsServers(t)
	root := importertest.Data(t)
	cluster := devtest.Cluster(t, devcluster.Options{})
	client, err := api.NewClient(cluster.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	jobs := 0
	// Files that test a parser: the Nomad of their time read them, and ran them no more
	// than today's does.
	refused := map[string]string{
		"nomad-0.8.7/basic.hcl":                        "Invalid change mode",
		"nomad-0.8.7/parameterized_job.hcl":            "Parameterized job can only be used",
		"nomad-0.8.7/reschedule-job-unlimited.hcl":     "Unlimited cannot also be set",
		"nomad-0.8.7/service-check-driver-address.hcl": "Missing task driver",
	}
	validate := func(t *testing.T, format string, src importer.Source) {
		t.Helper()
		src.Root, src.Allow = root, []string{"bind-source", "file-too-big", "port-conflict", "unknown-port", "volume-shared", "volume-driver", "unsupported", "missing-file"}
		res, err := formats.Run(t.Context(), format, src)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range res.Jobs {
			jobs++
			got, _, err := client.Jobs().Validate(j.Job, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(src.Inputs) == 1 && format == "nomad" {
				if why := refused[filepath.Base(filepath.Dir(src.Inputs[0].Name))+"/"+filepath.Base(src.Inputs[0].Name)]; why != "" {
					if !strings.Contains(got.Error, why) {
						t.Errorf("%s: got %q, want %q", j.Service, got.Error, why)
					}
					continue
				}
			}
			if got.Error != "" || len(got.ValidationErrors) > 0 {
				t.Errorf("%s: got %s %v, want a valid job\n%s", j.Service, got.Error, got.ValidationErrors, j.HCL)
			}
		}
	}
	for _, folder := range []string{"compose", "swarm", "rosetta"} {
		for _, c := range composeCases(t, filepath.Join(root, folder)) {
			rel, _ := filepath.Rel(root, c.folder)
			t.Run(rel+" "+strings.Join(c.files, " "), func(t *testing.T) {
				validate(t, "compose", importer.Source{Inputs: inputs(t, c.folder, c.files), Environ: c.environ, Profiles: []string{"*"}})
			})
		}
	}
	for _, file := range marathonFiles(t, root) {
		rel, _ := filepath.Rel(root, file)
		t.Run(rel, func(t *testing.T) {
			validate(t, "marathon", importer.Source{Inputs: inputs(t, filepath.Dir(file), []string{filepath.Base(file)})})
		})
	}
	for _, file := range ecsFiles(t, root) {
		rel, _ := filepath.Rel(root, file)
		t.Run(rel, func(t *testing.T) {
			validate(t, "ecs", importer.Source{Inputs: inputs(t, filepath.Dir(file), []string{filepath.Base(file)})})
		})
	}
	for name, in := range kubernetesInputs(t, root) {
		t.Run(name, func(t *testing.T) {
			validate(t, "kubernetes", importer.Source{Inputs: in})
		})
	}
	for _, c := range nomadCases(t, root) {
		if c.accepted && c.complete {
			rel, _ := filepath.Rel(root, c.file)
			t.Run(rel, func(t *testing.T) {
				validate(t, "nomad", importer.Source{Inputs: inputs(t, filepath.Dir(c.file), []string{filepath.Base(c.file)})})
			})
		}
	}
	t.Logf("Nomad accepts %d jobs", jobs)
}
