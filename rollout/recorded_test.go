package rollout

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// recordedAt returns the record of jobs that were registered at these indexes.
func recordedAt(t *testing.T, jobs []render.Job, index map[string]uint64) func(*api.Job) *Recorded {
	text := func(job *api.Job) string {
		out, err := json.Marshal(job)
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	specs := map[string]string{}
	for _, j := range jobs {
		specs[*j.Job.ID] = text(j.Job)
	}
	return func(job *api.Job) *Recorded {
		id := *job.ID
		return &Recorded{Index: index[id], Is: func(j render.Job) (bool, error) { return text(j.Job) == specs[id], nil }}
	}
}

// A plan that knows the record finds the same as one that asks Nomad about each
// job, and asks about those only that are not as the record says, or not healthy.
func testRecorded(t *testing.T, c nomad.Clients) {
	p := prefix(t)
	batch := func(id string) *api.Job {
		job := mockJob(id, map[string]any{"run_for": "10ms"})
		job.Type, job.Update = ptr("batch"), nil
		return job
	}
	parallel := func(job *api.Job, count int) *api.Job {
		job.TaskGroups[0].Count, job.Update.MaxParallel = ptr(count), ptr(count)
		return job
	}
	cases := map[string]struct {
		job     *api.Job
		mark    string // of a redeployment, which the record has and the stack has not
		detach  bool   // it does not become healthy
		behind  func(id string) error
		planned bool
	}{
		"healthy":    {job: mockJob("", runs())},
		"redeployed": {job: mockJob("", runs()), mark: "yesterday"},
		"ended":      {job: batch("")},
		"periodic": {job: func() *api.Job {
			job := batch("")
			job.Periodic = &api.PeriodicConfig{Spec: ptr("0 3 1 1 *"), SpecType: ptr("cron"), TimeZone: ptr("Europe/Vienna")}
			return job
		}()},
		"edited": {job: mockJob("", runs()), planned: true, behind: func(id string) error {
			job := mockJob(id, map[string]any{"run_for": "2h"})
			_, _, err := c.Nomad.Jobs().Register(job, nil)
			return err
		}},
		"edited and put back": {job: mockJob("", runs()), planned: true, behind: func(id string) error {
			for _, config := range []map[string]any{{"run_for": "2h"}, runs()} {
				res, _ := deploy(t, c, Options{}, service(mockJob(id, config)))
				wantOutcomes(t, res, Deployed)
			}
			return nil
		}},
		"stopped": {job: mockJob("", runs()), planned: true, behind: func(id string) error {
			_, _, err := c.Nomad.Jobs().Deregister(id, false, nil)
			return err
		}},
		"purged": {job: mockJob("", runs()), planned: true, behind: func(id string) error {
			_, _, err := c.Nomad.Jobs().Deregister(id, true, nil)
			return err
		}},
		"scaled": {planned: true, job: func() *api.Job {
			job := mockJob("", runs())
			job.TaskGroups[0].Scaling = &api.ScalingPolicy{Min: ptr(int64(1)), Max: ptr(int64(3))}
			return job
		}(), behind: func(id string) error {
			if _, _, err := c.Nomad.Jobs().Scale(id, "g", ptr(2), "by hand", false, nil, nil); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return poll(ctx, func() bool {
				d, _, err := c.Nomad.Jobs().LatestDeployment(id, nil)
				return err == nil && d != nil && d.TaskGroups["g"].DesiredTotal == 2 && d.Status == api.DeploymentStatusSuccessful
			})
		}},
		"failed after its deployment": {job: mockJob("", map[string]any{"run_for": "3s", "exit_code": 1}), planned: true, behind: func(id string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return poll(ctx, func() bool {
				allocs, _, err := c.Nomad.Jobs().Allocations(id, false, nil)
				return err == nil && slices.ContainsFunc(allocs, failedForGood)
			})
		}},
		"a deployment under way": {planned: true, detach: true, job: func() *api.Job {
			job := mockJob("", runs())
			job.Update.MinHealthyTime = ptr(50 * time.Minute)
			job.Update.HealthyDeadline, job.Update.ProgressDeadline = ptr(time.Hour), ptr(2*time.Hour)
			return job
		}()},
		"an allocation without a node": {planned: true, detach: true, job: func() *api.Job {
			job := parallel(mockJob("", runs()), 2)
			job.Constraints = []*api.Constraint{{Operand: "distinct_hosts", RTarget: "true"}}
			return job
		}()},
	}

	names := make([]string, 0, len(cases))
	var asked, registered, healthy []render.Job
	index := map[string]uint64{}
	for name, test := range cases {
		id := p + strings.ReplaceAll(name, " ", "-")
		test.job.ID, test.job.Name = &id, &id
		names, asked = append(names, name), append(asked, service(test.job))
		j := service(test.job)
		if test.mark != "" {
			j.Job = Restarted(j.Job, test.mark)
		}
		registered = append(registered, j)
		cleanUp(t, c, id)
		if !test.detach {
			healthy = append(healthy, j)
			continue
		}
		answer, _, err := c.Nomad.Jobs().Register(j.Job, nil)
		if err != nil {
			t.Fatal(err)
		}
		index[id] = answer.JobModifyIndex
	}
	res, _ := deploy(t, c, Options{}, healthy...)
	for _, s := range res.Services {
		if s.Outcome != Deployed {
			t.Fatal(dump(res))
		}
		index[s.JobID] = s.JobModifyIndex
	}
	for name, test := range cases {
		if test.behind != nil {
			if err := test.behind(*test.job.ID); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}

	want, err := Prepare(t.Context(), c, asked, Options{KeepRestarts: true})
	if err != nil {
		t.Fatal(err)
	}
	counted, n := counting(t, c)
	got, err := Prepare(t.Context(), counted, asked, Options{KeepRestarts: true, Recorded: recordedAt(t, registered, index)})
	if err != nil {
		t.Fatal(err)
	}
	changes, wanted := got.Changes(), want.Changes()
	for i, name := range names {
		g, w := changes[i], wanted[i]
		if g.Action != w.Action || g.Index != w.Index || !g.NextRun.Equal(w.NextRun) || got.steps[i].healthy != want.steps[i].healthy {
			t.Errorf("%s: got %s at %d, next %s, healthy %t; want as Nomad plans: %s at %d, next %s, healthy %t",
				name, g.Action, g.Index, g.NextRun, got.steps[i].healthy, w.Action, w.Index, w.NextRun, want.steps[i].healthy)
		}
		planned := slices.ContainsFunc(n.seen(), func(line string) bool {
			return line == "PUT /v1/job/"+url.PathEscape(*asked[i].Job.ID)+"/plan"
		})
		if planned != cases[name].planned {
			t.Errorf("%s: got a plan request: %t, want %t", name, planned, cases[name].planned)
		}
	}

	// Of healthy jobs only: three lists, whatever their number.
	var same []render.Job
	for i, name := range names {
		if !cases[name].planned {
			same = append(same, asked[i])
		}
	}
	n.reset()
	plan, err := Prepare(t.Context(), counted, same, Options{KeepRestarts: true, Recorded: recordedAt(t, registered, index)})
	if err != nil {
		t.Fatal(err)
	}
	if seen := n.seen(); !plan.Unchanged() || len(seen) != 3 {
		t.Errorf("unchanged: %t; got %d requests, want 3: %v", plan.Unchanged(), len(seen), seen)
	}
}
