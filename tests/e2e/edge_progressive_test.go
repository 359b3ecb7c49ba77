package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// envErrors is the part of the requests for /work, per cent, that a backend of this test
// binary answers with 500.
const envErrors = "DROVER_E2E_ERRORS"

// failing answers that part of the requests with 500.
func failing(h http.Handler, perCent string) http.Handler {
	n, err := strconv.ParseInt(perCent, 10, 64)
	if err != nil || n == 0 {
		return h
	}
	var work atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/work" && (work.Add(1)-1)*n%100 < n { // the first one, too
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// canaryErrors is a query for the part of the requests to canaries that fail.
func canaryErrors(name string) string {
	return fmt.Sprintf(`sum(rate(haproxy_backend_http_responses_total{proxy="%[1]s.version.canary",code="5xx"}[10s])) / sum(rate(haproxy_backend_http_responses_total{proxy="%[1]s.version.canary"}[10s]))`, name)
}

// gatedStack returns the directory of a stack of one service behind the edge, whose
// canaries a gate promotes. Name, binary, and the variables of runBackend.
func gatedStack(t *testing.T, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for path, text := range map[string]string{
		"stack.hcl": fmt.Sprintf("stack %q {}\nservice %[1]q {}\n", name),
		"variables.hcl": `variable "prometheus" { type = string }
variable "errors" { type = number }
variable "release" { type = number }
`,
		"environments/prod.hcl": fmt.Sprintf(`
wave "all" {
  promote = true
  bake    = "15s"
  gate {
    timeout = "30s"
    metric "errors" {
      prometheus = var.prometheus
      query      = %[2]q
      below      = 0.01
      interval   = "1s"
      failures   = 2
    }
  }
}
`, name, canaryErrors(name)),
		name + ".nomad.hcl": fmt.Sprintf(`
variable "errors" { type = number }
variable "release" { type = number }
job %[1]q {
  group "web" {
    count          = 2
    shutdown_delay = "2s"
    update {
      canary           = 1
      auto_revert      = true
      min_healthy_time = "500ms"
    }
    network {
      port "http" {}
    }
    service {
      name        = %[1]q
      port        = "http"
      tags        = ["stable", "drover.route=%[1]s.test/", "drover.weight=50 version stable", "drover.weight=50 version canary"]
      canary_tags = ["canary", "drover.route=%[1]s.test/", "drover.weight=50 version stable", "drover.weight=50 version canary"]
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "5s"
      }
    }
    task "web" {
      driver = "raw_exec"
      config {
        command = %[2]q
      }
      env {
        %[3]s   = "$${NOMAD_ADDR_http}"
        %[4]s   = var.errors
        RELEASE = var.release
      }
      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
`, name, exe, envBackend, envErrors),
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$${", "${")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testProgressive deploys versions of a service behind the edge whose canaries are judged
// by the metrics of the edge, in each kind of server of metrics.
func testProgressive(t *testing.T, e *entrance) {
	devtest.NeedsFull(t)
	edges, _, err := e.consul.Catalog().Service("edge", "metrics", nil)
	if err != nil || len(edges) != 1 {
		t.Fatalf("got %d edges and %v, want one", len(edges), err)
	}
	target := net.JoinHostPort(edges[0].ServiceAddress, strconv.Itoa(edges[0].ServicePort))
	tests := map[string]func(*testing.T){}
	for _, kind := range []string{devtest.Prometheus, devtest.VictoriaMetrics} {
		tests[kind] = func(t *testing.T) {
			server, stop := devtest.MetricsServer(t, kind, target)
			testGated(t, e, "gated-"+kind[:4], server, stop)
		}
	}
	devtest.Together(t, tests)
}

func testGated(t *testing.T, e *entrance, name, server string, stop func()) {
	dir := gatedStack(t, name)
	release := 0
	deploy := func(errors, want int, says string) {
		t.Helper()
		release++
		out, errs, code := e.drover.run(t.Context(), "deploy", dir, "-e", "prod",
			"-var", "prometheus="+server, "-var", fmt.Sprintf("errors=%d", errors), "-var", fmt.Sprintf("release=%d", release))
		if code != want || !strings.Contains(errs, says) {
			t.Fatalf("release %d with %d %% errors: got exit code %d, want %d and %q\n%s%s", release, errors, code, want, says, out, errs)
		}
	}
	running := func(want int) {
		t.Helper()
		job, _, err := e.nomad.Jobs().Info(name, nil)
		if err != nil || job.TaskGroups[0].Tasks[0].Env["RELEASE"] != strconv.Itoa(want) {
			t.Errorf("got job %+v and %v, want the spec of release %d", job, err, want)
		}
	}
	t.Cleanup(func() {
		if _, errs, code := e.drover.run(context.WithoutCancel(t.Context()), "destroy", name, "-e", "prod", "-y"); code != 0 {
			t.Errorf("drover destroy %s: exit code %d\n%s", name, code, errs)
		}
	})

	// The first version has no canaries.
	deploy(0, 5, "its gate is inconclusive: metric errors: no data")
	e.drover.must(t, "approve", name, "-e", "prod")

	e.reached(t, "https://"+name+".test/")
	sent, failed := e.load(t, "https://"+name+".test/work")
	ratio := func() string {
		q := url.Values{"query": {canaryErrors(name)}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server+"/api/v1/query?"+q.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		var a struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil || len(a.Data.Result) != 1 {
			return "none"
		}
		return fmt.Sprint(a.Data.Result[0].Value[1])
	}
	before := sent.Load()
	deploy(3, 4, ", not below 0.01")
	running(1)
	t.Logf("3 %% errors at half of the traffic: %d of %d requests failed until it was stopped", failed.Load(), sent.Load()-before)
	if n := failed.Load(); n == 0 || n*20 > sent.Load()-before {
		t.Errorf("%d of %d requests failed, want some, and less than 5 %%", n, sent.Load()-before)
	}
	eventually(t, "the errors are out of the range of the query", func() bool { r := ratio(); return r == "none" || r == "NaN" || r == "0" })
	deploy(0, 0, "metric errors: 0, below 0.01")
	running(3)

	stop()
	deploy(0, 5, "")
	if out := e.drover.must(t, "history", name, "-e", "prod"); !strings.Contains(out, "awaiting-promotion") {
		t.Errorf("without a server of metrics: got history\n%s\nwant a release that waits", out)
	}
	e.drover.must(t, "abort", name, "-e", "prod")
	running(3)
}

// load sends some 50 requests a second until the test ends, and counts them, and those
// that are answered with 500.
func (e *entrance) load(t *testing.T, url string) (sent, failed *atomic.Int64) {
	sent, failed = &atomic.Int64{}, &atomic.Int64{}
	client := e.client(false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done; client.CloseIdleConnections() })
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return
			}
			res, err := client.Do(req)
			if err != nil {
				continue
			}
			_ = res.Body.Close()
			sent.Add(1)
			if res.StatusCode == http.StatusInternalServerError {
				failed.Add(1)
			}
		}
	}()
	return sent, failed
}
