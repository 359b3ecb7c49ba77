package edge

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// fakeHAProxy starts slowly, and a signal ends it meanwhile. It loses the first
// SIGUSR2 that it gets after that.
const fakeHAProxy = `#!/bin/sh
sleep 3
load() { sed -n 's/^generation //p' loaded.cfg | tee running >worker; }
signals=0
trap 'signals=$((signals + 1)); [ $signals = 1 ] || load' USR2
trap 'exit 0' TERM
load
echo $$ >haproxy.pid
while :; do sleep 0.1; done
`

// fakeNginx loses the first SIGHUP. It writes which generation it has, as a worker
// does at a health check.
const fakeNginx = `#!/bin/sh
load() { sed -n 's/^generation //p' loaded.conf >running; }
signals=0
trap 'signals=$((signals + 1)); [ $signals = 1 ] || load' HUP
trap 'exit 0' TERM
load
while :; do sleep 0.1; cat running >>worker; done
`

// One address gets at most a sixth of the connections of an edge with little memory.
func TestStack_ShareOfOneAddress(t *testing.T) {
	t.Parallel()
	files, err := jobs.Stack("edge")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ memory, perSource, want string }{
		{"64", "128", "64"}, {"64", "20", "20"}, {"256", "128", "128"}, {"256", "1000", "256"}, {"64", "0", ""},
	} {
		s, err := stack.Load(t.Context(), stack.Options{Path: "edge", FS: files, Environment: "dev", Vars: []string{"memory=" + c.memory, "connections_per_source=" + c.perSource, "accept_proxy=[\"10.0.0.1\"]"}})
		if err != nil {
			t.Fatal(err)
		}
		rendered, err := render.Stack(t.Context(), s, render.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, tmpl := range rendered[0].Job.TaskGroups[0].Tasks[0].Templates {
			for _, m := range regexp.MustCompile(`sc0_conn_cur\(edge\.connections\) gt (\S+) `).FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
				got = append(got, m[1])
			}
		}
		want := []string{c.want, c.want} // of a connection, and of one behind a balancer
		if c.want == "" {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("memory %s and connections_per_source %s: got limits %q, want %q", c.memory, c.perSource, got, want)
		}
	}
}

// The script of the task repeats a reload that no worker confirms.
func TestScript_RepeatsALostReload(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ stack, program, text, configuration, loaded string }{
		{"edge", "haproxy", fakeHAProxy, "haproxy.cfg", "loaded.cfg"},
		{"edge-nginx", "nginx", fakeNginx, "nginx.conf", "loaded.conf"},
	} {
		t.Run(c.program, func(t *testing.T) {
			t.Parallel()
			local := t.TempDir()
			write := startScript(t, c.stack, local, c.program, c.text, map[string]string{c.configuration: "generation @generation@\n# one\n"})
			read := func(name string) string {
				text, _ := os.ReadFile(filepath.Join(local, name))
				return strings.TrimSpace(string(text))
			}
			loads := func(text string) {
				t.Helper()
				deadline := time.Now().Add(time.Minute)
				for !strings.Contains(read(c.loaded), text) || read("running") == "" || read("running") != read("newest") {
					if time.Now().After(deadline) {
						t.Fatalf("the worker has generation %q, want %q of\n%s", read("running"), read("newest"), read(c.configuration))
					}
					time.Sleep(50 * time.Millisecond) // no event tells it
				}
			}
			loads("# one")
			write(c.configuration, "generation @generation@\n# two\n")
			write("reload", "")
			loads("# two")
		})
	}
}

// startScript runs the script of an edge's task in the directory local, with a
// program instead of the edge's. It returns a function that replaces files there.
func startScript(t *testing.T, name, local, program, text string, files map[string]string) func(path, text string) {
	t.Helper()
	source, err := jobs.Stack(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: name, FS: source, Environment: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	secrets := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if !filepath.IsAbs(path) {
			path = filepath.Join(local, path)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tmpl := range rendered[0].Job.TaskGroups[0].Tasks[0].Templates {
		if *tmpl.DestPath == "local/run.sh" {
			write("run.sh", *tmpl.EmbeddedTmpl)
		}
	}
	for path, text := range files {
		write(path, text)
	}
	for _, f := range []string{"users.cfg", "certs/00-public.pem", "public.pem"} {
		write(filepath.Join(secrets, f), "bundle\n")
	}
	binary := filepath.Join(secrets, program)
	write(binary, text)
	args := []string{filepath.Join(local, "run.sh"), filepath.Join(local, "haproxy.pid"), binary}
	if name == "edge-nginx" {
		args = []string{filepath.Join(local, "run.sh"), binary}
	}
	// A shell that inherits an ignored signal, as under nohup, cannot trap it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", args...) // #nosec G204 -- of the test
	cmd.Env = append(os.Environ(), "NOMAD_TASK_DIR="+local, "NOMAD_SECRETS_DIR="+secrets)
	cmd.Dir = local
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	return write
}
