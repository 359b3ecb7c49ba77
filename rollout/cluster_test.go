package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

func ptr[T any](v T) *T { return &v }

// mockJob is a job of one group with one mock task: deterministic, no
// processes.
func mockJob(id string, config map[string]any) *api.Job {
	return &api.Job{
		ID: &id, Name: &id, Type: ptr("service"), Datacenters: []string{"*"},
		Update: &api.UpdateStrategy{
			MaxParallel: ptr(1), HealthCheck: ptr("task_states"),
			MinHealthyTime: ptr(100 * time.Millisecond), HealthyDeadline: ptr(4 * time.Second), ProgressDeadline: ptr(8 * time.Second),
		},
		TaskGroups: []*api.TaskGroup{{
			Name: ptr("g"), Count: ptr(1),
			RestartPolicy:    &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail"), Interval: ptr(30 * time.Minute), Delay: ptr(time.Second)},
			ReschedulePolicy: &api.ReschedulePolicy{Attempts: ptr(0), Unlimited: ptr(false), Interval: ptr(time.Hour), Delay: ptr(30 * time.Second), DelayFunction: ptr("constant"), MaxDelay: ptr(time.Duration(0))},
			Tasks: []*api.Task{{
				Name: "t", Driver: "mock_driver", Config: config,
				Resources: &api.Resources{CPU: ptr(10), MemoryMB: ptr(16)},
			}},
		}},
	}
}

func runs() map[string]any { return map[string]any{"run_for": "1h"} }

func crashes() map[string]any {
	return map[string]any{"run_for": "10ms", "exit_code": 3, "stdout_string": "about to fail"}
}

func service(job *api.Job, deps ...string) render.Job {
	return render.Job{Service: *job.ID, DependsOn: deps, Job: job, HCL: []byte("job \"" + *job.ID + "\" {}\n"), File: *job.ID + ".nomad.hcl"}
}

// purge removes jobs at the end of a test, so that the agent stays quick.
func purge(t *testing.T, c Clients, ids ...string) {
	t.Cleanup(func() {
		for _, id := range ids {
			_, _, _ = c.Nomad.Jobs().Deregister(id, true, nil)
		}
	})
}

func prefix(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-"
}

type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// order lists "kind service" of the given kinds.
func (r *recorder) order(kinds ...string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.events {
		if slices.Contains(kinds, e.Kind) {
			out = append(out, e.Kind+" "+e.Service)
		}
	}
	return out
}

func deploy(t *testing.T, c Clients, opts Options, jobs ...render.Job) (Result, *recorder) {
	t.Helper()
	rec := &recorder{}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	res, err := Run(ctx, c, jobs, opts, rec.add)
	if err != nil {
		t.Fatal(err)
	}
	return res, rec
}

func wantOutcomes(t *testing.T, res Result, want ...Outcome) {
	t.Helper()
	var got []Outcome
	for _, s := range res.Services {
		got = append(got, s.Outcome)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("outcomes are %v, want %v\n%s", got, want, dump(res))
	}
}

func dump(res Result) string {
	var b strings.Builder
	for _, s := range res.Services {
		fmt.Fprintf(&b, "%+v", s)
		if s.Failure != nil {
			fmt.Fprintf(&b, " failure=%+v", *s.Failure)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestDeployInOrderThenUnchanged(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	p := prefix(t)
	a, b, d := p+"a", p+"b", p+"c"
	purge(t, c, a, b, d)
	jobs := []render.Job{service(mockJob(a, runs())), service(mockJob(b, runs()), a), service(mockJob(d, runs()), b)}
	res, rec := deploy(t, c, Options{}, jobs...)
	wantOutcomes(t, res, Deployed, Deployed, Deployed)
	if got, want := strings.Join(rec.order(EventSubmitted, EventDone), ","),
		fmt.Sprintf("submitted %[1]s,done %[1]s,submitted %[2]s,done %[2]s,submitted %[3]s,done %[3]s", a, b, d); got != want {
		t.Errorf("order is\n%s, want\n%s", got, want)
	}
	res, _ = deploy(t, c, Options{}, jobs...)
	wantOutcomes(t, res, Unchanged, Unchanged, Unchanged)
	if res.Elapsed > time.Second {
		t.Errorf("an unchanged deploy took %s", res.Elapsed)
	}
}

func TestFirstDeployFails(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	id := prefix(t) + "bad"
	after := prefix(t) + "after"
	purge(t, c, id, after)
	res, _ := deploy(t, c, Options{}, service(mockJob(id, crashes())), service(mockJob(after, runs()), id))
	wantOutcomes(t, res, Failed, Skipped)
	t.Log(dump(res))
}
