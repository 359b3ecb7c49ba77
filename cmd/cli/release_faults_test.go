package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
)

// struck deploys the second version of two services through a proxy. When the first
// service is submitted, the proxy calls strike with the number of each request;
// strike answers the request and returns true, or returns false.
func struck(t *testing.T, env []string, name string, strike func(n int64, w http.ResponseWriter, r *http.Request) bool) (w *world, out string, code int) {
	w = newWorld(t, env, name)
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}})
	slowly(w, "a", "21s") // longer than a lease
	proxy := proxyOf(t, env)
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, code = run(w.command(through(proxy, env), "deploy", w.dir))
	}()
	w.until("a is submitted", func() bool { return w.value("a") == "2" })
	var n atomic.Int64
	proxy.Before(func(res http.ResponseWriter, req *http.Request) bool { return !strike(n.Add(1), res, req) })
	<-done
	return w, out, code
}

// A refused token is no failure of a service: the release stays open and can be
// resumed.
func refusedMidway(t *testing.T, env []string) {
	w, out, code := struck(t, env, "refused", func(_ int64, res http.ResponseWriter, _ *http.Request) bool {
		http.Error(res, "Permission denied", http.StatusForbidden)
		return true
	})
	if code != exitCluster {
		t.Errorf("got exit code %d, want %d:\n%s", code, exitCluster, out)
	}
	w.want(out, "a: unreachable", "refuses the token now", "Next: drover resume")
	w.drover(exitOK, "resume", w.name)
	if w.value("a") != "2" || w.value("b") != "2" {
		t.Errorf("got a=%s, b=%s; want 2 and 2", w.value("a"), w.value("b"))
	}
}

// unwell writes one of the error answers of a proxy before Nomad, or of a server
// without a leader.
func unwell(res http.ResponseWriter, n int) {
	status := []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}[n%4]
	http.Error(res, http.StatusText(status), status)
}

// A release succeeds although a third of all requests are answered with an error.
func badAnswers(t *testing.T, env []string) {
	w, out, code := struck(t, env, "answers", func(n int64, res http.ResponseWriter, _ *http.Request) bool {
		if n%3 != 0 {
			return false
		}
		unwell(res, int(n/3))
		return true
	})
	if code != exitOK || w.value("b") != "2" {
		t.Errorf("got exit code %d and b=%s, want %d and b=2:\n%s", code, w.value("b"), exitOK, out)
	}
	w.unlocked()
}

// A lease that cannot be renewed for longer than its TTL is still held, because Nomad
// adds a grace period. drover must not take it for the lock of another holder.
func leaseKept(t *testing.T, env []string) {
	begun := sync.OnceValue(time.Now)
	w, out, code := struck(t, env, "kept", func(_ int64, res http.ResponseWriter, req *http.Request) bool {
		if time.Since(begun()) > record.LockTTL+4*time.Second || !req.URL.Query().Has("lock-renew") {
			return false
		}
		http.Error(res, "busy", http.StatusServiceUnavailable)
		return true
	})
	if code != exitOK || w.value("b") != "2" {
		t.Errorf("got exit code %d and b=%s, want %d and b=2:\n%s", code, w.value("b"), exitOK, out)
	}
	w.unlocked()
}

// A gate that cannot read the state of the services leaves the release open, and is
// evaluated again by resume.
func gateNotSeen(t *testing.T, env []string) {
	w := newWorld(t, env, "unseen")
	w.write(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"})
	prod := t.TempDir() + "/default.hcl"
	if err := os.WriteFile(prod, []byte("wave \"all\" {\n  bake = \"1s\"\n  gate {\n    timeout = \"1s\"\n  }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := proxyOf(t, env)
	proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path != "/v1/allocations" || w.value("a") != "2" {
			return true
		}
		http.Error(res, "No cluster leader", http.StatusInternalServerError)
		return false
	})
	out, code := run(w.command(through(proxy, env), "deploy", w.dir, "-e", prod, "--unreachable-after", "3s"))
	if code != exitCluster || w.value("a") != "2" {
		t.Errorf("got exit code %d and a=%s, want %d and a=2:\n%s", code, w.value("a"), exitCluster, out)
	}
	w.want(out, "wave all: its gate: the services could not be seen for 3s", "(release 2 is interrupted)", "Next: drover resume")
	last, err := w.releases().Last(t.Context())
	if err != nil || last.State != record.Interrupted || last.Waves[0].State != record.Interrupted {
		t.Errorf("got release %+v (%v), want it and its wave interrupted", last, err)
	}
	w.want(w.drover(exitOK, "resume", w.name), "(release 2 is deployed)")
	if last, err = w.releases().Last(t.Context()); err != nil || last.Waves[0].State != record.Done {
		t.Errorf("got release %+v (%v), want its wave deployed", last, err)
	}
	w.unlocked()
}

// A job that an autoscaler scales while a release is open is not a change by another
// client, neither for resume nor for a revert.
func scaledMeanwhile(t *testing.T, env []string) {
	w := newWorld(t, env, "scaled")
	scale := func(service string, n int) {
		if _, _, err := w.nomad.Jobs().Scale(w.job(service), "g", &n, "load", false, nil, nil); err != nil {
			t.Error(err)
		}
	}
	count := func(service string) int {
		job, _, err := w.nomad.Jobs().Info(w.job(service), nil)
		if err != nil {
			t.Fatal(err)
		}
		return *job.TaskGroups[0].Count
	}
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}, scaled: true}, svc{name: "c", value: "1", scaled: true})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}, scaled: true})
	slowly(w, "a", "8s")
	w.interrupted("a", "2")
	scale("b", 2) // will be changed
	scale("c", 2) // will be pruned
	w.drover(exitOK, "resume", w.name)
	if got := w.specs(); w.value("b") != "2" || count("b") != 2 || len(got) != 2 {
		t.Errorf("got b=%s with count %d and jobs %v; want b=2, count 2, two jobs", w.value("b"), count("b"), got)
	}

	w.write(svc{name: "a", value: "3"}, svc{name: "b", value: "3", scaled: true}, svc{name: "c", value: "3", deps: []string{"b"}, crash: true})
	proxy := proxyOf(t, env)
	var registrations atomic.Int64
	proxy.Before(func(_ http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodPut && req.URL.Path == "/v1/jobs" && registrations.Add(1) == 3 { // that of c
			scale("b", 3)
		}
		return true
	})
	out, code := run(w.command(through(proxy, env), "deploy", w.dir))
	if code != exitReverted || w.value("b") != "2" || count("b") != 3 {
		t.Errorf("got exit code %d, b=%s with count %d; want %d, b=2, count 3:\n%s", code, w.value("b"), count("b"), exitReverted, out)
	}
	w.unlocked()
}

// A release stays open if its revert is interrupted, or if Nomad does not answer while
// a job is reverted.
func backInterrupted(t *testing.T, env []string) {
	for _, test := range []struct {
		name string
		code int
		said string
		end  func(*exec.Cmd, *devtest.Proxy)
	}{
		{"stopped", exitCancelled, "release 2 is reverting", func(cmd *exec.Cmd, _ *devtest.Proxy) { _ = cmd.Process.Signal(os.Interrupt) }},
		{"unreached", exitCluster, "submitted; Nomad has not answered for 2s", func(_ *exec.Cmd, proxy *devtest.Proxy) {
			proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
				if !strings.HasPrefix(req.URL.Path, "/v1/job") && !strings.HasPrefix(req.URL.Path, "/v1/deployment") {
					return true // of the record
				}
				http.Error(res, "No cluster leader", http.StatusInternalServerError)
				return false
			})
		}},
	} {
		w := newWorld(t, env, test.name)
		w.write(svc{name: "a", value: "1"})
		slowly(w, "a", "8s")
		w.drover(exitOK, "deploy", w.dir)
		w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}})
		slowly(w, "b", "20s")
		w.interrupted("b", "2")

		proxy := proxyOf(t, env)
		cmd := w.command(through(proxy, env), "abort", w.name, "--unreachable-after", "2s")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.until("a is reverted", func() bool { return w.value("a") == "1" })
		line := func() record.Service { // of a
			last, err := w.releases().Last(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lines, err := w.releases().Services(t.Context(), last)
			if err != nil {
				t.Fatal(err)
			}
			return lines[0]
		}
		w.until("the revert of a is recorded", func() bool { l := line(); return l.Step == record.StepReverting && l.Index > l.Planned })
		test.end(cmd, proxy)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: got exit code %d, want %d:\n%s", test.name, code, test.code, out.String())
		}
		w.want(out.String(), test.said, "Next: drover resume")
		if last, err := w.releases().Last(t.Context()); err != nil || last.State != record.Reverting || line().Step != record.StepReverting {
			t.Errorf("%s: got release %+v (%v) with a %s, want both reverting", test.name, last, err, line().Step)
		}
		w.drover(exitOK, "resume", w.name)
		if last, err := w.releases().Last(t.Context()); err != nil || last.State != record.Aborted {
			t.Errorf("%s: got release %+v (%v), want it aborted", test.name, last, err)
		}
		if w.value("a") != "1" || len(w.specs()) != 1 {
			t.Errorf("%s: got a=%s and jobs %v, want a=1 and no other job", test.name, w.value("a"), w.specs())
		}
		w.unlocked()
	}
}

// dead returns the environment of a proxy that answers "No cluster leader" to requests
// about jobs, for two seconds from the first request of each kind, which is longer
// than one request is retried. It passes requests of the record, and all requests
// while on returns false.
func dead(t *testing.T, env []string, on func() bool) []string {
	proxy := proxyOf(t, env)
	var mu sync.Mutex
	first := map[string]time.Time{}
	proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
		if !strings.HasPrefix(req.URL.Path, "/v1/job") && !strings.HasPrefix(req.URL.Path, "/v1/eval") || !on() {
			return true
		}
		mu.Lock()
		defer mu.Unlock()
		kind := req.Method + req.URL.Path + req.URL.Query().Get("purge")
		if first[kind].IsZero() {
			first[kind] = time.Now()
		}
		if time.Since(first[kind]) > 2*time.Second {
			return true
		}
		http.Error(res, "No cluster leader", http.StatusInternalServerError)
		return false
	})
	return through(proxy, env)
}

// A revert and a prune retry during an outage as a deploy does.
func badNetwork(t *testing.T, env []string) {
	w := newWorld(t, env, "network")
	w.write(svc{name: "a", value: "1"}, svc{name: "c", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	before := w.specs()
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}}, svc{name: "c", value: "1"})
	slowly(w, "b", "20s")
	w.interrupted("b", "2")
	out, code := run(w.command(dead(t, env, func() bool { return true }), "abort", w.name))
	if after := w.specs(); code != exitOK || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got exit code %d and jobs\n%v\nwant %d and\n%v\n%s", code, after, exitOK, before, out)
	}

	w.write(svc{name: "a", value: "3"})
	submitted := func() bool { return w.value("a") == "3" }
	out, code = run(w.command(dead(t, env, submitted), "deploy", w.dir, "--prune"))
	if code != exitOK || w.value("a") != "3" || len(w.specs()) != 1 {
		t.Errorf("got exit code %d and jobs %v, want %d and only a:\n%s", code, w.specs(), exitOK, out)
	}
	w.unlocked()
}

// The answer to a registration is lost, and so are all later answers. Before the
// release is resumed, the version fails and Nomad reverts it. drover must not take
// that for a change by another client.
func lostAndFailed(t *testing.T, env []string) {
	w := newWorld(t, env, "lost")
	stack := func(s svc) {
		w.write(s)
		path := w.dir + "/a.nomad.hcl"
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.Replace(text, []byte("update {"), []byte("update {\n    auto_revert = true"), 1)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stack(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	stack(svc{name: "a", value: "2", crash: true})
	proxy := proxyOf(t, env)
	var gone atomic.Bool
	proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
		if !strings.HasPrefix(req.URL.Path, "/v1/job") {
			return true
		}
		if req.Method == http.MethodPut && req.URL.Path == "/v1/jobs" && !gone.Swap(true) {
			var body map[string]any
			if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			if _, err := w.nomad.Raw().Write("/v1/jobs", body, nil, nil); err != nil {
				t.Error(err)
			}
		}
		if gone.Load() {
			http.Error(res, "bad gateway", http.StatusBadGateway)
		}
		return !gone.Load()
	})
	out, code := run(w.command(through(proxy, env), "deploy", w.dir, "--unreachable-after", "2s"))
	if code != exitCluster {
		t.Errorf("got exit code %d, want %d:\n%s", code, exitCluster, out)
	}
	w.until("Nomad reverts the job", func() bool {
		job, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
		return err == nil && *job.Version == 2 && w.value("a") == "1"
	})
	w.want(w.drover(exitReverted, "resume", w.name), "Nomad reverted it to the former version", "(release 2 is reverted)")
	w.unlocked()
}

// busyAnywhere makes Nomad answer with errors after one of drover's writes, for longer
// than one request is retried. A release that has begun only takes longer, whether it
// is deployed, reverted or resumed.
func busyAnywhere(t *testing.T, env []string, verb string, slots chan struct{}) {
	atWrites(t, 8, 9, slots, func(t *testing.T, n int, program string) bool {
		w := newWorld(t, env, fmt.Sprintf("busy%s%d", verb, n))
		w.program = program
		w.write(version1()...)
		w.drover(exitOK, "deploy", w.dir)
		before := w.specs()
		next, want, args := version2(), exitOK, []string{"deploy", w.dir, "--prune"}
		if verb == "back" {
			next[3].crash, want = true, exitReverted // d
		}
		w.write(next...)
		if verb == "resume" {
			k := &killer{n: 18} // some services are submitted, not all
			if out, code := k.run(w.command(k.serve(t, env), "deploy", w.dir, "--prune")); code != -1 {
				t.Fatalf("the deploy was not killed:\n%s", out)
			}
			w.drover(exitOK, "unlock", w.name, "--force")
			args = []string{"resume", w.name}
		}
		proxy := proxyOf(t, env)
		var begun atomic.Pointer[time.Time]
		proxy.Wrote(func(write int) {
			if write == n {
				now := time.Now()
				begun.Store(&now)
			}
		})
		proxy.Before(func(res http.ResponseWriter, _ *http.Request) bool {
			if at := begun.Load(); at == nil || time.Since(*at) > 3*time.Second {
				return true
			}
			unwell(res, n)
			return false
		})
		out, code := run(w.command(through(proxy, env), args...))
		if begun.Load() == nil {
			return true
		}
		t.Logf("busy after %s", proxy.Writes()[n-1])
		w.unlocked()
		if code != want && !strings.Contains("\n"+out, "\nrelease 2") { // nothing has begun
			if code != exitCluster && code != exitError || verb != "resume" && fmt.Sprint(w.specs()) != fmt.Sprint(before) {
				t.Errorf("got exit code %d, want %d or %d and no changed job:\n%s", code, exitCluster, exitError, out)
			}
			return false
		}
		if code != want {
			t.Errorf("got exit code %d, want %d:\n%s", code, want, out)
		}
		if verb == "back" && fmt.Sprint(w.specs()) != fmt.Sprint(before) {
			t.Errorf("got jobs\n%v\nwant\n%v\n%s", w.specs(), before, out)
		}
		for _, s := range next {
			if got := w.value(s.name); verb != "back" && got != s.value {
				t.Errorf("value of %s: got %q, want %q", s.name, got, s.value)
			}
		}
		if last, err := w.releases().Last(t.Context()); err != nil || last.State.Open() {
			t.Errorf("got release %v (%v), want one that is not open", last, err)
		}
		return false
	})
}

// drover writes the end of a release, or the start of its revert, when Nomad answers
// again. If Nomad stays unavailable, the release stays open.
func endNotWritten(t *testing.T, env []string) {
	for name, test := range map[string]struct {
		crash      bool
		silence    string
		busy       time.Duration
		code       int
		said, then string // output of the deploy, and of resume
	}{
		"late":      {false, "1m", 4 * time.Second, exitOK, "(release 2 is deployed)", ""},
		"late back": {true, "1m", 4 * time.Second, exitReverted, "(release 2 is reverted)", ""},
		"never":     {false, "1s", time.Hour, exitCluster, "drover resume", "(release 2 is deployed)"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, env, "end"+strings.ReplaceAll(name, " ", ""))
			w.write(svc{name: "a", value: "1"})
			w.drover(exitOK, "deploy", w.dir)
			w.write(svc{name: "a", value: "2", crash: test.crash})
			head := "/v1/var/" + record.Folder(w.name, "default") + "/releases/000002"
			proxy := proxyOf(t, env)
			begun := sync.OnceValue(time.Now)
			var struck atomic.Bool
			proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
				// A blocking query on it only waits.
				if req.URL.Path != head || req.URL.Query().Has("index") || w.value("a") != "2" || time.Since(begun()) > test.busy {
					return true
				}
				struck.Store(true)
				http.Error(res, "bad gateway", http.StatusBadGateway)
				return false
			})
			out, code := run(w.command(through(proxy, env), "deploy", w.dir, "--unreachable-after", test.silence))
			if code != test.code || !struck.Load() {
				t.Errorf("got exit code %d, want %d:\n%s", code, test.code, out)
			}
			w.want(out, test.said)
			if test.then != "" {
				w.want(w.drover(exitOK, "resume", w.name), test.then)
			}
			w.unlocked()
		})
	}
}

// If Nomad does not answer after the release succeeded, drover retries. If Nomad stays
// unavailable, the error says that the release is deployed. The desired records of a
// later release are not overwritten.
func dnsUnanswered(t *testing.T, env []string) {
	w := newWorld(t, env, "unanswered")
	wanted := dns.WantedFolder + "/" + dns.Owner(w.name, "default")
	// begin returns when drover retries to list or read the desired records (each request is
	// sent four times), or has ended.
	begin := func(args ...string) (answer func(), end func() (string, int)) {
		proxy := proxyOf(t, env)
		var n atomic.Int64
		asked, done := make(chan struct{}), make(chan struct{})
		proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path != "/v1/var/"+wanted && !strings.HasPrefix(req.URL.Query().Get("prefix"), wanted) {
				return true
			}
			if n.Add(1) == 5 {
				close(asked)
			}
			http.Error(res, "busy", http.StatusTooManyRequests)
			return false
		})
		var out string
		var code int
		go func() {
			defer close(done)
			out, code = run(w.command(through(proxy, env), args...))
		}()
		select {
		case <-asked:
		case <-done:
		}
		return func() { proxy.Before(nil) }, func() (string, int) { <-done; return out, code }
	}
	w.write(svc{name: "a", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"})
	for i, args := range [][]string{{"deploy", w.dir}, {"rollback", w.name}} {
		answer, end := begin(args...)
		answer()
		if out, code := end(); code != exitOK || !strings.Contains(out, fmt.Sprintf("(release %d is deployed)", i+2)) {
			t.Errorf("drover %s: got exit code %d, want %d:\n%s", args[0], code, exitOK, out)
		}
	}

	w.write(svc{name: "a", value: "4"})
	_, end := begin("deploy", w.dir, "--unreachable-after", "2s")
	out, code := end()
	if code != exitCluster {
		t.Errorf("got exit code %d, want %d", code, exitCluster)
	}
	w.want(out, "(release 4 is deployed)", "Error: release 4 is deployed, but its DNS records could not be updated: Nomad at", "answers 429")

	w.write(svc{name: "a", value: "5"})
	answer, end := begin("deploy", w.dir)
	w.write(svc{name: "a", value: "6"})
	w.drover(exitOK, "deploy", w.dir)
	theirs := &api.Variable{Path: wanted, Items: api.VariableItems{"x": "of release 6"}}
	if _, _, err := w.nomad.Variables().Create(theirs, nil); err != nil {
		t.Fatal(err)
	}
	answer()
	if out, code := end(); code != exitOK {
		t.Errorf("got exit code %d, want %d:\n%s", code, exitOK, out)
	}
	if _, _, err := w.nomad.Variables().Read(wanted, nil); err != nil {
		t.Errorf("the desired records of release 6 are gone: %v", err)
	}
}
