// Package acceptance runs drover against a real Nomad, in situations in which other
// tools are known to fail.
package acceptance

import (
	"fmt"
	"os"
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
	s := &site{drover: devtest.Build(t, dir)}
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
	return devtest.Program{Path: program, Env: s.env, Dir: s.dir}.Run(s.t, args...)
}

// want runs drover and checks its exit code.
func (s *stack) want(code int, args ...string) string {
	s.t.Helper()
	return devtest.Program{Path: s.drover, Env: s.env, Dir: s.dir}.Want(s.t, code, args...)
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
	devtest.Contains(t, text, parts...)
}

// until waits until ok returns true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	devtest.Until(t, 3*time.Minute, what, ok)
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
