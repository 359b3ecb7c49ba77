package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// The record of a stack on a real Nomad: its size, what cannot be read of it,
// and answers that are lost.
func TestRecordOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"many targets":    manyTargets,
		"unreadable head": unreadableHead,
		"unreadable last": unreadableLast,
		"refused former":  refusedFormer,
		"patient before":  patientBefore,
		"gives up":        givesUp,
	})
}

// manyTargets: a release whose targets and waves do not fit into a Nomad
// Variable in clear is deployed, changed and rolled back as any other.
func manyTargets(t *testing.T, env []string) {
	const targets = 10
	w := newWorld(t, env, "many")
	var names []string
	var file strings.Builder
	for i := range targets {
		names = append(names, fmt.Sprintf("many-%02d", i))
		if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: names[i]}, nil); err != nil {
			t.Fatal(err)
		}
		// An address, datacenters and counts take as much of a real environment.
		fmt.Fprintf(&file, "target %q {\n  namespace = %q\n  datacenters = [\"dc1\", %q]\n}\n", names[i], names[i], strings.Repeat("far", 2700))
		t.Cleanup(func() { _, _, _ = w.nomad.Jobs().Deregister(w.job("a"), false, &api.WriteOptions{Namespace: names[i]}) })
	}
	list, err := json.Marshal(names[1:])
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&file, "wave \"first\" {\n  targets = [%q]\n}\nwave \"rest\" {\n  targets = %s\n  bake = \"1s\"\n}\n", names[0], list)
	prod := t.TempDir() + "/prod.hcl"
	if err := os.WriteFile(prod, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write(svc{name: "a", value: "1"})
	w.want(w.drover(exitOK, "deploy", w.dir, "-e", prod), "(release 1 is deployed)", "10 deployed")
	w.write(svc{name: "a", value: "2"})
	w.drover(exitOK, "deploy", w.dir, "-e", prod)
	values := func() map[string]int {
		out := map[string]int{}
		for _, name := range names {
			job, _, err := w.nomad.Jobs().Info(w.job("a"), &api.QueryOptions{Namespace: name})
			if err != nil {
				t.Fatal(err)
			}
			out[job.TaskGroups[0].Tasks[0].Env["VALUE"]]++
		}
		return out
	}
	if got := values(); got["2"] != targets {
		t.Errorf("values %v", got)
	}
	path := record.Folder(w.name, "prod") + "/releases/000002"
	v, _, err := w.nomad.Variables().Read(path, nil)
	if err != nil || v.Items["_layout"] != "2" {
		t.Errorf("layout %q, %v", v.Items["_layout"], err)
	}
	var shown struct {
		Release struct {
			State   string
			Targets []struct{ Name string }
			Waves   []struct{ Name, State string }
		}
		Services []any
	}
	if err := json.Unmarshal([]byte(w.drover(exitOK, "show", w.name, "2", "-e", "prod", "-o", "json")), &shown); err != nil {
		t.Fatal(err)
	}
	r := shown.Release
	if r.State != "deployed" || len(r.Targets) != targets || len(shown.Services) != targets || len(r.Waves) != 2 || r.Waves[1].Name != "rest" || r.Waves[1].State != "deployed" {
		t.Errorf("show says %s, %d targets, %d services, %+v", r.State, len(r.Targets), len(shown.Services), r.Waves)
	}
	w.drover(exitOK, "rollback", w.name, "-e", "prod")
	if got := values(); got["1"] != targets {
		t.Errorf("values %v", got)
	}
	w.want(w.drover(exitOK, "record", "check", w.name, "-e", "prod"), "3 releases readable, 0 problems")
}

// broken replaces an item of a variable of the record.
func (w *world) broken(path, item, text string) {
	w.Helper()
	path = record.Folder(w.name, "default") + path
	v, _, err := w.nomad.Variables().Read(path, nil)
	if err != nil {
		w.Fatal(err)
	}
	v.Items[item] = text
	if _, _, err := w.nomad.Variables().Update(v, nil); err != nil {
		w.Fatal(err)
	}
}

// unreadableHead: an old head and an old page that cannot be read are a line of
// the history, and stop nothing.
func unreadableHead(t *testing.T, env []string) {
	w := newWorld(t, env, "unreadable")
	for _, value := range []string{"1", "2", "3", "4"} {
		w.write(svc{name: "a", value: value})
		w.drover(exitOK, "deploy", w.dir)
	}
	w.broken("/releases/000002", "release", "{")
	w.broken("/releases/000001/00", "services", "zzz")
	head := record.Folder(w.name, "default") + "/releases/000002"
	w.want(w.drover(exitOK, "history", w.name), "cannot read "+head+": unexpected end of JSON input", "Next: drover record check unreadable")
	w.drover(exitOK, "drift", w.name)
	w.drover(exitOK, "status", w.dir)
	w.want(w.drover(exitError, "show", w.name, "2"), head, "run `drover record check unreadable`")
	w.want(w.drover(exitError, "rollback", w.name, "2"), head)
	w.drover(exitOK, "rollback", w.name, "3")
	if got := w.value("a"); got != "3" {
		t.Errorf("a has %s", got)
	}
	w.want(w.drover(exitError, "record", "check", w.name), head, "rebuild the release, as an abandoned one, from the 1 services", "mark the release as abandoned", "3 releases readable")
	w.drover(exitUsage, "record", "repair", w.name) // no terminal
	before := w.specs()
	w.want(w.drover(exitOK, "record", "repair", w.name, "-y"), "2 problems repaired, 0 problems left")
	if after := w.specs(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the repair changed jobs: %v, %v", before, after)
	}
	w.drover(exitOK, "record", "check", w.name)
	w.unlocked()

	w.broken("/releases/000003", "release", "{")
	w.write(svc{name: "a", value: "6"})
	w.drover(exitOK, "deploy", w.dir, "--history-max", "2")
	w.drover(exitOK, "destroy", w.dir, "-y", "--purge", "history")
	left, _, err := w.nomad.Variables().PrefixList(record.Folder(w.name, "default")+"/", nil)
	if err != nil || len(left) > 0 {
		t.Errorf("%d variables are left: %v", len(left), err)
	}
}

// unreadableLast: the newest release is rebuilt from its services, keeps its
// jobs, and the next deploy starts from them.
func unreadableLast(t *testing.T, env []string) {
	w := newWorld(t, env, "unreadablelast")
	for _, value := range []string{"1", "2"} {
		w.write(svc{name: "a", value: value}, svc{name: "b" + value, value: value})
		w.drover(exitOK, "deploy", w.dir, "--prune")
	}
	w.broken("/releases/000002", "release", "")
	w.want(w.drover(exitError, "deploy", w.dir), "/releases/000002", "run `drover record check unreadablelast`")
	w.want(w.drover(exitError, "status", w.dir), "/releases/000002")
	w.drover(exitOK, "record", "repair", w.name, "-y")
	w.want(w.drover(exitOK, "history", w.name), "abandoned")
	w.write(svc{name: "a", value: "3"})
	w.drover(exitOK, "deploy", w.dir, "--prune")
	if got := w.specs(); len(got) != 1 || w.value("a") != "3" {
		t.Errorf("b2 belongs to the stack and has left it: %v", got)
	}
}

// refusedFormer: a former spec that Nomad refuses by now stays out of a revert;
// the other jobs of its target go back.
func refusedFormer(t *testing.T, env []string) {
	w := newWorld(t, env, "refused")
	const space = "no-raw-exec"
	if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: space}, nil); err != nil {
		t.Fatal(err)
	}
	q := &api.QueryOptions{Namespace: space}
	write := func(former bool, services ...svc) {
		w.write(services...)
		for _, s := range services {
			path := w.dir + "/" + s.name + ".nomad.hcl"
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out := strings.Replace(string(text), "  update {", fmt.Sprintf("  namespace = %q\n  update {", space), 1)
			if former && s.name == "a" {
				out = strings.NewReplacer("mock_driver", "raw_exec", `run_for = "1h"`, "command = \"/bin/sleep\"\n        args = [\"3600\"]").Replace(out)
			}
			if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _, _ = w.nomad.Jobs().Deregister(w.job(s.name), false, &api.WriteOptions{Namespace: space}) })
		}
	}
	value := func(service string) string {
		job, _, err := w.nomad.Jobs().Info(w.job(service), q)
		if err != nil {
			t.Fatal(err)
		}
		return job.TaskGroups[0].Tasks[0].Env["VALUE"]
	}
	write(true, svc{name: "a", value: "1"}, svc{name: "b", value: "1"}, svc{name: "c", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	forbid := &api.Namespace{Name: space, Capabilities: &api.NamespaceCapabilities{DisabledTaskDrivers: []string{"raw_exec"}}}
	if _, err := w.nomad.Namespaces().Register(forbid, nil); err != nil {
		t.Fatal(err)
	}
	write(false, svc{name: "a", value: "2"}, svc{name: "b", value: "2"}, svc{name: "c", value: "2", deps: []string{"a", "b"}, crash: true})
	out, code := run(w.command(env, "deploy", w.dir))
	if code == exitOK || value("a") != "2" || value("b") != "1" || value("c") != "1" {
		t.Errorf("the deploy ended with %d, a has %s, b %s, c %s:\n%s", code, value("a"), value("b"), value("c"), out)
	}
	w.want(out, "a: ", "not reverted", "raw_exec")
	if last, err := w.releases().Last(t.Context()); err != nil || last.State != record.Reverting {
		t.Errorf("the release is %+v, %v", last, err)
	}
	// Once Nomad takes it, the rest goes back, too.
	if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: space}, nil); err != nil {
		t.Fatal(err)
	}
	w.drover(exitReverted, "resume", w.name)
	if value("a") != "1" {
		t.Errorf("a has %s", value("a"))
	}
	w.unlocked()
}

// patientBefore: a Nomad that does not answer before a release has begun costs
// time and nothing else.
func patientBefore(t *testing.T, env []string) {
	w := newWorld(t, env, "patient")
	away := func(args ...string) (string, int) {
		proxy := proxyOf(t, env)
		begun := time.Now()
		proxy.Before(func(res http.ResponseWriter, _ *http.Request) bool {
			if time.Since(begun) > 6*time.Second { // a request is tried for 1.3 s
				return true
			}
			http.Error(res, "No cluster leader", http.StatusServiceUnavailable)
			return false
		})
		return run(w.command(through(proxy, env), args...))
	}
	next := func(value string) {
		w.write(svc{name: "a", value: value}, svc{name: "b", value: value, deps: []string{"a"}})
	}
	open := func(value string) {
		next(value)
		slowly(w, "b", "20s")
		w.interrupted("b", value)
	}
	next("1")
	for _, step := range []struct {
		begin func()
		args  []string
		value string
	}{
		{func() {}, []string{"deploy", w.dir}, "1"},
		{func() { open("2") }, []string{"resume", w.name}, "2"},
		{func() { open("3") }, []string{"abort", w.name}, "2"},
		{func() {}, []string{"rollback", w.name, "1"}, "1"},
		{func() {}, []string{"redeploy", w.name}, "1"},
	} {
		step.begin()
		out, code := away(step.args...)
		if code != exitOK || w.value("b") != step.value {
			t.Errorf("%s ended with %d, b has %s, want %s:\n%s", step.args[0], code, w.value("b"), step.value, out)
		}
		w.want(out, "Nomad does not answer: it answers 503 Service Unavailable; retrying for up to 2m0s (--unreachable-after)")
		w.unlocked()
	}
	// Commands that only read do not wait.
	for _, args := range [][]string{{"history", w.name}, {"drift", w.name}} {
		if out, code := away(args...); code != exitCluster {
			t.Errorf("%s ended with %d:\n%s", args[0], code, out)
		}
	}
}

// givesUp: --unreachable-after ends the wait, and Ctrl-C ends it at once.
func givesUp(t *testing.T, env []string) {
	w := newWorld(t, env, "givesup")
	w.write(svc{name: "a", value: "1"})
	proxy := proxyOf(t, env)
	proxy.Before(func(res http.ResponseWriter, _ *http.Request) bool {
		http.Error(res, "bad gateway", http.StatusBadGateway)
		return false
	})
	out, code := run(w.command(through(proxy, env), "deploy", w.dir, "--unreachable-after", "2s"))
	if code != exitCluster {
		t.Errorf("the deploy ended with %d:\n%s", code, out)
	}
	w.want(out, "Nomad does not answer", "answers 502")

	refused := append([]string{"NOMAD_ADDR=http://127.0.0.1:1"}, env[1:]...)
	out, code = run(w.command(refused, "deploy", w.dir, "--unreachable-after", "2s"))
	if code != exitCluster {
		t.Errorf("the deploy ended with %d:\n%s", code, out)
	}
	w.want(out, "connection refused; retrying for up to 2s", "cannot be reached")

	cmd := w.command(through(proxy, env), "deploy", w.dir)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "Nomad does not answer") {
	}
	begun := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stderr)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitCancelled || time.Since(begun) > 20*time.Second {
		t.Errorf("after Ctrl-C it ended with %d, within %s", code, time.Since(begun))
	}
}
