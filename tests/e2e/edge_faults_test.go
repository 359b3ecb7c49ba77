package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
)

// testBadTags registers services with invalid tags. A good route keeps working, status
// names every bad service, and the edge accepts each configuration.
func testBadTags(t *testing.T, e *entrance) {
	s := serve(t, "good")
	e.register(t, "good", address(s), "drover.route=good.test/")
	rnd := rand.New(rand.NewSource(1))
	pieces := []string{
		"drover.", "route", "redirect", "tcp", "sni", "protocol", "strip", "sticky", "auth", "allow", "max-body", "header", "http", "send-proxy", "=", "=", "=",
		"a.test", "/", "x", " ", "301", "999", "https://b.test/", "10.0.0.0/8", "10.0.0.0/33", "::1", "1::2::3", ",", "request", "response", "set", "remove", "Host", "X-A", "Connection",
		"\"", "'", "\\", "$", "$host", "%", "%[src]", "{{", "}}", "{", "}", ";", "\n", "\r", "\t", "#", "`", "ü", "\x00", strings.Repeat("y", 3000), "good.test", "h2c", "cookie", "10k", "serve", "v2",
	}
	bad := map[string]bool{}
	for i := range 150 {
		name := fmt.Sprint("bad-", i)
		tags := []string{fmt.Sprintf("drover.route=bad-%d.test/", i)}
		for range 1 + rnd.Intn(3) {
			tag := "drover."
			if f := edge.Forms(); rnd.Intn(2) == 0 {
				tag = f[rnd.Intn(len(f))].Example // a good one with something behind it
			}
			for range rnd.Intn(7) {
				tag += pieces[rnd.Intn(len(pieces))]
			}
			tags = append(tags, tag)
		}
		e.register(t, name, address(s), tags...)
		bad[name] = true
	}
	// Good, but as large as it may be.
	e.register(t, "large", address(s), "drover.route=large.test/"+strings.Repeat("p", 1500), "drover.route="+strings.Repeat("h.", 120)+"test/",
		"drover.header=response set X-Large "+strings.Repeat(`"`, 1900), "drover.header=response set X-Larger "+strings.Repeat("%", 1900),
		"drover.allow="+strings.TrimSuffix(strings.Repeat("127.0.0.0/8,", 160), ","))
	e.register(t, "Upper", address(s), "drover.route=upper.test/")
	e.register(t, "no_name", address(s), "drover.route=upper.test/")
	for _, name := range []string{"metrics", "http", "https", "no", "consul-resolver"} {
		e.register(t, name, address(s), "drover.route="+name+".test/")
	}
	r := e.loaded(t)
	for _, i := range r.Instances {
		if i.Refused != "" {
			t.Errorf("refused: %s", i.Refused)
		}
	}
	e.got(t, "GET", "https://good.test/", nil, nil)
	e.got(t, "GET", "https://metrics.test/", nil, nil)
	if res, _ := e.do(t, http.StatusOK, "GET", "https://large.test/"+strings.Repeat("p", 1500), nil, nil); len(res.Get("X-Large")) != 1900 || len(res.Get("X-Larger")) != 1900 {
		t.Errorf("%d and %d bytes of large headers", len(res.Get("X-Large")), len(res.Get("X-Larger")))
	}
	e.do(t, http.StatusNotFound, "GET", "https://upper.test/", nil, nil)
	// Routes that status lists are served, and no others.
	served := map[string]bool{}
	for _, s := range r.Routes {
		if s.Kind == edge.HTTP {
			served[s.From] = true
		}
	}
	named := map[string]bool{}
	for _, p := range r.Problems {
		named[p.Service] = true
		delete(bad, p.Service)
	}
	for name := range map[string]bool{"Upper": true, "no_name": true} {
		if !named[name] {
			t.Errorf("%s is not named", name)
		}
	}
	for i := range 150 {
		host := fmt.Sprintf("bad-%d.test", i)
		res, _ := e.do2(t, "https://"+host+"/")
		if got := res != http.StatusNotFound; got != served[host+"/"] {
			t.Errorf("%s answers %d, and the status says that it is served: %v", host, res, served[host+"/"])
		}
	}
	t.Logf("%d of 150 services are named, %d routes are served", 150-len(bad), len(served))
}

// do2 is the status of a GET, whatever it is.
func (e *entrance) do2(t *testing.T, url string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := e.client(false)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Errorf("GET %s: %v", url, err)
		return 0, err
	}
	res.Body.Close()
	return res.StatusCode, nil
}

// testRefused gives the edge an invalid certificate. The edge keeps serving the former
// one, and status has the reason.
func testRefused(t *testing.T, e *entrance) {
	s := serve(t, "kept")
	e.register(t, "kept", address(s), "drover.route=kept.test/")
	before := e.loaded(t)
	answers := func() bool {
		code, _ := e.do2(t, "https://kept.test/")
		return code == http.StatusOK
	}
	eventually(t, "the route is served", answers)
	served := func(when string) {
		t.Helper()
		if answers() {
			return
		}
		status, _, _ := e.drover.run(t.Context(), "edge", "status", "--timeout", "1m")
		log, _, _ := e.drover.run(t.Context(), "logs", stacks[e.kind], string(e.kind), "--stderr", "-e", "dev", "--tail", "60")
		t.Errorf("%s the route is not served. Instances before: %+v\nstatus:\n%s\nlog:\n%s", when, before.Instances, status, log)
		for _, file := range glob(t, filepath.Join(e.Dir(), "alloc", "*", string(e.kind), "local", "*")) {
			if text, err := os.ReadFile(file); err == nil {
				t.Logf("%s has the route: %v", filepath.Base(file), bytes.Contains(text, []byte("kept.test")))
			}
		}
	}
	v, _, err := e.nomad.Variables().Peek("drover/certs/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	bundle := v.Items["bundle"]
	put := func(bundle string) {
		t.Helper()
		v.Items["bundle"] = bundle
		if _, _, err := e.nomad.Variables().Update(v, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("no certificate")
	var r edge.Report
	eventually(t, "the configuration is refused in status", func() bool {
		var code int
		r, code = e.status(t)
		return code == 1 && len(r.Instances) == 1 && r.Instances[0].Refused != ""
	})
	if why := r.Instances[0].Refused; !strings.Contains(why, "public.pem") || strings.Contains(why, e.Dir()) {
		t.Errorf("the reason is %q", why)
	}
	t.Log(r.Instances[0].Refused)
	if out, _, _ := e.drover.run(t.Context(), "edge", "status", "--timeout", "1m"); !strings.Contains(out, "refused") || !strings.Contains(out, "the one before is served") {
		t.Errorf("status says\n%s", out)
	}
	// Unlike the other, it waits for Nomad only for seconds, of which a busy machine
	// sometimes needs more.
	eventually(t, "the status of the certificate says it too", func() bool {
		out, _, code := e.drover.run(t.Context(), "cert", "status", "public")
		return code == 1 && strings.Contains(out, "refused its last configuration and serves the one before: ")
	})
	served("during the refusal")
	put(bundle)
	eventually(t, "the configuration is taken", func() bool {
		r, _ = e.status(t)
		return len(r.Instances) == 1 && r.Instances[0].Refused == ""
	})
	served("after it")
}

// testKilled kills the edge and changes what it has to load before Nomad has
// started it again: Nomad must not give it up.
func testKilled(t *testing.T, e *entrance) {
	s := serve(t, "killed")
	for i := range 2 {
		for _, pid := range e.ofEdge(t) {
			if err := kill(pid); err != nil && !errors.Is(err, syscall.ESRCH) { // with the one before
				t.Fatal(err)
			}
		}
		name := fmt.Sprintf("killed-%d", i)
		e.register(t, name, address(s), "drover.route="+name+".test/")
		e.reached(t, "https://"+name+".test/")
	}
}

// testUntold changes the configuration without a word, as Nomad does after the
// clock of a node was put back.
func testUntold(t *testing.T, e *entrance) {
	s := serve(t, "untold")
	e.register(t, "untold", address(s), "drover.route=before.test/")
	e.reached(t, "https://before.test/")
	name := map[edge.Kind]string{edge.HAProxy: "haproxy.cfg", edge.Nginx: "nginx.conf"}[e.kind]
	files, err := filepath.Glob(filepath.Join(e.Dir(), "alloc", "*", "*", "local", name))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", name, err)
	}
	for _, file := range files { // of former allocations too
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		next := file + ".next"
		if err := os.WriteFile(next, bytes.ReplaceAll(text, []byte("before.test"), []byte("after.test")), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	e.reached(t, "https://after.test/")
}

// testRestarted restarts the edge while a client waits for an answer and others have
// idle connections. The client gets its answer. The edge does not wait for the idle
// connections, because no process listens meanwhile.
func testRestarted(t *testing.T, e *entrance) {
	arrived, release := make(chan struct{}), make(chan struct{})
	arrive := sync.OnceFunc(func() { close(arrived) }) // a GET may be sent twice
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrive()
			<-release
		}
		fmt.Fprint(w, "at last")
	}))
	t.Cleanup(slow.Close)
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	e.register(t, "slow", address(slow), "drover.route=slow.test/", "drover.http=serve")
	e.loaded(t)
	for _, url := range []string{"https://slow.test/", "http://slow.test/"} {
		e.reached(t, url)
		idle := e.client(false)
		t.Cleanup(idle.CloseIdleConnections)
		res, err := idle.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	answer := make(chan error, 1)
	go func() {
		res, err := e.client(false).Get("https://slow.test/slow")
		if err == nil {
			var body []byte
			body, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil && string(body) != "at last" {
				err = fmt.Errorf("status %d: %s", res.StatusCode, body)
			}
		}
		answer <- err
	}()
	select {
	case <-arrived:
	case err := <-answer:
		t.Fatalf("the request did not arrive: %v", err)
	}
	list, _, err := e.nomad.Jobs().Allocations("edge", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(list, func(a *api.AllocationListStub) bool { return a.ClientStatus == api.AllocClientStatusRunning })
	if at < 0 {
		t.Fatal("the edge does not run")
	}
	restarted := make(chan error, 1)
	go func() {
		restarted <- e.nomad.Allocations().Restart(&api.Allocation{ID: list[at].ID, NodeID: list[at].NodeID}, "", nil)
	}()
	listens := func() bool {
		conn, err := net.DialTimeout("tcp", e.Loopback()+":9443", time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	eventually(t, "nothing listens", func() bool { return !listens() })
	select {
	case err := <-answer:
		t.Fatalf("a request that was running has ended: %v", err)
	case <-time.After(3 * time.Second): // longer than it waits without one
	}
	free()
	if err := <-answer; err != nil {
		t.Errorf("a request that was running: %v", err)
	}
	began := time.Now()
	eventually(t, "the edge listens again", listens)
	if took := time.Since(began); took > 15*time.Second { // half of var.drain
		t.Errorf("it took %s", took)
	}
	if err := <-restarted; err != nil {
		t.Error(err)
	}
	e.reached(t, "https://slow.test/")
}

// ofEdge lists the processes of the edge's task: those with its environment,
// and the first of nginx, which writes its title over that.
func (e *entrance) ofEdge(t testing.TB) []int {
	t.Helper()
	var pids []int
	add := func(text string) {
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	for _, f := range glob(t, "/proc/[0-9]*/environ") {
		env, err := os.ReadFile(f)
		if err == nil && bytes.Contains(env, []byte("NOMAD_JOB_ID=edge\x00")) && bytes.Contains(env, []byte("NOMAD_TASK_DIR="+e.Dir()+"/")) {
			add(filepath.Base(filepath.Dir(f)))
		}
	}
	if e.kind == edge.Nginx {
		for _, f := range glob(t, filepath.Join(e.Dir(), "alloc/*/nginx/local/nginx.pid")) {
			pid, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			add(string(pid))
		}
	}
	if len(pids) == 0 {
		t.Fatal("the edge has no process")
	}
	return pids
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
