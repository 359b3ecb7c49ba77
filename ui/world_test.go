package ui

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables/vartest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/release/releasetest"
	"github.com/drover-nomad/drover/stack"
)

// secret is the value of a secret of the stack of a world.
const secret = "correct-horse-battery-staple"

// world is a server on a cluster without a network: releases are in memory, and what
// becomes of jobs follows a script. Its stack shop has the services api and web, in a
// wave each, of which the second needs an approval.
type world struct {
	*browser
	cluster *releasetest.Cluster
	store   *memstore.Store
	home    deploy.Home
	dir     string
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	w := &world{cluster: releasetest.NewCluster(), store: memstore.New("shop", "prod"), dir: t.TempDir()}
	fake := &fakeNomad{variables: vartest.New()}
	consul, err := capi.NewClient(&capi.Config{Address: "http://consul.test", HttpClient: &http.Client{Transport: fake}})
	if err != nil {
		t.Fatal(err)
	}
	clients := nomad.Clients{Nomad: vartest.Client(t, fake), Consul: consul, Defaults: w.cluster.Clients().Defaults}
	kept := memstore.NewSecrets(map[string]string{"token": secret})
	w.home = deploy.Home{
		Holder: releasetest.Holder("ann"), Version: "test",
		Dial: func(context.Context, *stack.Target, bool) (nomad.Clients, error) { return clients, nil },
		Backend: &deploy.Backend{
			Releases: func(name, env string) release.Store {
				if name == "shop" && env == "prod" {
					return w.store
				}
				return memstore.New(name, env)
			},
			Secrets: func(string, string) release.SecretStore { return kept },
			Stacks: func(ctx context.Context) ([]record.ListedStack, error) {
				last, err := w.store.Last(ctx)
				if last == nil {
					return nil, err
				}
				return []record.ListedStack{{Stack: "shop", Environment: "prod", Release: last}}, err
			},
			Dial: func(context.Context, *stack.Target, bool) (release.Cluster, error) {
				return dialed{w.cluster, clients}, nil
			},
		},
	}
	o.Source = &Cluster{Home: w.home, Reading: w.home}
	w.browser = newBrowser(t, o)
	w.write("stack.hcl", "stack \"shop\" {}\nservice \"api\" {}\nservice \"web\" {\n  depends_on = [\"api\"]\n}\n")
	w.write("environments/prod.hcl", "wave \"first\" {\n  services = [\"api\"]\n}\nwave \"second\" {\n  services = [\"web\"]\n  approve = true\n}\n")
	return w
}

type dialed struct {
	*releasetest.Cluster
	clients nomad.Clients
}

func (c dialed) Clients() nomad.Clients { return c.clients }

func (w *world) write(name, text string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Join(w.dir, filepath.Dir(name)), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// person approves every wave.
type person struct{}

func (person) Approve(context.Context, release.Approval) (bool, error)     { return true, nil }
func (person) Prune(context.Context, []release.Change) (bool, error)       { return true, nil }
func (person) AcceptTerms(context.Context, string, string) (string, error) { return "", nil }

// deploy deploys a version. Without approve the release waits before its second wave.
func (w *world) deploy(version string, approve bool) {
	w.Helper()
	for _, name := range []string{"api", "web"} {
		w.write(name+".nomad.hcl", "job \""+name+"\" {\n  meta {\n    version = \""+version+"\"\n  }\n  group \"g\" {\n    task \"t\" {\n      driver = \"mock_driver\"\n    }\n  }\n}\n")
	}
	d := &deploy.Deploy{Home: w.home, Source: deploy.Source{Path: w.dir, Environment: "prod"}, NoCertificates: true}
	if approve {
		d.Person = person{}
	}
	if _, err := d.Run(w.Context()); err != nil && approve {
		w.Fatalf("cannot deploy version %s: %v", version, err)
	}
}

// wantState waits for the newest release to be in that state.
func (w *world) wantState(number int, state record.State) *record.Release {
	w.Helper()
	var last *record.Release
	devtest.Until(w, 20*time.Second, fmt.Sprintf("release %d to be %s", number, state), func() bool {
		last, _ = w.store.Last(w.Context())
		return last != nil && last.Number == number && last.State == state
	})
	return last
}

// fakeNomad answers requests without a network. Each job runs in one allocation whose
// event and log hold the secret.
type fakeNomad struct{ variables *vartest.Server }

func (n *fakeNomad) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body := n.answer(r)
	return n.variables.Response(r, code, body)
}

func (n *fakeNomad) answer(r *http.Request) (int, any) {
	if code, body, ok := n.variables.Answer(r); ok {
		return code, body
	}
	leak := "the token is " + secret
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/allocations") && strings.HasPrefix(path, "/v1/job/"):
		id := strings.TrimSuffix(strings.TrimPrefix(path, "/v1/job/"), "/allocations")
		return http.StatusOK, []*api.AllocationListStub{{
			ID: "12345678-aaaa-bbbb-cccc-" + fmt.Sprintf("%012d", len(id)), JobID: id, TaskGroup: "g", ClientStatus: "running", DesiredStatus: "run",
			TaskStates: map[string]*api.TaskState{"t": {State: "running", Events: []*api.TaskEvent{{Type: api.TaskDriverFailure, DisplayMessage: leak}}}},
		}}
	case strings.HasPrefix(path, "/v1/client/fs/logs/"):
		line, _ := json.Marshal(api.StreamFrame{Data: []byte(leak + "\n"), File: "t.stdout.0"})
		return http.StatusOK, json.RawMessage(line)
	case strings.HasPrefix(path, "/v1/jobs"), strings.HasPrefix(path, "/v1/allocations"), strings.HasPrefix(path, "/v1/nodes"), strings.HasPrefix(path, "/v1/volumes"), strings.HasPrefix(path, "/v1/services"), strings.HasPrefix(path, "/v1/health/"), strings.HasPrefix(path, "/v1/acl/"):
		return http.StatusOK, []any{}
	}
	return http.StatusNotFound, "not found"
}

// browser is a client of a server that keeps its cookie.
type browser struct {
	*testing.T
	server *Server
	http   *httptest.Server
	cookie *http.Cookie
}

// newBrowser starts a server and signs in.
func newBrowser(t *testing.T, o Options) *browser {
	t.Helper()
	b := &browser{T: t}
	b.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.server.ServeHTTP(w, r) }))
	o.Address = b.http.Listener.Addr().String()
	if o.Interval == 0 {
		o.Interval = 20 * time.Millisecond
	}
	b.server = New(o)
	b.http.Start()
	t.Cleanup(func() {
		b.server.Close()
		b.http.Close()
	})
	res := b.do(http.MethodGet, strings.TrimPrefix(b.server.URL(""), "http://"+o.Address), nil)
	if len(res.Cookies()) != 1 {
		t.Fatalf("signing in: got %s and %d cookies, want one", res.Status, len(res.Cookies()))
	}
	b.cookie = res.Cookies()[0]
	return b
}

type response struct {
	*http.Response
	text string
}

// do sends a request; change may be nil. It does not follow redirects.
func (b *browser) do(method, path string, form url.Values, change ...func(*http.Request)) response {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.http.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != nil {
		req.AddCookie(b.cookie)
	}
	for _, f := range change {
		f(req)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	var text strings.Builder
	if _, err := fmt.Fprint(&text, readAll(b, res)); err != nil {
		b.Fatal(err)
	}
	return response{res, text.String()}
}

// get returns a page and checks its code.
func (b *browser) get(path string, code int) string {
	b.Helper()
	res := b.do(http.MethodGet, path, nil)
	if res.StatusCode != code {
		b.Errorf("GET %s: got %s, want %d\n%s", path, res.Status, code, res.text)
	}
	return res.text
}

// follow calls line with each line of a stream until ctx ends.
func (b *browser) follow(ctx context.Context, path string, line func(string)) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.http.URL+path, nil)
	if err != nil {
		b.Error(err)
		return
	}
	req.AddCookie(b.cookie)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.Error(err)
		return
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		b.Errorf("GET %s: got type %q, want text/event-stream", path, got)
	}
	for in := bufio.NewScanner(res.Body); in.Scan(); {
		line(in.Text())
	}
}
