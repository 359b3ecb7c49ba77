// Package conformance compares drover with the programs that it must agree
// with.
package conformance

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/cmd/cli"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/pins"
)

// Every job spec that Nomad keeps for its own tests and demonstrations
// renders to what Nomad itself makes of it, or fails where Nomad fails.
func TestEveryJobSpecOfNomadRendersTheSame(t *testing.T) {
	root := nomadSource(t)
	specs := jobSpecs(t, root, "e2e", "demo", "command/asset", "enos")
	if len(specs) < 200 {
		t.Fatalf("found only %d job specs below %s", len(specs), root)
	}
	type result struct {
		args []string
		out  string
		err  string
		ok   bool
	}
	// Each spec as it is, and if it wants variables once more with some.
	want := make([][]result, len(specs))
	nomad := nomadBinary(t)
	var wg sync.WaitGroup
	work := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				run := func(args []string) result {
					cmd := exec.CommandContext(t.Context(), nomad, append(append([]string{"job", "run", "-output"}, args...), filepath.Base(specs[i]))...)
					cmd.Dir = filepath.Dir(specs[i])
					var stdout, stderr bytes.Buffer
					cmd.Stdout, cmd.Stderr = &stdout, &stderr
					err := cmd.Run()
					return result{args: args, out: stdout.String(), err: stderr.String(), ok: err == nil}
				}
				r := run(nil)
				want[i] = append(want[i], r)
				var vars []string
				for _, m := range regexp.MustCompile(`Unset variable "([^"]+)"`).FindAllStringSubmatch(r.err, -1) {
					if v := m[1] + "=7"; !slices.Contains(vars, v) {
						vars = append(vars, "-var", v)
					}
				}
				if len(vars) > 0 {
					want[i] = append(want[i], run(vars))
				}
			}
		})
	}
	for i := range specs {
		work <- i
	}
	close(work)
	wg.Wait()

	var equal, failing int
	for i, spec := range specs {
		name, _ := filepath.Rel(root, spec)
		t.Chdir(filepath.Dir(spec))
		for _, w := range want[i] {
			var stdout, stderr bytes.Buffer
			streams := &cli.IO{In: strings.NewReader(""), Out: &stdout, Err: &stderr}
			code := cli.Run(context.Background(), streams, append(append([]string{"render"}, w.args...), filepath.Base(spec)))
			switch {
			case (code == 0) != w.ok:
				t.Errorf("%s %v: drover exits %d (%s), nomad says %q", name, w.args, code, stderr.String(), w.err)
			case !w.ok:
				failing++
				if strings.Contains(stderr.String(), "gave up") {
					t.Errorf("%s: %s", name, stderr.String())
				}
			case stdout.String() != w.out:
				t.Errorf("%s %v: the output differs from nomad's", name, w.args)
			default:
				equal++
			}
		}
	}
	t.Logf("%d job specs of Nomad: %d renderings equal, %d fail in both", len(specs), equal, failing)
}

// jobSpecs finds the files that contain a job block.
func jobSpecs(t *testing.T, root string, dirs ...string) []string {
	t.Helper()
	job := regexp.MustCompile(`(?m)^\s*job\s+("[^"]*"|[\w-]+)\s*\{`)
	var specs []string
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if ext := filepath.Ext(path); ext != ".hcl" && ext != ".nomad" {
				return nil
			}
			src, err := os.ReadFile(path)
			if err == nil && (strings.HasSuffix(path, ".nomad") || strings.HasSuffix(path, ".nomad.hcl") || job.Match(src)) {
				specs = append(specs, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return specs
}

// nomadSource is the directory of the pinned Nomad module.
func nomadSource(t *testing.T) string {
	t.Helper()
	module := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := pins.FS.ReadFile("nomad/" + name + ".txt")
		if err == nil {
			err = os.WriteFile(filepath.Join(module, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = module
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	const nomad = "github.com/hashicorp/nomad"
	dir := run("list", "-m", "-f", "{{.Dir}}", nomad)
	if dir == "" {
		run("mod", "download", nomad)
		dir = run("list", "-m", "-f", "{{.Dir}}", nomad)
	}
	return dir
}

// nomadBinary is the Nomad that the dev cluster runs.
func nomadBinary(t *testing.T) string {
	t.Helper()
	path, err := devcluster.Tools{}.Path(t.Context(), devcluster.Nomad)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What `drover render -o hcl` writes for the stacks that ship is, to Nomad,
// the same jobs that drover itself deploys.
func TestMergedJobSpecsAreTheSameJobsToNomad(t *testing.T) {
	nomad := nomadBinary(t)
	for _, args := range [][]string{
		{"ocis", "-var", "domain=cloud.example.org"},
		{"ocis", "-var", "domain=cloud.example.org", "-e", "dev"},
	} {
		specs, jobs := t.TempDir(), t.TempDir()
		for dir, format := range map[string]string{specs: "hcl", jobs: "json"} {
			var stdout, stderr bytes.Buffer
			streams := &cli.IO{In: strings.NewReader(""), Out: &stdout, Err: &stderr}
			if code := cli.Run(t.Context(), streams, append([]string{"render", "--out", dir, "-o", format}, args...)); code != 0 {
				t.Fatalf("%v: exit code %d: %s", args, code, stderr.String())
			}
		}
		files, err := filepath.Glob(filepath.Join(specs, "*.nomad.hcl"))
		if err != nil || len(files) < 29 {
			t.Fatalf("%d job specs: %v", len(files), err)
		}
		for _, f := range files {
			cmd := exec.CommandContext(t.Context(), nomad, "job", "run", "-output", filepath.Base(f))
			cmd.Dir = specs
			got, err := cmd.Output()
			if err != nil {
				t.Errorf("%v: nomad refuses %s: %v", args, filepath.Base(f), err)
				continue
			}
			want, err := os.ReadFile(filepath.Join(jobs, strings.TrimSuffix(filepath.Base(f), ".hcl")+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%v: nomad makes another job of %s than drover", args, filepath.Base(f))
			}
		}
	}
}
