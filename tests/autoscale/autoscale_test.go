// Package autoscale holds the tests of the controller's autoscaler on real servers:
// Nomad, Consul, the HAProxy edge and Prometheus.
package autoscale

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad/variables"
)

// envServe makes this program a web server at the address that it has.
const envServe = "DROVER_AUTOSCALE_SERVE"

func TestMain(m *testing.M) {
	if address := os.Getenv(envServe); address != "" {
		serve(address)
		return
	}
	devtest.Main(m)
}

// serve answers requests until SIGINT, and those that have come before it ends.
func serve(address string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("VERSION")) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		_ = s.Shutdown(context.Background())
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}

const patience = time.Minute

// world is a cluster with an edge and a controller that scales.
type world struct {
	*devcluster.Cluster
	nomad  *api.Client
	consul *capi.Client
	drover devtest.Program
}

func start(t *testing.T, tools ...string) *world {
	t.Helper()
	cluster := devtest.Cluster(t, devcluster.Options{Tools: tools})
	env, err := cluster.Env("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "autoscale-") // open to the user of the controller
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{Cluster: cluster, drover: devtest.Program{Path: devtest.Build(t, dir), Env: env}}
	if w.nomad, err = api.NewClient(cluster.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	if w.consul, err = capi.NewClient(cluster.ConsulConfig()); err != nil {
		t.Fatal(err)
	}
	return w
}

// certificate stores what the edge needs before it starts.
func (w *world) certificate(t *testing.T) {
	t.Helper()
	now := time.Now()
	ca, key, err := pki.NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, private, err := pki.Sign(pki.Leaf{CommonName: "web.test", DNSNames: []string{"web.test"}, Lifetime: time.Hour}, ca, key, now)
	if err != nil {
		t.Fatal(err)
	}
	for path, items := range map[string]map[string]string{
		acme.Path("public"):  {acme.ItemBundle: certificate + private, variables.LayoutItem: strconv.Itoa(acme.Layout), "spec": `{"name":"public"}`, "status": "{}"},
		"drover/acme/public": {"thumbprint": "none"},
	} {
		if _, _, err := w.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// scaling is a scaling block with the checks of a policy. with a scaling block.
func scaling(policy string) string {
	return "scaling {\n  min = 1\n  max = 5\n  policy {\n    evaluation_interval = \"1s\"\n    cooldown = \"3s\"\n    cooldown_on_scale_up = \"2s\"\n" + policy + "\n  }\n}"
}

func mock(id, policy string) string {
	return devtest.MockJob{ID: id, Count: 1, Update: "max_parallel = 5", Group: scaling(policy)}.String()
}

// web is a job of real servers behind the edge.
const web = `
job "web" {
  group "g" {
    count          = 1
    shutdown_delay = "3s"
    %[3]s
    update {
      max_parallel     = 2
      min_healthy_time = "500ms"
      healthy_deadline = "1m"
    }
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      tags = ["drover.route=web.test/"]
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "5s"
      }
    }
    task "t" {
      driver       = "raw_exec"
      kill_timeout = "6s"
      config {
        command = %[1]q
      }
      env {
        DROVER_AUTOSCALE_SERVE = "${NOMAD_ADDR_http}"
        VERSION                = "%[2]d"
      }
      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}`

// stack writes the stack shop, whose web server has a version.
func (w *world) stack(t *testing.T, dir string, version int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	check := func(source, query, strategy string) string {
		return fmt.Sprintf("check \"load\" {\n source = %q\n query = %q\n query_window = \"4s\"\n strategy %s\n}", source, query, strategy)
	}
	files := map[string]string{
		"web.nomad.hcl":     fmt.Sprintf(web, exe, version, scaling(check("edge", "avg_requests/web", "\"target-value\" {\n target = 10\n threshold = 0.15\n}"))),
		"queue.nomad.hcl":   mock("queue", check("prometheus", "vector(3)", `"pass-through" {}`)),
		"dry.nomad.hcl":     mock("dry", "target \"nomad\" {\n dry-run = true\n}\n"+check("prometheus", "vector(2)", `"pass-through" {}`)),
		"silent.nomad.hcl":  mock("silent", check("prometheus", "nosuch_metric", `"pass-through" {}`)),
		"foreign.nomad.hcl": mock("foreign", check("prometheus", "vector(4)", `"pass-through" {}`)),
		"usage.nomad.hcl":   strings.NewReplacer(`"mock_driver"`, `"raw_exec"`, `run_for = "1h"`, "command = \"/bin/sleep\"\nargs = [\"3600\"]").Replace(mock("usage", check("nomad-apm", "avg_cpu", "\"threshold\" {\n lower_bound = 0\n within_bounds_trigger = 1\n value = 2\n}"))),
	}
	text := "stack \"shop\" {}\n"
	for name, content := range files {
		text += fmt.Sprintf("service %q {}\n", strings.TrimSuffix(name, ".nomad.hcl"))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "stack.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// count returns the count of the group of a job.
func (w *world) count(t *testing.T, id string) int {
	t.Helper()
	s, _, err := w.nomad.Jobs().ScaleStatus(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.TaskGroups["g"].Desired
}

// reaches waits until a job has that many instances.
func (w *world) reaches(t *testing.T, id string, want int) {
	t.Helper()
	devtest.Until(t, patience, fmt.Sprintf("job %s has %d instances", id, want), func() bool {
		s, _, err := w.nomad.Jobs().ScaleStatus(id, nil)
		return err == nil && s.TaskGroups["g"].Desired == want && s.TaskGroups["g"].Running == want
	})
}

// load asks the edge for web.test at a rate, until the test ends.
type load struct {
	rate          atomic.Int64 // per second
	total, failed atomic.Int64
	first         atomic.Value // text of an error
}

func (l *load) run(ctx context.Context, client *http.Client) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second / time.Duration(l.rate.Load())):
		}
		wg.Go(func() {
			l.total.Add(1)
			if err := get(client); err != nil {
				l.failed.Add(1)
				l.first.CompareAndSwap(nil, err.Error())
			}
		})
	}
}

// client returns a client whose requests all go to the edge.
func (w *world) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 20, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "web.test"},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.Loopback()+":9443")
		},
	}}
}

func get(client *http.Client) error {
	res, err := client.Get("https://web.test/")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.100s", res.Status, body)
	}
	return err
}

// controller deploys a controller that scales. It does not renew the certificate of the
// test.
func (w *world) controller(t *testing.T, prometheus string) {
	t.Helper()
	store := filepath.Dir(w.drover.Path) + "/store"
	if err := errors.Join(os.Mkdir(store, 0o700), os.Chmod(store, 0o777)); err != nil {
		t.Fatal(err)
	}
	w.drover.Want(t, 0, "deploy", "drover", "-e", "dev", "-var", fmt.Sprintf("arguments=[\"--store\", %q]", "dir:"+store), "-var", "replicas=1", "-var", "autoscale=on", "-var", "drover_binary="+w.drover.Path, "-var", "prometheus="+prometheus)
	t.Cleanup(func() {
		if t.Failed() {
			cmd := exec.Command(w.drover.Path, "logs", "drover", "controller", "-e", "dev", "--stderr", "--tail", "60")
			cmd.Env = append(os.Environ(), w.drover.Env...)
			logs, _ := cmd.CombinedOutput()
			t.Logf("the controller:\n%s", logs)
		}
	})
}

// Under load from the edge a service goes from 1 to 5 instances and back to 1, with a
// deploy in the middle, and no request fails. Groups with other sources are scaled beside it.
func TestAutoscale_UnderLoad(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.certificate(t)
	dir := t.TempDir()
	w.stack(t, dir, 1)
	w.drover.Want(t, 0, "deploy", "edge", "-e", "dev", "-var", "requests_per_source=1000000")
	prometheus, _ := devtest.MetricsServer(t, devtest.Prometheus)
	w.controller(t, prometheus)
	w.drover.Want(t, 0, "deploy", dir)
	one := 1
	if _, _, err := w.nomad.Jobs().Scale("foreign", "g", &one, "by the other", false, map[string]any{"nomad_policy_id": "x"}, nil); err != nil {
		t.Fatal(err)
	}

	l := &load{}
	l.rate.Store(5)
	client := w.client()
	var unserved error
	defer func() {
		if unserved != nil {
			t.Log(unserved)
		}
	}()
	devtest.Until(t, patience, "the edge serves web.test", func() bool {
		probe := w.client() // not the connection to a worker from before the reload
		defer probe.CloseIdleConnections()
		unserved = get(probe)
		return unserved == nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx, client) })
	defer wg.Wait()
	defer stop()
	began := time.Now()
	l.rate.Store(48)
	w.reaches(t, "web", 5)
	t.Logf("5 instances after %s", time.Since(began))
	w.stack(t, dir, 2)
	w.drover.Want(t, 0, "deploy", dir)
	if got := w.count(t, "web"); got != 5 {
		t.Errorf("after the deploy the count is %d, want 5", got)
	}
	t.Logf("deployed after %s", time.Since(began))
	l.rate.Store(5)
	w.reaches(t, "web", 1)
	stop()
	wg.Wait()
	t.Logf("%d requests in %s", l.total.Load(), time.Since(began))
	if n := l.failed.Load(); n != 0 {
		t.Errorf("%d of %d requests failed, want none; the first: %v", n, l.total.Load(), l.first.Load())
	}

	w.reaches(t, "queue", 3)
	w.reaches(t, "usage", 2)
	for id, want := range map[string]int{"dry": 1, "silent": 1, "foreign": 1} {
		if got := w.count(t, id); got != want {
			t.Errorf("job %s has count %d, want %d", id, got, want)
		}
	}
	w.states(t, map[string]string{"queue": "steady", "usage": "steady", "dry": "dry-run", "silent": "no-data", "foreign": "conflict"})
	w.status(t, dir)
}

// states waits until the controller's metrics have the state of each group.
func (w *world) states(t *testing.T, want map[string]string) {
	t.Helper()
	devtest.Until(t, patience, fmt.Sprintf("the states are %v", want), func() bool {
		entries, _, err := w.consul.Health().Service("drover-controller", "", true, nil)
		if err != nil || len(entries) != 1 {
			return false
		}
		res, err := http.Get("http://" + net.JoinHostPort(entries[0].Service.Address, fmt.Sprint(entries[0].Service.Port)) + "/metrics")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		for service, state := range want {
			if !strings.Contains(string(text), fmt.Sprintf(`drover_autoscale_state{stack="shop",environment="default",target="",service=%q,group="g",state=%q} 1`, service, state)) {
				return false
			}
		}
		return true
	})
}

// status compares what drover status shows.
func (w *world) status(t *testing.T, dir string) {
	t.Helper()
	var s deploy.StatusResult
	out := ""
	devtest.Until(t, patience, "the scaled services are healthy", func() bool {
		code := 0
		out, code = w.drover.Run(t, "status", dir, "-o", "json")
		return code == 0
	})
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	by := map[string]deploy.GroupScaling{}
	for _, g := range s.Scaling {
		by[g.Service] = g
	}
	if g := by["queue"]; g.Count != 3 || g.Last == nil || g.Last.By != "drover" || g.Last.From != 1 || g.Last.To != 3 || g.Last.Reason != "check load: the metric is 3" {
		t.Errorf("got %+v of queue, want 1 to 3 by drover", g)
	}
	if g := by["dry"]; g.Count != 1 || g.Last == nil || g.Last.DryRun == nil || *g.Last.DryRun != 2 {
		t.Errorf("got %+v of dry, want a dry run with 2", g)
	}
	if g := by["foreign"]; g.Last == nil || g.Last.By != "nomad-autoscaler" {
		t.Errorf("got %+v of foreign, want an event of nomad-autoscaler", g)
	}
	if g, ok := by["silent"]; !ok || g.Last != nil {
		t.Errorf("got %+v of silent, want no event", g)
	}
	devtest.Contains(t, w.drover.Want(t, 0, "status", dir), "scaling of queue, group g: count 3; 1 to 3", "by drover: check load: the metric is 3", "scaling of silent, group g: count 1, never scaled")
}
