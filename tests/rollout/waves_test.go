// Package rollout_test runs drover against clusters of several regions and
// datacenters.
package rollout_test

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// shop is a stack of two services. Its tasks are not processes, so that they start fast
// and fail on request.
var shop = map[string]string{
	"stack.hcl": `
stack "shop" {}
service "db" { secrets = ["pw"] }
service "web" {
  depends_on = ["db"]
  secrets    = ["pw"]
}
secret "pw" {}
`,
	"variables.hcl": `
variable "mode" { default = "one" }
variable "ams_run_for" { default = "1h" }
variable "gate" { default = "/" }
variable "error" { default = "" }
`,
	"_base.nomad.hcl": `
locals {
  run_for       = "1h"
  db_datacenter = "eu"
}
job "shop-*" {
  update {
    health_check      = "task_states"
    min_healthy_time  = "100ms"
    healthy_deadline  = "1m"
    progress_deadline = "2m"
  }
  group "*" {
    reschedule {
      attempts  = 0
      unlimited = false
    }
    restart {
      attempts = 0
      mode     = "fail"
    }
    task "*" {
      driver = "mock_driver"
      logs {
        disabled = true
      }
      consul {}
      resources {
        cpu    = 10
        memory = 16
      }
    }
  }
}
`,
	"db.nomad.hcl": `
job "shop-db" {
  group "g" {
    service {
      name = "shop-db"
    }
    task "t" {
      config {
        run_for = "1h"
      }
    }
  }
}
`,
	"web.nomad.hcl": `
job "shop-web" {
  group "g" {
    service {
      name = "shop-web"
    }
    task "t" {
      config {
        run_for     = local.run_for
        exit_code   = 1
        start_error = var.error
      }
      env {
        MODE = var.mode
      }
      template {
        destination = "local/db"
        change_mode = "noop"
        data        = <<EOT
{{ range service "shop-db@${local.db_datacenter}" }}db on {{ .Node }}{{ end }}
pw {{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ len .pw.Value }}{{ end }}
EOT
      }
    }
  }
}
`,
	"environments/prod.hcl": `
target "fra" {
  region      = "eu"
  datacenters = ["dc1"]
}
target "ams" {
  region      = "eu"
  datacenters = ["dc2"]
  services    = ["web"]
  locals {
    run_for = var.ams_run_for
  }
}
target "nyc" {
  region   = "us"
  services = ["web"]
  count    = { web = 2 }
}
wave "canary" {
  targets = ["fra"]
  bake    = "1s"
}
wave "europe" {
  targets = ["ams"]
  bake    = "2s" # longer than what runs for 1.5 s
  gate {
    command = ["sh", "-c", "echo looked at $DROVER_TARGETS; test -e ${var.gate}"]
    timeout = "3s"
  }
}
wave "rest" {
  approve = true
}
`,
}

// world is a cluster of two regions, each with two datacenters and a Consul
// datacenter of its own, and drover.
type world struct {
	t      *testing.T
	dev    *devcluster.Cluster
	binary string
	dir    string
	env    []string
	deploy []string // flags of every deploy
}

func newWorld(t *testing.T, tools ...string) *world {
	w := newShop(t)
	w.dev = devtest.Cluster(t, devcluster.Options{Secure: devtest.Secured(), Shape: devcluster.Shape{Regions: []string{"eu", "us"}, Datacenters: []string{"dc1", "dc2"}}, Tools: tools})
	var err error
	if w.env, err = w.dev.Env("eu"); err != nil {
		t.Fatal(err)
	}
	if w.dev.Secure() {
		w.env = append(w.env, devtest.Tokens(t, w.dev, acl.Deployer)...)
		w.letDatacentersAsk()
	}
	return w
}

// letDatacentersAsk lets tasks find services of another Consul datacenter, in which
// their tokens are unknown and they are anonymous.
func (w *world) letDatacentersAsk() {
	w.t.Helper()
	c, err := capi.NewClient(w.dev.ConsulConfig())
	if err != nil {
		w.t.Fatal(err)
	}
	anonymous := acl.Policy{Name: "anonymous", Rules: "node_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n"}
	id, err := acl.PutConsulPolicy(w.t.Context(), c, anonymous)
	if err != nil {
		w.t.Fatal(err)
	}
	token := &capi.ACLToken{AccessorID: "00000000-0000-0000-0000-000000000002", Policies: []*capi.ACLTokenPolicyLink{{ID: id}}}
	if _, _, err := c.ACL().TokenUpdate(token, nil); err != nil {
		w.t.Fatal(err)
	}
}

// newShop builds drover and writes the stack. It starts no cluster.
func newShop(t *testing.T) *world {
	w := &world{t: t, binary: devtest.Build(t, t.TempDir()), dir: t.TempDir()}
	for name, text := range shop {
		w.write(name, text)
	}
	return w
}

// write replaces a file of the stack.
func (w *world) write(name, text string) {
	w.t.Helper()
	file := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// drover runs a command on the shop and returns its output and exit code.
func (w *world) drover(command string, args ...string) (out string, code int) {
	w.t.Helper()
	if command == "deploy" {
		args = slices.Concat(args, w.deploy)
	}
	return w.run(append([]string{command, w.dir, "-e", "prod"}, args...)...)
}

// run runs any command.
func (w *world) run(args ...string) (out string, code int) {
	w.t.Helper()
	return devtest.Program{Path: w.binary, Env: w.env}.Run(w.t, args...)
}

// expect is drover with a check of the exit code and of parts of the output.
func (w *world) expect(code int, said []string, command string, args ...string) string {
	w.t.Helper()
	out, got := w.drover(command, args...)
	if got != code {
		w.t.Fatalf("%s %v: got exit code %d, want %d:\n%s", command, args, got, code, out)
	}
	devtest.Contains(w.t, out, said...)
	return out
}

// nomadJob returns a job of another client.
func nomadJob(id string) *api.Job {
	job := api.NewServiceJob(id, id, "global", 50).AddDatacenter("*")
	task := api.NewTask("t", "mock_driver").SetConfig("run_for", "1h")
	task.Env = map[string]string{"MODE": "other client"}
	return job.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(task))
}

func (w *world) nomad(region string) *api.Client {
	for _, r := range w.dev.Regions() {
		if r.Region == region {
			cfg := w.dev.NomadConfig()
			cfg.Address, cfg.Region = r.NomadAddr, region
			c, err := api.NewClient(cfg)
			if err != nil {
				w.t.Fatal(err)
			}
			return c
		}
	}
	w.t.Fatalf("no region %s", region)
	return nil
}

func (w *world) consul(region string) *capi.Client {
	for _, r := range w.dev.Regions() {
		if r.Region == region {
			cfg := w.dev.ConsulConfig()
			cfg.Address = r.ConsulAddr
			c, err := capi.NewClient(cfg)
			if err != nil {
				w.t.Fatal(err)
			}
			return c
		}
	}
	w.t.Fatalf("no region %s", region)
	return nil
}

// modes returns the running jobs with the MODE of their task, or the log level of
// oCIS.
func (w *world) modes() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, region := range []string{"eu", "us"} {
		c := w.nomad(region)
		list, _, err := c.Jobs().List(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, stub := range list {
			job, _, err := c.Jobs().Info(stub.ID, nil)
			if err != nil {
				w.t.Fatal(err)
			}
			if !*job.Stop {
				env := job.TaskGroups[0].Tasks[0].Env
				out[region+"/"+stub.ID] = cmp.Or(env["MODE"], env["OCIS_LOG_LEVEL"])
			}
		}
	}
	return out
}

func (w *world) runs(want map[string]string) {
	w.t.Helper()
	got := w.modes()
	for job, mode := range want {
		if have, ok := got[job]; !ok || have != mode {
			w.t.Errorf("%s runs %q (%v), want %q", job, have, ok, mode)
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("jobs are %v, want %v", got, want)
	}
}

// rendered reads a file that a template of a job's first allocation wrote.
func (w *world) rendered(region, job, file string) string {
	w.t.Helper()
	c := w.nomad(region)
	allocs, _, err := c.Jobs().Allocations(job, false, nil)
	if err != nil || len(allocs) == 0 {
		w.t.Fatalf("allocations of %s: %v, %v", job, allocs, err)
	}
	alloc, _, err := c.Allocations().Info(allocs[0].ID, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := c.AllocFS().Cat(alloc, file, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// approve approves the wave that waits, as soon as one does.
func (w *world) approve(wave string) {
	w.t.Helper()
	w.until("wave "+wave+" can be approved", func() bool {
		out, code := w.drover("approve")
		return code == 0 && strings.Contains(out, "wave "+wave+" is approved")
	})
}

// until waits until ok returns true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	devtest.Until(w.t, 3*time.Minute, what, ok)
}

// entrance are those services of oCIS that the edge leads to and that run
// without the others: what every request goes through, and the web client.
var entrance = map[string]string{
	"stack.hcl": `
service "ocis-web" {
  env    = local.env["web"]
  locals = local.job["web"]
}
service "ocis-proxy" {
  secrets = ["jwt_secret", "machine_auth_api_key"]
  env     = local.env["proxy"]
  locals  = local.job["proxy"]
}
secret "jwt_secret" {}
secret "machine_auth_api_key" {}
`,
	"variables.hcl": `
variable "proxy_log" { default = "warn" }
variable "nyc_log" { default = "warn" }
variable "ams_proxy" { default = "$${NOMAD_ADDR_http}" }
`,
	"environments/prod.hcl": `
job "ocis-*" {
  group "*" {
    shutdown_delay = "0s"
    update {
      healthy_deadline  = "3m"
      progress_deadline = "4m"
    }

    # What ends has failed, so that nothing is waited for.
    restart {
      attempts = 0
      mode     = "fail"
    }
  }
}
job "ocis-proxy" {
  group "*" {
    task "*" {
      env {
        OCIS_LOG_LEVEL = var.proxy_log
      }
    }
  }
}
`,
}

// addEntrance adds them to the shop, from the files that drover has with it.
func (w *world) addEntrance() {
	w.t.Helper()
	shipped := filepath.Join(w.t.TempDir(), "ocis")
	if out, code := w.run("init", "ocis", shipped); code != 0 {
		w.t.Fatalf("init: exit code %d\n%s", code, out)
	}
	read := func(name string) string {
		w.t.Helper()
		text, err := os.ReadFile(filepath.Join(shipped, filepath.FromSlash(name)))
		if err != nil {
			w.t.Fatal(err)
		}
		return string(text)
	}
	w.write("ocis-proxy.nomad.hcl", read("proxy.nomad.hcl"))
	w.write("ocis-web.nomad.hcl", read("web.nomad.hcl"))
	for _, part := range []string{"catalog.stack.hcl", "services.stack.hcl"} {
		w.write(part, read(part))
	}
	w.write("_base.nomad.hcl", read("_base.nomad.hcl")+shop["_base.nomad.hcl"])
	w.write("stack.hcl", shop["stack.hcl"]+entrance["stack.hcl"])
	w.write("variables.hcl", read("variables.hcl")+shop["variables.hcl"]+entrance["variables.hcl"])
	targets := strings.ReplaceAll(shop["environments/prod.hcl"], `["web"]`, `["web", "ocis-web", "ocis-proxy"]`)
	targets = strings.Replace(targets, `run_for = var.ams_run_for
  }
`, `run_for = var.ams_run_for
  }
  job "ocis-proxy" {
    group "*" {
      task "*" {
        env {
          PROXY_HTTP_ADDR = var.ams_proxy
        }
      }
    }
  }
`, 1)
	targets = strings.Replace(targets, `count    = { web = 2 }
`, `count    = { web = 2 }
  job "ocis-web" {
    group "*" {
      task "*" {
        env {
          OCIS_LOG_LEVEL = var.nyc_log
        }
      }
    }
  }
`, 1)
	w.write("environments/prod.hcl", read("environments/dev.hcl")+entrance["environments/prod.hcl"]+targets)
	w.env = append(w.env, "NOMAD_VAR_domain=cloud.example.org")
	w.deploy = []string{"--no-certificates"} // without an edge there is no route to be served
}

// enters asks every instance of the entrance in a region, as many as there
// should be, for what it answers without the rest of oCIS.
func (w *world) enters(region string, instances int) {
	w.t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the proxy's own, self-signed
	}}
	for _, ask := range []struct {
		service, scheme, method, path string
		status                        int
	}{
		{"ocis-web", "http", "GET", "/config.json", http.StatusOK},
		{"ocis-proxy", "https", "PROPFIND", "/remote.php/webdav/", http.StatusUnauthorized},
	} {
		var found []*capi.ServiceEntry
		// The former instances deregister some time after the deploy.
		w.until(fmt.Sprintf("%d instances of %s pass their checks in %s", instances, ask.service, region), func() bool {
			var err error
			if found, _, err = w.consul(region).Health().Service(ask.service, "", true, nil); err != nil {
				w.t.Fatal(err)
			}
			return len(found) == instances
		})
		for _, s := range found {
			url := fmt.Sprintf("%s://%s:%d%s", ask.scheme, s.Service.Address, s.Service.Port, ask.path)
			req, err := http.NewRequestWithContext(w.t.Context(), ask.method, url, nil)
			if err != nil {
				w.t.Fatal(err)
			}
			res, err := client.Do(req)
			if err != nil {
				w.t.Error(err)
				continue
			}
			_ = res.Body.Close()
			if res.StatusCode != ask.status {
				w.t.Errorf("%s: %s %s answers %s", ask.service, ask.method, url, res.Status)
			}
		}
	}
}

// TestWaves is a life of one stack over two regions and two datacenters: small
// services, and the entrance of oCIS beside them.
func TestWaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devcluster.OCIS)
	w.addEntrance()
	europe := func(mode string) map[string]string {
		return map[string]string{
			"eu/shop-db-fra": "", "eu/shop-web-fra": mode, "eu/shop-web-ams": mode,
			"eu/ocis-web-fra": "warn", "eu/ocis-proxy-fra": "warn", "eu/ocis-web-ams": "warn", "eu/ocis-proxy-ams": "warn",
		}
	}
	jobs := func(mode, nyc string) map[string]string {
		all := europe(mode)
		maps.Copy(all, map[string]string{"us/shop-web": mode, "us/ocis-web": nyc, "us/ocis-proxy": "warn"})
		return all
	}

	// The first release stops before the wave that needs an approval, which
	// drover approve gives, and goes on.
	w.expect(5, []string{"wave canary: begins", "wave europe: deployed", "drover approve shop -e prod"}, "deploy")
	w.runs(europe("one"))
	w.expect(11, []string{"drover approve"}, "deploy")
	w.expect(0, []string{"web@nyc: deployed", "deployed"}, "approve")
	w.runs(jobs("one", "warn"))
	w.enters("eu", 2)
	w.enters("us", 1)
	w.expect(11, []string{"no wave of it waits"}, "approve")
	w.expect(0, []string{"unchanged"}, "deploy")
	w.expect(0, []string{"web@nyc", "2/2", "db@fra"}, "status")

	// Each region has the secrets of its jobs, and nyc finds the database of
	// the other Consul datacenter.
	for job, region := range map[string]string{"shop-web-fra": "eu", "shop-web-ams": "eu", "shop-web": "us"} {
		text := w.rendered(region, job, "t/local/db")
		if !strings.Contains(text, "db on ") || !strings.Contains(text, "pw 32") {
			t.Errorf("%s found %q", job, text)
		}
	}

	// A gate of wave two fails: wave one is reverted too, and wave
	// three has never begun.
	out := w.expect(4, []string{"wave europe", "the gate did not hold within 3s: sh: exit status 1: looked at ams", "web@fra"}, "deploy", "--var", "mode=two", "--var", "gate=/there/is/none")
	if strings.Contains(out, "web@nyc: submitted") {
		t.Errorf("wave three began:\n%s", out)
	}
	w.runs(jobs("one", "warn"))

	// So does a service that fails in wave two: here oCIS's proxy, which cannot
	// listen. That of wave one goes back, too, and answers.
	w.expect(4, []string{"ocis-proxy@ams: failed", "ocis-proxy@fra: submitted"}, "deploy", "--var", "proxy_log=info", "--var", "ams_proxy=192.0.2.1:9200")
	w.runs(jobs("one", "warn"))
	w.enters("eu", 2)

	// And one that fails when it was healthy already: its gate sees that.
	w.expect(4, []string{"the gate did not hold within 3s: web@ams"}, "deploy", "--var", "mode=two", "--var", "ams_run_for=1500ms")
	w.runs(jobs("one", "warn"))

	// With --on-failure stop it stays.
	w.expect(3, []string{"the gate did not hold"}, "deploy", "--var", "mode=two", "--var", "gate=/there/is/none", "--on-failure", "stop")
	mixed := jobs("one", "warn")
	maps.Copy(mixed, europe("two"))
	w.runs(mixed)

	// A drover that waits goes on when another terminal approves; meanwhile the
	// region of wave three is cut off. That is no failure: the release stays
	// open, and what it did stays.
	type ended struct {
		out  string
		code int
	}
	done := make(chan ended, 1)
	go func() {
		out, code := w.drover("deploy", "--var", "mode=three", "--var", "nyc_log=error", "--approval-wait", "2m", "--unreachable-after", "3s")
		done <- ended{out, code}
	}()
	w.until("the release has begun", func() bool {
		out, _ := w.drover("history")
		return strings.Contains(out, "running")
	})
	w.until("wave europe has begun", func() bool { return w.modes()["eu/shop-web-ams"] == "three" })
	if err := w.dev.Kill(t.Context(), "us-nomad-server-1"); err != nil {
		t.Fatal(err)
	}
	w.approve("rest")
	e := <-done
	if e.code != 10 || !strings.Contains(e.out, "web@nyc: unreachable") || !strings.Contains(e.out, "drover resume shop -e prod") {
		t.Fatalf("it ended with %d:\n%s", e.code, e.out)
	}
	w.enters("us", 1) // as before
	w.expect(10, []string{"us"}, "resume")
	if err := w.dev.Restart(t.Context(), "us-nomad-server-1"); err != nil {
		t.Fatal(err)
	}
	w.expect(0, []string{"web@nyc: deployed"}, "resume", "--lock-wait", "1m")
	w.runs(jobs("three", "error"))
	w.enters("us", 1)

	w.expect(0, nil, "destroy", "-y", "--purge", "secrets")
	w.runs(map[string]string{})
}
