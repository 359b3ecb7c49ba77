package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// routed writes a stack whose service a asks the edge for hosts.
func (w *world) routed(hook, value string, hosts ...string) {
	w.Helper()
	w.routes(hook, svc{name: "a", value: value}, hosts...)
}

// routes is routed with a service a that may be one that does not start.
func (w *world) routes(hook string, a svc, hosts ...string) {
	w.Helper()
	w.write(a)
	text, err := os.ReadFile(filepath.Join(w.dir, "a.nomad.hcl"))
	if err != nil {
		w.Fatal(err)
	}
	var tags []string
	for _, h := range hosts {
		tags = append(tags, fmt.Sprintf("%q", "drover.route="+h+"/"))
	}
	service := fmt.Sprintf("  group \"g\" {\n    network {\n      port \"http\" {}\n    }\n    service {\n      name = %q\n      port = \"http\"\n      tags = [%s]\n    }\n", w.job("a"), strings.Join(tags, ", "))
	write(w.T, w.dir, map[string]string{
		"a.nomad.hcl": strings.Replace(string(text), "  group \"g\" {\n", service, 1),
		"stack.hcl": fmt.Sprintf(`stack %q {}
service "a" {}
dns {
  provider = "exec"
  command  = [%q]
  zones    = ["example.org"]
  policy   = "sync"
  targets  = ["192.0.2.1"]
}
`, w.name, hook),
	})
}

// exampleHook is a DNS provider that has no records and takes all.
func exampleHook(t *testing.T) string {
	t.Helper()
	hook := filepath.Join(t.TempDir(), "hook")
	devtest.Script(t, hook, "#!/bin/sh\ncat >/dev/null\necho '{\"records\": []}'\n")
	return hook
}

// TestDNSAfterRollback tests that the controller gets the hosts of the release that
// runs, whichever verb finishes a rollback, and that -o json reports a failure of it.
func TestDNSAfterRollback(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	hook := exampleHook(t)
	for _, id := range []string{"edge", "drover-controller"} { // routes need them
		job := &api.Job{ID: &id, Name: &id, Datacenters: []string{"*"}, TaskGroups: []*api.TaskGroup{{Name: &id, Tasks: []*api.Task{{
			Name: "t", Driver: "mock_driver", LogConfig: &api.LogConfig{Disabled: ptr(true)}, Config: map[string]any{"run_for": "1h"},
		}}}}}
		if _, _, err := nomadOf(t, env).Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
	}
	hosts := func(w *world, pending bool, want ...string) {
		w.Helper()
		got, err := dns.DesiredRecords{Client: w.nomad}.Get(w.Context(), dns.Owner(w.name, "default"))
		if err != nil || got == nil || !slices.Equal(got.Hosts, want) || got.Pending != pending {
			w.Errorf("wanted in DNS is %+v, %v; want hosts %v, pending %v", got, err, want, pending)
		}
	}
	together(t, env, map[string]func(*testing.T, []string){
		"finished by resume": func(t *testing.T, env []string) {
			w := newWorld(t, env, "dnsresumed")
			w.routed(hook, "1", "one.example.org")
			slowly(w, "a", "4s")
			w.drover(exitOK, "deploy", w.dir)
			w.routed(hook, "2", "one.example.org", "two.example.org")
			w.drover(exitOK, "deploy", w.dir)
			hosts(w, false, "one.example.org", "two.example.org")
			cmd := w.command(w.env, "rollback", w.name)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.until("a is submitted", func() bool { return w.value("a") == "1" })
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
			w.drover(exitOK, "resume", w.name)
			hosts(w, false, "one.example.org")
			// The zones are known without the source.
			w.want(w.drover(exitOK, "dns", "list", w.name), "NAME", "one.example.org")
			w.want(w.drover(exitUsage, "dns", "list", "nosuch"), `There is no stack "nosuch"`)
		},
		"of a deploy that was interrupted": func(t *testing.T, env []string) {
			w := newWorld(t, env, "dnstaken")
			w.routed(hook, "1", "one.example.org")
			w.drover(exitOK, "deploy", w.dir)
			w.routed(hook, "2", "one.example.org", "two.example.org")
			slowly(w, "a", "8s")
			w.interrupted("a", "2")
			w.drover(exitOK, "rollback", w.name, "1", "--take-over")
			hosts(w, false, "one.example.org")
		},
		// A deploy is reverted, and then its desired records cannot be stored. The events
		// report both, and "end" is still the last.
		"warning before the last line": func(t *testing.T, env []string) {
			w := newWorld(t, env, "dnswarns")
			w.routed(hook, "1", "one.example.org")
			w.drover(exitOK, "deploy", w.dir)
			w.routes(hook, svc{name: "a", value: "2", crash: true}, "two.example.org")
			proxy := proxyOf(t, env)
			var submitted atomic.Bool
			proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path == "/v1/job/"+w.job("a") && req.Method != http.MethodGet || req.URL.Path == "/v1/jobs" && req.Method != http.MethodGet {
					submitted.Store(true)
				}
				if submitted.Load() && strings.HasPrefix(req.URL.Path, "/v1/var/"+dns.WantedFolder) {
					http.Error(res, "busy", http.StatusTooManyRequests)
					return false
				}
				return true
			})
			cmd := w.command(through(proxy, env), "deploy", w.dir, "-o", "json", "--unreachable-after", "2s")
			text, _ := cmd.Output() // the code tells
			if code := cmd.ProcessState.ExitCode(); code != exitReverted {
				t.Errorf("ended with %d, want %d", code, exitReverted)
			}
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			warned := slices.IndexFunc(lines, func(l string) bool {
				return strings.Contains(l, `"event":"warning"`) && strings.Contains(l, "which DNS records the stack needs")
			})
			if last := len(lines) - 1; warned < 0 || warned == last || !strings.Contains(lines[last], `"event":"end"`) {
				t.Errorf("no warning about DNS before the last line:\n%s", text)
			}
		},
		"error in the last line": func(t *testing.T, env []string) {
			w := newWorld(t, env, "dnsfails")
			w.routed(hook, "1", "one.example.org")
			w.drover(exitOK, "deploy", w.dir)
			w.routed(hook, "2", "two.example.org")
			w.drover(exitOK, "deploy", w.dir)
			proxy := proxyOf(t, env)
			proxy.Before(func(res http.ResponseWriter, req *http.Request) bool {
				if strings.HasPrefix(req.URL.Path, "/v1/var/"+dns.WantedFolder) {
					http.Error(res, "busy", http.StatusTooManyRequests)
					return false
				}
				return true
			})
			cmd := w.command(through(proxy, env), "rollback", w.name, "-o", "json", "--unreachable-after", "2s")
			text, _ := cmd.Output() // the code tells
			out, code := string(text), cmd.ProcessState.ExitCode()
			lines := strings.Split(strings.TrimSpace(out), "\n")
			var end struct {
				Event    string `json:"event"`
				ExitCode int    `json:"exit_code"`
				Error    string `json:"error"`
			}
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil || end.Event != "end" || end.ExitCode != code || code != exitCluster || !strings.Contains(end.Error, "DNS") {
				t.Errorf("ended with %d, %v:\n%s", code, err, out)
			}
			if n := strings.Count(out, `"event":"end"`); n != 1 {
				t.Errorf("%d end events:\n%s", n, out)
			}
		},
	})
}
