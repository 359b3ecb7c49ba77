package deploy

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables/vartest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/release/releasetest"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// world is a stack whose releases are in memory, and a scripted cluster. Its services
// are api, and web, which depends on api.
type world struct {
	*testing.T
	recorder

	store   *memstore.Store
	secrets *memstore.Secrets
	renamed *renamed
	cluster *releasetest.Cluster
	nomad   *fakeNomad
	home    Home
	dir     string
}

// renamed are the stores of other names than shop, as they are needed.
type renamed struct {
	mu sync.Mutex
	of map[string]inMemory
}

type inMemory struct {
	store   *memstore.Store
	secrets *memstore.Secrets
}

func (r *renamed) open(name, env string) inMemory {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := name + "/" + env
	if _, made := r.of[key]; !made {
		r.of[key] = inMemory{memstore.New(name, env), memstore.NewSecrets(nil)}
	}
	return r.of[key]
}

// dialed is a cluster with a client, for what release.Cluster does not do.
type dialed struct {
	*releasetest.Cluster
	clients nomad.Clients
}

func (c dialed) Clients() nomad.Clients { return c.clients }

func newWorld(t *testing.T) *world {
	t.Parallel()
	w := &world{
		T: t, renamed: &renamed{of: map[string]inMemory{}}, store: memstore.New("shop", "default"), secrets: memstore.NewSecrets(map[string]string{}), cluster: releasetest.NewCluster(),
		nomad: &fakeNomad{variables: vartest.New()}, dir: t.TempDir(),
	}
	// No service is in Consul.
	consul, err := capi.NewClient(&capi.Config{Address: "http://consul.test", HttpClient: &http.Client{Transport: w.nomad}})
	if err != nil {
		t.Fatal(err)
	}
	clients := nomad.Clients{Nomad: w.nomad.client(t), Consul: consul, Defaults: w.cluster.Clients().Defaults}
	w.home = Home{
		Holder: releasetest.Holder("ann"), Version: "test",
		Dial: func(context.Context, *stack.Target, bool) (nomad.Clients, error) { return clients, nil },
		Backend: &Backend{
			Releases: func(name, env string) release.Store {
				if name == "shop" && env == "default" {
					return w.store
				}
				return w.renamed.open(name, env).store
			},
			Secrets: func(name, env string) release.SecretStore {
				if name == "shop" && env == "default" {
					return w.secrets
				}
				return w.renamed.open(name, env).secrets
			},
			Dial: func(context.Context, *stack.Target, bool) (release.Cluster, error) {
				return dialed{w.cluster, clients}, nil
			},
		},
	}
	w.write("stack.hcl", "stack \"shop\" {}\nservice \"api\" {}\nservice \"web\" {\n  depends_on = [\"api\"]\n}\n")
	w.version("1")
	return w
}

// write writes a file of the stack.
func (w *world) write(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// version gives both jobs that version in their meta.
func (w *world) version(v string) {
	w.Helper()
	for _, name := range []string{"api", "web"} {
		w.write(name+".nomad.hcl", "job \""+name+"\" {\n  meta {\n    version = \""+v+"\"\n  }\n  group \"g\" {\n    task \"t\" {\n      driver = \"mock_driver\"\n    }\n  }\n}\n")
	}
}

// deployVerb returns a deploy of the stack's files.
func (w *world) deployVerb() *Deploy {
	return &Deploy{Home: w.home, Source: Source{Path: w.dir}, NoCertificates: true, Events: w.add}
}

// deploy deploys that version, and forgets the events.
func (w *world) deploy(version string) Result {
	w.Helper()
	w.version(version)
	res, err := w.deployVerb().Run(w.Context())
	if err != nil {
		w.Fatalf("cannot deploy version %s: %v", version, err)
	}
	w.events = nil
	return res
}

// recorded names the stack, for verbs that work from its record.
func (w *world) recorded() Recorded { return Recorded{Home: w.home, Stack: "shop", Events: w.add} }

// fail makes a version of a job end with an outcome.
func (w *world) fail(id, version string, outcome rollout.Outcome) {
	w.cluster.Follow = func(_ context.Context, j *api.Job) rollout.ServiceResult {
		if *j.ID == id && j.Meta["version"] == version {
			return rollout.ServiceResult{Outcome: outcome, Detail: "scripted"}
		}
		return rollout.ServiceResult{Outcome: rollout.Deployed}
	}
}

// interrupt leaves a deploy of that version open: its context ends while api is
// followed.
func (w *world) interrupt(version string) {
	w.Helper()
	w.version(version)
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
		cancel()
		return rollout.ServiceResult{Outcome: rollout.Cancelled}
	}
	res, err := w.deployVerb().Run(ctx)
	if res.Release == nil || !res.Release.State.Open() {
		w.Fatalf("the deploy ended with %v and release %+v, want an open release", err, res.Release)
	}
	w.cluster.Follow, w.events = nil, nil
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

// wantEnd checks that a verb sent one end, for the stack, with that outcome, and
// that its error has that class.
func (w *world) wantEnd(err error, outcome rollout.Outcome, class Class) *End {
	w.Helper()
	end := w.end(w.T)
	if end.Stack != "shop" || end.Environment != "default" || end.Outcome != outcome {
		w.Errorf("got end of %s/%s with outcome %q (%v), want shop/default with %q", end.Stack, end.Environment, end.Outcome, err, outcome)
	}
	if got := ClassOf(err); got != class {
		w.Errorf("got class %d of %v, want %d", got, err, class)
	}
	return end
}

// wantState checks the newest release.
func (w *world) wantState(number int, state record.State) {
	w.Helper()
	last, err := w.store.Last(context.Background())
	if err != nil || last == nil {
		w.Fatalf("there is no release: %v", err)
	}
	if last.Number != number || last.State != state {
		w.Errorf("got release %d in state %s (%s), want %d in state %s", last.Number, last.State, last.Cause, number, state)
	}
}
