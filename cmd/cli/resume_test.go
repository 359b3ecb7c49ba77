package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

// environment writes the file of an environment and returns its path, for -e.
func (w *world) environment(name, text string) string {
	w.Helper()
	dir := w.TempDir()
	write(w.T, dir, map[string]string{name + ".hcl": text})
	return dir + "/" + name + ".hcl"
}

// toBatch makes a service of the stack a batch job that runs to completion. Nomad
// refuses to update a service job with it.
func (w *world) toBatch(service string) {
	w.Helper()
	path := w.dir + "/" + service + ".nomad.hcl"
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "  update {")
	_, rest, _ = strings.Cut(rest, "  }\n")
	write(w.T, w.dir, map[string]string{service + ".nomad.hcl": head + "  type = \"batch\"\n" + strings.Replace(rest, `"1h"`, `"100ms"`, 1)})
}

// --replace of the deploy also allows the later waves of its release to recreate jobs,
// without a flag of approve.
func approvedReplacement(t *testing.T, env []string) {
	w := newWorld(t, env, "retyped")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	asked := w.environment("asked", "wave \"first\" {\n  services = [\"a\"]\n}\nwave \"second\" {\n  approve = true\n}\n")
	w.want(w.drover(exitPromotion, "deploy", w.dir, "-e", asked), "awaiting-approval")
	w.drover(exitOK, "approve", w.name, "-e", "asked")
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2"})
	w.toBatch("b")
	w.drover(exitUsage, "deploy", w.dir, "-e", asked)
	w.drover(exitPromotion, "deploy", w.dir, "-e", asked, "--replace")
	w.want(w.drover(exitOK, "approve", w.name, "-e", "asked"), "(release 2 is deployed)")
	job, _, err := w.nomad.Jobs().Info(w.job("b"), nil)
	if err != nil || *job.Type != "batch" || w.value("a") != "2" {
		t.Errorf("got b %v and a=%s (%v), want b of type batch and a=2", job, w.value("a"), err)
	}
}

// --history-max is stored, and applies to every later verb that makes or ends a
// release.
func historyKept(t *testing.T, env []string) {
	w := newWorld(t, env, "kept-history")
	kept := func(want ...int) {
		t.Helper()
		got, err := w.releases().Numbers(t.Context())
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got releases %v (%v), want %v", got, err, want)
		}
	}
	w.write(svc{name: "a", value: "1"})
	w.want(w.drover(exitUsage, "deploy", w.dir, "--history-max", "0"), "--history-max must be greater than 0")
	w.drover(exitOK, "deploy", w.dir, "--history-max", "2")
	w.drover(exitOK, "redeploy", w.name)
	w.drover(exitOK, "redeploy", w.name)
	kept(2, 3)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "1", deps: []string{"a"}})
	slowly(w, "a", "3s")
	cmd := w.command(env, "deploy", w.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("a is submitted", func() bool { return w.value("a") == "2" })
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	w.drover(exitOK, "resume", w.name)
	kept(3, 4)
	w.drover(exitOK, "rollback", w.name, "--prune", "--history-max", "3")
	w.drover(exitOK, "rollback", w.name, "4")
	kept(4, 5, 6)
	// A record of an older drover has no such number.
	if _, err := w.releases().Change(t.Context(), 6, func(h *record.Release) error { h.Keep = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	w.drover(exitOK, "redeploy", w.name)
	kept(4, 5, 6, 7)
}

// pause pauses the deployments of all reachable targets. The deployments of an
// unreachable target are paused when the command is repeated. A target without
// deployments need not be reachable.
func pausedAbroad(t *testing.T, env []string) {
	w := newWorld(t, env, "abroad")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"}, svc{name: "c", value: "1"})
	slowly(w, "a", "25s")
	slowly(w, "b", "25s")
	far, later := proxyOf(t, env), proxyOf(t, env)
	abroad := w.environment("abroad", fmt.Sprintf(`
cluster "far" {
  address = %q
}
cluster "later" {
  address = %q
}
target "far" {
  cluster  = "far"
  services = ["b"]
}
target "later" {
  cluster  = "later"
  services = ["c"]
}
target "near" {
  services = ["a"]
}
wave "now" {
  targets = ["far", "near"]
}
wave "later" {}
`, far.URL, later.URL))
	deploy := w.command(env, "deploy", w.dir, "-e", abroad)
	if err := deploy.Start(); err != nil {
		t.Fatal(err)
	}
	records := record.OpenReleases(w.nomad, w.name, "abroad")
	w.until("a and b are recorded as submitted", func() bool {
		head, err := records.Last(t.Context())
		if err != nil || head == nil {
			return false
		}
		lines, err := records.Services(t.Context(), head)
		submitted := slices.DeleteFunc(lines, func(l record.Service) bool { return l.Step != record.StepSubmitted })
		return err == nil && len(submitted) == 2
	})
	w.until("Nomad has made the deployments of a and b", func() bool {
		for _, service := range []string{"a", "b"} {
			if d, _, err := w.nomad.Jobs().LatestDeployment(w.job(service), nil); err != nil || d == nil {
				return false
			}
		}
		return true
	})
	away := func(res http.ResponseWriter, _ *http.Request) bool {
		http.Error(res, "busy", http.StatusServiceUnavailable)
		return false
	}
	far.Before(away)
	later.Before(away)
	w.want(w.drover(exitCluster, "pause", w.name, "-e", "abroad"), "release 1 is paused, but not all of its deployments", far.URL, "pause it again")
	_ = deploy.Wait()
	deployments := func(a, b string) {
		t.Helper()
		for service, want := range map[string]string{"a": a, "b": b} {
			d, _, err := w.nomad.Jobs().LatestDeployment(w.job(service), nil)
			if err != nil || d == nil || d.Status != want {
				t.Errorf("deployment of %s: got %+v (%v), want %s", service, d, err, want)
			}
		}
	}
	deployments("paused", "running")
	far.Before(nil)
	w.want(w.drover(exitOK, "pause", w.name, "-e", "abroad"), "release 1 is paused")
	deployments("paused", "paused")
	later.Before(nil)
	w.want(w.drover(exitOK, "resume", w.name, "-e", "abroad"), "(release 1 is deployed)")
	w.drover(exitBusy, "pause", w.name, "-e", "abroad")
}

// Services that a partial deploy does not touch are part of its release, even if the
// stack no longer has the service or target.
func carriedOn(t *testing.T, env []string) {
	w := newWorld(t, env, "carried")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"})
	w.drover(exitOK, "deploy", w.dir, "--service", "a")
	w.drover(exitOK, "drift", w.name)
	w.drover(exitOK, "redeploy", w.name, "b")
	w.write(svc{name: "a", value: "3"})
	w.want(w.drover(exitOK, "deploy", w.dir, "--prune"), "b: stopped")
	w.drover(exitOK, "rollback", w.name, "2")
	if w.value("a") != "2" || w.value("b") != "1" {
		t.Errorf("got a=%s, b=%s; want 2 and 1", w.value("a"), w.value("b"))
	}

	w = newWorld(t, env, "carried-target")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	near := "target \"near\" {\n  services = [\"a\"]\n}\n"
	far := fmt.Sprintf("cluster \"far\" {\n  address = %q\n}\ntarget \"far\" {\n  cluster  = \"far\"\n  services = [\"b\"]\n}\n", proxyOf(t, env).URL)
	w.drover(exitOK, "deploy", w.dir, "-e", w.environment("moving", near+far))
	w.write(svc{name: "a", value: "2"})
	w.drover(exitOK, "deploy", w.dir, "-e", w.environment("moving", near), "--service", "a")
	w.drover(exitOK, "drift", w.name, "-e", "moving")
	w.want(w.drover(exitOK, "redeploy", w.name, "-e", "moving"), "b@far")
}

// A run that failed because of the cluster, or because its node was drained, does not
// block the next run. A run whose action failed does.
func scheduleGoesOn(t *testing.T, env []string) {
	w := newWorld(t, env, "nights")
	w.write(svc{name: "a", value: "1"})
	prod := w.environment("prod", `
drover_driver "raw_exec" {
  path = "/bin/false"
}
schedule "nightly" {
  crons  = ["0 0 1 1 *"]
  action = "redeploy"
}
`)
	w.drover(exitOK, "deploy", w.dir, "-e", prod)
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", prod)
	fire := []string{"schedule", "fire", w.name, "nightly", "-e", "prod"}
	proxy := proxyOf(t, env)
	cmd := w.command(through(proxy, env), fire...)
	planning := func(f func(http.ResponseWriter, *http.Request)) {
		proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, "/plan") {
				return true
			}
			f(res, req)
			return false
		})
	}
	planning(func(res http.ResponseWriter, _ *http.Request) {
		http.Error(res, "No cluster leader", http.StatusServiceUnavailable)
	})
	if out, code := run(cmd); code != exitCluster {
		t.Errorf("without a leader: got exit code %d, want %d:\n%s", code, exitCluster, out)
	}
	stopped := w.command(through(proxy, env), fire...)
	asked := make(chan struct{}, 1)
	planning(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // the server notices a lost client only after the body
		select {
		case asked <- struct{}{}:
		default:
		}
		<-req.Context().Done()
	})
	var out bytes.Buffer
	stopped.Stdout, stopped.Stderr = &out, &out
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Error("timed out after a minute, want a plan request")
	}
	_ = stopped.Process.Signal(os.Interrupt)
	if _ = stopped.Wait(); stopped.ProcessState.ExitCode() != exitCancelled {
		t.Errorf("after SIGINT: got exit code %d, want %d:\n%s", stopped.ProcessState.ExitCode(), exitCancelled, out.Bytes())
	}
	w.want(w.drover(exitOK, fire...), "deployed")

	// A job of another client with another type: only a purge could restore it.
	if _, _, err := w.nomad.Jobs().Deregister(w.job("a"), true, nil); err != nil {
		t.Fatal(err)
	}
	w.toBatch("a")
	w.drover(exitOK, "deploy", w.dir)
	// Without the record, no release owns the job.
	if err := record.OpenReleases(w.nomad, w.name, stack.DefaultEnvironment).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitError, fire...), "error", "its type changes from batch to service")
	if job, _, err := w.nomad.Jobs().Info(w.job("a"), nil); err != nil || *job.Type != "batch" {
		t.Errorf("got job %v (%v), want it unchanged with type batch", job, err)
	}
	w.want(w.drover(exitOK, fire...), "skipped", "the same failed")
}
