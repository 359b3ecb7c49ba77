package release

import (
	"context"
	"slices"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// WithSecrets returns the jobs that read secrets by any line of the releases,
// each once, and the clusters of their targets. heads are the releases, the newest
// first. Jobs of a target that the newest release does not have any more and that
// cannot be reached are left out.
func (d *Deployer) WithSecrets(ctx context.Context, heads []*record.Release, lines []record.Service) ([]render.Job, map[string]Cluster, error) {
	targets := map[string]*stack.Target{}
	current := map[string]bool{}
	for i, h := range heads {
		req, err := requestOf(h)
		if err != nil {
			if i == 0 {
				return nil, nil, err
			}
			continue
		}
		for _, t := range req.Targets {
			if targets[t.Name] == nil {
				targets[t.Name], current[t.Name] = t, i == 0
			}
		}
	}
	clusters, away := map[string]Cluster{}, map[string]bool{}
	type place struct{ target, id, namespace, region string }
	seen := map[place]bool{}
	var out []render.Job
	for _, j := range readers(lines, func(l record.Service) []string { return slices.Concat(l.Secrets, l.BeforeSecrets) }) {
		id := place{j.Target, nomad.Deref(j.Job.ID), nomad.Deref(j.Job.Namespace), nomad.Deref(j.Job.Region)}
		t := targets[j.Target]
		if seen[id] || t == nil || away[j.Target] {
			continue
		}
		seen[id] = true
		if _, ok := clusters[j.Target]; !ok {
			c, err := d.Dial(ctx, t, false)
			if err != nil {
				if current[j.Target] {
					return nil, nil, err
				}
				away[j.Target] = true
				continue
			}
			clusters[j.Target] = c
		}
		out = append(out, j)
	}
	return out, clusters, nil
}
