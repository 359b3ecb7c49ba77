package edge

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// The script of the task repeats a reload that no worker confirms.
func TestScript_RepeatsALostReload(t *testing.T) {
	t.Parallel()
	files, err := jobs.Stack("edge")
	if err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: "edge", FS: files, Environment: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := render.Stack(t.Context(), s, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	local, secrets := filepath.Join(dir, "local"), filepath.Join(dir, "secrets")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tmpl := range rendered[0].Job.TaskGroups[0].Tasks[0].Templates {
		if *tmpl.DestPath == "local/run.sh" {
			write(filepath.Join(local, "run.sh"), *tmpl.EmbeddedTmpl)
		}
	}
	write(filepath.Join(local, "haproxy.cfg"), "generation @generation@\n# one\n")
	write(filepath.Join(secrets, "users.cfg"), "")
	write(filepath.Join(secrets, "certs", "00-public.pem"), "bundle\n")
	write(filepath.Join(dir, "haproxy"), fakeHAProxy)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", filepath.Join(local, "run.sh"), filepath.Join(local, "haproxy.pid"), filepath.Join(dir, "haproxy"))
	cmd.Env = append(os.Environ(), "NOMAD_TASK_DIR="+local, "NOMAD_SECRETS_DIR="+secrets)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(local, name))
		return strings.TrimSpace(string(text))
	}
	loads := func(text string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for !strings.Contains(read("loaded.cfg"), text) || read("running") == "" || read("running") != read("newest") {
			if time.Now().After(deadline) {
				t.Fatalf("the worker has generation %q, want %q of\n%s", read("running"), read("newest"), read("haproxy.cfg"))
			}
			time.Sleep(50 * time.Millisecond) // no event tells it
		}
	}
	loads("# one")
	write(filepath.Join(local, "haproxy.cfg"), "generation @generation@\n# two\n")
	write(filepath.Join(local, "reload"), "")
	loads("# two")
}
