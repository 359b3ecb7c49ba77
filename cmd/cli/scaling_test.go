package cli

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// TestScalingOnCluster deploys groups that an autoscaler scales, and jobs
// whose instances have children or volumes, to one cluster.
func TestScalingOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"a changed count wins":        changedCount,
		"names missing volumes":       namesVolumes,
		"runs of parents":             runsOfParents,
		"a lower count stops at once": lowerCount,
	})
}

// scaledWorld is a world with one service whose group has a scaling block.
type scaledWorld struct{ *world }

func (w scaledWorld) write(value string, count, maximum int, crash bool) {
	w.Helper()
	job := devtest.MockJob{
		ID: w.job("a"), Count: count, Value: value,
		Update: "max_parallel = 10", Group: fmt.Sprintf("scaling {\n  min = 1\n  max = %d\n}", maximum),
	}
	if crash {
		job.Config = devtest.Broken
	}
	write(w.T, w.dir, map[string]string{
		"stack.hcl":   fmt.Sprintf("stack %q {}\nservice \"a\" {}\n", w.name),
		"a.nomad.hcl": job.String(),
	})
}

func (w scaledWorld) scale(n int) {
	w.Helper()
	if _, _, err := w.nomad.Jobs().Scale(w.job("a"), "g", &n, "load", false, nil, nil); err != nil {
		w.Fatal(err)
	}
}

func (w scaledWorld) wantCount(want int) {
	w.Helper()
	job, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
	if err != nil {
		w.Fatal(err)
	}
	if got := *job.TaskGroups[0].Count; got != want {
		w.Errorf("count is %d, want %d", got, want)
	}
}

// changedCount: a count that the file changes is deployed, one to which the
// group was scaled is kept, and a revert and a rollback do the same.
func changedCount(t *testing.T, env []string) {
	w := scaledWorld{newWorld(t, env, "counts")}
	w.write("1", 2, 10, false)
	w.drover(0, "deploy", w.dir)
	w.wantCount(2)

	w.write("1", 4, 10, false) // never scaled
	w.want(w.drover(0, "plan", w.dir), `group.g.count: "2" → "4"`)
	w.drover(0, "deploy", w.dir)
	w.wantCount(4)

	w.scale(6)
	w.drover(0, "deploy", w.dir)
	w.wantCount(6)
	w.write("2", 4, 10, false)
	w.want(w.drover(0, "plan", w.dir), "count of group g stays 6, set by scaling; the stack says 4")
	w.drover(0, "deploy", w.dir)
	w.wantCount(6)

	w.write("2", 4, 5, false)
	w.want(w.drover(0, "plan", w.dir), "count of group g goes from 6, set by scaling, to 5, the max of its scaling block; the stack says 4")

	w.write("3", 3, 10, false)
	w.want(w.drover(0, "plan", w.dir, "-out", w.dir+"/saved"), "count 3 of group g replaces 6, set by scaling: the stack has changed it")
	w.drover(0, "deploy", w.dir+"/saved")
	w.wantCount(3)

	// A failed deploy restores the count that it found, and the next deploy compares
	// with the count of the file at that time.
	w.scale(5)
	w.write("4", 2, 10, true)
	w.drover(4, "deploy", w.dir)
	w.wantCount(5)
	w.write("5", 3, 10, false)
	w.drover(0, "deploy", w.dir)
	w.wantCount(5)

	// A rollback keeps what was scaled, unless the files had another count.
	w.drover(0, "rollback", w.dir, "4")
	if w.value("a") != "3" {
		t.Errorf("value %s after the rollback", w.value("a"))
	}
	w.wantCount(5)
	w.drover(0, "rollback", w.dir, "1")
	w.wantCount(2)
}

// namesVolumes: plan, deploy and doctor name the volumes of all instances, and
// destroy deletes them, also when they are created again at once.
func namesVolumes(t *testing.T, env []string) {
	w := newWorld(t, env, "volumes")
	job := func(service, source string) string {
		return devtest.MockJob{
			ID: w.job(service), Count: 2, Update: "max_parallel = 2",
			Group: fmt.Sprintf("volume \"v\" {\n  type      = \"host\"\n  source    = %q\n  per_alloc = true\n}", source),
		}.String()
	}
	write(t, w.dir, map[string]string{"stack.hcl": fmt.Sprintf("stack %q {}\nservice \"a\" {}\n", w.name), "a.nomad.hcl": job("a", "kept")})
	missing := []string{`(instance g[0]) needs host volume "kept[0]"`, `(instance g[1]) needs host volume "kept[1]"`, "drover deploy --create-volumes"}
	w.want(w.drover(0, "plan", w.dir), missing...)
	w.want(w.drover(1, "deploy", w.dir), missing...)
	w.want(w.drover(1, "doctor", w.dir), missing...)
	for range 2 {
		w.want(w.drover(0, "deploy", w.dir, "--create-volumes"), "kept[0]", "kept[1]", "1 deployed")
		w.want(w.drover(0, "destroy", w.dir, "-y", "--purge", "data"), "volume kept[0] on node", "volume kept[1] on node")
		list, _, err := w.nomad.HostVolumes().List(nil, nil)
		if err != nil || len(list) != 0 {
			t.Fatalf("%d volumes are left, %v", len(list), err)
		}
	}

	// The data of a service that has left the stack is the stack's.
	write(t, w.dir, map[string]string{"stack.hcl": fmt.Sprintf("stack %q {}\nservice \"a\" {}\nservice \"b\" {}\n", w.name), "b.nomad.hcl": job("b", "left")})
	w.drover(0, "deploy", w.dir, "--create-volumes")
	write(t, w.dir, map[string]string{"stack.hcl": fmt.Sprintf("stack %q {}\nservice \"a\" {}\n", w.name)})
	if err := os.Remove(w.dir + "/b.nomad.hcl"); err != nil {
		t.Fatal(err)
	}
	w.drover(0, "deploy", w.dir, "--prune")
	w.want(w.drover(0, "destroy", w.dir, "-y", "--purge", "data"), "- volume left[0] on node", "volume left[1] on node", "- volume kept[0] on node", "volume kept[1] on node")
	if list, _, err := w.nomad.HostVolumes().List(nil, nil); err != nil || len(list) != 0 {
		t.Fatalf("%d volumes are left, %v", len(list), err)
	}
}

// runsOfParents: status counts the runs of periodic and parameterized jobs, and
// logs reads and follows them.
func runsOfParents(t *testing.T, env []string) {
	w := newWorld(t, env, "parents")
	job := func(service, block string) string {
		config := fmt.Sprintf("run_for       = \"1h\"\nstdout_string = \"hello from %s\\n\"", service)
		return devtest.MockJob{ID: w.job(service), Type: "batch", Job: block, Config: config, Logs: true}.String()
	}
	write(t, w.dir, map[string]string{
		"stack.hcl":      fmt.Sprintf("stack %q {}\nservice \"cron\" {}\nservice \"call\" {}\n", w.name),
		"cron.nomad.hcl": job("cron", "periodic {\n  crons = [\"0 0 1 1 *\"]\n}"),
		"call.nomad.hcl": job("call", "parameterized {}"),
	})
	w.drover(0, "deploy", w.dir)
	w.want(w.drover(0, "status", w.dir), "none running", "it has not run, or Nomad has collected its runs")
	w.want(w.drover(1, "logs", w.dir, "cron"), "has no run that Nomad still knows", "nomad job periodic force parents-cron")

	if _, _, err := w.nomad.Jobs().PeriodicForce(w.job("cron"), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.nomad.Jobs().Dispatch(w.job("call"), nil, nil, "", nil); err != nil {
		t.Fatal(err)
	}
	var out string
	w.until("status counts the runs", func() bool {
		out = w.drover(0, "status", w.dir)
		return strings.Count(out, "1 running") == 2
	})
	w.want(out, "parents-cron/periodic-", "parents-call/dispatch-")
	for _, service := range []string{"cron", "call"} {
		w.until("the log of "+service, func() bool { // a running task may not have written yet
			return strings.Contains(w.drover(0, "logs", w.dir, service), " t | hello from "+service)
		})
	}

	// One that starts and ends while its logs are followed.
	cmd := w.command(w.env, "logs", w.dir, "call", "-f")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Signal(os.Interrupt) }()
	lines := bufio.NewScanner(pipe)
	for n := range 2 {
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), " t | hello from call") {
			t.Fatalf("line %d is %q, %v", n, lines.Text(), lines.Err())
		}
		if n == 0 {
			if _, _, err := w.nomad.Jobs().Dispatch(w.job("call"), nil, nil, "", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// lowerCount: a lower count beside a new version stops allocations before the
// new version is healthy, and plan and deploy say so.
func lowerCount(t *testing.T, env []string) {
	w := newWorld(t, env, "lower")
	version := func(count int, run string) {
		write(t, w.dir, map[string]string{
			"stack.hcl": fmt.Sprintf("stack %q {}\nservice \"a\" {}\n", w.name),
			"a.nomad.hcl": devtest.MockJob{
				ID: w.job("a"), Count: count, Config: run,
				Update: "max_parallel = 4\ncanary       = 2\nauto_promote = true\nauto_revert  = true",
			}.String(),
		})
	}
	version(4, "")
	w.drover(0, "deploy", w.dir)
	version(2, devtest.Broken)
	const early = "group g: Nomad stops 2 of 4 allocations at once, before the new version is healthy"
	w.want(w.drover(0, "plan", w.dir), "2 stop at once, 2 replace (2 canaries first)", "warning: "+early)
	w.want(w.drover(4, "deploy", w.dir), "a: warning: "+early)
	w.want(w.drover(0, "status", w.dir), "4/4")

	// The lower count alone stops what it says, and nothing is replaced.
	version(2, "")
	if out := w.drover(0, "plan", w.dir); !strings.Contains(out, "2 stop") || strings.Contains(out, "at once") {
		t.Errorf("the plan of a lower count says\n%s", out)
	}
}
