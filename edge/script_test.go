package edge

import (
	"errors"
	"io"
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

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// fakeHAProxy starts slowly, and a signal ends it meanwhile. It loses the first
// SIGUSR2 that it gets after that.
const fakeHAProxy = `#!/bin/sh
[ "$1" = -c ] && exit 0
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

// lateHAProxy reads the map of its configuration when the file go is there, as a slow
// machine does, and adds both to the file served.
const lateHAProxy = `#!/bin/sh
[ "$1" = -c ] && exit 0
load() {
  cat loaded.cfg >reading
  until [ -e go ]; do sleep 0.1; done
  g=$(sed -n 's/^generation //p' reading)
  echo "$(grep '^# ' reading): $(cat "$(sed -n 's/^map //p' reading)")" >>served
  echo $g >worker
}
trap 'asked=yes' USR2
trap 'exit 0' TERM
load
echo $$ >haproxy.pid
while :; do
  if [ -n "$asked" ]; then
    asked=
    load
  fi
  sleep 0.1
done
`

// strictHAProxy refuses its files while the file bad is there. It counts the signals and
// the checks. The worker that it keeps takes routes, whatever they are for.
const strictHAProxy = `#!/bin/sh
if [ "$1" = -c ]; then
  echo >>checks
  [ ! -e bad ]
  exit
fi
load() { sed -n 's/^generation //p' loaded.cfg >worker; }
trap 'echo >>signals; [ -e bad ] || load' USR2
trap 'exit 0' TERM
load
echo $$ >haproxy.pid
while :; do
  [ ! -e renew ] || head -n 1 renew >worker
  sleep 0.1
done
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

// A HAProxy that reads its files slowly gets those of one generation, and the whole of
// them, also if others are rendered meanwhile.
func TestScript_FilesOfOneGeneration(t *testing.T) {
	t.Parallel()
	local := t.TempDir()
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(local, name))
		return string(text)
	}
	configuration := func(name string) string {
		return "generation @generation@\nmap routes.@generation@.map\n# " + name + "\n#: " + name + ".test/ " + name + "\n"
	}
	if err := os.WriteFile(filepath.Join(local, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write := startScript(t, "edge", local, "haproxy", lateHAProxy, map[string]string{"haproxy.cfg": configuration("one")})
	served := func(name string) {
		t.Helper()
		devtest.Until(t, time.Minute, "the configuration "+name+" is served", func() bool { return strings.Contains(read("served"), "# "+name+": ") })
		if want := "# " + name + ": " + name + ".test/ " + name + "\n"; !strings.Contains(read("served"), want) {
			t.Errorf("HAProxy has read\n%swant %q", read("served"), want)
		}
	}
	served("one")

	if err := os.Remove(filepath.Join(local, "go")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"two", "three"} { // the script waits 5 s for the second
		write("haproxy.cfg", configuration(name))
		write("reload", "")
		devtest.Until(t, time.Minute, "the files of "+name+" are there", func() bool { return strings.Contains(read("loaded.cfg"), "# "+name+"\n") })
		devtest.Until(t, time.Minute, "HAProxy reads the second generation", func() bool { return strings.Contains(read("reading"), "# two\n") })
	}
	held, err := os.Open(filepath.Join(local, "loaded.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	want, err := os.ReadFile(filepath.Join(local, "loaded.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	write("go", "")
	served("two")
	served("three")
	write("haproxy.cfg", configuration("four"))
	write("reload", "")
	served("four")
	if got, err := io.ReadAll(held); err != nil || string(got) != string(want) {
		t.Errorf("a configuration that is being read changed: got %q and error %v, want %q", got, err, want)
	}
	devtest.Until(t, time.Minute, "the maps of former generations are removed", func() bool {
		maps, err := filepath.Glob(filepath.Join(local, "routes.*.map"))
		return err == nil && len(maps) == 1
	})
}

// HAProxy counts the reloads that it refuses. Of files that are refused again and again,
// it is asked to load them once.
func TestScript_ChecksWhatWasRefused(t *testing.T) {
	t.Parallel()
	local := t.TempDir()
	lines := func(name string) int {
		text, _ := os.ReadFile(filepath.Join(local, name))
		return strings.Count(string(text), "\n")
	}
	loads := func(text string) bool {
		loaded, _ := os.ReadFile(filepath.Join(local, "loaded.cfg"))
		worker, _ := os.ReadFile(filepath.Join(local, "worker"))
		return strings.Contains(string(loaded), text) && len(worker) > 0 && strings.Contains(string(loaded), "generation "+string(worker))
	}
	write := startScript(t, "edge", local, "haproxy", strictHAProxy, map[string]string{"haproxy.cfg": "generation @generation@\n# one\n"})
	devtest.Until(t, time.Minute, "the first generation is loaded", func() bool { return loads("# one") })
	first, err := os.ReadFile(filepath.Join(local, "worker"))
	if err != nil {
		t.Fatal(err)
	}
	write("bad", "")
	write("haproxy.cfg", "generation @generation@\n# two\n")
	write("reload", "")
	devtest.Until(t, time.Minute, "HAProxy refuses the second generation", func() bool { return lines("signals") == 1 })
	write("worker", string(first)) // the worker that is kept says late what it has
	devtest.Until(t, time.Minute, "the second generation is checked twice", func() bool { return lines("checks") >= 2 })
	write("haproxy.cfg", "generation @generation@\n# three\n")
	write("reload", "")
	devtest.Until(t, time.Minute, "the third generation is checked", func() bool { return lines("checks") >= 3 })
	if got := lines("signals"); got != 1 {
		t.Errorf("HAProxy got %d signals to load files that it refuses, want 1", got)
	}
	if err := os.Remove(filepath.Join(local, "bad")); err != nil {
		t.Fatal(err)
	}
	devtest.Until(t, time.Minute, "the third generation is loaded", func() bool { return loads("# three") })
	if got := lines("signals"); got != 2 {
		t.Errorf("HAProxy got %d signals, want 2", got)
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
		if err := errors.Join(os.WriteFile(path+".next", []byte(text), 0o755), os.Rename(path+".next", path)); err != nil { // as Nomad
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
