package release_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/release/releasetest"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// world is a stack with a scripted cluster. Its services are api, and web, which
// depends on api; each is a wave of its own.
type world struct {
	*testing.T
	store   *memstore.Store
	cluster *releasetest.Cluster
	d       *release.Deployer

	mu     sync.Mutex
	events []release.Event
}

func newWorld(t *testing.T) *world {
	t.Parallel()
	w := &world{T: t, store: memstore.New("shop", "prod"), cluster: releasetest.NewCluster()}
	w.d = w.deployer("ann")
	return w
}

// deployer returns another process that deploys the stack.
func (w *world) deployer(user string) *release.Deployer {
	return &release.Deployer{
		Releases: w.store, Holder: releasetest.Holder(user), Drover: "test",
		Dial: func(context.Context, *stack.Target, bool) (release.Cluster, error) { return w.cluster, nil },
		Hold: func(context.Context, []rollout.Party, rollout.GateOptions, func(rollout.GateProgress)) (rollout.GateResult, error) {
			return rollout.GateResult{OK: true}, nil
		},
		Emit: func(e release.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	}
}

// operator is release.Consent but for the methods that are set.
type operator struct {
	release.Consent
	agree   func(*release.Plan) error
	begin   func() error
	approve func(context.Context, release.Approval) (bool, error)
}

func (o operator) Agree(ctx context.Context, p *release.Plan) error {
	if o.agree == nil {
		return o.Consent.Agree(ctx, p)
	}
	return o.agree(p)
}

func (o operator) Begin(ctx context.Context) error {
	if o.begin == nil {
		return o.Consent.Begin(ctx)
	}
	return o.begin()
}

func (o operator) Approve(ctx context.Context, a release.Approval) (bool, error) {
	if o.approve == nil {
		return o.Consent.Approve(ctx, a)
	}
	return o.approve(ctx, a)
}

// job is a service whose job has that version in its meta.
func job(service, version string, dependsOn ...string) render.Job {
	id, group := service, "main"
	task := &api.Task{Name: "main", Driver: "docker"}
	return render.Job{Service: service, DependsOn: dependsOn, Job: &api.Job{
		ID: &id, Meta: map[string]string{"version": version}, TaskGroups: []*api.TaskGroup{{Name: &group, Tasks: []*api.Task{task}}},
	}}
}

// request asks for api and web in that version.
func request(version string) release.Request {
	req := requestOf(job("api", version), job("web", version, "api"))
	req.Version = version
	return req
}

// requestOf asks for jobs, each in a wave of its own.
func requestOf(jobs ...render.Job) release.Request {
	req := release.Request{Kind: release.KindDeploy, Targets: []*stack.Target{{}}, Jobs: jobs, KeepRestarts: true}
	for _, j := range jobs {
		req.Waves = append(req.Waves, &stack.Wave{Name: j.Service, Members: []stack.Member{{Service: j.Service}}})
	}
	return req
}

func (w *world) plan(req release.Request) *release.Plan {
	w.Helper()
	p, err := w.d.Plan(w.Context(), req)
	if err != nil {
		w.Fatalf("cannot plan: %v", err)
	}
	return p
}

// deploy plans and deploys.
func (w *world) deploy(req release.Request) release.Result {
	w.Helper()
	res, err := w.d.Deploy(w.Context(), w.plan(req))
	if err != nil {
		w.Fatalf("cannot deploy: %v", err)
	}
	return res
}

// rollback returns the request of a rollback.
func (w *world) rollback(to int) release.Request {
	w.Helper()
	req, err := w.d.Rollback(w.Context(), to)
	if err != nil {
		w.Fatalf("cannot roll back: %v", err)
	}
	return req
}

// destroy destroys the stack, or a part of it.
func (w *world) destroy(only release.Only) {
	w.Helper()
	p, err := w.d.PlanDestroy(w.Context(), only, "")
	if err != nil {
		w.Fatalf("cannot plan: %v", err)
	}
	if _, err := w.d.Deploy(w.Context(), p); err != nil {
		w.Fatalf("cannot destroy: %v", err)
	}
}

// wantState checks the newest release and the outcome of what was done.
func (w *world) wantState(res release.Result, state record.State, outcome rollout.Outcome) *record.Release {
	w.Helper()
	last, err := w.store.Last(context.Background())
	if err != nil || last == nil {
		w.Fatalf("there is no release: %v", err)
	}
	if last.State != state {
		w.Errorf("release %d is %s (%s %s), want %s", last.Number, last.State, last.Cause, last.Detail, state)
	}
	if got := res.Outcome(); got != outcome {
		w.Errorf("outcome: got %s, want %s", got, outcome)
	}
	return last
}

// wantRunning checks the versions of the jobs that run, as "api=1 web=1".
func (w *world) wantRunning(want string) {
	w.Helper()
	var got []string
	for id, version := range w.cluster.Running("version") {
		got = append(got, id+"="+version)
	}
	slices.Sort(got)
	if text := strings.Join(got, " "); text != want {
		w.Errorf("running: got %q, want %q", text, want)
	}
}

// wantLog checks what was written to the cluster, and empties the log.
func (w *world) wantLog(want ...string) {
	w.Helper()
	if got := w.cluster.Log(); !slices.Equal(got, want) {
		w.Errorf("written: got %q, want %q", got, want)
	}
	w.cluster.ResetLog()
}

// wantSteps checks the steps of the newest release, as "web=done".
func (w *world) wantSteps(want ...string) {
	w.Helper()
	last, err := w.store.Last(context.Background())
	if err != nil {
		w.Fatal(err)
	}
	lines, err := w.store.Services(context.Background(), last)
	if err != nil {
		w.Fatal(err)
	}
	var got []string
	for _, l := range lines {
		got = append(got, l.Name+"="+string(l.Step))
	}
	if !slices.Equal(got, want) {
		w.Errorf("steps: got %q, want %q", got, want)
	}
}

// fail makes a version of a job end with an outcome.
func (w *world) fail(id, version string, outcome rollout.Outcome) {
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == id && j.Meta["version"] == version {
			return rollout.ServiceResult{Outcome: outcome, Detail: "scripted"}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
}

// interrupt makes a deploy end while a version of a job is followed, and returns its
// context.
func (w *world) interrupt(id, version string) context.Context {
	ctx, cancel := context.WithCancel(w.Context())
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == id && j.Meta["version"] == version {
			cancel()
			return rollout.ServiceResult{Outcome: rollout.Cancelled}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
	w.Cleanup(cancel)
	return ctx
}

var errNoAnswer = &url.Error{Op: "Put", URL: "http://nomad", Err: errors.New("connection reset by peer")}

func as[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
