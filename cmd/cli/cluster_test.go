package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/devcluster"
)

// clusterEnv starts the dev cluster of a test and returns the environment
// that leads to it. It goes with the test, or at the latest with the process.
func clusterEnv(t *testing.T) []string {
	t.Helper()
	drover, err := exec.LookPath("drover") // the one that testscript.Main puts there
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "cli-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	opts := devcluster.Options{Dir: filepath.Join(tmp, "c"), Lifeline: true, Throwaway: true}
	opts.Supervisor = devcluster.Command{Path: drover, Args: []string{"dev", "supervise", "--dir", opts.Dir}}
	dev, err := devcluster.Up(t.Context(), opts)
	if errors.Is(err, devcluster.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Down(context.WithoutCancel(t.Context()), true); err != nil {
			t.Error(err)
		}
	})
	return []string{"NOMAD_ADDR=" + dev.NomadAddr(), "CONSUL_HTTP_ADDR=" + dev.ConsulAddr()}
}

// The scripts deploy to a real Nomad and Consul, all to the same: each has
// job names of its own.
func TestOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                "testdata/cluster",
			RequireUniqueNames: true,
			UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
			Setup: func(e *testscript.Env) error {
				e.Vars = append(e.Vars, env...)
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		})
	})
	t.Run("interrupt", func(t *testing.T) {
		t.Parallel()
		interrupt(t, env)
	})
}

// exits runs a command that must end with the given code: exits 3 drover …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// interrupt sends SIGINT to a deploy when its first service is submitted.
func interrupt(t *testing.T, env []string) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"stack.hcl":       "stack \"interrupted\" {}\nservice \"int-a\" {}\nservice \"int-b\" {\n  depends_on = [\"int-a\"]\n}\n",
		"int-a.nomad.hcl": slowJob("int-a"),
		"int-b.nomad.hcl": slowJob("int-b"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "drover", "deploy", dir)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout = &out
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for sc := bufio.NewScanner(pipe); sc.Scan(); {
		lines = append(lines, sc.Text())
		if sc.Text() == "int-a: submitted" {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitCancelled {
		t.Errorf("exit code %d", code)
	}
	if !slices.Contains(lines, "Interrupted. Submitted and left running in Nomad: int-a") || slices.Contains(lines, "int-b: submitted") || !strings.HasPrefix(out.String(), "interrupted: cancelled: 2 cancelled") {
		t.Errorf("it said\n%s\n%s", strings.Join(lines, "\n"), out.String())
	}
}

func slowJob(name string) string {
	return `job "` + name + `" {
  update {
    min_healthy_time = "9s"
    health_check     = "task_states"
  }
  group "g" {
    task "t" {
      driver = "mock_driver"
      config {
        run_for = "1h"
      }
    }
  }
}
`
}
