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

// struck deploys the second version of two services through a proxy that
// strikes, with the number of the request, once the first is submitted.
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

// refusedMidway: that the token is refused says nothing of the services, and
// the release can be gone on with.
func refusedMidway(t *testing.T, env []string) {
	w, out, code := struck(t, env, "refused", func(_ int64, res http.ResponseWriter, _ *http.Request) bool {
		http.Error(res, "Permission denied", http.StatusForbidden)
		return true
	})
	if code != exitCluster {
		t.Errorf("the deploy ended with %d:\n%s", code, out)
	}
	w.want(out, "a: unreachable", "refuses the token now", "Next: drover resume")
	w.drover(exitOK, "resume", w.name)
	if w.value("a") != "2" || w.value("b") != "2" {
		t.Errorf("a %s, b %s", w.value("a"), w.value("b"))
	}
}

// unwell is one of the answers of a proxy before Nomad, or a server without a
// leader.
func unwell(res http.ResponseWriter, n int) {
	status := []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}[n%4]
	http.Error(res, http.StatusText(status), status)
}

// badAnswers: a third of what a proxy before Nomad, or a server without a
// leader, answers is of no use, and the release goes its way.
func badAnswers(t *testing.T, env []string) {
	w, out, code := struck(t, env, "answers", func(n int64, res http.ResponseWriter, _ *http.Request) bool {
		if n%3 != 0 {
			return false
		}
		unwell(res, int(n/3))
		return true
	})
	if code != exitOK || w.value("b") != "2" {
		t.Errorf("the deploy ended with %d, b has %s:\n%s", code, w.value("b"), out)
	}
	w.unlocked()
}

// leaseKept: a lease that could not be renewed for a while is still there,
// because Nomad has kept it longer, and is not mistaken for somebody else's.
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
		t.Errorf("the deploy ended with %d, b has %s:\n%s", code, w.value("b"), out)
	}
	w.unlocked()
}

// gateNotSeen: a gate to which Nomad does not tell how the services are leaves
// the release open, and is looked at again when it is gone on with.
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
		t.Errorf("the deploy ended with %d, a has %s:\n%s", code, w.value("a"), out)
	}
	w.want(out, "wave all: its gate: the services could not be seen for 3s", "(release 2 is interrupted)", "Next: drover resume")
	last, err := w.releases().Last(t.Context())
	if err != nil || last.State != record.Interrupted || last.Waves[0].State != record.Interrupted {
		t.Errorf("the release is %+v, %v", last, err)
	}
	w.want(w.drover(exitOK, "resume", w.name), "(release 2 is deployed)")
	if last, err = w.releases().Last(t.Context()); err != nil || last.Waves[0].State != record.Done {
		t.Errorf("the release is %+v, %v", last, err)
	}
	w.unlocked()
}

// scaledMeanwhile: what an autoscaler does to a job while a release is open
// does not make it somebody else's, neither forward nor back.
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
	scale("b", 2) // is to change
	scale("c", 2) // is to go
	w.drover(exitOK, "resume", w.name)
	if got := w.specs(); w.value("b") != "2" || count("b") != 2 || len(got) != 2 {
		t.Errorf("b has %s and %d, %v", w.value("b"), count("b"), got)
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
		t.Errorf("the deploy ended with %d, b has %s and %d:\n%s", code, w.value("b"), count("b"), out)
	}
	w.unlocked()
}

// backInterrupted: a release whose way back is interrupted, or whose Nomad
// does not answer while a job goes back, is not back yet.
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
		w.until("a goes back", func() bool { return w.value("a") == "1" })
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
		w.until("that is known", func() bool { l := line(); return l.Step == record.StepReverting && l.Index > l.Planned })
		test.end(cmd, proxy)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: the abort ended with %d:\n%s", test.name, code, out.String())
		}
		w.want(out.String(), test.said, "Next: drover resume")
		if last, err := w.releases().Last(t.Context()); err != nil || last.State != record.Reverting || line().Step != record.StepReverting {
			t.Errorf("%s: the release is %+v, %v, and a is %s", test.name, last, err, line().Step)
		}
		w.drover(exitOK, "resume", w.name)
		if last, err := w.releases().Last(t.Context()); err != nil || last.State != record.Aborted {
			t.Errorf("%s: the release is %+v, %v", test.name, last, err)
		}
		if w.value("a") != "1" || len(w.specs()) != 1 {
			t.Errorf("%s: a has %s, %v", test.name, w.value("a"), w.specs())
		}
		w.unlocked()
	}
}

// dead answers every request about jobs with no leader for some seconds, each
// beginning with the first of its kind: longer than a single request is tried.
// The record is not touched, and neither is anything while on says no.
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

// badNetwork: going back, and stopping what is not in the stack any more, is as
// patient with Nomad as a deploy.
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
		t.Errorf("the abort ended with %d:\n%s\nbefore\n%v\nafter\n%v", code, out, before, after)
	}

	w.write(svc{name: "a", value: "3"})
	submitted := func() bool { return w.value("a") == "3" }
	out, code = run(w.command(dead(t, env, submitted), "deploy", w.dir, "--prune"))
	if code != exitOK || w.value("a") != "3" || len(w.specs()) != 1 {
		t.Errorf("the deploy ended with %d, left are %v:\n%s", code, w.specs(), out)
	}
	w.unlocked()
}

// lostAndFailed: the answer to a registration is lost, and so are those to all
// that is asked afterwards; until somebody resumes, Nomad has found that version
// to fail and gone back. It is nobody else's work.
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
		t.Errorf("the deploy ended with %d:\n%s", code, out)
	}
	w.until("Nomad goes back", func() bool {
		job, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
		return err == nil && *job.Version == 2 && w.value("a") == "1"
	})
	w.want(w.drover(exitReverted, "resume", w.name), "Nomad went back to the version before", "(release 2 is reverted)")
	w.unlocked()
}

// busyAnywhere: a Nomad that answers with errors after one of drover's writes,
// for longer than a request is sent again, costs a release that has begun time
// and nothing else: one that is deployed, fails and goes back, or is resumed.
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
				t.Fatalf("it was not killed: %s", out)
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
				t.Errorf("it ended with %d:\n%s", code, out)
			}
			return false
		}
		if code != want {
			t.Errorf("it ended with %d, want %d:\n%s", code, want, out)
		}
		if verb == "back" && fmt.Sprint(w.specs()) != fmt.Sprint(before) {
			t.Errorf("before\n%v\nafter\n%v\n%s", before, w.specs(), out)
		}
		for _, s := range next {
			if got := w.value(s.name); verb != "back" && got != s.value {
				t.Errorf("%s has %q, want %q", s.name, got, s.value)
			}
		}
		if last, err := w.releases().Last(t.Context()); err != nil || last.State.Open() {
			t.Errorf("the release is %v, %v", last, err)
		}
		return false
	})
}

// endNotWritten: that a release is done, or is to go back, is written when
// Nomad answers again. When it does not, the release stays open.
func endNotWritten(t *testing.T, env []string) {
	for name, test := range map[string]struct {
		crash      bool
		silence    string
		busy       time.Duration
		code       int
		said, then string // what resume ends with
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
				// Watched, it is only waited for.
				if req.URL.Path != head || req.URL.Query().Has("index") || w.value("a") != "2" || time.Since(begun()) > test.busy {
					return true
				}
				struck.Store(true)
				http.Error(res, "bad gateway", http.StatusBadGateway)
				return false
			})
			out, code := run(w.command(through(proxy, env), "deploy", w.dir, "--unreachable-after", test.silence))
			if code != test.code || !struck.Load() {
				t.Errorf("the deploy ended with %d, want %d:\n%s", code, test.code, out)
			}
			w.want(out, test.said)
			if test.then != "" {
				w.want(w.drover(exitOK, "resume", w.name), test.then)
			}
			w.unlocked()
		})
	}
}

// dnsUnanswered: a Nomad that does not answer once the release is good is asked
// again. When it stays so, the command says what is done, and what somebody
// else has wanted of DNS since then stays.
func dnsUnanswered(t *testing.T, env []string) {
	w := newWorld(t, env, "unanswered")
	wanted := dns.WantedFolder + "/" + dns.Owner(w.name, "default")
	// begin returns when drover has asked in vain for what the stack wants of
	// DNS, and asks again (a request is sent four times), or has ended.
	begin := func(args ...string) (answer func(), end func() (string, int)) {
		proxy := proxyOf(t, env)
		var n atomic.Int64
		asked, done := make(chan struct{}), make(chan struct{})
		proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path != "/v1/var/"+wanted {
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
			t.Errorf("drover %s ended with %d:\n%s", args[0], code, out)
		}
	}

	w.write(svc{name: "a", value: "4"})
	_, end := begin("deploy", w.dir, "--unreachable-after", "2s")
	out, code := end()
	if code != exitCluster {
		t.Errorf("the deploy ended with %d", code)
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
		t.Errorf("the deploy ended with %d:\n%s", code, out)
	}
	if _, _, err := w.nomad.Variables().Read(wanted, nil); err != nil {
		t.Errorf("what release 6 wants of DNS is gone: %v", err)
	}
}
