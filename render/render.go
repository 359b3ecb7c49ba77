package render

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/stack"
)

// Options select what is rendered.
type Options struct {
	Services []string // names of services; all when empty
	Targets  []string // names of targets; all when empty
}

// Stack merges and evaluates the services of s, target by target and in
// dependency order. It returns a mistake in a layer as hcl.Diagnostics that
// point into that layer.
func Stack(ctx context.Context, s *stack.Stack, o Options) ([]Job, error) {
	var jobs []Job
	err := Each(ctx, s, o, func(j Job) error {
		jobs = append(jobs, j)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return jobs, nil
}

// Each is Stack for a caller that needs one job at a time. It stops at the
// first error of do; mistakes in services are collected, so that do may have
// seen some jobs when Each returns hcl.Diagnostics.
func Each(ctx context.Context, s *stack.Stack, o Options, do func(Job) error) error {
	work, err := choose(s, o)
	if err != nil {
		return err
	}
	r, done, err := newRenderer(s)
	if err != nil {
		return err
	}
	defer done()
	if r.diags.HasErrors() {
		return r.diags
	}
	var diags hcl.Diagnostics
	told := map[string]bool{} // a mistake in a shared layer is reported once
	ids := map[string]unit{}  // not the jobs: a caller of Each keeps what it needs
	// A few services at a time, so that as few syntax trees are in memory,
	// handed on in order.
	ctx, cancel := context.WithCancel(ctx)
	type task struct {
		unit
		to chan rendered
	}
	workers := min(runtime.GOMAXPROCS(0), 4)
	queue, tasks := make(chan chan rendered, workers), make(chan task)
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for t := range tasks {
				t.to <- r.service(t.unit)
			}
		})
	}
	working.Go(func() {
		defer close(queue)
		defer close(tasks)
		for _, u := range work {
			to := make(chan rendered, 1)
			select {
			case tasks <- task{u, to}:
			case <-ctx.Done():
				return
			}
			select {
			case queue <- to:
			case <-ctx.Done():
				return
			}
		}
	})
	defer func() { cancel(); working.Wait() }()
	for from := range queue {
		if err := ctx.Err(); err != nil {
			return err
		}
		res := <-from
		job, ds := res.job, res.diags
		for _, d := range ds {
			if text := d.Error(); !told[text] {
				told[text] = true
				diags = append(diags, d)
			}
		}
		if ds.HasErrors() {
			if len(diags) > 50 {
				break // the rest would be more of the same
			}
			continue
		}
		id := jobKey(res.target, job.Job)
		if other, dup := ids[id]; dup {
			diags = append(diags, sameJob(other, res.unit, *job.Job.ID))
			continue
		}
		ids[id] = res.unit
		if err := do(job); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(o.Services) == 0 && len(o.Targets) == 0 && !diags.HasErrors() {
		diags = append(diags, r.unmatched()...)
	}
	if diags.HasErrors() {
		return diags
	}
	return nil
}

// jobKey returns the key that identifies a job in Nomad.
func jobKey(t *stack.Target, j *api.Job) string {
	key := *j.ID
	for _, p := range []*string{j.Namespace, j.Region} {
		key += "\x00"
		if p != nil {
			key += *p
		}
	}
	if t.Cluster != nil {
		key += "\x00" + t.Cluster.Name
	}
	return key
}

func sameJob(a, b unit, id string) *hcl.Diagnostic {
	if a.service == b.service {
		return diagAt(b.target.Range, fmt.Sprintf("Service %q renders to the same job %q in targets %q and %q", a.service.Name, id, a.target.Name, b.target.Name), "Write a region or a job_suffix in one of them.")
	}
	return diagAt(b.service.Range, fmt.Sprintf("Services %q and %q render to the same job %q", a.service.Name, b.service.Name, id), "Give one of them another id.")
}

// unit is one service in one target.
type unit struct {
	service *stack.Service
	target  *stack.Target
}

// choose returns the selected services of the selected targets, in the order in which
// they are rendered.
func choose(s *stack.Stack, o Options) ([]unit, error) {
	var services, targets []string
	for _, svc := range s.Services {
		services = append(services, svc.Name)
	}
	for _, t := range s.Targets {
		if t.Name != "" {
			targets = append(targets, t.Name)
		}
	}
	diags := disabled(s, o.Services)
	if !diags.HasErrors() {
		diags = known("service", s.Path, o.Services, services)
	}
	diags = append(diags, known("target", "environment "+s.Environment, o.Targets, targets)...)
	if diags.HasErrors() {
		return nil, diags
	}
	var out []unit
	for _, t := range s.Targets {
		if len(o.Targets) > 0 && !slices.Contains(o.Targets, t.Name) {
			continue
		}
		for _, svc := range s.Services {
			if slices.Contains(t.Services, svc.Name) && (len(o.Services) == 0 || slices.Contains(o.Services, svc.Name)) {
				out = append(out, unit{svc, t})
			}
		}
	}
	return out, nil
}

// disabled returns a diagnostic for each name of a disabled service.
func disabled(s *stack.Stack, names []string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, svc := range s.Disabled {
		if slices.Contains(names, svc.Name) {
			diags = append(diags, diagAt(svc.Range, fmt.Sprintf("Service %q is disabled", svc.Name), "Its block in "+stack.ConfigFile+" has enabled = false."))
		}
	}
	return diags
}

// known returns a diagnostic for each name that is not in all.
func known(what, where string, names, all []string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, name := range names {
		if slices.Contains(all, name) {
			continue
		}
		detail := fmt.Sprintf("%s has none.", where)
		if len(all) > 0 {
			detail = fmt.Sprintf("%s has %s.", where, strings.Join(all, ", "))
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Unknown %s %q", what, name), Detail: detail})
	}
	return diags
}

// renderer renders the services of one stack.
type renderer struct {
	s     *stack.Stack
	rules ruleSet
	dir   string // where file() looks
	temp  string // the part of dir that messages leave out
	diags hcl.Diagnostics

	variables, base, overlay *body
	targets                  map[string]*body // what the target blocks of overlay hold

	// The declarations of the variables file and base; each variable also with
	// its value.
	vars, locals *body
	valued       map[*node]*node

	mu     sync.Mutex
	used   map[hcl.Range]bool // patterns that matched something
	labels []string           // of services and jobs so far
}

func newRenderer(s *stack.Stack) (*renderer, func(), error) {
	r := &renderer{s: s, rules: newRuleSet(), dir: s.Dir, used: map[hcl.Range]bool{}}
	done := func() {}
	if s.Dir == "" && readsFiles(s) {
		temp, err := os.MkdirTemp("", "drover-render-")
		if err != nil {
			return nil, nil, fmt.Errorf("unpacking the stack: %w", err)
		}
		done = func() { _ = os.RemoveAll(temp) }
		if err := os.CopyFS(temp, s.FS); err != nil {
			done()
			return nil, nil, fmt.Errorf("unpacking the stack: %w", err)
		}
		r.dir, r.temp = temp, temp
	}
	r.variables = r.layer(s.Variables, "variable", "locals")
	r.base = r.layer(s.Base, "variable", "variables", "locals", "job")
	r.overlay = r.layer(s.Overlay, "variables", "locals", "job", "cluster", "target", "wave", "schedule", "drover_driver")
	if !r.diags.HasErrors() {
		r.share()
		r.readTargets()
	}
	return r, done, nil
}

// fileCall is a call of file, filebase64, fileexists or fileset, or a comment before its
// parenthesis.
var fileCall = regexp.MustCompile(`file(?:base64|exists|set)?\s*[(/#]`)

// readsFiles reports whether a layer may call a function that reads a file of the stack.
func readsFiles(s *stack.Stack) bool {
	layers := []*stack.Layer{s.Variables, s.Base, s.Overlay}
	for _, svc := range s.Services {
		layers = append(layers, svc.Layer, svc.Row)
	}
	return slices.ContainsFunc(layers, func(l *stack.Layer) bool { return l != nil && fileCall.Match(l.Src) })
}

// layer parses a layer that all services share.
func (r *renderer) layer(l *stack.Layer, allowed ...string) *body {
	if l == nil {
		return nil
	}
	b, diags := r.parse(l, allowed...)
	r.diags = append(r.diags, diags...)
	return b
}

func (r *renderer) parse(l *stack.Layer, allowed ...string) (*body, hcl.Diagnostics) {
	p := &parser{rules: r.rules, layer: l}
	b := p.file()
	for _, n := range b.items {
		if n.attr || !slices.Contains(allowed, n.name) {
			p.diags = append(p.diags, diagAt(n.rng, fmt.Sprintf("%q does not belong here", n.name), "This file may hold "+strings.Join(allowed, ", ")+"."))
			continue
		}
		switch n.name {
		case "variable":
			if len(n.labels) != 1 {
				p.diags = append(p.diags, diagAt(n.rng, "A variable block has one label", "Write variable \"NAME\" { … }."))
			}
		case "locals", "variables":
			if len(n.labels) > 0 {
				p.diags = append(p.diags, diagAt(n.rng, fmt.Sprintf("A %s block has no label", n.name), fmt.Sprintf("Write %s { … }.", n.name)))
			}
			for _, inner := range n.body.items {
				if !inner.attr {
					p.diags = append(p.diags, diagAt(inner.rng, fmt.Sprintf("A %s block holds only values", n.name), "Write NAME = VALUE."))
				}
			}
		}
	}
	return b, p.diags
}

// rendered is the result of one service.
type rendered struct {
	unit
	job   Job
	diags hcl.Diagnostics
}

// service merges and evaluates one service. It may run beside others.
func (r *renderer) service(u unit) rendered {
	svc := u.service
	res := rendered{unit: u, job: Job{Service: svc.Name, Target: u.target.Name, DependsOn: svc.DependsOn, Secrets: svc.Secrets, Limits: svc.Limits, File: svc.Layer.File}}
	if r.s.Plain != nil {
		res.diags = r.plain(svc, &res.job)
		return res
	}
	merged, diags := r.compose(u)
	if res.diags = diags; diags.HasErrors() {
		return res
	}
	var err error
	res.job.HCL, res.job.source = merged.text, merged
	res.job.Job, err = evaluate(&jobspec2.ParseConfig{Path: svc.Layer.File, BaseDir: r.dir, Body: merged.text, AllowFS: true, Strict: true})
	if err != nil {
		res.diags = r.hideTemp(merged.translate(err, svc.Layer.File))
		return res
	}
	res.diags = foreignVariables(u.target, res.job)
	return res
}

// plain evaluates a job file as Nomad does.
func (r *renderer) plain(svc *stack.Service, job *Job) hcl.Diagnostics {
	name := filepath.Base(svc.Layer.File)
	self := &sourceMap{text: svc.Layer.Src, segs: []segment{{layer: svc.Layer}}}
	if diags := stack.CheckHCL(svc.Layer.Src, svc.Layer.File); diags.HasErrors() {
		return diags
	}
	for _, file := range r.s.Plain.VarFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // jobspec2 reports it
		}
		if diags := stack.CheckHCL(text, file); diags.HasErrors() {
			return diags
		}
	}
	var err error
	job.Job, err = evaluate(&jobspec2.ParseConfig{
		Path: name, Body: svc.Layer.Src, AllowFS: true, Strict: true,
		ArgVars: r.s.Plain.Vars, VarFiles: r.s.Plain.VarFiles, Envs: r.s.Plain.Environ,
	})
	if err != nil {
		return self.translate(err, name)
	}
	job.HCL, job.source = svc.Layer.Src, self
	if !isJSON(svc.Layer.Src) {
		if merged, diags := r.compose(unit{svc, r.s.Targets[0]}); !diags.HasErrors() {
			job.HCL, job.source = merged.text, merged
		}
	}
	return nil
}

func isJSON(src []byte) bool {
	trimmed := strings.TrimLeft(string(src[:min(len(src), 512)]), " ")
	return strings.HasPrefix(trimmed, "{")
}

// evaluate calls jobspec2, and returns its panics on odd input as errors.
func evaluate(c *jobspec2.ParseConfig) (job *api.Job, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("nomad's parser gave up on this job: %v", p)
		}
	}()
	if job, err = jobspec2.ParseWithConfig(c); err != nil {
		return nil, err
	}
	// The name of jobspec2 is a field of the value that holds the syntax tree, which would
	// stay in memory with the job.
	for _, p := range []**string{&job.Name, &job.ID} {
		if *p != nil {
			text := **p
			*p = &text
		}
	}
	return job, nil
}

// hideTemp replaces the path of the unpacked copy of the stack in messages.
func (r *renderer) hideTemp(diags hcl.Diagnostics) hcl.Diagnostics {
	if r.temp != "" {
		for _, d := range diags {
			d.Detail = strings.ReplaceAll(d.Detail, r.temp, r.s.Path)
		}
	}
	return diags
}
