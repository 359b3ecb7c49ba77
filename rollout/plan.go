package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/render"
)

// Prepare asks Nomad what each job would change (POST /v1/job/:id/plan) and,
// where that is nothing, whether what runs is healthy
// (GET /v1/job/:id/allocations and one request to Consul). Nothing is written.
func Prepare(ctx context.Context, c Clients, jobs []render.Job, opts Options) (*Plan, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("no answer within a minute"))
	defer cancel()
	p := &Plan{clients: c, opts: opts.withDefaults(), begun: time.Now()}
	for _, j := range jobs {
		if j.Job == nil || j.Job.ID == nil || *j.Job.ID == "" {
			return nil, fmt.Errorf("service %q has no job ID", j.Service)
		}
		p.steps = append(p.steps, &step{Job: j, spec: specOf(j.Job)})
	}

	var names []string
	for _, s := range p.steps {
		names = append(names, consul.Names(s.spec.consul)...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var instances map[string][]consul.Instance
	var consulErr error
	var wg sync.WaitGroup
	if len(names) > 0 && c.Consul != nil {
		wg.Go(func() {
			if instances, consulErr = consul.Read(ctx, c.Consul, names); consulErr != nil {
				consulErr = consulError(&ClusterError{System: "Consul", Address: consulAddress(), Err: consulErr})
			}
		})
	}

	allocs := make([][]*api.AllocationListStub, len(p.steps))
	err := each(len(p.steps), 8, func(i int) error {
		s := p.steps[i]
		plan, _, err := c.Nomad.Jobs().Plan(s.Job.Job, true, s.spec.write(ctx))
		if err != nil {
			return fmt.Errorf("planning job %q: %w", s.spec.id, plain(err))
		}
		s.plan = plan
		if s.unchanged() && !s.spec.registeredIsDeployed() {
			allocs[i], _, err = c.Nomad.Jobs().Allocations(s.spec.id, false, s.spec.query(ctx))
			if err != nil {
				return fmt.Errorf("reading the allocations of job %q: %w", s.spec.id, err)
			}
		}
		return nil
	})
	wg.Wait()
	if err = errors.Join(err, consulErr); err != nil {
		return nil, err
	}
	for i, s := range p.steps {
		s.healthy = s.unchanged() && s.spec.settled(allocs[i], s.plan.Annotations, instances)
	}
	return p, nil
}

// Unchanged says that applying the plan would write nothing.
func (p *Plan) Unchanged() bool {
	return !slices.ContainsFunc(p.steps, func(s *step) bool { return !s.unchanged() || !s.healthy })
}

// each calls f for 0…n-1, parallel at a time, and joins the errors.
func each(n, parallel int, f func(int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
