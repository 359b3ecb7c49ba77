package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
)

// small is a stack of one backend with a certificate and a route.
var small = map[string]string{
	"stack.hcl": `
stack "small" {
  version = "0.1.0"
}
service "web" {}
certificate "public" {
  names = [split(":", var.domain)[0]]
}
`,
	"variables.hcl": `
variable "domain" {
  type = string
}
variable "backend" {
  type = string
}
variable "generation" {
  type    = number
  default = 1
}
`,
	"environments/dev.hcl": "",
	"web.nomad.hcl": `
job "web" {
  datacenters = ["*"]
  group "web" {
    update {
      canary            = 1
      auto_promote      = true
      min_healthy_time  = "0s"
      healthy_deadline  = "30s"
      progress_deadline = "1m"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    shutdown_delay = "2s"
    network {
      port "http" {}
    }
    service {
      name     = "web"
      port     = "http"
      provider = "consul"
      tags     = ["drover.route=${split(":", var.domain)[0]}/"]
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }
    task "web" {
      driver      = "raw_exec"
      kill_signal = "SIGTERM"
      config {
        command = var.backend
      }
      env {
        DROVER_E2E_BACKEND = "$${NOMAD_ADDR_http}"
        GENERATION         = var.generation
      }
      resources {
        cpu    = 20
        memory = 64
      }
    }
  }
}
`,
}

// startSmall brings up a cluster with Pebble; what is deployed there is the
// stack in dir.
func startSmall(t *testing.T) (r *running, dir string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r = startOn(t, devcluster.Options{ACME: true})
	r.drover.env = append(r.drover.env, "NOMAD_VAR_backend="+exe)
	dir = filepath.Join(t.TempDir(), "small")
	for name, text := range small {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r, dir
}

// client returns a client that trusts only the cluster's CA.
func (r *running) client(t *testing.T) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(r.CA())
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func (r *running) site() string { return "https://" + net.JoinHostPort(r.Loopback(), "9443") + "/" }

func fetch(ctx context.Context, c *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %s", resp.Status)
	}
	return string(b), err
}

// TestDeployWithCertificate: one command on an empty cluster, and a client
// that trusts the CA gets an answer; then what goes wrong later.
func TestDeployWithCertificate(t *testing.T) {
	t.Parallel()
	r, dir := startSmall(t)
	out, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev")
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	at := 0
	for _, step := range []string{
		"certificate public: temporary", "haproxy: deployed", "certificate public: issued", "certificate public: served", "controller: deployed", "web: deployed",
	} {
		next := strings.Index(errs[at:], step)
		if next < 0 {
			t.Fatalf("no %q in its place:\n%s", step, errs)
		}
		at += next
	}
	hc := r.client(t)
	eventually(t, "the backend answers", func() bool { _, err := fetch(t.Context(), hc, r.site()); return err == nil })
	if status := r.drover.must(t, "cert", "status", "public"); !strings.Contains(status, "Ready") {
		t.Error(status)
	}

	for _, s := range []struct {
		name string
		test func(*testing.T, *running, string, *http.Client)
	}{
		{"again", deployAgain},
		{"json", deployJSON},
		{"refused by the edge", refusedByEdge},
		{"another certificate", anotherCertificate},
		{"the CA is away", caAway},
		{"no edge", noEdge},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.test(t, r, dir, hc) }) {
			return
		}
	}
}

func deployAgain(t *testing.T, r *running, dir string, _ *http.Client) {
	before := versions(t, r)
	began := time.Now()
	_, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev")
	if code != 0 || strings.Contains(errs, "certificate") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	t.Logf("nothing to do took %s", time.Since(began).Round(time.Millisecond))
	if after := versions(t, r); !slices.Equal(before, after) {
		t.Errorf("a second deploy changed something:\nbefore %v\nafter  %v", before, after)
	}
}

func deployJSON(t *testing.T, r *running, dir string, _ *http.Client) {
	r.drover.must(t, "cert", "revoke", "public")
	if _, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev"); code != 1 || !strings.Contains(errs, "it is revoked: drover cert renew public --force") {
		t.Errorf("a revoked certificate: exit code %d\n%s", code, errs)
	}
	r.drover.must(t, "cert", "renew", "public", "--force")
	out := r.drover.must(t, "deploy", dir, "-e", "dev", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, l := range lines {
		var e struct{ Event string }
		if json.Unmarshal([]byte(l), &e) != nil || e.Event == "" {
			t.Errorf("no event: %s", l)
		}
	}
}

// refusedByEdge: what is in the store is no certificate. HAProxy keeps the
// one that it has, drover says what is wrong, the controller repairs it.
func refusedByEdge(t *testing.T, r *running, _ string, hc *http.Client) {
	v, _, err := r.nomad.Variables().Read("drover/certs/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		out, _, _ := r.drover.run(t.Context(), "cert", "inspect", r.Loopback()+":9443", "-o", "json")
		return out
	}
	before := serial()
	v.Items["bundle"], v.Items["chain"] = "nonsense\n", "nonsense\n"
	if _, _, err := r.nomad.Variables().Update(v, nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var failed []string
	total := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, err := fetch(ctx, hc, r.site())
			if ctx.Err() != nil {
				return
			}
			if total++; err != nil {
				failed = append(failed, err.Error())
			}
		}
	}()
	if out, errs, code := r.drover.run(t.Context(), "cert", "verify", "public", "--at", r.Loopback()+":9443"); code != 1 || !strings.Contains(out+errs, "different certificate") {
		t.Errorf("verify: exit code %d\n%s%s", code, out, errs)
	}
	eventually(t, "the controller has repaired it", func() bool { return serial() != before })
	stop()
	<-done
	if total == 0 || len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), total, failed)
	}
	eventually(t, "the controller reports the certificate", func() bool { return strings.Contains(r.controllerLog(t), "what is stored cannot be used") })
	if log := r.controllerLog(t); strings.Contains(log, "PRIVATE KEY") {
		t.Errorf("got a private key in the log:\n%s", log)
	}
}

// controllerLog is what all replicas have written.
func (r *running) controllerLog(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir(), "alloc", "*", "alloc", "logs", "drover.stderr.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log: %v", err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// anotherCertificate: the edge reads only those that its job names.
func anotherCertificate(t *testing.T, r *running, dir string, _ *http.Client) {
	path := filepath.Join(dir, "stack.hcl")
	more := strings.Replace(small["stack.hcl"], `"public"`, `"second.one"`, 1)
	if err := os.WriteFile(path, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev")
	if want := `the edge that runs does not read certificate second.one: deploy it with -var 'certificates=["public","second.one"]'`; code != 1 || !strings.Contains(errs, want) {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	r.drover.must(t, "deploy", dir, "-e", "dev", "--no-certificates")
	if err := os.WriteFile(path, []byte(small["stack.hcl"]), 0o600); err != nil {
		t.Fatal(err)
	}
}

// caAway: the stack is deployed all the same, and the code says that not all
// is well when there is no certificate; with one, it is a warning.
func caAway(t *testing.T, r *running, dir string, _ *http.Client) {
	env := r.drover.env
	defer func() { r.drover.env = env }()
	r.drover.env = append(slices.Clone(env), "DROVER_ACME_DIRECTORY=https://127.0.0.1:1/dir")
	out, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev", "-var", "generation=2")
	if code != 0 || !strings.Contains(out, "small: deployed") {
		t.Errorf("a CA that is not needed: exit code %d\n%s%s", code, out, errs)
	}
	v, _, err := r.nomad.Variables().Read("drover/certs/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.nomad.Variables().Delete(v.Path, nil); err != nil {
		t.Fatal(err)
	}
	out, errs, code = r.drover.run(t.Context(), "deploy", dir, "-e", "dev", "-var", "generation=3")
	if code != 1 || !strings.Contains(out, "small: deployed") || !strings.Contains(errs, "connection refused") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	r.drover.env = env
	r.drover.must(t, "deploy", dir, "-e", "dev", "-var", "generation=3")
}

// noEdge: in an environment of which the shipped stacks know nothing, what is
// missing is said with the command that mends it, and nothing is touched.
func noEdge(t *testing.T, r *running, dir string, _ *http.Client) {
	r.drover.must(t, "destroy", "edge", "-e", "dev", "-y")
	r.drover.must(t, "destroy", dir, "-e", "dev", "-y") // whose job has the same ID
	if err := os.WriteFile(filepath.Join(dir, "environments", "prod.hcl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := versions(t, r)
	_, errs, code := r.drover.run(t.Context(), "deploy", dir, "-e", "prod")
	if want := "no edge runs that would serve certificate public: deploy one with `drover deploy edge -var 'certificates=[\"public\"]'`"; code != 1 || !strings.Contains(errs, want) {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	if after := versions(t, r); !slices.Equal(before, after) {
		t.Errorf("something changed:\nbefore %v\nafter  %v", before, after)
	}
}
