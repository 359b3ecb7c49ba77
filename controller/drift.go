package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
)

// drift hints at jobs that are not as the last release of their stack left
// them. It compares indexes; what has changed is for `drover plan` to say.
func (c *controller) drift(ctx context.Context) {
	if c.c.Nomad == nil {
		return
	}
	var last string
	said := map[string]string{}
	for {
		err := c.lookForDrift(ctx, said)
		if ctx.Err() != nil {
			return
		}
		if c.warn("drift", &last, err); err == nil {
			c.metrics.done("drift")
		}
		if !wait(ctx, c.c.LookEvery) {
			return
		}
	}
}

// lookForDrift reports drift that it has not reported before. said has the last
// report by stack.
func (c *controller) lookForDrift(ctx context.Context, said map[string]string) error {
	stacks, err := record.Stacks(ctx, c.c.Nomad)
	if err != nil {
		return err
	}
	counts := map[string]int{}
	var errs []error
	for _, full := range stacks {
		stack, env, _ := strings.Cut(full, "/")
		number, differs, err := differing(ctx, c.c.Nomad, stack, env)
		if err != nil {
			errs = append(errs, fmt.Errorf("stack %s in environment %s: %w", stack, env, err))
			continue
		}
		counts[full] = len(differs)
		text := strings.Join(differs, ", ")
		if text != "" && text != said[full] {
			c.say("drift", "stack %s in environment %s is not as release %d left it: %s; see drover plan %s -e %s", stack, env, number, text, stack, env)
		}
		said[full] = text
	}
	c.metrics.drifted(counts)
	return errors.Join(errs...)
}

// differing compares every job of the last release with the cluster (GET
// /v1/job/ID). It returns nothing while a release is open or if the last one
// failed.
func differing(ctx context.Context, client *api.Client, stack, env string) (number int, differs []string, err error) {
	r := record.OpenReleases(client, stack, env)
	last, err := r.Last(ctx)
	if err != nil || last == nil || last.State != record.Done {
		return 0, nil, err
	}
	services, err := r.Services(ctx, last)
	if err != nil {
		return 0, nil, err
	}
	for _, s := range services {
		if !s.Runs() || s.Index == 0 {
			continue
		}
		job, _, err := client.Jobs().Info(s.JobID, (&api.QueryOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx))
		switch {
		case nomad.IsNotFound(err):
			differs = append(differs, s.Name+" is not there")
		case err != nil:
			return 0, nil, fmt.Errorf("reading job %s: %w", s.JobID, err)
		case job.Stop != nil && *job.Stop:
			differs = append(differs, s.Name+" is stopped")
		case job.JobModifyIndex != nil && *job.JobModifyIndex != s.Index && !scaled(job):
			differs = append(differs, s.Name+" was changed")
		}
	}
	return last.Number, differs, nil
}

// scaled reports whether an autoscaler may change the job; each change makes a new
// version of it.
func scaled(job *api.Job) bool {
	return slices.ContainsFunc(job.TaskGroups, func(g *api.TaskGroup) bool { return g.Scaling != nil })
}
