package release

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// RetiredError is the error of a target that is no longer in the environment, and whose
// jobs cannot be stopped.
type RetiredError struct {
	Target string
	Jobs   []string // IDs
	Err    error
}

func (e *RetiredError) Error() string {
	if e.Target == "" {
		return fmt.Sprintf("the environment has targets now, and the jobs from before (%s) have to be stopped: %s", strings.Join(e.Jobs, ", "), e.Err)
	}
	return fmt.Sprintf("target %s is not in the environment any more, and its jobs (%s) have to be stopped: %s; if it is gone for good, leave them with --forget %s",
		e.Target, strings.Join(e.Jobs, ", "), e.Err, e.Target)
}

func (e *RetiredError) Unwrap() error { return e.Err }

// RelocatedError is the error of a target that now names another cluster: the jobs in
// the former cluster would be forgotten.
type RelocatedError struct{ Target, Was, Now string } // addresses, "" for that of the command line

func (e *RelocatedError) Error() string {
	const home = "the address of the command line"
	return fmt.Sprintf("target %s was at %s in the last release and is at %s now; give the new one another name: then the jobs of the old one stop when the new ones are healthy",
		e.Target, cmp.Or(e.Was, home), cmp.Or(e.Now, home))
}

// identity is what tells jobs apart in Nomad, whatever an environment calls
// the place.
type identity struct{ cluster, region, namespace, id string }

// cluster is the address of a target's cluster, "" for that of the command
// line.
func cluster(t *stack.Target) string {
	if t.Cluster == nil {
		return ""
	}
	return t.Cluster.Address
}

// retire looks after the jobs that the last release left in targets in which
// nothing is planned now. One that is planned under the name of another target
// is the same job and stays ours. The others stop like a service that has left
// the stack: their target becomes a part without jobs of its own, in the last
// wave.
func (d *Deployer) retire(ctx context.Context, p *Plan) error {
	p.moved = map[jobKey]bool{}
	if p.last == nil {
		return nil
	}
	was, err := requestOf(p.last)
	if err != nil {
		return err
	}
	planned := map[string]bool{}
	for _, part := range p.Parts {
		planned[part.Target] = true
	}
	for _, t := range was.Targets {
		if _, known := p.defaults[t.Name]; !known {
			p.noteDefaults(d.Defaults, []*stack.Target{t})
		}
		i := slices.IndexFunc(p.req.Targets, func(now *stack.Target) bool { return now.Name == t.Name })
		lines := slices.DeleteFunc(slices.Clone(p.lines), func(l record.Service) bool {
			return l.Target != t.Name || !p.retires(l, planned[t.Name], i < 0)
		})
		switch {
		case i < 0:
			p.retired = append(p.retired, t)
		case cluster(t) != cluster(p.req.Targets[i]) && slices.ContainsFunc(p.lines, func(l record.Service) bool { return l.Target == t.Name && l.Leftover().Runs }):
			return &RelocatedError{Target: t.Name, Was: cluster(t), Now: cluster(p.req.Targets[i])}
		}
		if i < 0 && slices.Contains(p.req.Forget, t.Name) {
			p.forgotten = append(p.forgotten, lines...)
			continue
		}
		if len(lines) == 0 {
			continue
		}
		if err := d.retireTarget(ctx, p, t, lines); err != nil {
			return &RetiredError{Target: t.Name, Jobs: jobIDs(lines), Err: err}
		}
	}
	return nil
}

// retires reports whether the release has to look after a job that the last release
// left in its target: it stops the job, or the job may be one that is planned under
// the name of another target. planned reports whether the release plans anything in
// the target, removed whether the environment lost the target.
func (p *Plan) retires(l record.Service, planned, removed bool) bool {
	if !isManaged(l) {
		return false
	}
	return l.Leftover().Runs && !p.req.Partial && !planned || removed && p.plans(l)
}

// plans reports whether a job of that ID is planned in any target.
func (p *Plan) plans(l record.Service) bool {
	return slices.ContainsFunc(p.req.Jobs, func(j render.Job) bool {
		now, was := p.jobKey(j.Target, j.Job), p.key(l)
		return now.ID == was.ID && now.Namespace == was.Namespace
	})
}

func jobIDs(lines []record.Service) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.JobID)
	}
	return out
}

func (d *Deployer) retireTarget(ctx context.Context, p *Plan, t *stack.Target, lines []record.Service) error {
	c, err := d.Dial(ctx, t, false)
	if err != nil {
		return err
	}
	p.noteClusterDefaults(t, c)
	same := make([]*jobKey, len(lines))
	err = parallel.Each(len(lines), 8, func(i int) error {
		was, err := identify(ctx, c, t, lines[i])
		if err != nil || was == nil {
			return err
		}
		same[i], err = p.find(ctx, *was)
		return err
	})
	if err != nil {
		return err
	}
	part := &Part{Wave: len(p.req.Waves) - 1, Target: t.Name}
	for i, l := range lines {
		switch {
		case same[i] != nil:
			p.moved[*same[i]], p.moved[p.key(l)] = true, true
		case !p.req.Partial && l.Leftover().Runs:
			part.former = append(part.former, formerOf(l))
		}
	}
	if len(part.former) > 0 {
		p.clusters[t.Name] = c
		p.Parts = append(p.Parts, part)
	}
	return nil
}

// find is the planned job of an identity, nil when there is none.
func (p *Plan) find(ctx context.Context, want identity) (*jobKey, error) {
	for _, part := range p.Parts {
		i := slices.IndexFunc(p.req.Targets, func(t *stack.Target) bool { return t.Name == part.Target })
		if i < 0 || cluster(p.req.Targets[i]) != want.cluster {
			continue
		}
		for _, j := range part.Jobs {
			k := p.jobKey(part.Target, j.Job)
			if k.ID != want.id || k.Namespace != want.namespace {
				continue
			}
			is, err := identify(ctx, p.clusters[part.Target], p.req.Targets[i], line(j))
			if err != nil {
				return nil, err
			}
			if is != nil && *is == want {
				return &k, nil
			}
		}
	}
	return nil, nil
}

// identify asks Nomad where a job is, whose record may leave that to the
// client (GET /v1/job/:id); nil when it is not there.
func identify(ctx context.Context, c Cluster, t *stack.Target, l record.Service) (*identity, error) {
	job, err := c.Job(ctx, l)
	if err != nil || job == nil {
		return nil, err
	}
	return &identity{cluster(t), nomad.Deref(job.Region), nomad.Deref(job.Namespace), l.JobID}, nil
}

func formerOf(l record.Service) rollout.Former {
	return rollout.Former{Service: l.Name, Target: l.Target, JobID: l.JobID, Namespace: l.Namespace, Region: l.Region}
}
