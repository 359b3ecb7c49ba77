package render

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/stack"
)

// Options narrow what is rendered.
type Options struct {
	Services []string // names of services; all when empty
}

// Stack merges and evaluates the services of s in dependency order. What is
// wrong in a layer comes back as hcl.Diagnostics that point into that layer.
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
	if err := knownServices(s, o.Services); err != nil {
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
	told := map[string]bool{} // a mistake in a shared layer is told once
	ids := map[string]*stack.Service{}
	services := slices.DeleteFunc(slices.Clone(s.Services), func(svc *stack.Service) bool {
		return len(o.Services) > 0 && !slices.Contains(o.Services, svc.Name)
	})
	// A few services at a time, so that as few syntax trees are in memory,
	// handed on in order.
	ctx, cancel := context.WithCancel(ctx)
	type task struct {
		service *stack.Service
		to      chan rendered
	}
	workers := min(runtime.GOMAXPROCS(0), 4)
	queue, tasks := make(chan chan rendered, workers), make(chan task)
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for t := range tasks {
				t.to <- r.service(t.service)
			}
		})
	}
	working.Go(func() {
		defer close(queue)
		defer close(tasks)
		for _, svc := range services {
			to := make(chan rendered, 1)
			select {
			case tasks <- task{svc, to}:
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
		svc, job, ds := res.service, res.job, res.diags
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
		id := jobKey(job.Job)
		if other := ids[id]; other != nil {
			diags = append(diags, diagAt(svc.Range, fmt.Sprintf("Services %q and %q render to the same job %q", other.Name, svc.Name, *job.Job.ID), "Give one of them another id."))
			continue
		}
		ids[id] = svc
		if err := do(job); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(o.Services) == 0 && !diags.HasErrors() {
		diags = append(diags, r.unmatched()...)
	}
	if diags.HasErrors() {
		return diags
	}
	return nil
}

// jobKey is what tells jobs apart in Nomad.
func jobKey(j *api.Job) string {
	key := *j.ID
	for _, p := range []*string{j.Namespace, j.Region} {
		key += "\x00"
		if p != nil {
			key += *p
		}
	}
	return key
}

func knownServices(s *stack.Stack, names []string) error {
	var diags hcl.Diagnostics
	for _, name := range names {
		if !slices.ContainsFunc(s.Services, func(svc *stack.Service) bool { return svc.Name == name }) {
			var all []string
			for _, svc := range s.Services {
				all = append(all, svc.Name)
			}
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Unknown service %q", name),
				Detail: fmt.Sprintf("%s has %s.", s.Path, strings.Join(all, ", "))})
		}
	}
	if len(diags) > 0 {
		return diags
	}
	return nil
}

// renderer renders the services of one stack.
type renderer struct {
	s     *stack.Stack
	rules ruleSet
	dir   string // where file() looks
	temp  string // what of dir is not the operator's business
	diags hcl.Diagnostics

	variables, base, overlay *body

	// What variables and base declare; each variable also with its value.
	vars, locals *body
	valued       map[*node]*node

	mu     sync.Mutex
	used   map[hcl.Range]bool // patterns that matched something
	labels []string           // of services and jobs so far
}

func newRenderer(s *stack.Stack) (*renderer, func(), error) {
	r := &renderer{s: s, rules: newRuleSet(), dir: s.Dir, used: map[hcl.Range]bool{}}
	done := func() {}
	if s.Dir == "" {
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
	r.overlay = r.layer(s.Overlay, "variables", "locals", "job", "target", "wave", "schedule")
	if !r.diags.HasErrors() {
		r.share()
	}
	return r, done, nil
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

// rendered is what became of one service.
type rendered struct {
	service *stack.Service
	job     Job
	diags   hcl.Diagnostics
}

// service merges and evaluates one service. It may run beside others.
func (r *renderer) service(svc *stack.Service) rendered {
	res := rendered{service: svc, job: Job{Service: svc.Name, DependsOn: svc.DependsOn, Secrets: svc.Secrets, File: svc.Layer.File}}
	if r.s.Plain != nil {
		res.diags = r.plain(svc, &res.job)
		return res
	}
	merged, diags := r.compose(svc)
	if res.diags = diags; diags.HasErrors() {
		return res
	}
	var err error
	res.job.HCL, res.job.source = merged.text, merged
	res.job.Job, err = evaluate(&jobspec2.ParseConfig{Path: svc.Layer.File, BaseDir: r.dir, Body: merged.text, AllowFS: true, Strict: true})
	if err != nil {
		res.diags = r.hideTemp(merged.translate(err, svc.Layer.File))
	}
	return res
}

// plain evaluates a job file by Nomad's own rule.
func (r *renderer) plain(svc *stack.Service, job *Job) hcl.Diagnostics {
	name := filepath.Base(svc.Layer.File)
	self := &sourceMap{text: svc.Layer.Src, segs: []segment{{layer: svc.Layer}}}
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
		if merged, diags := r.compose(svc); !diags.HasErrors() {
			job.HCL, job.source = merged.text, merged
		}
	}
	return nil
}

func isJSON(src []byte) bool {
	trimmed := strings.TrimLeft(string(src[:min(len(src), 512)]), " ")
	return strings.HasPrefix(trimmed, "{")
}

// evaluate is jobspec2's, whose panics on odd input are errors here.
func evaluate(c *jobspec2.ParseConfig) (job *api.Job, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("nomad's parser gave up on this job: %v", p)
		}
	}()
	return jobspec2.ParseWithConfig(c)
}

// hideTemp names the stack where messages name its unpacked copy.
func (r *renderer) hideTemp(diags hcl.Diagnostics) hcl.Diagnostics {
	if r.temp != "" {
		for _, d := range diags {
			d.Detail = strings.ReplaceAll(d.Detail, r.temp, r.s.Path)
		}
	}
	return diags
}
