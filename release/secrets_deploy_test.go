package release_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// reads is a job that reads items of secrets, in a template that restarts its task.
func reads(service, version string, items ...string) render.Job {
	j := job(service, version)
	j.Secrets = items
	text := ""
	for _, item := range items {
		text += `{{ with nomadVar "nomad/jobs/` + service + `" }}{{ .` + item + ` }}{{ end }}`
	}
	splay := time.Millisecond
	j.Job.TaskGroups[0].Tasks[0].Templates = []*api.Template{{EmbeddedTmpl: &text, Splay: &splay}}
	return j
}

func (w *world) wantItems(id string, want ...string) {
	w.Helper()
	if got := w.d.Secrets.(*memstore.Secrets).Items("", id); !slices.Equal(got, want) {
		w.Errorf("items of %s: got %q, want %q", id, got, want)
	}
}

func TestSecrets_FollowTheRelease(t *testing.T) {
	w := newWorld(t)
	store := memstore.NewSecrets(map[string]string{"a": "1", "b": "1"})
	w.d.Secrets = store
	req := requestOf(reads("web", "1", "a", "made"))
	req.Secrets = []*stack.Secret{{Name: "made", Type: stack.SecretRandom}}
	p := w.plan(req)
	if got := p.Secrets(); got == nil || !slices.Equal(got.Generated, []string{"made"}) || got.Redact == nil {
		t.Errorf("plan: got %+v, want the secret that is made", got)
	}
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantItems("web", "a", "made")
	i := slices.IndexFunc(w.events, func(e release.Event) bool { return e.Kind == release.EventSecrets })
	if i < 0 || !slices.Equal(w.events[i].Secrets.Made.Secrets, []string{"made"}) {
		t.Errorf("got events %+v, want one of secret made", w.events)
	}

	w.wantState(w.deploy(requestOf(reads("web", "2", "b"))), record.Done, rollout.Deployed)
	w.wantItems("web", "b") // what version 1 read is removed at the end

	w.fail("web", "3", rollout.Failed)
	w.wantState(w.deploy(requestOf(reads("web", "3", "a"))), record.Reverted, rollout.FailedReverted)
	w.wantItems("web", "b")
	w.wantRunning("web=2")
}

func TestSecrets_Missing(t *testing.T) {
	w := newWorld(t)
	w.d.Secrets = memstore.NewSecrets(map[string]string{})
	req := requestOf(reads("web", "1", "given"))
	req.Secrets = []*stack.Secret{{Name: "given", Type: stack.SecretGiven}}
	if _, err := w.d.Deploy(t.Context(), w.plan(req)); !as[*record.MissingError](err) {
		t.Errorf("got %v, want a *record.MissingError", err)
	}
	w.wantLog()
}

func TestSecrets_ANewValueRestartsTasks(t *testing.T) {
	w := newWorld(t)
	store := memstore.NewSecrets(map[string]string{"a": "1"})
	w.d.Secrets = store
	w.deploy(requestOf(reads("web", "1", "a")))
	alloc := func(restarts uint64) *api.AllocationListStub {
		return &api.AllocationListStub{ID: "a1", TaskGroup: "main", ClientStatus: "running", TaskStates: map[string]*api.TaskState{"main": {State: "running", Restarts: restarts}}}
	}
	w.cluster.SetAllocations("web", alloc(0))
	store.Set("a", "2")
	gates := 0
	w.d.Hold = func(context.Context, []rollout.Party, rollout.GateOptions, func(rollout.GateProgress)) (rollout.GateResult, error) {
		gates++
		return rollout.GateResult{OK: true}, nil
	}
	asked := 0
	w.cluster.Fail = func(r string) error {
		if r == "Allocations web" {
			if asked++; asked > 1 {
				w.cluster.SetAllocations("web", alloc(1))
			}
		}
		return nil
	}
	w.cluster.ResetLog()
	last := w.wantState(w.deploy(requestOf(reads("web", "1", "a"))), record.Done, rollout.Deployed)
	w.wantLog() // the job itself is unchanged
	if last.Changed != 1 || gates != 1 || asked < 2 {
		t.Errorf("got %d changed, %d gates, %d looks at allocations; want 1, 1 and 2 or more", last.Changed, gates, asked)
	}
}

func TestSecrets_RevertRestoresWhatAPrunedJobReads(t *testing.T) {
	w := newWorld(t)
	w.d.Secrets = memstore.NewSecrets(map[string]string{"a": "1"})
	w.deploy(requestOf(job("api", "1"), reads("web", "1", "a")))
	req := requestOf(job("api", "2"))
	req.Prune = true
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	w.wantItems("web")
	back, err := w.d.Rollback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	w.wantState(w.deploy(back), record.Done, rollout.Deployed)
	w.wantItems("web", "a")
	rotation, err := release.NewRotation(t.Context(), w.store, map[string]nomad.Clients{"": w.cluster.Clients()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if jobs := rotation.Jobs(); len(jobs) != 1 || *jobs[0].Job.ID != "web" {
		t.Errorf("jobs that read secrets: got %+v, want web", jobs)
	}
	heads, err := w.store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := w.store.Services(t.Context(), heads[0])
	if err != nil {
		t.Fatal(err)
	}
	jobs, _, err := w.d.WithSecrets(t.Context(), heads, lines)
	if err != nil || len(jobs) != 1 {
		t.Errorf("jobs with secrets: got %d, %v, want 1", len(jobs), err)
	}
}

func TestDiff(t *testing.T) {
	w := newWorld(t)
	w.deploy(requestOf(job("api", "1"), job("web", "1"), job("old", "1")))
	req := requestOf(job("api", "1"), job("web", "2"), job("new", "1"))
	req.Prune = true
	w.deploy(req)
	diffs, err := release.Diff(t.Context(), w.store, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range diffs {
		got = append(got, d.Service+" "+d.Kind)
	}
	slices.Sort(got)
	if want := []string{"new added", "old removed", "web changed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := release.Diff(t.Context(), w.store, 1, 9); !errors.Is(err, record.ErrNoRelease) {
		t.Errorf("with a release that is not there: got %v, want %v", err, record.ErrNoRelease)
	}
}

func TestInventory(t *testing.T) {
	w := newWorld(t)
	req := request("1")
	req.Checks = json.RawMessage(`[{"Name":"home"}]`)
	w.deploy(req)
	head, err := w.store.Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inventory := release.NewInventory(w.store)
	for range 2 { // the second time from what it keeps
		got, err := inventory.Read(t.Context(), head, release.Only{})
		if err != nil || len(got.Jobs) != 2 || got.Jobs[1].Job.Meta["version"] != "1" || len(got.Unreadable) != 0 {
			t.Fatalf("got %+v, %v, want the jobs of release 1", got, err)
		}
	}
	one, err := inventory.Read(t.Context(), head, release.Only{Services: []string{"web"}})
	if err != nil || len(one.Jobs) != 1 {
		t.Errorf("web alone: got %+v, %v", one, err)
	}
	outlines(t, w, head)
	checks, recorded, err := release.Checks(t.Context(), w.store, head)
	if err != nil || !recorded || len(checks) != 1 {
		t.Errorf("checks: got %+v, %t, %v, want one", checks, recorded, err)
	}
	if err := w.store.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, recorded, err := release.Checks(t.Context(), w.store, head); recorded || err != nil {
		t.Errorf("checks that are not there any more: got %t, %v", recorded, err)
	}
}

// A saved plan is applied as it is, or names what moved.
func TestSaved_Check(t *testing.T) {
	w := newWorld(t)
	w.deploy(requestOf(job("a", "1"), job("gone", "1")))
	ask := func(req release.Request) release.Request { req.Adopt, req.TakeOver = true, true; return req }
	jobs := requestOf(job("a", "2"), job("b", "2"))
	text, err := release.Save(w.plan(ask(jobs)), &stack.Stack{Name: "shop", Environment: "prod"}, jobs.Jobs, false, "http://nomad", "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := release.ReadSaved(text)
	if err != nil {
		t.Fatal(err)
	}
	check := func() error {
		t.Helper()
		return saved.Check(w.plan(ask(requestOf(saved.Jobs()...))))
	}
	if err := check(); err != nil {
		t.Errorf("nothing moved: got %v", err)
	}
	w.cluster.Register(job("a", "x").Job)
	w.cluster.Register(job("b", "x").Job)
	w.cluster.Purge("gone")
	err = check()
	var moved *release.StalePlanError
	if !errors.As(err, &moved) || len(moved.What) != 3 {
		t.Fatalf("got %v, want three jobs that changed", err)
	}
	for i, want := range []string{`"a" was changed`, `"b" was created since`, `"gone", to be stopped, is not there any more`} {
		if !strings.Contains(moved.What[i], want) {
			t.Errorf("got %q, want it to contain %q", moved.What[i], want)
		}
	}
}

func TestSharedNames(t *testing.T) {
	w := newWorld(t)
	serves := func(id string) render.Job {
		j := job("web", "1")
		j.Job.ID = &id
		j.Job.TaskGroups[0].Services = []*api.Service{{Name: "web", Provider: "consul", PortLabel: "http"}}
		return j
	}
	other := newStoreWith(w, "dev", requestOf(serves("web-dev")))
	w.store.Others = []release.Reader{other}
	_, err := w.d.Plan(t.Context(), requestOf(serves("web-prod")))
	var shared *release.SharedNameError
	if !errors.As(err, &shared) || shared.Names[0].OtherJobID != "web-dev" || shared.Names[0].Environment != "dev" {
		t.Errorf("got %v, want the name that both register", err)
	}
	req := requestOf(serves("web-prod"))
	req.Adopt = true
	if got := w.plan(req).SharedNames(); len(got) != 1 {
		t.Errorf("got %+v, want one shared name", got)
	}
}

// newStoreWith deploys to another environment on the same cluster.
func newStoreWith(w *world, env string, req release.Request) *memstore.Store {
	w.Helper()
	d := w.deployer("bob")
	store := memstore.New("shop", env)
	d.Releases = store
	p, err := d.Plan(w.Context(), req)
	if err == nil {
		_, err = d.Deploy(w.Context(), p)
	}
	if err != nil {
		w.Fatal(err)
	}
	return store
}

func TestUnattended(t *testing.T) {
	w := newWorld(t)
	w.deploy(request("1"))
	req := request("2")
	req.Waves[1].Approve = true
	req.Waves[1].Gate.Command = []string{"./smoke"}
	req.Unattended = &release.Unattended{Schedule: "nightly"}
	if err := w.plan(req).CheckAttended(); !as[*release.AttendedError](err) {
		t.Errorf("got %v, want a *release.AttendedError", err)
	}
	req.Unattended = &release.Unattended{Schedule: "nightly", SkipApproval: true, GateCommand: stack.GateCommandSkip}
	if err := w.plan(req).CheckAttended(); err != nil {
		t.Errorf("got %v, want none: the schedule skips both", err)
	}
	last := w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	if last.Schedule != "nightly" || last.Waves[1].Approved != "schedule nightly" || !last.Waves[1].NoCommand {
		t.Errorf("got schedule %q, wave %+v; want nightly, approved by it and without its command", last.Schedule, last.Waves[1])
	}
}

func TestSecrets_HideValues(t *testing.T) {
	w := newWorld(t)
	w.d.Secrets = memstore.NewSecrets(map[string]string{"a": "a long value"})
	var seen string
	w.d.Hold = func(_ context.Context, _ []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		seen = o.HTTP.Password + ", shown as " + o.Redact(o.HTTP.Password)
		return rollout.GateResult{OK: true}, nil
	}
	req := requestOf(reads("web", "1", "a"))
	req.Waves[0].Gate = stack.Gate{HTTP: &stack.Check{}, Secret: "a"}
	w.wantState(w.deploy(req), record.Done, rollout.Deployed)
	if want := "a long value, shown as " + secrets.Redacted; seen != want {
		t.Errorf("the gate got %q, want %q", seen, want)
	}

	req = requestOf(reads("web", "2", "a"))
	req.Waves[0].Gate = stack.Gate{HTTP: &stack.Check{}, Secret: "missing"}
	res := w.deploy(req)
	if res.Halt == nil || !strings.Contains(res.Halt.Detail, "password of its gate's probe") {
		t.Errorf("got halt %v, want one for the password", res.Halt)
	}
}

func TestHideSecrets(t *testing.T) {
	w := newWorld(t)
	if err := w.d.HideSecrets(t.Context()); err != nil {
		t.Errorf("without secrets: %v", err)
	}
	w.d.Secrets = memstore.NewSecrets(map[string]string{"a": "a long value"})
	if err := w.d.HideSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.deploy(request("1"))
	got := ""
	w.d.Hold = func(_ context.Context, _ []rollout.Party, o rollout.GateOptions, _ func(rollout.GateProgress)) (rollout.GateResult, error) {
		got = o.Redact("it is a long value")
		return rollout.GateResult{OK: true}, nil
	}
	req := request("2")
	req.Waves[0].Bake = 1
	w.deploy(req)
	if want := "it is " + secrets.Redacted; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// outlines checks what ReadOutlines reads of a release of api and web.
func outlines(t *testing.T, w *world, head *record.Release) {
	t.Helper()
	lines, err := w.store.Services(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		blobs, reads []string
	}{
		{"all specs are stored", []string{lines[0].Spec, lines[1].Spec}, nil},
		{"one is missing", []string{lines[1].Spec}, []string{lines[0].Spec}},
		{"it is not known", nil, []string{lines[0].Spec, lines[1].Spec}},
	} {
		blobs := map[string]bool{}
		for _, digest := range c.blobs {
			blobs[digest] = true
		}
		counts := &blobReader{Reader: w.store}
		got, err := release.NewInventory(counts).ReadOutlines(t.Context(), head, release.Only{}, blobs)
		if err != nil || len(got.Jobs) != 2 {
			t.Fatalf("%s: got %+v, %v, want two jobs", c.name, got, err)
		}
		for i, j := range got.Jobs {
			if j.Service != lines[i].Name || *j.Job.ID != lines[i].JobID {
				t.Errorf("%s: job %d is %s of service %s, want %s of %s", c.name, i, *j.Job.ID, j.Service, lines[i].JobID, lines[i].Name)
			}
		}
		slices.Sort(counts.read)
		slices.Sort(c.reads)
		if !slices.Equal(counts.read, c.reads) {
			t.Errorf("%s: it reads the blobs %q, want %q", c.name, counts.read, c.reads)
		}
	}
}

// blobReader notes which blobs are read.
type blobReader struct {
	release.Reader

	mu   sync.Mutex
	read []string
}

func (r *blobReader) Blob(ctx context.Context, digest string) (record.Blob, error) {
	r.mu.Lock()
	r.read = append(r.read, digest)
	r.mu.Unlock()
	return r.Reader.Blob(ctx, digest)
}
