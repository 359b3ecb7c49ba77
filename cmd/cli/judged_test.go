package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// What a release leaves, judged on a real Nomad.
func TestJudgedOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	for name, test := range map[string]func(*testing.T, []string){
		"goes back from a promoted canary": promotedCanaryGoesBack,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
}

// files writes a stack of job files; update is the update block of every job.
func (w *world) files(jobs map[string]string) {
	w.Helper()
	files := map[string]string{}
	for name, body := range jobs {
		if strings.HasSuffix(name, ".hcl") {
			files[name] = body
			continue
		}
		files[name+".nomad.hcl"] = fmt.Sprintf("job %q {\n%s}\n", w.job(name), body)
	}
	write(w.T, w.dir, files)
}

// mockService is the body of a job whose instances run until they are stopped,
// or do not start.
func mockService(count int, value string, starts bool, update string) string {
	run := `run_for = "1h"`
	if !starts {
		run = `start_error = "broken"`
	}
	return fmt.Sprintf(`
  update {
    min_healthy_time  = "100ms"
    healthy_deadline  = "30s"
    progress_deadline = "40s"
    health_check      = "task_states"
    %s
  }
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
      driver = "mock_driver"
      env {
        VALUE = %q
      }
      config {
        %s
      }
      resources {
        cpu    = 1
        memory = 10
      }
    }
  }
`, update, count, value, run)
}

// runningBy counts the allocations of a service that run, by VALUE of the version
// that they are of.
func (w *world) runningBy(service string) map[string]int {
	w.Helper()
	allocs, _, err := w.nomad.Jobs().Allocations(w.job(service), false, nil)
	if err != nil {
		w.Fatal(err)
	}
	versions, _, _, err := w.nomad.Jobs().Versions(w.job(service), false, nil)
	if err != nil {
		w.Fatal(err)
	}
	values := map[uint64]string{}
	for _, v := range versions {
		values[*v.Version] = v.TaskGroups[0].Tasks[0].Env["VALUE"]
	}
	out := map[string]int{}
	for _, a := range allocs {
		if a.ClientStatus == api.AllocClientStatusRunning && a.DesiredStatus == api.AllocDesiredStatusRun {
			out[values[a.JobVersion]]++
		}
	}
	return out
}

func (w *world) state() record.State {
	w.Helper()
	last, err := w.releases().Last(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return last.State
}

// A promoted canary serves when the next service fails: the former version is
// promoted on the way back, without a person.
func promotedCanaryGoesBack(t *testing.T, env []string) {
	w := newWorld(t, env, "promoted")
	const order = "service \"a\" {}\nservice \"b\" {\n  depends_on = [\"a\"]\n}\n"
	version := func(value string, starts bool) {
		w.files(map[string]string{
			"stack.hcl": "stack \"promoted\" {}\n" + order,
			"a":         mockService(3, value, true, "canary = 1"),
			"b":         mockService(1, value, starts, ""),
		})
	}
	version("1", true)
	w.drover(exitOK, "deploy", w.dir)
	version("2", false)
	w.drover(exitPromotion, "deploy", w.dir)
	w.drover(exitReverted, "promote", w.name)
	if got := w.runningBy("a"); fmt.Sprint(got) != "map[1:3]" {
		t.Errorf("running of a, by version: got %v, want 3 of version 1", got)
	}
	if got := w.state(); got != record.Reverted {
		t.Errorf("the release is %s, want %s", got, record.Reverted)
	}
	version("1", true)
	w.want(w.drover(exitOK, "status", w.dir), "3/3")
	w.want(w.drover(exitOK, "deploy", w.dir), "unchanged")
}
