package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"golang.org/x/net/html"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

func readAll(t testing.TB, res *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pagesOf are the pages of a stack and of a cluster.
func pagesOf(stack, env, service, target string) []string {
	s := stackHref(stack, env)
	return []string{
		"/", "/failing", "/edge", "/schedules", "/doctor", s, serviceHref(stack, env, service, target), s + "/releases", s + "/releases/1", s + "/drift",
		s + "/diff?from=1&to=1", s + "/do/rollback?to=1", s + "/do/redeploy", s + "/do/approve", s + "/do/abort",
	}
}

// TestServer_Sessions checks who gets a page.
func TestServer_Sessions(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, Options{Source: newCanned("x")})
	if c := b.cookie; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("got cookie %v, want HttpOnly and SameSite=Strict", c)
	}
	if text := b.get("/", 200); !strings.Contains(text, "<h1>Stacks</h1>") {
		t.Errorf("the first page is\n%s", text)
	}
	used := b.server.URL("")
	first := b.cookie
	b.cookie = nil
	if text := b.get("/", 401); !strings.Contains(text, "drover ui") || strings.Contains(text, "csrf") {
		t.Errorf("without a session: got\n%s", text)
	}
	for _, path := range []string{"/live/", "/live/doctor", "/s/x/x", "/runs/x"} {
		b.get(path, 401)
	}
	b.get("/?token=wrong", 401)
	path := strings.TrimPrefix(used, b.http.URL)
	b.get(path, 200)
	b.get(path, 401) // a token opens one session
	b.cookie = &http.Cookie{Name: first.Name, Value: "forged"}
	b.get("/", 401)
	b.cookie = first
	b.get("/", 200)
	if next := b.get("/?token="+url.QueryEscape(b.server.guard.token())+"&next=//evil.example", 200); strings.Contains(next, "evil.example") {
		t.Error("the sign-in page leads to another host")
	}
}

// TestServer_ForeignHost checks that a name that leads to loopback is not enough (DNS
// rebinding).
func TestServer_ForeignHost(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, Options{Source: newCanned("x")})
	_, port, _ := strings.Cut(strings.TrimPrefix(b.http.URL, "http://"), ":")
	for host, want := range map[string]int{"evil.example:" + port: 421, "127.0.0.1": 421, "": 421, "localhost:" + port: 200, "127.0.0.1:" + port: 200} {
		res := b.do(http.MethodGet, "/", nil, func(r *http.Request) {
			if r.Host = host; host == "" {
				r.Host = "127.0.0.1:1"
			}
		})
		if res.StatusCode != want {
			t.Errorf("host %q: got %s, want %d", host, res.Status, want)
		}
	}
}

// TestServer_Headers checks the headers of every kind of answer.
func TestServer_Headers(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, Options{Source: newCanned("x")})
	for _, path := range []string{"/", "/static/app.js", "/static/style.css", "/nothing", "/s/x/x/do/rollback"} {
		h := b.do(http.MethodGet, path, nil).Header
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: policy %q has no %s", path, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got policy %q, nosniff %q", path, policy, h.Get("X-Content-Type-Options"))
		}
	}
}

// TestServer_Escaping puts a hostile text into every text field of every result and
// parses every page.
func TestServer_Escaping(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`"><script>alert(1)</script>`, `' onmouseover='alert(1)`, `javascript:alert(1)`, `</title></textarea></svg><img src=x onerror=alert(1)>`,
		`{{.}}<!--`, `a/b?c#d%2f`, `..`, "new\nline\r\n\r\ndata: x", "\x00\xff", `]]>&lt;script>`,
	} {
		checkPages(t, text)
	}
}

// checkPages fetches every page with text in every field.
func checkPages(t *testing.T, text string) {
	t.Helper()
	s := New(Options{Source: newCanned(text), Address: "127.0.0.1:1", Operator: text})
	defer s.Close()
	for _, build := range []builder{s.overview, s.failing, s.edge, s.schedules, s.doctor, s.stack, s.service, s.history, s.release, s.drift, s.diff, s.confirm} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:1/x?from=1&to=1&target="+url.QueryEscape(text), nil)
		for _, name := range []string{"stack", "env", "service"} {
			r.SetPathValue(name, text)
		}
		r.SetPathValue("number", "1")
		r.SetPathValue("verb", "rollback")
		p := s.build(t.Context(), r, build)
		if p.Name == "error" {
			t.Errorf("with %q: got an error page: %v", text, p.Data)
		}
		checkHTML(t, text, string(s.fragment(p)), 0)
		rec := &recorder{header: http.Header{}}
		s.render(rec, r, 200, p)
		checkHTML(t, text, rec.String(), 1)
	}
}

type recorder struct {
	strings.Builder
	header http.Header
}

func (r *recorder) Header() http.Header { return r.header }
func (*recorder) WriteHeader(int)       {}

// checkHTML fails for what only a hostile text can bring into a page.
func checkHTML(t *testing.T, text, page string, scripts int) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			got++
		case "img", "iframe", "object", "embed", "style", "base", "textarea":
			t.Errorf("with %q: the page has an element %s", text, n.Data)
		}
		for _, a := range n.Attr {
			v := strings.ToLower(strings.TrimSpace(a.Val))
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc":
				t.Errorf("with %q: the page has an attribute %s=%q", text, a.Key, a.Val)
			case (a.Key == "href" || a.Key == "action" || a.Key == "src") && !strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "#"), strings.HasPrefix(v, "//"):
				t.Errorf("with %q: %s of %s is %q", text, a.Key, n.Data, a.Val)
			}
		}
	}
	if got != scripts {
		t.Errorf("with %q: got %d scripts, want %d\n%s", text, got, scripts, page)
	}
}

// FuzzPages is TestServer_Escaping with any text.
func FuzzPages(f *testing.F) {
	f.Add(`"><script>`)
	f.Fuzz(func(t *testing.T, text string) { checkPages(t, text) })
}

// TestServer_Live checks that open pages share one reader, get each change once, and
// leave nothing behind.
func TestServer_Live(t *testing.T) {
	t.Parallel()
	source := newCanned("x")
	b := newBrowser(t, Options{Source: source})
	const pages = 8
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	versions := make(chan string, 1000)
	for range pages {
		go b.follow(ctx, "/live/doctor", func(line string) {
			if strings.Contains(line, "warnings.</p>") {
				versions <- line
			}
		})
	}
	for range pages {
		<-versions
	}
	reads := source.doctors()
	devtest.Until(t, 20*time.Second, "five more reads", func() bool { return source.doctors() > reads+5 })
	select {
	case v := <-versions:
		t.Errorf("got a version without a change: %s", v)
	default:
	}
	b.server.hub.mu.Lock()
	got := len(b.server.hub.topics)
	b.server.hub.mu.Unlock()
	if got != 1 {
		t.Errorf("got %d topics for %d open pages, want 1", got, pages)
	}
	source.change()
	for range pages {
		if v := <-versions; !strings.Contains(v, "2 errors") {
			t.Errorf("got version %q, want one with 2 errors", v)
		}
	}
	cancel()
	devtest.Until(t, 20*time.Second, "the topic to end", func() bool {
		b.server.hub.mu.Lock()
		defer b.server.hub.mu.Unlock()
		return len(b.server.hub.topics) == 0 && b.server.hub.streams == 0
	})
	b.server.hub.wait()
	after := source.doctors()
	if b.get("/doctor", 200); source.doctors() > after+1 {
		t.Error("the page is read although it is closed")
	}
}

// TestServer_Secrets deploys a stack whose task leaks a secret into its events and log,
// changes a job so that it holds the secret, and looks for it in every page.
func TestServer_Secrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{})
	w.deploy("1", true)
	w.deploy("2", true)
	version, id := secret, "web"
	w.cluster.Register(&api.Job{ID: &id, Meta: map[string]string{"version": version}})
	paths := pagesOf("shop", "prod", "web", "")
	for _, state := range []record.State{record.Done, record.NeedsApproval} {
		if state == record.NeedsApproval {
			w.deploy("3", false)
		}
		w.wantState(map[record.State]int{record.Done: 2, record.NeedsApproval: 3}[state], state)
		for _, path := range append(paths, stackHref("shop", "prod", "releases", "2")) {
			res := w.do(http.MethodGet, path, nil)
			if strings.Contains(res.text, secret) {
				t.Errorf("GET %s: the page has a secret\n%s", path, around(res.text, secret))
			}
			if res.StatusCode != 200 {
				t.Errorf("GET %s: got %s\n%s", path, res.Status, res.text)
			}
		}
	}
	if text := w.get(serviceHref("shop", "prod", "web", ""), 200); strings.Count(text, "the token is "+secrets.Redacted) < 2 {
		t.Errorf("the page does not show the event and the log\n%s", text)
	}
}

func around(text, part string) string {
	i := strings.Index(text, part)
	return text[max(0, i-200):min(len(text), i+200)]
}

var hidden = regexp.MustCompile(`name="(csrf|seen|to|service)" value="([^"]*)"`)

// form returns the hidden fields of a page.
func form(page string) url.Values {
	v := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		v.Set(m[1], html.UnescapeString(m[2]))
	}
	return v
}

// TestServer_Actions approves a wave and rolls back, as a person does.
func TestServer_Actions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Operator: "ann@desk"})
	w.deploy("1", true)
	w.deploy("2", false)
	w.wantState(2, record.NeedsApproval)

	path := "/s/shop/prod/do/approve"
	page := w.get(path, 200)
	if !strings.Contains(page, "Wave second") || !strings.Contains(page, "web: update") {
		t.Errorf("the page does not show the wave\n%s", page)
	}
	v := form(page)
	for name, forge := range map[string]func(url.Values, *http.Request){
		"without a token":      func(v url.Values, _ *http.Request) { v.Del("csrf") },
		"with another token":   func(v url.Values, _ *http.Request) { v.Set("csrf", "x") },
		"from another site":    func(_ url.Values, r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"from another origin":  func(_ url.Values, r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"from the same domain": func(_ url.Values, r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
	} {
		forged := url.Values{}
		for k := range v {
			forged.Set(k, v.Get(k))
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http.URL, nil)
		forge(forged, req)
		if res := w.do(http.MethodPost, path, forged, func(r *http.Request) {
			for k := range req.Header {
				r.Header.Set(k, req.Header.Get(k))
			}
		}); res.StatusCode != 403 {
			t.Errorf("%s: got %s, want 403", name, res.Status)
		}
	}
	w.wantState(2, record.NeedsApproval)

	if page := w.get("/s/shop/prod/releases/2", 200); !strings.Contains(page, "It needs an approval.") {
		t.Errorf("the release does not say what its second wave needs\n%s", page)
	}
	res := w.do(http.MethodPost, path, v)
	if res.StatusCode != 303 {
		t.Fatalf("got %s, want 303\n%s", res.Status, res.text)
	}
	last := w.wantState(2, record.Done)
	if got := last.Waves[1].Approved; got != "ann@desk" && !strings.HasPrefix(got, "ann@") {
		t.Errorf("approved by %q, want ann", got)
	}
	devtest.Until(t, 20*time.Second, "the page of the action to show its end", func() bool {
		return strings.Contains(w.get(res.Header.Get("Location"), 200), "succeeded")
	})
	if res := w.do(http.MethodPost, path, v); res.StatusCode != 409 {
		t.Errorf("the same form again: got %s, want 409", res.Status)
	}
	if page := w.get(path, 200); !strings.Contains(page, "there is nothing to approve") {
		t.Errorf("a second approval: got\n%s", page)
	}

	page = w.get("/s/shop/prod/do/rollback?to=1", 200)
	if !strings.Contains(page, `<h3>web <span class="quiet">replace</span></h3>`) {
		t.Errorf("the page does not show the plan\n%s", page)
	}
	v = form(page)
	v.Set("message", "uploads fail")
	if res = w.do(http.MethodPost, "/s/shop/prod/do/rollback", v); res.StatusCode != 303 {
		t.Fatalf("got %s, want 303\n%s", res.Status, res.text)
	}
	last = w.wantState(3, record.Done)
	if last.Of != 1 || last.Message != "uploads fail" || last.By.User != "ann" || !strings.HasSuffix(last.By.Command, "(rollback)") {
		t.Errorf("got release of %d, %q by %+v", last.Of, last.Message, last.By)
	}
	w.deploy("4", false)
	w.wantState(4, record.NeedsApproval)
	w.do(http.MethodPost, "/s/shop/prod/do/abort", form(w.get("/s/shop/prod/do/abort", 200)))
	w.wantState(4, record.Aborted)
	if got := w.cluster.Running("version"); got["web"] != "1" || got["api"] != "1" {
		t.Errorf("after the abort runs %v, want version 1", got)
	}
	v = form(w.get("/s/shop/prod/do/redeploy?service=web", 200))
	w.do(http.MethodPost, "/s/shop/prod/do/redeploy", v)
	devtest.Until(t, 20*time.Second, "release 5", func() bool {
		last, _ := w.store.Last(t.Context())
		return last.Number == 5 && last.Kind == release.KindRedeploy
	})
}

// TestServer_ReadOnly checks that a read-only page neither offers nor does anything.
func TestServer_ReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{ReadOnly: true})
	w.deploy("1", true)
	w.deploy("2", false)
	w.wantState(2, record.NeedsApproval)
	for _, path := range pagesOf("shop", "prod", "web", "") {
		res := w.do(http.MethodGet, path, nil)
		if strings.Contains(res.text, "/do/") && !strings.Contains(path, "/do/") {
			t.Errorf("GET %s offers an action\n%s", path, around(res.text, "/do/"))
		}
		if strings.Contains(path, "/do/") && res.StatusCode != 403 {
			t.Errorf("GET %s: got %s, want 403", path, res.Status)
		}
	}
	w.server.guard.mu.Lock()
	sessions := w.server.guard.sessions
	w.server.guard.mu.Unlock()
	for _, s := range sessions {
		v := url.Values{"csrf": {s.csrf}, "seen": {"2/awaiting-approval/second"}}
		if res := w.do(http.MethodPost, "/s/shop/prod/do/approve", v); res.StatusCode != 403 {
			t.Errorf("an approval: got %s, want 403", res.Status)
		}
	}
	w.wantState(2, record.NeedsApproval)
}

// TestServer_Errors checks the codes and texts of what is not there.
func TestServer_Errors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{})
	for path, want := range map[string]string{
		"/s/shop/prod/releases": "404 stack shop has no releases",
		"/runs/none":            "404 has not started such an action",
		"/nothing":              "404 There is no such page",
	} {
		code, part, _ := strings.Cut(want, " ")
		res := w.do(http.MethodGet, path, nil)
		if fmt.Sprint(res.StatusCode) != code || !strings.Contains(res.text, part) {
			t.Errorf("GET %s: got %s, want %s\n%s", path, res.Status, want, res.text)
		}
	}
	w.deploy("1", true)
	for path, want := range map[string]string{
		"/s/shop/prod/releases/9":           "404 ",
		"/s/shop/prod/releases/x":           "400 is not the number of a release",
		"/s/shop/prod/service/none":         "404 runs no service none",
		"/s/shop/prod/do/explode":           "404 There is no action explode",
		"/s/shop/prod/do/rollback?to=x":     "400 is not the number of a release",
		"/s/shop/prod/diff?from=1&to=seven": "400 is not the number of a release",
	} {
		code, part, _ := strings.Cut(want, " ")
		res := w.do(http.MethodGet, path, nil)
		if fmt.Sprint(res.StatusCode) != code || !strings.Contains(res.text, part) {
			t.Errorf("GET %s: got %s, want %s\n%s", path, res.Status, want, res.text)
		}
	}
}

// TestServer_NoFiles checks that a stack of a URL is a name, and not a path.
func TestServer_NoFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{})
	w.deploy("1", true)
	for _, path := range pagesOf(w.dir, "prod", "web", "")[5:] {
		if res := w.do(http.MethodGet, path, nil); res.StatusCode != 404 || strings.Contains(res.text, "web</a>") {
			t.Errorf("GET %s: got %s, want 404\n%s", path, res.Status, res.text)
		}
	}
}

// TestServer_ManyServices renders a stack of 200 services.
func TestServer_ManyServices(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, Options{Source: manyServices(200)})
	began := time.Now()
	text := b.get("/s/big/default", 200)
	took := time.Since(began)
	t.Logf("200 services: %s, %d KB", took, len(text)>>10)
	if n := strings.Count(text, "<tr>"); n != 201 {
		t.Errorf("got %d rows, want 201", n)
	}
	if took > 2*time.Second || len(text) > 400<<10 {
		t.Errorf("took %s for %d bytes, want less than 2 s and 400 KB", took, len(text))
	}
}

// TestUsageLog keeps the last values of allocations that are shown.
func TestUsageLog(t *testing.T) {
	t.Parallel()
	u, at := &usageLog{byAlloc: map[string]*samples{}}, time.Now()
	read := func(alloc string, cpu float64) {
		u.add([]rollout.Instance{{AllocID: alloc, Usage: &rollout.Usage{CPU: cpu, Memory: 3 << 20}}, {AllocID: "dead"}}, at)
	}
	read("a", 10)
	if cpu, memory := u.sparks("a"); cpu != nil || memory != nil {
		t.Errorf("after one value: got %v and %v, want no graph", cpu, memory)
	}
	for range 2 * keptSamples {
		read("a", 40)
	}
	read("a", 20)
	cpu, memory := u.sparks("a")
	if want := "CPU of the last 120 reads: 20 to 40 MHz"; cpu == nil || cpu.Text != want || !strings.HasSuffix(cpu.Path, "L120.0 12.0") {
		t.Errorf("got %+v, want %q that ends at 120, 12", cpu, want)
	}
	if want := "Memory of the last 120 reads: 3 to 3 MiB"; memory.Text != want {
		t.Errorf("got %q, want %q", memory.Text, want)
	}
	at = at.Add(usageTime + time.Second)
	if read("b", 1); len(u.byAlloc) != 1 {
		t.Errorf("got %d allocations, want only the one that was read", len(u.byAlloc))
	}
}

// canned is a Source whose results have the same text in all text fields.
type canned struct {
	text string
	full func(v any)
	lock chan struct{}
	n    int
	errs int
}

func newCanned(text string) *canned {
	c := &canned{text: text, lock: make(chan struct{}, 1), errs: 1}
	c.full = func(v any) { fill(reflect.ValueOf(v).Elem(), text, 0) }
	return c
}

// fill sets every exported field of v.
func fill(v reflect.Value, text string, depth int) {
	if !v.CanSet() || depth > 12 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, depth+1)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("{}"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text, depth+1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_800_000_000, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text, depth+1)
		}
	case reflect.Interface:
		if v.Type() == reflect.TypeFor[error]() {
			v.Set(reflect.ValueOf(&httpError{500, text}))
		}
	}
}

func get[T any](c *canned) (v T, _ error) {
	c.full(&v)
	return v, nil
}

func (c *canned) doctors() int {
	c.lock <- struct{}{}
	defer func() { <-c.lock }()
	return c.n
}

func (c *canned) change() {
	c.lock <- struct{}{}
	defer func() { <-c.lock }()
	c.errs++
}

func (c *canned) Stacks(context.Context) ([]record.ListedStack, error) {
	list, err := get[[]record.ListedStack](c)
	healthy := list[0]
	healthy.Error = ""
	return append(list, healthy), err
}

func (c *canned) Status(context.Context, string, string) (deploy.StatusResult, error) {
	return get[deploy.StatusResult](c)
}

func (c *canned) Changed(context.Context) ([]deploy.ChangedStack, error) {
	return get[[]deploy.ChangedStack](c)
}

func (c *canned) History(context.Context, string, string) (deploy.HistoryResult, error) {
	h, err := get[deploy.HistoryResult](c)
	older := *h.Releases[0]
	older.State, h.Releases[0].State = record.Done, record.State(c.text)
	older.Number = 0
	h.Releases = append(h.Releases, &older, &older)
	return h, err
}

func (c *canned) Show(context.Context, string, string, int) (deploy.ShowResult, error) {
	r, err := get[deploy.ShowResult](c)
	other := r.Services[0]
	other.Name, other.Wave, other.DependsOn = "other", 0, []string{c.text}
	r.Services = append(r.Services, other)
	return r, err
}

func (c *canned) Diff(context.Context, string, string, int, int) (deploy.DiffResult, error) {
	return get[deploy.DiffResult](c)
}

func (c *canned) Drift(context.Context, string, string) (deploy.DriftResult, error) {
	d, err := get[deploy.DriftResult](c)
	d.Drifted = true
	return d, err
}

func (c *canned) Inspect(context.Context, string, string, string, string) (deploy.InspectResult, error) {
	var r deploy.InspectResult
	c.full(&r.Instances)
	c.full(&r.Stdout)
	c.full(&r.Stderr)
	r.LogErr = &httpError{500, c.text}
	return r, nil
}

func (c *canned) Certificates(context.Context) ([]*acme.Object, error) {
	var o acme.Object
	c.full(&o.Spec)
	c.full(&o.Status)
	return []*acme.Object{&o}, nil
}

func (c *canned) Edge(context.Context) (*edge.Report, error) { return get[*edge.Report](c) }

func (c *canned) Requests(context.Context) (*edge.Scrape, error) { return nil, &httpError{500, c.text} }

func (c *canned) Records(context.Context) ([]*dns.Wanted, error) { return get[[]*dns.Wanted](c) }

func (c *canned) Schedules(context.Context, string, string) ([]*record.Schedule, error) {
	return get[[]*record.Schedule](c)
}

func (c *canned) Doctor(context.Context) (doctor.Report, error) {
	c.lock <- struct{}{}
	defer func() { <-c.lock }()
	c.n++
	var r doctor.Report
	for range c.errs {
		r.Findings = append(r.Findings, doctor.Finding{Check: c.text, Severity: doctor.Error, Subject: c.text, Reason: c.text, Mend: c.text})
	}
	return r, nil
}

func (c *canned) Plan(context.Context, Action) ([]release.Change, error) {
	return get[[]release.Change](c)
}

func (c *canned) Do(context.Context, Action, func(deploy.Event)) error {
	return &httpError{500, c.text}
}

// many is a stack of many services, each of which depends on one or two others.
type many struct {
	*canned
	status deploy.StatusResult
	show   deploy.ShowResult
}

func manyServices(n int) *many {
	m := &many{canned: newCanned("x")}
	head := &record.Release{Number: 1, Stack: "big", Environment: "default", State: record.Done, Total: n, Waves: []record.Wave{{Name: "all", State: record.Done}}}
	m.status = deploy.StatusResult{Stack: "big", Environment: "default", OK: true, Release: head}
	m.show.Release = head
	for i := range n {
		name := fmt.Sprintf("service-%03d", i)
		m.status.Services = append(m.status.Services, rollout.ServiceStatus{Service: name, JobID: name, Status: "running", Healthy: 1, Desired: 1, OK: true})
		l := record.Service{Name: name, JobID: name, Spec: "x", Step: record.StepDone, Change: record.ChangeUpdate}
		if i > 0 {
			l.DependsOn = []string{fmt.Sprintf("service-%03d", i/3), fmt.Sprintf("service-%03d", i/2)}
		}
		m.show.Services = append(m.show.Services, l)
	}
	return m
}

func (m *many) Status(context.Context, string, string) (deploy.StatusResult, error) {
	return m.status, nil
}

func (m *many) Show(context.Context, string, string, int) (deploy.ShowResult, error) {
	return m.show, nil
}

// TestGateWords_NameWhatAWaveWaitsFor checks the words for each part of a gate.
func TestGateWords_NameWhatAWaveWaitsFor(t *testing.T) {
	t.Parallel()
	limit := 0.01
	gate, err := json.Marshal(stack.Wave{
		Approve: true, Promote: true, Bake: time.Minute,
		Gate: stack.Gate{
			HTTP: &stack.Check{URL: "https://shop.test/"}, Command: []string{"./smoke.sh"}, Metrics: []*stack.Metric{{Name: "errors", Below: &limit}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "needs an approval, waits for https://shop.test/, waits for the command ./smoke.sh, measures errors, which has to be below 0.01, promotes its canaries if this holds, has to stay healthy for 1m0s"
	if got := gateWords(record.Wave{Gate: gate}); got != want {
		t.Errorf("got %q,\nwant %q", got, want)
	}
}

// TestRequestLog_Rates checks the rate at the edge between two reads.
func TestRequestLog_Rates(t *testing.T) {
	t.Parallel()
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests += 25
		fmt.Fprintf(w, "haproxy_backend_http_requests_total{proxy=\"web\"} %d\n", requests)
	}))
	t.Cleanup(srv.Close)
	l := &requestLog{}
	for i, want := range []string{"", "2.5/s", "2.5/s"} {
		scrape, err := edge.ScrapeMetrics(t.Context(), srv.Client(), map[string]string{"a": strings.TrimPrefix(srv.URL, "http://")}, "", time.Unix(int64(10*i), 0))
		if err != nil {
			t.Fatal(err)
		}
		l.add(scrape)
		if got := l.rate("web"); got != want {
			t.Errorf("read %d: got %q, want %q", i+1, got, want)
		}
	}
	if got := l.rate("none"); got != "" {
		t.Errorf("got %q for a service that the edge does not have, want none", got)
	}
	if l.add(nil); l.rate("web") != "" {
		t.Errorf("got %q after a read that failed, want none", l.rate("web"))
	}
}

// TestService_ShowsItsScaling checks the decisions about counts on the pages of a stack and
// of its services.
func TestService_ShowsItsScaling(t *testing.T) {
	t.Parallel()
	m, two := manyServices(2), 2
	m.status.Scaling = []deploy.GroupScaling{
		{Service: "service-000", Group: "g", Count: 3, Last: &deploy.ScalingEvent{At: time.Unix(0, 0), From: 1, To: 3, By: "drover", Reason: "check load: the metric is 3"}},
		{Service: "service-001", Group: "g", Count: 1, Last: &deploy.ScalingEvent{At: time.Unix(0, 0), From: 1, To: 1, DryRun: &two, Reason: "check load: the metric is 2"}},
	}
	b := newBrowser(t, Options{Source: m})
	text := regexp.MustCompile(`<[^>]*>`)
	first := "service-000, group g: count 3; 1 to 3 1970-01-01 00:00:00 UTC by drover: check load: the metric is 3"
	second := "service-001, group g: count 1; dry run 1970-01-01 00:00:00 UTC: would be 2: check load: the metric is 2"
	for path, want := range map[string][2]bool{"/s/big/default": {true, true}, "/s/big/default/service/service-000": {true, false}, "/s/big/default/service/service-001": {false, true}} {
		got := text.ReplaceAllString(b.get(path, http.StatusOK), "")
		if strings.Contains(got, first) != want[0] || strings.Contains(got, second) != want[1] {
			t.Errorf("%s: got\n%s\nwant %q: %v, %q: %v", path, got, first, want[0], second, want[1])
		}
	}
}
