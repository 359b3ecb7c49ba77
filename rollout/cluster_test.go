package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// TestOnCluster runs everything that needs servers on one Nomad and Consul.
func TestOnCluster(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{})
	var c nomad.Clients
	var err error
	if c.Nomad, err = nomadClient(dev.NomadAddr(), nil); err != nil {
		t.Fatal(err)
	}
	cfg := capi.DefaultConfig()
	cfg.Address = dev.ConsulAddr()
	if c.Consul, err = capi.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	// Before the others, because Nomad collects everything that has ended.
	t.Run("CollectedFailure", func(t *testing.T) { testCollectedFailure(t, c) })
	for _, test := range []struct {
		name string
		run  func(*testing.T, nomad.Clients)
	}{
		{"DeployInOrderThenUnchanged", testDeployInOrderThenUnchanged},
		{"FirstDeployFails", testFirstDeployFails},
		{"FailingCheckIsReverted", testFailingCheckIsReverted},
		{"ConsulGate", testConsulGate},
		{"FailureIsRedacted", testFailureIsRedacted},
		{"FailedIsTriedAgain", testFailedIsTriedAgain},
		{"UnchangedButDead", testUnchangedButDead},
		{"FailedVersion", testFailedVersion},
		{"SystemNowhere", testSystemNowhere},
		{"ScaledWhileStarting", testScaledWhileStarting},
		{"NothingAlive", testNothingAlive},
		{"PlacementBlocked", testPlacementBlocked},
		{"CanaryAwaitsPromotion", testCanaryAwaitsPromotion},
		{"Canaries", testCanaries},
		{"Superseded", testSuperseded},
		{"PutBack", testPutBack},
		{"StopPutBack", testStopPutBack},
		{"CheckAndSet", testCheckAndSet},
		{"Timeout", testTimeout},
		{"Cancelled", testCancelled},
		{"JobTypes", testJobTypes},
		{"Volumes", testVolumes},
		{"VolumeRefused", testVolumeRefused},
		{"Required", testRequired},
		{"StatusLogsDestroy", testStatusLogsDestroy},
		{"DestroyChildren", testDestroyChildren},
		{"TwoJobsOfOneService", testTwoJobsOfOneService},
		{"UnchangedWritesNothing", testUnchangedWritesNothing},
		{"Recorded", testRecorded},
		{"Gate", testGate},
		{"Requests", testRequests},
		{"RequestsOfMany", testRequestsOfMany}, {"RequestsOfOne", testRequestsOfOne},
		{"Hooks", testHooks},
		{"PlanIsWhatHappens", testPlanIsWhatHappens},
		{"NeedsReplace", testNeedsReplace},
		{"KeepsScaledCount", testKeepsScaledCount},
		{"ScaledIsOurs", testScaledIsOurs},
		{"Former", testFormer},
		{"PlanTrouble", testPlanTrouble},
		{"PortLabelOfNoPort", testPortLabelOfNoPort},
		{"ServiceWithoutChecks", testServiceWithoutChecks},
		{"NodeCheckWarning", testNodeCheckWarning},
		{"NativeServices", testNativeServices},
		{"Sidecar", testSidecar},
		{"SpecChanges", testSpecChanges},
		{"PlaceComesLater", testPlaceComesLater},
		{"Placeable", testPlaceable},
		{"Dial", func(t *testing.T, _ nomad.Clients) {
			testDial(t, &stack.Cluster{Access: stack.Access{Address: dev.NomadAddr()}, Consul: &stack.Access{Address: dev.ConsulAddr()}})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, c)
		})
	}
}

func nomadClient(addr string, hc *http.Client) (*api.Client, error) {
	cfg := api.DefaultConfig()
	cfg.Address, cfg.HttpClient = addr, hc
	return api.NewClient(cfg)
}

// prepareAndApply plans jobs and applies the plan.
func prepareAndApply(ctx context.Context, c nomad.Clients, jobs []render.Job, opts Options, emit func(Event)) (Result, error) {
	p, err := Prepare(ctx, c, jobs, opts)
	if err != nil {
		return Result{}, err
	}
	return p.Apply(ctx, emit), nil
}

// poll tries until ok or ctx ends.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// mockJob is a job of one group with one mock task: deterministic, no
// processes.
func mockJob(id string, config map[string]any) *api.Job {
	healthy := 100 * time.Millisecond
	if config["run_for"] == crashAfter && config["exit_code"] != nil {
		healthy = 30 * time.Second
	}
	return &api.Job{
		ID: &id, Name: &id, Type: ptr("service"), Datacenters: []string{"*"},
		Update: &api.UpdateStrategy{
			MaxParallel: ptr(1), HealthCheck: ptr("task_states"),
			MinHealthyTime: ptr(healthy), HealthyDeadline: ptr(time.Minute), ProgressDeadline: ptr(2 * time.Minute),
		},
		TaskGroups: []*api.TaskGroup{{
			Name: ptr("g"), Count: ptr(1),
			RestartPolicy:    &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail"), Interval: ptr(30 * time.Minute), Delay: ptr(time.Second)},
			ReschedulePolicy: &api.ReschedulePolicy{Attempts: ptr(0), Unlimited: ptr(false), Interval: ptr(time.Hour), Delay: ptr(30 * time.Second), DelayFunction: ptr("constant"), MaxDelay: ptr(time.Duration(0))},
			Tasks: []*api.Task{{
				Name: "t", Driver: "mock_driver", Config: config,
				Resources: &api.Resources{CPU: ptr(10), MemoryMB: ptr(16)},
				// A log takes a process of Nomad's for each task, and four seconds of a
				// task that does not start.
				LogConfig: &api.LogConfig{Disabled: ptr(config["stdout_string"] == nil)},
			}},
		}},
	}
}

func runs() map[string]any { return map[string]any{"run_for": "1h"} }

// broken is a task that never runs: however busy the machine is, it is not
// healthy for a moment.
func broken() map[string]any { return map[string]any{"start_error": "broken"} }

// crashAfter is how long a task that crashes runs: long enough for Nomad to write its
// log. mockJob gives it a far longer min_healthy_time, so that its allocation is never
// healthy, however busy the machine is.
const crashAfter = "1s"

func crashes() map[string]any {
	return map[string]any{"run_for": crashAfter, "exit_code": 3, "stdout_string": "about to fail"}
}

func service(job *api.Job, deps ...string) render.Job {
	return render.Job{Service: *job.ID, DependsOn: deps, Job: job, HCL: []byte("job \"" + *job.ID + "\" {}\n"), File: *job.ID + ".nomad.hcl"}
}

// cleanUp removes jobs at the end of a test, so that the agent stays quick.
func cleanUp(t *testing.T, c nomad.Clients, ids ...string) {
	t.Cleanup(func() {
		for _, id := range ids {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
			if err := purge(ctx, c, 0, spec{}, id); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})
}

func prefix(t *testing.T) string {
	name := strings.TrimPrefix(t.Name(), "TestOnCluster/")
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(name)) + "-"
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

func deploy(t *testing.T, c nomad.Clients, opts Options, jobs ...render.Job) (Result, *recorder) {
	t.Helper()
	rec := &recorder{}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	res, err := prepareAndApply(ctx, c, jobs, opts, rec.add)
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

func testDeployInOrderThenUnchanged(t *testing.T, c nomad.Clients) {
	p := prefix(t)
	a, b, d := p+"a", p+"b", p+"c"
	cleanUp(t, c, a, b, d)
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

func testFirstDeployFails(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "bad"
	after := prefix(t) + "after"
	cleanUp(t, c, id, after)
	res, _ := deploy(t, c, Options{}, service(mockJob(id, crashes())), service(mockJob(after, runs()), id))
	wantOutcomes(t, res, Failed, Skipped)
	t.Log(dump(res))
}

// counter counts the requests of a client.
type counter struct {
	mu     sync.Mutex
	all    []string
	writes []string
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	line := r.Method + " " + r.URL.Path
	c.all = append(c.all, line)
	if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/plan") {
		c.writes = append(c.writes, line)
	}
	c.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

func counting(t *testing.T, c nomad.Clients) (nomad.Clients, *counter) {
	n := &counter{}
	var err error
	if c.Nomad, err = nomadClient(c.Nomad.Address(), &http.Client{Transport: n}); err != nil {
		t.Fatal(err)
	}
	return c, n
}

func info(t *testing.T, c nomad.Clients, id string) *api.Job {
	t.Helper()
	job, _, err := c.Nomad.Jobs().Info(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// Nothing is written when nothing changed, and at most 3 requests are made
// per service; here there are no secrets, so 2.
func testUnchangedWritesNothing(t *testing.T, c nomad.Clients) {
	c, n := counting(t, c)
	p := prefix(t)
	var jobs []render.Job
	for i := range 6 {
		id := fmt.Sprint(p, i)
		cleanUp(t, c, id)
		jobs = append(jobs, service(mockJob(id, runs())))
	}
	res, _ := deploy(t, c, Options{}, jobs...)
	if res.Outcome() != Deployed {
		t.Fatal(dump(res))
	}
	before := info(t, c, *jobs[0].Job.ID)
	n.mu.Lock()
	n.all, n.writes = nil, nil
	n.mu.Unlock()

	res, rec := deploy(t, c, Options{}, jobs...)
	if res.Outcome() != Unchanged || len(rec.order(EventSubmitted)) > 0 {
		t.Fatal(dump(res))
	}
	if len(n.writes) > 0 {
		t.Errorf("an unchanged deploy wrote: %v", n.writes)
	}
	if len(n.all) > 2*len(jobs) {
		t.Errorf("%d requests for %d services: %v", len(n.all), len(jobs), n.all)
	}
	after := info(t, c, *jobs[0].Job.ID)
	if *after.ModifyIndex != *before.ModifyIndex || *after.Version != 0 {
		t.Errorf("the job moved from index %d to %d, version %d", *before.ModifyIndex, *after.ModifyIndex, *after.Version)
	}
}

// checked adds a Consul service whose check connects to a port of 127.0.0.1.
func checked(job *api.Job, port string) *api.Job {
	job.TaskGroups[0].Services = []*api.Service{{
		Name: *job.ID, Provider: "consul", PortLabel: port, Address: "127.0.0.1",
		Checks: []api.ServiceCheck{{Name: "listens", Type: "tcp", Interval: time.Second, Timeout: time.Second}},
	}}
	return job
}

func openPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func testFailingCheckIsReverted(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "web"
	cleanUp(t, c, id)
	job := checked(mockJob(id, runs()), openPort(t))
	job.Update.HealthCheck, job.Update.AutoRevert = ptr("checks"), ptr(true)
	res, _ := deploy(t, c, Options{}, service(job))
	wantOutcomes(t, res, Deployed)

	bad := checked(mockJob(id, map[string]any{"run_for": "2h"}), "1")
	bad.Update.HealthCheck, bad.Update.AutoRevert = ptr("checks"), ptr(true)
	bad.Update.HealthyDeadline, bad.Update.ProgressDeadline = ptr(15*time.Second), ptr(30*time.Second)
	res, _ = deploy(t, c, Options{}, service(bad))
	wantOutcomes(t, res, FailedReverted)
	s := res.Services[0]
	if s.Failure == nil || len(s.Failure.Checks) == 0 || !strings.Contains(s.Failure.Checks[0].Output, "refused") {
		t.Errorf("the failing check is not told: %s", dump(res))
	}
	if s.Failure == nil || len(s.Failure.Tasks) != 1 || !strings.HasPrefix(s.Failure.Tasks[0].Message, "running for ") {
		t.Errorf("a task that ran is not said to have: %s", dump(res))
	}
	if s.Healthy != 1 || s.Desired != 1 {
		t.Errorf("after the rollback %d/%d are healthy", s.Healthy, s.Desired)
	}
	if v := *info(t, c, id).Version; v != 2 {
		t.Errorf("version is %d", v)
	}
}

// The gate is Consul too: Nomad calls the allocation healthy by its task
// alone, the check never passes.
func testConsulGate(t *testing.T, c nomad.Clients) {
	id, after := prefix(t)+"web", prefix(t)+"after"
	cleanUp(t, c, id, after)
	res, _ := deploy(t, c, Options{Timeout: 10 * time.Second}, service(checked(mockJob(id, runs()), "1")), service(mockJob(after, runs()), id))
	wantOutcomes(t, res, TimedOut, Skipped)
	s := res.Services[0]
	if s.Healthy != 1 || !strings.Contains(s.Detail, `check "listens"`) || s.Failure == nil || len(s.Failure.Checks) == 0 {
		t.Error(dump(res))
	}
	// Deployed once more it is unchanged, but not healthy: it is not called so.
	res, _ = deploy(t, c, Options{Timeout: 2 * time.Second}, service(checked(mockJob(id, runs()), "1")))
	wantOutcomes(t, res, TimedOut)
}

func testFailureIsRedacted(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "leaks"
	cleanUp(t, c, id)
	job := mockJob(id, map[string]any{"run_for": crashAfter, "exit_code": 1, "stdout_string": "password=hunter22 is wrong"})
	res, _ := deploy(t, c, Options{Redact: func(s string) string { return strings.ReplaceAll(s, "hunter22", "(redacted)") }}, service(job))
	wantOutcomes(t, res, Failed)
	f := res.Services[0].Failure
	if f == nil || len(f.Tasks) != 1 || len(f.Tasks[0].Logs) != 1 || f.Tasks[0].Logs[0] != "password=(redacted) is wrong" || f.Tasks[0].Message != "Exit Code: 1" {
		t.Error(dump(res))
	}
}

// A job whose deployment has failed is tried again by the next deploy, though
// its spec is the same.
func testFailedIsTriedAgain(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "bad"
	cleanUp(t, c, id)
	res, _ := deploy(t, c, Options{}, service(mockJob(id, broken())))
	wantOutcomes(t, res, Failed)
	res, rec := deploy(t, c, Options{}, service(mockJob(id, broken())))
	wantOutcomes(t, res, Failed)
	if len(rec.order(EventSubmitted)) != 1 {
		t.Errorf("it was not submitted again: %s", dump(res))
	}
}

// Unchanged, but what ran has died meanwhile and Nomad does not start it again.
func testUnchangedButDead(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "dies"
	cleanUp(t, c, id)
	job := service(mockJob(id, map[string]any{"run_for": "3s", "exit_code": 1}))
	res, _ := deploy(t, c, Options{}, job)
	wantOutcomes(t, res, Deployed)
	if err := poll(t.Context(), func() bool {
		allocs, _, err := c.Nomad.Jobs().Allocations(id, false, nil)
		return err == nil && len(allocs) == 1 && allocs[0].ClientStatus == "failed"
	}); err != nil {
		t.Fatal(err)
	}
	res, rec := deploy(t, c, Options{}, job)
	wantOutcomes(t, res, Deployed)
	if len(rec.order(EventSubmitted)) != 1 {
		t.Error("it was not submitted again")
	}
}

func testPlacementBlocked(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "nowhere"
	cleanUp(t, c, id)
	job := mockJob(id, runs())
	job.Constraints = []*api.Constraint{{LTarget: "${attr.kernel.name}", RTarget: "plan9", Operand: "="}}
	res, _ := deploy(t, c, Options{PlacementTimeout: time.Second}, service(job))
	wantOutcomes(t, res, PlacementFailed)
	if res.Elapsed > 4*time.Second {
		t.Errorf("it took %s to see that", res.Elapsed)
	}
	if got, want := res.Services[0].Detail, "no node can take it: ${attr.kernel.name} = plan9 filtered out 1 of 1; waited for 1s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	f := res.Services[0].Failure
	if f == nil || len(f.Placement) != 1 || !strings.Contains(f.Placement[0].String(), "plan9 filtered out 1 of 1") {
		t.Error(dump(res))
	}
}

func testCanaryAwaitsPromotion(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "canary"
	cleanUp(t, c, id)
	job := mockJob(id, runs())
	job.Update.Canary = ptr(1)
	res, _ := deploy(t, c, Options{}, service(job))
	wantOutcomes(t, res, Deployed)
	next := mockJob(id, map[string]any{"run_for": "2h"})
	next.Update.Canary = ptr(1)
	res, _ = deploy(t, c, Options{}, service(next))
	wantOutcomes(t, res, AwaitPromotion)
	// And again: nothing is submitted, and it is not called unchanged either.
	res, rec := deploy(t, c, Options{}, service(next))
	wantOutcomes(t, res, AwaitPromotion)
	if len(rec.order(EventSubmitted)) > 0 {
		t.Error("it was submitted twice")
	}
	if _, _, err := c.Nomad.Deployments().PromoteAll(res.Services[0].DeploymentID, nil); err != nil {
		t.Fatal(err)
	}
	res, _ = deploy(t, c, Options{}, service(next))
	wantOutcomes(t, res, Unchanged)
}

func testSuperseded(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "contended"
	cleanUp(t, c, id)
	job := mockJob(id, runs())
	job.Update.MinHealthyTime = ptr(3 * time.Second)
	res, err := prepareAndApply(t.Context(), c, []render.Job{service(job)}, Options{}, func(e Event) {
		if e.Kind == EventSubmitted {
			if _, _, err := c.Nomad.Jobs().Register(mockJob(id, map[string]any{"run_for": "3h"}), nil); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, res, Superseded)
}

// Nomad answers a registration and has the version before afterwards, as it
// does when the scheduler has just found that one successful: once in some
// hundred times, so that the answer is made up here.
func testPutBack(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "back"
	cleanUp(t, c, id)
	deploy(t, c, Options{}, service(mockJob(id, runs())))
	first := *info(t, c, id).JobModifyIndex

	proxy := devtest.NewProxy(t, &api.Config{Address: c.Nomad.Address(), TLSConfig: &api.TLSConfig{}})
	var lost atomic.Bool
	proxy.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || r.URL.Path != "/v1/jobs" || lost.Swap(true) {
			return true
		}
		_ = json.NewEncoder(w).Encode(api.JobRegisterResponse{JobModifyIndex: first + 1, EvalCreateIndex: first + 1})
		return false
	})
	var err error
	if c.Nomad, err = nomadClient(proxy.URL, nil); err != nil {
		t.Fatal(err)
	}
	next := mockJob(id, map[string]any{"run_for": "3h"})
	res, rec := deploy(t, c, Options{}, service(next))
	wantOutcomes(t, res, Deployed)
	job := info(t, c, id)
	if n := len(rec.order(EventSubmitted)); n != 2 || job.TaskGroups[0].Tasks[0].Config["run_for"] != "3h" {
		t.Errorf("submitted %d times, and runs %v", n, job.TaskGroups[0].Tasks[0].Config)
	}

	// The same job again: the answer is the ModifyIndex, which is a larger one.
	index, err := (&follower{clients: c, step: &step{Job: service(next), spec: specOf(next)}}).send(t.Context(), &api.RegisterOptions{EnforceIndex: true, ModifyIndex: *job.JobModifyIndex})
	if err != nil || index != *job.JobModifyIndex {
		t.Errorf("the index is %d, %v, want %d", index, err, *job.JobModifyIndex)
	}
}

// The stop before a purge was lost in the same way: the job is stopped again,
// for a job that is purged while it runs leaves its allocations unseen.
func testStopPutBack(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "back"
	cleanUp(t, c, id)
	deploy(t, c, Options{}, service(mockJob(id, runs())))

	proxy := devtest.NewProxy(t, &api.Config{Address: c.Nomad.Address(), TLSConfig: &api.TLSConfig{}})
	deletes := make(chan string, 10)
	proxy.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete {
			return true
		}
		deletes <- r.URL.Query().Get("purge")
		if len(deletes) > 1 {
			return true
		}
		_ = json.NewEncoder(w).Encode(api.JobDeregisterResponse{EvalID: "c0ffee00-0000-4000-8000-000000000000"})
		return false
	})
	running := c.Nomad
	var err error
	if c.Nomad, err = nomadClient(proxy.URL, nil); err != nil {
		t.Fatal(err)
	}
	if err := Destroy(t.Context(), c, []render.Job{service(mockJob(id, runs()))}, Options{Timeout: time.Minute}, nil); err != nil {
		t.Fatal(err)
	}
	close(deletes)
	var purges []string
	for purge := range deletes {
		purges = append(purges, purge)
	}
	if !slices.Equal(purges, []string{"false", "false", "true"}) {
		t.Errorf("purge of the deregistrations: %q, want a lost stop, another, the purge", purges)
	}
	if _, _, err := running.Jobs().Info(id, nil); !nomad.IsNotFound(err) {
		t.Errorf("the job: %v", err)
	}
}

// Another client registers the job between plan and submission.
func testCheckAndSet(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "raced"
	cleanUp(t, c, id)
	p, err := Prepare(t.Context(), c, []render.Job{service(mockJob(id, runs()))}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Nomad.Jobs().Register(mockJob(id, map[string]any{"run_for": "3h"}), nil); err != nil {
		t.Fatal(err)
	}
	res := p.Apply(t.Context(), nil)
	wantOutcomes(t, res, Superseded)
	if res.Services[0].Submitted || *info(t, c, id).Version != 0 {
		t.Error(dump(res))
	}
}

func testTimeout(t *testing.T, c nomad.Clients) {
	id := prefix(t) + "slow"
	cleanUp(t, c, id)
	res, _ := deploy(t, c, Options{Timeout: time.Second}, service(mockJob(id, map[string]any{"run_for": "1h", "start_block_for": "10m"})))
	wantOutcomes(t, res, TimedOut)
	if res.Elapsed > time.Minute {
		t.Errorf("got an end after %s, want one at the timeout of 1 s, long before the task starts", res.Elapsed)
	}
}

// Ctrl-C: what is submitted stays and goes on; nothing more is submitted.
func testCancelled(t *testing.T, c nomad.Clients) {
	id, after := prefix(t)+"first", prefix(t)+"after"
	cleanUp(t, c, id, after)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	jobs := []render.Job{service(mockJob(id, runs())), service(mockJob(after, runs()), id)}
	res, err := prepareAndApply(ctx, c, jobs, Options{}, func(e Event) {
		if e.Kind == EventSubmitted {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcomes(t, res, Cancelled, Cancelled)
	if !res.Services[0].Submitted || res.Services[1].Submitted {
		t.Error(dump(res))
	}
	// The next deploy goes on from there.
	res, rec := deploy(t, c, Options{}, jobs...)
	wantOutcomes(t, res, Unchanged, Deployed)
	if got := rec.order(EventSubmitted); len(got) != 1 {
		t.Errorf("submitted %v", got)
	}
}

func testJobTypes(t *testing.T, c nomad.Clients) {
	p := prefix(t)
	batch := mockJob(p+"batch", map[string]any{"run_for": "200ms"})
	batch.Type, batch.Update = ptr("batch"), nil
	failing := mockJob(p+"failing", crashes())
	failing.Type, failing.Update = ptr("batch"), nil
	system := mockJob(p+"system", runs())
	system.Type, system.TaskGroups[0].Count, system.TaskGroups[0].ReschedulePolicy = ptr("system"), nil, nil
	sysbatch := mockJob(p+"sysbatch", map[string]any{"run_for": "200ms"})
	sysbatch.Type, sysbatch.TaskGroups[0].Count, sysbatch.Update, sysbatch.TaskGroups[0].ReschedulePolicy = ptr("sysbatch"), nil, nil, nil
	periodic := mockJob(p+"periodic", runs())
	periodic.Type, periodic.Update = ptr("batch"), nil
	periodic.Periodic = &api.PeriodicConfig{Enabled: ptr(true), Spec: ptr("0 0 1 1 *"), SpecType: ptr("cron")}
	disabled := mockJob(p+"periodic-disabled", runs())
	disabled.Type, disabled.Update = ptr("batch"), nil
	disabled.Periodic = &api.PeriodicConfig{Enabled: ptr(false), Spec: ptr("0 0 1 1 *"), SpecType: ptr("cron")}
	parameterized := mockJob(p+"parameterized", runs())
	parameterized.Type, parameterized.Update = ptr("batch"), nil
	parameterized.ParameterizedJob = &api.ParameterizedJobConfig{}
	zero := mockJob(p+"zero", runs())
	zero.TaskGroups[0].Count = ptr(0)
	serial := mockJob(p+"no-deployment", runs())
	serial.Update.MaxParallel = ptr(0)
	serial.Update.MinHealthyTime, serial.Update.HealthyDeadline, serial.Update.ProgressDeadline = nil, nil, nil
	for _, c1 := range []struct {
		job           *api.Job
		first, second Outcome
	}{
		{batch, Deployed, Unchanged},
		{failing, Failed, Failed},
		{system, Deployed, Unchanged},
		{sysbatch, Deployed, Unchanged},
		{periodic, Deployed, Unchanged},
		{disabled, Deployed, Unchanged},
		{parameterized, Deployed, Unchanged},
		{zero, Deployed, Unchanged},
		{serial, Deployed, Unchanged},
	} {
		t.Run(strings.TrimPrefix(*c1.job.ID, p), func(t *testing.T) {
			t.Parallel()
			cleanUp(t, c, *c1.job.ID)
			res, _ := deploy(t, c, Options{}, service(c1.job))
			wantOutcomes(t, res, c1.first)
			if c1.second == Unchanged {
				plan, err := Prepare(t.Context(), c, []render.Job{service(c1.job)}, Options{})
				if err != nil || !plan.Unchanged() {
					t.Errorf("the plan of a job that runs: unchanged is %v, %v", plan.Unchanged(), err)
				}
			}
			res, _ = deploy(t, c, Options{}, service(c1.job))
			wantOutcomes(t, res, c1.second)
		})
	}
}

func testRequired(t *testing.T, c nomad.Clients) {
	if err := CheckRequired(t.Context(), c, []string{prefix(t) + "absent"}); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("got %v, want an error that says that the job is not there", err)
	}
}

func testStatusLogsDestroy(t *testing.T, c nomad.Clients) {
	a, b := prefix(t)+"a", prefix(t)+"b"
	cleanUp(t, c, a, b)
	one := checked(mockJob(a, map[string]any{"run_for": "1h", "stdout_string": "one\ntwo\nthree\n"}), openPort(t))
	jobs := []render.Job{service(one), service(mockJob(b, runs()), a)}
	st, err := Status(t.Context(), c, jobs)
	if err != nil || st[0].Status != "missing" || st[0].OK {
		t.Fatalf("%+v, %v", st, err)
	}
	res, _ := deploy(t, c, Options{}, jobs...)
	wantOutcomes(t, res, Deployed, Deployed)
	if st, err = Status(t.Context(), c, jobs); err != nil || !st[0].OK || !st[1].OK || st[0].ChecksPassing != 1 || st[0].ChecksTotal != 1 || st[1].Healthy != 1 {
		t.Fatalf("%+v, %v", st, err)
	}

	var lines []string
	if err := Logs(t.Context(), c, jobs[0], LogOptions{Tail: 2, Stream: "stdout"}, func(l LogLine) { lines = append(lines, l.Text) }); err != nil || !slices.Equal(lines, []string{"two", "three"}) {
		t.Errorf("lines %q, %v", lines, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lines = nil
	if err := Logs(ctx, c, jobs[0], LogOptions{Tail: 10, Stream: "stdout", Follow: true}, func(l LogLine) {
		if lines = append(lines, l.Text); len(lines) == 3 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) || len(lines) != 3 {
		t.Errorf("followed %q, %v", lines, err)
	}

	var order []string
	if err := Destroy(t.Context(), c, jobs, Options{Timeout: time.Minute}, func(d Destroyed) { order = append(order, d.Service) }); err != nil || !slices.Equal(order, []string{b, a}) {
		t.Fatalf("stopped %v, %v", order, err)
	}
	if st, err = Status(t.Context(), c, jobs); err != nil || st[0].Status != "missing" || st[1].Status != "missing" {
		t.Fatalf("%+v, %v", st, err)
	}
}

func TestRunCheck(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "u" || pass != "s3cretpass" {
			w.WriteHeader(401)
			return
		}
		if calls.Add(1) < 3 {
			w.WriteHeader(503)
			fmt.Fprintf(w, "not yet, %s", r.Header.Get("Authorization"))
			return
		}
		w.WriteHeader(207)
		fmt.Fprint(w, "<multistatus>")
	}))
	defer srv.Close()
	keep := func(s string) string { return s }
	check := &stack.Check{Name: "dav", Method: "PROPFIND", URL: srv.URL, Username: "u", Password: "s3cretpass", Status: []int{207}, Contains: "multistatus"}
	if r := RunCheck(t.Context(), check, 0, keep); r.OK || r.Status != 503 || !strings.Contains(r.Problem, "expected 207") || !strings.HasPrefix(r.Body, "not yet") {
		t.Errorf("%+v", r)
	}
	if r := RunCheck(t.Context(), check, 10*time.Second, keep); !r.OK || r.Attempts != 2 {
		t.Errorf("%+v", r)
	}
	check.Contains = "nonsense"
	if r := RunCheck(t.Context(), check, 0, keep); r.OK || !strings.Contains(r.Problem, "does not contain") {
		t.Errorf("%+v", r)
	}
	check.URL = "http://me:hidden@127.0.0.1:1/"
	if r := RunCheck(t.Context(), check, 0, keep); r.OK || strings.Contains(r.URL+r.Problem, "hidden") || !strings.Contains(r.Problem, "no answer") {
		t.Errorf("%+v", r)
	}
}
