package release_test

import (
	"context"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Nomad collects a job that has ended. The record knows that it ran to completion, as
// long as the spec is the same.
func TestMarkCompleted_JobsThatNomadCollected(t *testing.T) {
	batch := func(id, version string) render.Job {
		j := job(id, version)
		kind := api.JobTypeBatch
		j.Job.Type = &kind
		return j
	}
	redeployed := batch("ran", "1")
	redeployed.Job.Meta[rollout.RestartMeta] = "yesterday"
	placed := batch("ran", "1")
	region, namespace := api.GlobalRegion, api.DefaultNamespace
	placed.Job.Region, placed.Job.Namespace = &region, &namespace
	service := job("ran", "1")
	collected := rollout.ServiceStatus{Status: rollout.StatusMissing}
	for name, c := range map[string]struct {
		job    render.Job
		target string
		status rollout.ServiceStatus
		want   bool
	}{
		"the same spec":                    {batch("ran", "1"), "", collected, true},
		"a spec that names its place":      {placed, "", collected, true},
		"a spec that was redeployed":       {redeployed, "", collected, false},
		"another spec":                     {batch("ran", "2"), "", collected, false},
		"a job of another target":          {batch("ran", "1"), "west", collected, false},
		"a job that is not in the release": {batch("other", "1"), "", collected, false},
		"a service, which has no end":      {service, "", collected, false},
		"a job that is still listed":       {batch("ran", "1"), "", rollout.ServiceStatus{Status: "running"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
				return rollout.ServiceResult{Outcome: rollout.Deployed, Completed: true}
			}
			w.deploy(requestOf(batch("ran", "1")))
			last, err := w.store.Last(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list := []rollout.ServiceStatus{c.status}
			err = release.MarkCompleted(t.Context(), w.store, last, w.cluster.Clients(), c.target, []*api.Job{c.job.Job}, list)
			if got := list[0].Completed != nil; err != nil || got != c.want {
				t.Errorf("got completed %v, %v, want %v", got, err, c.want)
			}
			if c.want && (!list[0].OK || list[0].Completed.Release != 1) {
				t.Errorf("got %+v, want OK and release 1", list[0])
			}
		})
	}
	t.Run("without a release", func(t *testing.T) {
		w := newWorld(t)
		list := []rollout.ServiceStatus{collected}
		if err := release.MarkCompleted(t.Context(), w.store, nil, nomad.Clients{}, "", []*api.Job{batch("ran", "1").Job}, list); err != nil || list[0].Completed != nil {
			t.Errorf("got %+v, %v, want no change", list[0], err)
		}
	})
}
