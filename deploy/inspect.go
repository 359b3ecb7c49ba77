package deploy

import (
	"context"
	"strings"
	"sync"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Inspect reads the allocations of one service with their events, checks, resource use
// and last log lines. It changes nothing.
type Inspect struct {
	Home    Home
	Source  Source // as in Status; its Services are not used
	Service string
	Lines   int // of the log of each task and stream; 0 for none
}

// InspectResult is one service at one moment.
type InspectResult struct {
	Job       render.Job
	Instances []rollout.Instance // the newest first
	Stdout    []rollout.LogLine
	Stderr    []rollout.LogLine
	// Hidden reports that the token may not read the secrets of the stack. Texts that
	// tasks wrote are left out then, because they may hold one.
	Hidden bool
	LogErr error // why logs could not be read; nil if they could
}

// Run reads the service. It hides the values of the stack's secrets. It returns an
// *InvalidError if the service does not run, or runs in several targets and Source
// names none.
func (v Inspect) Run(ctx context.Context) (InspectResult, error) {
	r, job, clients, err := v.find(ctx)
	if err != nil {
		return InspectResult{}, err
	}
	out := InspectResult{Job: job}
	redact, err := v.Home.secretStore(r.home, r.releases.Stack(), r.releases.Environment()).Redactor(ctx)
	if out.Hidden = nomad.IsForbidden(err); out.Hidden {
		redact = HideAll
	} else if err != nil {
		return out, err
	}
	var wg sync.WaitGroup
	if v.Lines > 0 && !out.Hidden {
		wg.Go(func() { out.Stdout, out.Stderr, out.LogErr = v.logs(ctx, clients, job, redact) })
	}
	out.Instances, err = rollout.Instances(ctx, clients, job)
	wg.Wait()
	for i := range out.Instances {
		for j := range out.Instances[i].Tasks {
			t := &out.Instances[i].Tasks[j]
			t.Event = redact(t.Event)
		}
		for j := range out.Instances[i].Checks {
			c := &out.Instances[i].Checks[j]
			c.Output = redact(c.Output)
		}
	}
	return out, err
}

// find returns the job of the service and the clients of its target.
func (v Inspect) find(ctx context.Context) (*reader, render.Job, nomad.Clients, error) {
	source := v.Source
	source.Services = []string{v.Service}
	r, err := newReader(ctx, &v.Home, &source)
	if err != nil {
		return nil, render.Job{}, nomad.Clients{}, err
	}
	left, err := r.onlyService(ctx, &source, v.Service)
	if err != nil {
		return nil, render.Job{}, nomad.Clients{}, err
	}
	clients, err := v.Home.Targets(ctx, left.Targets, left.Jobs, true)
	if err != nil {
		return nil, render.Job{}, nomad.Clients{}, err
	}
	return r, left.Jobs[0], clients[left.Jobs[0].Target], nil
}

// onlyService returns the record of the one job that source selects.
func (r *reader) onlyService(ctx context.Context, source *Source, service string) (*release.Recorded, error) {
	head, err := r.newest(ctx)
	if err != nil {
		return nil, err
	}
	left, err := r.jobs(ctx, head, source)
	if err != nil {
		return nil, err
	}
	jobs := left.Jobs
	switch {
	case len(jobs) == 0 && len(source.Targets) == 0:
		return nil, invalidf("service %s of stack %s does not run", service, r.releases.Stack())
	case len(jobs) == 0:
		return nil, invalidf("service %s does not run in target %s", service, strings.Join(source.Targets, ", "))
	case len(jobs) > 1:
		return nil, invalidf("service %s runs in several targets; choose one of %s with --target", service, strings.Join(TargetNames(jobs), ", "))
	}
	return left, nil
}

// logs reads the last lines of both streams.
func (v Inspect) logs(ctx context.Context, c nomad.Clients, job render.Job, redact func(string) string) (stdout, stderr []rollout.LogLine, err error) {
	read := func(stream string) (out []rollout.LogLine, err error) {
		err = rollout.Logs(ctx, c, job, rollout.LogOptions{Tail: v.Lines, Stream: stream}, func(l rollout.LogLine) {
			l.Text = redact(l.Text)
			out = append(out, l)
		})
		return out, err
	}
	if stdout, err = read("stdout"); err != nil {
		return stdout, nil, err
	}
	stderr, err = read("stderr")
	return stdout, stderr, err
}
