//go:build linux

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// devRun runs `drover dev …` as a process of its own: up starts another.
func devRun(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := devCommand(dir, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func devCommand(dir string, args ...string) *exec.Cmd {
	args = append([]string{"dev"}, args...)
	return exec.Command("drover", append(args, "--name", "clitest", "--dir", dir)...)
}

func devDir(t *testing.T) string {
	t.Helper()
	tmp, err := os.MkdirTemp("", "dev-")
	if err == nil {
		err = os.Chmod(tmp, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(tmp, "c")
	t.Cleanup(func() {
		_, _, code := devRun(t, dir, "down", "--wipe")
		if err := os.Remove(tmp); err != nil || code != 0 {
			t.Errorf("down --wipe ended with %d; %v", code, err)
		}
	})
	return dir
}

func TestDevCluster(t *testing.T) {
	devtest.NeedsServers(t)
	dir := devDir(t)
	status := func() devcluster.Status {
		t.Helper()
		out, errs, code := devRun(t, dir, "status", "-o", "json")
		var st devcluster.Status
		if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 {
			t.Fatalf("status: exit code %d, %v\n%s%s", code, err, out, errs)
		}
		return st
	}
	if st := status(); st.State != devcluster.StateAbsent {
		t.Errorf("before up the state is %s", st.State)
	}
	if out, errs, code := devRun(t, dir, "env"); code != exitError || out != "" || !strings.Contains(errs, "does not run: start it with drover dev up") {
		t.Errorf("env without a cluster: %d\n%s%s", code, out, errs)
	}
	if _, errs, code := devRun(t, dir, "down"); code != exitOK || !strings.Contains(errs, "There is no dev cluster") {
		t.Errorf("down without a cluster: %d\n%s", code, errs)
	}

	out, errs, code := devRun(t, dir, "up")
	if code != exitOK || !strings.Contains(errs, "nomad-client: starting on ") || !strings.HasPrefix(out, "Nomad ") || strings.Contains(out, "starting") {
		t.Fatalf("up: %d\n%s%s", code, out, errs)
	}
	st := status()
	if st.State != devcluster.StateRunning || len(st.Agents) != 3 {
		t.Errorf("after up: %+v", st)
	}
	if out, _, _ := devRun(t, dir, "status"); !strings.Contains(out, "Cluster clitest is running") || !strings.Contains(out, "nomad-server") {
		t.Errorf("status:\n%s", out)
	}
	out, _, code = devRun(t, dir, "env")
	if code != exitOK || !strings.Contains(out, "export NOMAD_ADDR="+st.NomadAddr+"\n") || !strings.Contains(out, "export CONSUL_HTTP_ADDR="+st.ConsulAddr+"\n") {
		t.Errorf("env: %d\n%s", code, out)
	}
	if _, errs, code := devRun(t, dir, "env", "--region", "mars"); code != exitUsage {
		t.Errorf("env of an unknown region: %d\n%s", code, errs)
	}
	if _, errs, code := devRun(t, dir, "up"); code != exitOK || !strings.Contains(errs, "already running") {
		t.Errorf("a second up: %d\n%s", code, errs)
	}
	if _, errs, code := devRun(t, dir, "up", "--clients", "2"); code != exitUsage || !strings.Contains(errs, "exists with another shape") {
		t.Errorf("up with another shape: %d\n%s", code, errs)
	}
	out, errs, code = devRun(t, dir, "up", "--acme")
	if code != exitOK || !strings.Contains(errs, "pebble: starting on https://") || strings.Contains(errs, "already running") || !strings.Contains(out, "ACME ") {
		t.Errorf("up --acme on a running cluster: %d\n%s%s", code, out, errs)
	}
	if out, _, code := devRun(t, dir, "env"); code != exitOK || !strings.Contains(out, "export DROVER_ACME_DIRECTORY=https://") ||
		!strings.Contains(out, "export DROVER_ACME_CA="+filepath.Join(dir, "acme", "api-ca.pem")+"\n") ||
		!strings.Contains(out, "export DROVER_DEV_CA="+filepath.Join(dir, "acme", "ca.pem")+"\n") || !strings.Contains(out, ":9443\n") {
		t.Errorf("env with ACME: %d\n%s", code, out)
	}
	if st = status(); len(st.Agents) != 4 || st.Agents[0].Program != devcluster.Pebble {
		t.Errorf("after up --acme: %+v", st)
	}
	if _, errs, code := devRun(t, dir, "down"); code != exitOK || !strings.Contains(errs, "is down; its data is kept") {
		t.Errorf("down: %d\n%s", code, errs)
	}
	devGone(t, st)
	if st := status(); st.State != devcluster.StateStopped {
		t.Errorf("after down the state is %s", st.State)
	}
}

// devGone waits until none of the cluster's processes is there.
func devGone(t *testing.T, st devcluster.Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range append([]int{st.SupervisorPID}, pidsOf(st)...) {
		for {
			// Only a process that is none of ours can have the number again.
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || !strings.Contains(string(b), st.Dir) {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("process %d is still there: %q", pid, b)
			case <-tick.C:
			}
		}
	}
}

func pidsOf(st devcluster.Status) []int {
	var all []int
	for _, a := range st.Agents {
		all = append(all, a.PID)
	}
	return all
}

func TestDevInterrupted(t *testing.T) {
	devtest.NeedsServers(t)
	dir := devDir(t)
	cmd := devCommand(dir, "up")
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	sent := false // a second signal would kill
	for buf := make([]byte, 4096); ; {
		n, err := errs.Read(buf)
		seen.Write(buf[:n])
		if !sent && strings.Contains(seen.String(), "nomad-server: starting") {
			sent = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitCancelled {
		t.Errorf("exit code %d\n%s", code, seen.String())
	}
	c, err := devcluster.Open(devcluster.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := c.Leftovers(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A shell that evaluates the output of env gets the same values.
func TestDevEnvInShell(t *testing.T) {
	env := []string{
		"PLAIN=http://127.0.0.1:4646/a_b.c@d%e+f,g-h", "EMPTY=", `LIST=["drover.test"]`, "EXE=/home/a b/drover", "EQUALS=a=b",
		`ODD=it's $HOME ` + "`id`" + ` \ "x" * ~ & | ; # (y)`, "LINES=one\ntwo",
	}
	var out strings.Builder
	if err := printExports(&out, env); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "export "+env[0]+"\n") {
		t.Errorf("what needs no quotes has some:\n%s", out.String())
	}
	sh := exec.Command("sh", "-c", `eval "$1"; env -0`, "sh", out.String())
	sh.Env = []string{"PATH=" + os.Getenv("PATH")}
	got, err := sh.Output()
	if err != nil {
		t.Fatalf("%v of\n%s", err, out.String())
	}
	for _, v := range env {
		if !strings.Contains("\x00"+string(got), "\x00"+v+"\x00") {
			t.Errorf("a shell does not make %q of\n%s", v, out.String())
		}
	}
}

func TestDevMistakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"nonsense"}, `unknown command "nonsense"`},
		{[]string{"up", "extra"}, "give no arguments"},
		{[]string{"up", "--ports", "odd"}, `--ports is auto or default, not "odd"`},
		{[]string{"up", "--servers", "many"}, "drover dev up: invalid argument"},
		{[]string{"up", "--servers", "-1"}, "cannot be negative"},
		{[]string{"up", "--datacenters", "a,a"}, `datacenter "a" is given twice`},
		{[]string{"up", "--clients", "1", "--datacenters", "a,b"}, "1 clients cannot fill 2 datacenters"},
		{[]string{"up", "--tool", "vault"}, `"vault" is no tool that drover knows`},
		{[]string{"status", "-o", "xml"}, `-o is text or json, not "xml"`},
		{[]string{"supervise"}, "started by drover dev up only"},
	} {
		_, errs, code := devRun(t, dir, tc.args...)
		if code != exitUsage || !strings.Contains(errs, tc.want) {
			t.Errorf("%v: exit code %d, want %q:\n%s", tc.args, code, tc.want, errs)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%v made %s", tc.args, dir)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "photos"), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := devRun(t, dir, "up"); code != exitUsage || !strings.Contains(errs, "it holds photos, which is not of a dev cluster") {
		t.Errorf("up in a directory that is in use: %d\n%s", code, errs)
	}
}
