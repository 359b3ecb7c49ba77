package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// A thousand services are rendered in less than 150 MB.
func TestRenderOfManyServicesFitsInMemory(t *testing.T) {
	const manyServices = 1000
	dir := t.TempDir()
	if err := largeStack(dir, manyServices); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), devtest.Build(t, t.TempDir()), "render", dir)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	used := peak(cmd.ProcessState) >> 20
	if used == 0 {
		t.Skip("the system does not tell how much memory a process took")
	}
	t.Logf("%d services in %s, %d MB at most", manyServices, time.Since(began).Round(time.Millisecond), used)
	if used >= 150 {
		t.Errorf("rendering %d services took %d MB", manyServices, used)
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == measureArg {
		os.Exit(measure(os.Args[2], os.Args[3:]...))
	}
	if len(os.Args) > 2 && os.Args[1] == floorArg {
		os.Exit(processFloor(os.Args[2], os.Args[3:]...))
	}
	os.Exit(m.Run())
}

// The memory and CPU time of this process are not counted.
func TestMeasured(t *testing.T) {
	mine := make([]byte, 256<<20)
	for i := 0; i < len(mine); i += 4096 {
		mine[i] = 1
	}
	var out strings.Builder
	u, err := measured(t.Context(), "sh", os.Environ(), &out, "-c", "echo said; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || out.String() != "said\n" {
		t.Fatalf("%v, %q", err, out.String())
	}
	if u, err = measured(t.Context(), "true", nil, io.Discard); err != nil || u.elapsed <= 0 || u.peak <= 0 || u.peak > 100<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	runtime.KeepAlive(mine)
}

// The floors are processes of their own, which register every job of a stack and parse
// every spec.
func TestFloors(t *testing.T) {
	nomad := newFake()
	t.Cleanup(nomad.Close)
	b := &bench{env: []string{"NOMAD_ADDR=" + nomad.URL}}
	dir := t.TempDir()
	if err := cheapStack(dir, "s", 7, false); err != nil {
		t.Fatal(err)
	}
	u, err := b.counted(func(b *bench) (usage, error) { return b.floor(t.Context(), "register", dir, "") })
	if err != nil || u.requests != 7 || u.peak <= 0 {
		t.Errorf("register: got %+v, %v, want 7 requests and a peak", u, err)
	}
	if u, err := b.floor(t.Context(), "parse", dir); err != nil || u.peak <= 0 {
		t.Errorf("parse: got %+v, %v, want a peak", u, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "broken.nomad.hcl"), []byte("job {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.floor(t.Context(), "parse", dir); err == nil {
		t.Error("parse: no error for a broken spec")
	}
}

// The generated stack is as deep as it says, and every service is in it.
func TestCheapStack(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 7, 30, 300} {
		dir := t.TempDir()
		if err := cheapStack(dir, "s", n, true); err != nil {
			t.Fatal(err)
		}
		s, err := stack.Load(t.Context(), stack.Options{Path: dir})
		if err != nil {
			t.Fatal(err)
		}
		list, err := render.Stack(t.Context(), s, render.Options{})
		if err != nil || len(list) != n {
			t.Fatalf("%d services: %d: %v", n, len(list), err)
		}
		depth, deepest := map[string]int{}, 0
		for _, j := range list {
			for _, d := range j.DependsOn {
				depth[j.Service] = max(depth[j.Service], depth[d]+1)
			}
			deepest = max(deepest, depth[j.Service]+1)
		}
		if want := min(n, 5); n != 7 && deepest != want {
			t.Errorf("%d services are %d deep, want %d", n, deepest, want)
		}
	}
}

// A plot is well-formed, and its points are inside of it.
func TestPlot(t *testing.T) {
	t.Parallel()
	p := plot{title: "t", unit: "s", lines: []line{{"a", []point{{10, 0.01}, {1000, 3}}}, {"b", []point{{10, 1}, {1000, 99}}}}}
	for dec := xml.NewDecoder(strings.NewReader(string(p.svg()))); ; {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" && strings.Contains(e.Attr[0].Value+e.Attr[1].Value, "-") {
			t.Errorf("a point is outside: %v", e.Attr)
		}
	}
}

// A deploy in which one of 300 services has changed makes 29 requests to the simulated
// Nomad and some for each further look at the service, one in which none has changed 9,
// and a status 6. On a real Nomad, where a deployment has more steps to look at, the
// first makes 25, and 9 to 14 to look at the service.
func TestRequestsOfChange(t *testing.T) {
	b := newSimulation(t)
	dir := filepath.Join(t.TempDir(), "many")
	if err := cheapStack(dir, "many", 300, false); err != nil {
		t.Fatal(err)
	}
	deploy := func(b *bench) (usage, error) { return b.drover(t.Context(), "deploy", dir, "--parallel", "64") }
	if _, err := deploy(b); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.nomad.hcl"))
	if err != nil || len(files) < 300 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	text, err := os.ReadFile(files[150])
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct{ duration, name string }{{"24h", "unchanged"}, {"25h", "one changed"}} {
		if err := os.WriteFile(files[150], bytes.Replace(text, []byte("24h"), []byte(run.duration), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		u, err := b.counted(deploy)
		if err != nil {
			t.Fatal(err)
		}
		if most := map[string]int64{"unchanged": 9, "one changed": 32}[run.name]; u.requests > most {
			t.Errorf("%s: got %d requests, want at most %d", run.name, u.requests, most)
		}
	}
	u, err := b.counted(func(b *bench) (usage, error) { return b.drover(t.Context(), "status", dir) })
	if err != nil {
		t.Fatal(err)
	}
	if u.requests > 7 {
		t.Errorf("status: got %d requests, want at most 7", u.requests)
	}
}

// newSimulation returns a bench on a simulated Nomad, which prints the requests by path.
func newSimulation(t *testing.T) *bench {
	t.Helper()
	nomad := newFake()
	t.Cleanup(nomad.Close)
	b := &bench{options: options{paths: true}, env: nomad.env()}
	b.path.drover = devtest.Build(t, t.TempDir())
	return b
}

// TestRequestsOfTargets checks that the jobs of all targets of a cluster are read
// together, and that its server is checked once. The record has a page for each target.
func TestRequestsOfTargets(t *testing.T) {
	const targets = 50
	b := newSimulation(t)
	dir := filepath.Join(t.TempDir(), "sim")
	if err := simulatedStack(dir, targets, 4); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct {
		verb string
		most int64 // 0 for any
	}{{"deploy", 0}, {"deploy", targets + 15}, {"plan", targets + 15}, {"status", targets + 15}} {
		u, err := b.counted(func(b *bench) (usage, error) { return b.drover(t.Context(), run.verb, dir, "-e", "all") })
		if err != nil {
			t.Fatal(err)
		}
		if run.most > 0 && u.requests > run.most {
			t.Errorf("%s of %d targets: got %d requests, want at most %d", run.verb, targets, u.requests, run.most)
		}
	}
}
