package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/rollout"
)

// KindRedeploy is the kind of a release that starts the same again.
const KindRedeploy = "redeploy"

// Redeploy asks for what the last good release left, with every allocation of
// the services replaced; of all that keep running when none is named. Jobs
// that run to an end are redeployed only by name: they run again.
func (d *Deployer) Redeploy(ctx context.Context, services []string, now time.Time) (Request, error) {
	head, req, err := d.lastGood(ctx)
	if err != nil {
		return req, err
	}
	req.Kind, req.Of, req.Partial = KindRedeploy, head.Number, true // it prunes nothing
	var known []string
	hit := 0
	stamp := now.UTC().Format(time.RFC3339)
	for i, j := range req.Jobs {
		known = append(known, j.Service)
		if len(services) > 0 && !slices.Contains(services, j.Service) || len(services) == 0 && !KeepsRunning(j.Job) {
			continue
		}
		req.Jobs[i].Job = rollout.Restarted(j.Job, stamp)
		hit++
	}
	for _, name := range services {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return req, fmt.Errorf("release %d has no service %q; it has %s", head.Number, name, strings.Join(slices.Compact(known), ", "))
		}
	}
	if hit == 0 {
		return req, fmt.Errorf("release %d has no service that keeps running; name those that are to run again", head.Number)
	}
	return req, nil
}

// KeepsRunning reports whether the job has no end of its own.
func KeepsRunning(j *api.Job) bool {
	kind := api.JobTypeService
	if j.Type != nil {
		kind = *j.Type
	}
	return kind == api.JobTypeService || kind == api.JobTypeSystem
}
