package rollout

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// testCanaries tests what becomes of canaries by each verdict on them, which comes from a
// gate that watches them.
func testCanaries(t *testing.T, c nomad.Clients) {
	for _, test := range []struct {
		name       string
		value      string // of the metric that has to be below 1; "none" for no data
		autoRevert bool
		want       Outcome
		detail     string
		running    string // run_for of what runs then, each once
	}{
		{name: "promoted", value: "0", want: Deployed, running: "2h 2h"},
		{name: "failed", value: "5", want: Failed, detail: "metric m: 5, not below 1; Deployment marked as failed", running: "1h 1h"},
		{name: "reverted", value: "5", autoRevert: true, want: FailedReverted, detail: "metric m: 5, not below 1; Deployment marked as failed - rolling back to job version 0", running: "1h 1h"},
		{name: "inconclusive", value: "none", want: AwaitPromotion, detail: "metric m: no data for 2s", running: "1h 1h 2h"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := prefix(t) + "web"
			cleanUp(t, c, id)
			version := func(runFor string) render.Job {
				job := mockJob(id, map[string]any{"run_for": runFor})
				job.Update.Canary, job.Update.AutoRevert, job.TaskGroups[0].Count = ptr(1), &test.autoRevert, ptr(2)
				return service(job)
			}
			res, _ := deploy(t, c, Options{}, version("1h"))
			wantOutcomes(t, res, Deployed)
			calls := 0
			judge := func(ctx context.Context, s Submission, tell func(string)) CanaryVerdict {
				calls++
				tell("its gate")
				party := Party{Clients: c, Jobs: []render.Job{{Service: s.Service, Job: s.Job}}}
				g, err := Hold(ctx, []Party{party}, GateOptions{
					Canaries: true, Bake: time.Second, Gate: gateOf(2*time.Second, measures(t, func(int64) string { return test.value })),
				}, nil)
				switch {
				case err != nil:
					t.Error(err)
				case g.Unknown:
					return CanaryVerdict{AwaitPromotion, g.Detail}
				case g.OK:
					return CanaryVerdict{Deployed, ""}
				}
				return CanaryVerdict{Failed, g.Detail}
			}
			res, rec := deploy(t, c, Options{Canaries: judge}, version("2h"))
			wantOutcomes(t, res, test.want)
			if got := res.Services[0].Detail; !strings.HasPrefix(got, test.detail) {
				t.Errorf("got detail %q, want %q", got, test.detail)
			}
			if got := res.Services[0].Undecided; got != (test.want == AwaitPromotion) {
				t.Errorf("got undecided %v with outcome %s", got, test.want)
			}
			if calls != 1 {
				t.Errorf("got %d verdicts, want one", calls)
			}
			if !slices.ContainsFunc(rec.events, func(e Event) bool { return e.Waiting == "its gate" }) {
				t.Error("no event says that the gate is waited for")
			}
			got := ""
			if poll(t.Context(), func() bool { got = runningFor(t, c, id); return got == test.running }) != nil {
				t.Errorf("got %q running, want %q", got, test.running)
			}
		})
	}
	t.Run("another client decides meanwhile", func(t *testing.T) {
		t.Parallel()
		id := prefix(t) + "web"
		cleanUp(t, c, id)
		version := func(runFor string) render.Job {
			job := mockJob(id, map[string]any{"run_for": runFor})
			job.Update.Canary = ptr(1)
			return service(job)
		}
		deploy(t, c, Options{}, version("1h"))
		res, _ := deploy(t, c, Options{Canaries: func(context.Context, Submission, func(string)) CanaryVerdict {
			list, _, err := c.Nomad.Jobs().Deployments(id, false, nil)
			if err != nil {
				t.Error(err)
			}
			for _, d := range list {
				if d.Status == api.DeploymentStatusRunning {
					if _, _, err := c.Nomad.Deployments().Fail(d.ID, nil); err != nil {
						t.Error(err)
					}
				}
			}
			return CanaryVerdict{Deployed, ""}
		}}, version("2h"))
		wantOutcomes(t, res, Failed)
	})
}

// runningFor returns the run_for of the allocations of a job that run, in order.
func runningFor(t *testing.T, c nomad.Clients, id string) string {
	t.Helper()
	allocs, _, err := c.Nomad.Jobs().Allocations(id, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	versions, _, _, err := c.Nomad.Jobs().Versions(id, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range allocs {
		for _, v := range versions {
			if a.DesiredStatus == api.AllocDesiredStatusRun && a.ClientStatus == api.AllocClientStatusRunning && *v.Version == a.JobVersion {
				out = append(out, v.TaskGroups[0].Tasks[0].Config["run_for"].(string))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
