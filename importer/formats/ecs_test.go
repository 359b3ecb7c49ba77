package formats_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// ecsFiles are the inputs of Amazon ECS, also those of the applications that are there
// in several formats.
func ecsFiles(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	for _, folder := range []string{"ecs", "rosetta/aws-microservices/ecs-ec2", "rosetta/aws-microservices/ecs-fargate", "rosetta/aws-microservices/cloudformation-ec2", "rosetta/aws-microservices/cloudformation-fargate"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() != "SOURCE.txt" {
				all = append(all, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// unusable reports whether ECS does not accept a file by itself: it is a template of
// ecspresso, a service without its task definition, or has a container without an
// image.
func unusable(rel string, text []byte) bool {
	return bytes.Contains(text, []byte("{{")) || !bytes.Contains(bytes.ToLower(text), []byte("containerdefinitions")) && strings.Contains(rel, "ecspresso") || strings.Contains(rel, "composev2_")
}

// TestCorpus_ECS imports every file of Amazon ECS, and prints the share that is not
// refused of those that ECS accepts.
func TestCorpus_ECS(t *testing.T) {
	root := importertest.Data(t)
	total, imported := 0, 0
	rules := map[string]int{}
	for _, file := range ecsFiles(t, root) {
		rel, _ := filepath.Rel(root, file)
		t.Run(rel, func(t *testing.T) {
			in := inputs(t, filepath.Dir(file), []string{filepath.Base(file)})
			res := run(t, "ecs", importer.Source{Inputs: in, Root: root})
			accepted := !unusable(rel, in[0].Text)
			switch {
			case accepted:
				total++
				if !res.Refused() {
					imported++
				}
			case !res.Refused():
				t.Error("got a stack of a file that ECS does not accept")
			}
			for _, f := range res.Findings {
				if f.Severity == importer.Refusal {
					if f.Line == 0 {
						t.Errorf("got a refusal without a line: %s", f)
					}
					if accepted {
						rules[f.Rule]++
					}
					t.Log(f)
				}
				if f.Rule == importer.RuleNotImported {
					t.Error(f)
				}
			}
		})
	}
	t.Logf("ecs: imported %d of %d without a refusal; refusals by rule: %v", imported, total, rules)
	if imported*100 < total*90 {
		t.Errorf("got %d of %d imported, want at least 90 %%", imported, total)
	}
}

// TestDetect_ECS: files of Amazon ECS are recognised.
func TestDetect_ECS(t *testing.T) {
	root := importertest.Data(t)
	for _, file := range ecsFiles(t, root) {
		f, err := formats.Detect(inputs(t, filepath.Dir(file), []string{filepath.Base(file)}))
		if err != nil || f.Name != "ecs" {
			t.Errorf("%s: got %q, %v; want ecs", file, f.Name, err)
		}
	}
}

// TestRosetta_ECS: one application, written for Compose, for ECS on two kinds of
// clusters and for CloudFormation, gives services with the same images, ports and keys
// of the environment.
func TestRosetta_ECS(t *testing.T) {
	root := filepath.Join(importertest.Data(t), "rosetta", "aws-microservices")
	describe := func(format, folder string, names ...string) string {
		res, err := formats.Run(t.Context(), format, importer.Source{Inputs: inputs(t, filepath.Join(root, folder), names), Root: root})
		if err != nil {
			t.Fatal(err)
		}
		if res.Refused() {
			t.Fatalf("%s: got %v", folder, res.Findings)
		}
		var out []string
		for _, j := range res.Jobs {
			if !res.Imported(j.Service) {
				continue
			}
			for _, g := range j.Job.TaskGroups {
				var ports []int
				for _, n := range g.Networks {
					for _, p := range n.DynamicPorts {
						ports = append(ports, p.To)
					}
					for _, p := range n.ReservedPorts {
						ports = append(ports, p.To)
					}
				}
				slices.Sort(ports)
				for _, task := range g.Tasks {
					image, _, _ := strings.Cut(fmt.Sprint(task.Config["image"]), ":")
					out = append(out, fmt.Sprintf("%s %v %v", image, ports, slices.Sorted(maps.Keys(task.Env))))
				}
			}
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	want := describe("compose", "compose", "docker-compose.yaml")
	if !strings.Contains(want, "arungupta/webapp [8080] [GREETING_SERVICE_HOST") {
		t.Fatalf("got %s from Compose", want)
	}
	for _, c := range []struct {
		folder string
		ext    string
	}{{"ecs-ec2", ".json"}, {"ecs-fargate", ".json"}, {"cloudformation-ec2", ".yaml"}, {"cloudformation-fargate", ".yaml"}} {
		if got := describe("ecs", c.folder, "greeting"+c.ext, "name"+c.ext, "webapp"+c.ext); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.folder, got, want)
		}
	}
}
