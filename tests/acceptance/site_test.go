// Package acceptance runs drover against a real Nomad, in situations in which other
// tools are known to fail.
package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// site is a cluster with drover and the tokens to use it.
type site struct {
	drover string
	nomad  string   // path of the nomad program
	env    []string // of a deployer
	admin  []string // of an administrator
	client *api.Client
}

func newSite(t *testing.T) *site {
	t.Helper()
	dev := devtest.Cluster(t, devcluster.Options{Secure: devtest.Secured()})
	s := siteOn(t, dev, t.TempDir())
	if s.admin = s.env; devtest.Secured() {
		s.env = append(slices.Clip(s.env), devtest.Tokens(t, dev, acl.Deployer)...)
	}
	return s
}

// siteOn builds the program into a directory.
func siteOn(t *testing.T, dev *devcluster.Cluster, dir string) *site {
	t.Helper()
	s := &site{drover: filepath.Join(dir, "drover")}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", s.drover, "../../cmd/drover")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building drover: %v\n%s", err, out)
	}
	var err error
	if s.nomad, err = (devcluster.Tools{}).Path(t.Context(), devcluster.Nomad); err != nil {
		t.Fatal(err)
	}
	if s.env, err = dev.Env(""); err != nil {
		t.Fatal(err)
	}
	if s.client, err = api.NewClient(dev.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	return s
}

// stack is a directory of job specs. The name of the test is the beginning of
// every job ID in it.
type stack struct {
	*site
	t   *testing.T
	dir string
	id  string
}

func (s *site) stack(t *testing.T, files map[string]string) *stack {
	t.Helper()
	id := strings.ToLower(t.Name()[strings.LastIndexByte(t.Name(), '/')+1:])
	temp := t.TempDir() // ends with 001, 002, …: the directory names the stack
	st := &stack{site: s, t: t, dir: filepath.Join(temp, id+"-"+filepath.Base(temp)), id: id}
	st.write(files)
	t.Cleanup(func() {
		jobs, _, err := s.client.Jobs().PrefixList(id)
		if err != nil {
			t.Error(err)
		}
		for _, j := range jobs {
			_, _, _ = s.client.Jobs().Deregister(j.ID, true, nil)
		}
	})
	return st
}

// write replaces files; @ in them is the prefix of job IDs.
func (s *stack) write(files map[string]string) {
	s.t.Helper()
	for name, text := range files {
		file := filepath.Join(s.dir, strings.ReplaceAll(name, "@", s.id))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "@", s.id)), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

// run runs a command in the directory of the stack.
func (s *stack) run(program string, args ...string) (out string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), s.env...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		s.t.Fatalf("%s %v: %v\n%s", filepath.Base(program), args, err, both.String())
	}
	return both.String(), cmd.ProcessState.ExitCode()
}

// want runs drover and checks its exit code.
func (s *stack) want(code int, args ...string) string {
	s.t.Helper()
	out, got := s.run(s.drover, args...)
	if got != code {
		s.t.Fatalf("drover %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

func (s *stack) job(name string) *api.Job {
	s.t.Helper()
	j, _, err := s.client.Jobs().Info(s.id+name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

// running lists the IDs of the allocations of a job that run.
func (s *stack) running(name string) []string {
	s.t.Helper()
	list, _, err := s.client.Jobs().Allocations(s.id+name, false, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		if a.ClientStatus == api.AllocClientStatusRunning && a.DesiredStatus == api.AllocDesiredStatusRun {
			out = append(out, a.ID)
		}
	}
	slices.Sort(out)
	return out
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("got output:\n%s\nwant it to contain %q", text, p)
		}
	}
}

// spec returns a job of one small process. more is added to the job. The deadlines are
// long, for slow machines: a task fails by its exit code.
func spec(name string, count int, command, more string) string {
	return fmt.Sprintf(`job "@%s" {
  update {
    min_healthy_time  = "1s"
    healthy_deadline  = "1m"
    progress_deadline = "2m"
    health_check      = "task_states"
  }
%s
  group "g" {
    count = %d
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver       = "raw_exec"
      kill_timeout = "1s"
      config {
        command = "/bin/sh"
        args    = ["-c", %q]
      }
      resources {
        cpu    = 10
        memory = 16
      }
    }
  }
}
`, name, more, count, command)
}

const sleeps = "exec sleep 3600"

// batch removes from a spec the blocks that batch jobs must not have.
func batch(spec, kind string) string {
	from, to := strings.Index(spec, "  update {"), strings.Index(spec, "  }\n")
	spec = spec[:from] + "  type = \"" + kind + "\"\n" + spec[to+4:]
	if kind == "sysbatch" {
		from, to = strings.Index(spec, "    reschedule {"), strings.Index(spec, "    task ")
		spec = spec[:from] + spec[to:]
	}
	return spec
}
