package model

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// Kinds of services; body has the job of each.
const (
	plain  = "plain"
	canary = "canary" // waits for a promotion
	scaled = "scaled" // an autoscaler may change its count
	batch  = "batch"
)

// svc is a service as the files of the stack describe it.
type svc struct {
	kind    string
	value   int
	count   int
	crash   bool // does not start
	mark    int  // of a redeploy, 0 for none
	ns      bool // in the namespace of the sequence, not in the default one
	secrets []string
}

func (s svc) clone() svc {
	s.secrets = slices.Clone(s.secrets)
	return s
}

// stackOf is the services of a stack, by name.
type stackOf map[string]svc

func (s stackOf) clone() stackOf {
	out := stackOf{}
	for name, v := range s {
		out[name] = v.clone()
	}
	return out
}

func (s stackOf) names() []string { return slices.Sorted(maps.Keys(s)) }

func (s stackOf) equal(t stackOf) bool {
	return maps.EqualFunc(s, t, func(a, b svc) bool {
		return a.kind == b.kind && a.value == b.value && a.count == b.count && a.mark == b.mark && a.crash == b.crash && a.ns == b.ns && slices.Equal(a.secrets, b.secrets)
	})
}

// rel is a release as the record has to show it.
type rel struct {
	number int
	state  record.State
	kind   string
	made   stackOf        // what it deploys
	asked  map[string]int // the counts that the files had
}

// world is one sequence: the stack on disk, and the model of the cluster.
type world struct {
	t    *testing.T
	site *site
	rng  *rand.Rand
	name string // of the stack
	dir  string

	env      string            // environment
	files    stackOf           // as they are on disk
	runs     stackOf           // what has to run
	failed   string            // the service whose version failed and stayed, "" for none
	releases []rel             // the newest last
	next     int               // counts values, extra services and marks
	asking   map[string]int    // the counts of what is deployed next, by service
	asked    map[string]int    // and of what runs: a scaled one may be another
	values   map[string]string // SERVICE ITEM → the value that its variable held last
	log      bytes.Buffer
}

func newWorld(t *testing.T, s *site, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, site: s, rng: rand.New(rand.NewPCG(seed, 0)), name: fmt.Sprintf("m%d", seed), dir: t.TempDir(),
		env: "blue", files: stackOf{}, runs: stackOf{}, asked: map[string]int{}, next: 1, values: map[string]string{},
	}
	if _, err := s.nomad.Namespaces().Register(&api.Namespace{Name: w.name}, nil); err != nil {
		t.Fatal(err)
	}
	w.files["web"] = svc{kind: plain, value: 1, count: 2, secrets: []string{"alpha"}}
	w.files["can"] = svc{kind: canary, value: 1, count: 2}
	w.files["auto"] = svc{kind: scaled, value: 1, count: 1}
	w.files["once"] = svc{kind: batch, value: 1, count: 1, secrets: []string{"alpha"}}
	return w
}

// write puts the files of the stack on disk.
func (w *world) write() error {
	if err := os.RemoveAll(w.dir); err != nil {
		return err
	}
	secrets := map[string]bool{}
	text := fmt.Sprintf("stack %q {}\n", w.name)
	for _, name := range w.files.names() {
		quoted := make([]string, 0, 3)
		for _, item := range w.files[name].secrets {
			secrets[item] = true
			quoted = append(quoted, fmt.Sprintf("%q", item))
		}
		text += fmt.Sprintf("service %q {\n  secrets = [%s]\n}\n", name, strings.Join(quoted, ", "))
	}
	for _, item := range slices.Sorted(maps.Keys(secrets)) {
		text += fmt.Sprintf("secret %q {\n  type = \"random\"\n}\n", item)
	}
	files := map[string]string{"stack.hcl": text, "environments/blue.hcl": "", "environments/green.hcl": ""}
	for name, s := range w.files {
		files[name+".nomad.hcl"] = w.body(name, s)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "environments"), 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// body returns the job of a service.
func (w *world) body(name string, s svc) string {
	job := devtest.MockJob{ID: w.job(name), Value: fmt.Sprint(s.value), Count: s.count, MinHealthy: "50ms", Logs: true}
	switch s.kind {
	case canary:
		job.Update = "canary = 1"
	case scaled:
		job.Group = "scaling {\n  min = 1\n  max = 6\n}"
	case batch:
		job.Type, job.Config = "batch", `run_for = "20ms"`
	}
	if s.crash {
		job.Config = devtest.Broken
	}
	if s.ns {
		job.Job = fmt.Sprintf("namespace = %q", w.name)
	}
	items := ""
	for _, item := range s.secrets {
		items += fmt.Sprintf("{{ .%s }}", item)
	}
	if items != "" {
		data := fmt.Sprintf("{{ with nomadVar %q }}%s{{ end }}", "nomad/jobs/"+w.job(name), items)
		job.Task = fmt.Sprintf("template {\n  data        = %q\n  destination = \"secrets/all\"\n}", data)
	}
	return job.String()
}

func (w *world) job(service string) string { return w.name + "-" + service }

func (w *world) namespace(s svc) string {
	if s.ns {
		return w.name
	}
	return api.DefaultNamespace
}

// run runs drover and returns its output and exit code. withDir is for the
// commands that read the source.
func (w *world) run(args ...string) (string, int) {
	out, code := w.site.drover.Run(w.t, args...)
	fmt.Fprintf(&w.log, "$ drover %s\n%s(exit code %d)\n", strings.Join(args, " "), out, code)
	return out, code
}

// said are the last commands and what they printed.
func (w *world) said() string {
	text := w.log.String()
	if len(text) > 6000 {
		text = "…" + text[len(text)-6000:]
	}
	return text
}

// remove stops what is left of the sequence, so that the agents stay quick.
func (w *world) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), time.Minute)
	defer cancel()
	for _, ns := range []string{api.DefaultNamespace, w.name} {
		q := (&api.QueryOptions{Namespace: ns, Prefix: w.name + "-"}).WithContext(ctx)
		list, _, err := w.site.nomad.Jobs().List(q)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for _, stub := range list {
			_, _, _ = w.site.nomad.Jobs().Deregister(stub.ID, false, (&api.WriteOptions{Namespace: ns}).WithContext(ctx))
		}
	}
}

func (w *world) record() *record.Releases { return record.OpenReleases(w.site.nomad, w.name, w.env) }

func (w *world) last() *rel {
	if len(w.releases) == 0 {
		return nil
	}
	return &w.releases[len(w.releases)-1]
}
