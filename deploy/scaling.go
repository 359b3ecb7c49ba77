package deploy

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/autoscale"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// GroupScaling is a group with an enabled scaling block.
type GroupScaling struct {
	Target  string `json:"target,omitempty"`
	Service string `json:"service"`
	JobID   string `json:"job_id"`
	Group   string `json:"group"`
	Count   int    `json:"count"`
	// Last is the newest scaling event that Nomad keeps; nil if there is none.
	Last *ScalingEvent `json:"last"`
}

// ScalingEvent is a decision about a count (GET /v1/job/:id/scale).
type ScalingEvent struct {
	At     time.Time `json:"at"`
	From   int       `json:"from"`
	To     int       `json:"to"` // From if nothing was changed
	By     string    `json:"by"` // "drover", "nomad-autoscaler" or "" for others
	Reason string    `json:"reason,omitempty"`
	// DryRun is the count that a dry run did not set; nil for others.
	DryRun *int `json:"dry_run,omitempty"`
	Error  bool `json:"error,omitempty"`
}

// readScaling returns the groups with a scaling block of jobs in one cluster. It makes
// one request (GET /v1/scaling/policies), and one for each job that has such a group. It
// returns what it could read: scaling is no part of the state of a service.
func readScaling(ctx context.Context, c nomad.Clients, jobs []render.Job) []GroupScaling {
	q := func(region, namespace *string) *api.QueryOptions {
		return (&api.QueryOptions{Region: nomad.Deref(region), Namespace: nomad.Deref(namespace)}).WithContext(ctx)
	}
	every := api.AllNamespacesNamespace
	var regions []string
	has := map[string][]string{} // groups by region, namespace and job
	var out []GroupScaling
	for _, j := range jobs {
		id := c.Defaults.JobID(nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace), nomad.Deref(j.Job.ID))
		key := func(namespace, job string) string { return strings.Join([]string{id.Region, namespace, job}, "\x00") }
		if !slices.Contains(regions, id.Region) {
			regions = append(regions, id.Region)
			list, _, err := c.Nomad.Scaling().ListPolicies(q(j.Job.Region, &every))
			if err != nil {
				continue
			}
			for _, p := range list {
				if p.Enabled && p.Type == api.ScalingPolicyTypeHorizontal {
					k := key(p.Target["Namespace"], p.Target["Job"])
					has[k] = append(has[k], p.Target["Group"])
				}
			}
		}
		groups := has[key(id.Namespace, id.ID)]
		if len(groups) == 0 {
			continue
		}
		status, _, err := c.Nomad.Jobs().ScaleStatus(id.ID, q(j.Job.Region, &id.Namespace))
		if err != nil || status.JobStopped {
			continue
		}
		slices.Sort(groups)
		for _, name := range groups {
			g := status.TaskGroups[name]
			out = append(out, GroupScaling{Target: j.Target, Service: j.Service, JobID: id.ID, Group: name, Count: g.Desired, Last: newestEvent(g)})
		}
	}
	return out
}

func newestEvent(g api.TaskGroupScaleStatus) *ScalingEvent {
	if len(g.Events) == 0 {
		return nil
	}
	e := g.Events[0]
	out := &ScalingEvent{At: time.Unix(0, int64(e.Time)).UTC(), From: int(e.PreviousCount), To: int(e.PreviousCount), Reason: e.Message, Error: e.Error}
	if e.Count != nil {
		out.To = int(*e.Count)
	}
	switch {
	case e.Meta[autoscale.MetaBy] != nil:
		out.By = "drover"
	case e.Meta[autoscale.MetaForeign] != nil:
		out.By = "nomad-autoscaler"
	}
	if n, ok := e.Meta[autoscale.MetaDryRun].(float64); ok {
		count := int(n)
		out.DryRun = &count
	}
	return out
}
