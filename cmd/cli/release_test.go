package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
)

// envEveryWrite makes the kill tests strike after every write (`make kill`).
const envEveryWrite = "DROVER_TEST_EVERY_WRITE"

// TestReleasesOnCluster runs drover on a real Nomad.
func TestReleasesOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	kills := make(chan struct{}, 6) // a few at a time
	together(t, env, map[string]func(*testing.T, []string){
		"killed at any write, then resumed":          func(t *testing.T, env []string) { killedAnywhere(t, env, "resume", kills) },
		"killed at any write, then aborted":          func(t *testing.T, env []string) { killedAnywhere(t, env, "abort", kills) },
		"busy Nomad during a deploy":                 func(t *testing.T, env []string) { busyAnywhere(t, env, "deploy", kills) },
		"busy Nomad during a revert":                 func(t *testing.T, env []string) { busyAnywhere(t, env, "back", kills) },
		"busy Nomad during a resume":                 func(t *testing.T, env []string) { busyAnywhere(t, env, "resume", kills) },
		"refuses a second deployer":                  twoDeployers,
		"takes the lock of a killed holder":          holderKilled,
		"reverts a failed release":                   revertsFailedRelease,
		"keeps a failed first release":               keepsFailedFirstRelease,
		"reverts only the failed service":            revertsFailedService,
		"rolls back without source and job versions": rollsBackWithoutSource,
		"refuses a job of another stack":             foreignJob,
		"stops a stopped job again on revert":        stoppedJob,
		"refuses a job spec that is too large":       tooLarge,
		"takes over an interrupted release":          takesOverInterrupted,
		"pauses and resumes":                         pauses,
		"keeps changes of another client":            keepsForeignChanges,
		"ends at the timeout of the release":         endsAtTimeout,
		"destroys pruned and failed services":        destroyed,
		"stays open when the token is refused":       refusedMidway,
		"survives bad answers":                       badAnswers,
		"keeps its lease when renewals fail":         leaseKept,
		"replaces a job as approved":                 approvedReplacement,
		"runs a schedule after an outage":            scheduleGoesOn,
		"keeps the services of a partial deploy":     carriedOn,
		"pauses with an unreachable target":          pausedAbroad,
		"keeps the length of the history":            historyKept,
		"ends with the exit code in the last line":   lastLine,
		"stays open when a gate cannot be observed":  gateNotSeen,
		"accepts scaling during a release":           scaledMeanwhile,
		"stays open when a revert is interrupted":    backInterrupted,
		"reverts and prunes during an outage":        badNetwork,
		"recognises a version that Nomad reverted":   lostAndFailed,
		"retries DNS records after the release":      dnsUnanswered,
		"stays open when its end cannot be written":  endNotWritten,
	})
}

func nomadOf(t *testing.T, env []string) *api.Client {
	t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address = strings.TrimPrefix(env[0], "NOMAD_ADDR=")
	c, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// world is a stack in a directory of its own, with the jobs that it deploys.
type world struct {
	*testing.T
	env   []string
	nomad *api.Client
	name  string
	dir   string

	program string // path of drover
}

// svc is a service of a world, with what its versions differ in.
type svc struct {
	name, value string
	deps        []string
	crash       bool // the task does not start
	scaled      bool // an autoscaler sets the count
	logs        bool // Nomad collects the output, with a process of its own
}

func newWorld(t *testing.T, env []string, name string) *world {
	t.Helper()
	w := &world{T: t, env: env, nomad: nomadOf(t, env), name: name, dir: t.TempDir(), program: "drover"}
	t.Cleanup(func() { // so that the agent stays quick
		for id := range w.specs() {
			_, _, _ = w.nomad.Jobs().Deregister(id, false, nil) // a purge may make Nomad 1.11.3 panic
		}
	})
	return w
}

func (w *world) job(service string) string { return w.name + "-" + service }

// write replaces the stack.
func (w *world) write(services ...svc) {
	w.Helper()
	old, err := os.ReadDir(w.dir)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range old {
		if err := os.Remove(w.dir + "/" + e.Name()); err != nil {
			w.Fatal(err)
		}
	}
	files := map[string]string{"stack.hcl": fmt.Sprintf("stack %q {}\n", w.name)}
	for _, s := range services {
		deps, _ := json.Marshal(s.deps)
		if s.deps == nil {
			deps = []byte("[]")
		}
		files["stack.hcl"] += fmt.Sprintf("service %q {\n  depends_on = %s\n}\n", s.name, deps)
		job := devtest.MockJob{ID: w.job(s.name), Value: s.value, Logs: s.logs}
		if s.crash {
			job.Config = devtest.Broken
		}
		if s.scaled {
			job.Group = "scaling {\n  min = 1\n  max = 5\n}"
		}
		files[s.name+".nomad.hcl"] = job.String()
	}
	write(w.T, w.dir, files)
}

func (w *world) command(env []string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(w.Context(), 4*time.Minute)
	w.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, w.program, args...)
	cmd.Env = append(os.Environ(), env...)
	// A program that hangs tells where.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// drover runs one command, checks its exit code, and returns its output.
func (w *world) drover(code int, args ...string) string {
	w.Helper()
	out, got := run(w.command(w.env, args...))
	if got != code {
		w.Fatalf("drover %s: got exit code %d, want %d; Nomad has:\n%s\n%s", strings.Join(args, " "), got, code, w.inNomad(), out)
	}
	return out
}

// inNomad tells in short what Nomad has of the world's jobs.
func (w *world) inNomad() string {
	q := (&api.QueryOptions{}).WithContext(w.Context())
	var lines []string
	add := func(job, format string, args ...any) {
		if strings.HasPrefix(job, w.name) {
			lines = append(lines, "  "+job+": "+fmt.Sprintf(format, args...))
		}
	}
	since := func(nanos int64) time.Duration { return time.Since(time.Unix(0, nanos)).Round(time.Second) }
	jobs, _, err := w.nomad.Jobs().List(q)
	if err != nil {
		return err.Error()
	}
	for _, j := range jobs {
		add(j.ID, "%s, JobModifyIndex %d", j.Status, j.JobModifyIndex)
	}
	deployments, _, _ := w.nomad.Deployments().List(q)
	for _, d := range deployments {
		add(d.JobID, "deployment of version %d (JobModifyIndex %d): %s: %s", d.JobVersion, d.JobSpecModifyIndex, d.Status, d.StatusDescription)
	}
	allocs, _, _ := w.nomad.Allocations().List(q)
	for _, a := range allocs {
		add(a.JobID, "allocation %s of version %d: %s, %s, %d task states, made %s ago, changed %s ago", a.Name, a.JobVersion, a.DesiredStatus, a.ClientStatus, len(a.TaskStates), since(a.CreateTime), since(a.ModifyTime))
	}
	evals, _, _ := w.nomad.Evaluations().List(q)
	for _, e := range evals {
		add(e.JobID, "evaluation by %s: %s %s, changed %s ago", e.TriggeredBy, e.Status, e.StatusDescription, since(e.ModifyTime))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func run(cmd *exec.Cmd) (string, int) {
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -1
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (w *world) want(out string, parts ...string) {
	w.Helper()
	devtest.Contains(w, out, parts...)
}

// specs returns the digests of the jobs in Nomad, without the fields that only the
// server writes, and "stopped" for stopped jobs.
func (w *world) specs() map[string]string {
	w.Helper()
	list, _, err := w.nomad.Jobs().List(&api.QueryOptions{Prefix: w.name + "-"})
	if err != nil {
		w.Fatal(err)
	}
	out := map[string]string{}
	for _, stub := range list {
		// The world "kept" does not have the jobs of the world "kept-history".
		if service, _, _ := strings.Cut(stub.ID[len(w.name)+1:], "/"); strings.Contains(service, "-") {
			continue
		}
		job, _, err := w.nomad.Jobs().Info(stub.ID, nil)
		if err != nil {
			w.Fatal(err)
		}
		if *job.Stop {
			out[stub.ID] = "stopped"
			continue
		}
		job.Status, job.StatusDescription, job.Stable, job.Version, job.SubmitTime = nil, nil, nil, nil, nil
		job.CreateIndex, job.ModifyIndex, job.JobModifyIndex, job.VersionTag = nil, nil, nil, nil
		text, err := json.Marshal(job)
		if err != nil {
			w.Fatal(err)
		}
		out[stub.ID] = record.Digest(text)
	}
	return out
}

func (w *world) value(service string) string {
	w.Helper()
	job, _, err := w.nomad.Jobs().Info(w.job(service), nil)
	if err != nil {
		return ""
	}
	return job.TaskGroups[0].Tasks[0].Env["VALUE"]
}

func (w *world) releases() *record.Releases { return record.OpenReleases(w.nomad, w.name, "default") }

func (w *world) unlocked() {
	w.Helper()
	if h, err := w.releases().Holder(w.Context()); err != nil || h != nil {
		w.Errorf("got lock holder %v (%v), want none", h, err)
	}
}

// proxyOf starts a proxy before the Nomad of env.
func proxyOf(t *testing.T, env []string) *devtest.Proxy {
	t.Helper()
	return devtest.NewProxy(t, &api.Config{Address: strings.TrimPrefix(env[0], "NOMAD_ADDR="), TLSConfig: &api.TLSConfig{}})
}

// through returns env with the address of the proxy as that of Nomad.
func through(proxy *devtest.Proxy, env []string) []string {
	return []string{"NOMAD_ADDR=" + proxy.URL, env[1]}
}

// killer kills a program after Nomad has done its n-th write and before the program
// gets the answer.
type killer struct {
	n     int
	proxy *devtest.Proxy

	mu     sync.Mutex
	victim *exec.Cmd
}

func (k *killer) serve(t *testing.T, env []string) []string {
	t.Helper()
	k.proxy = proxyOf(t, env)
	k.proxy.Wrote(func(n int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if n == k.n {
			_ = k.victim.Process.Kill()
		}
	})
	return through(k.proxy, env)
}

// run runs a command under the killer.
func (k *killer) run(cmd *exec.Cmd) (string, int) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	k.mu.Lock() // until the victim is started
	k.victim = cmd
	err := cmd.Start()
	k.mu.Unlock()
	if err != nil {
		return err.Error(), -1
	}
	_ = cmd.Wait()
	return out.String(), cmd.ProcessState.ExitCode()
}

func version1() []svc {
	return []svc{
		{name: "a", value: "1"}, {name: "b", value: "1", deps: []string{"a"}}, {name: "c", value: "1", deps: []string{"a"}},
		{name: "d", value: "1", deps: []string{"b"}}, {name: "e", value: "1"},
	}
}

// version2 changes three services, creates one and drops one.
func version2() []svc {
	return []svc{
		{name: "a", value: "2"}, {name: "b", value: "2", deps: []string{"a"}}, {name: "c", value: "1", deps: []string{"a"}},
		{name: "d", value: "2", deps: []string{"b"}}, {name: "f", value: "2", deps: []string{"d"}},
	}
}

// killedAnywhere kills a deploy after one of its writes to Nomad, and then runs verb.
// It does so for every sixth write, with other writes for each verb; see atWrites.
func killedAnywhere(t *testing.T, env []string, verb string, slots chan struct{}) {
	first, step := 1, 6
	if verb == "abort" {
		first = 4
	}
	atWrites(t, first, step, slots, func(t *testing.T, n int, program string) bool { return killedAt(t, env, verb, n, program) })
}

// atWrites calls strike with the numbers first, first+step, …, until strike reports that
// the deploy ended before that write, and at last with one that is beyond every deploy.
// `make full` takes all of them, `make kill` every number, and other commands every third.
// Only the first strike runs drover with the race detector; the others use plainDrover.
func atWrites(t *testing.T, first, step int, slots chan struct{}, strike func(t *testing.T, n int, program string) bool) {
	var ended atomic.Bool
	const most = 80
	var left sync.WaitGroup
	switch {
	case os.Getenv(envEveryWrite) != "":
		first, step = 1, 1
	case !devtest.Full():
		step *= 3
	}
	begin := func(n int) {
		program := "drover"
		if n > first {
			program = plainDrover(t)
		}
		slots <- struct{}{}
		left.Go(func() {
			defer func() { <-slots }()
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				if strike(t, n, program) {
					ended.Store(true)
				}
			})
		})
	}
	for n := first; n < most && !ended.Load(); n += step {
		begin(n)
	}
	left.Wait()
	if !ended.Load() {
		begin(most)
		left.Wait()
	}
	if !ended.Load() {
		t.Errorf("no deploy ended within %d writes", most)
	}
}

// killedAt reports whether the deploy ended before its n-th write.
func killedAt(t *testing.T, env []string, verb string, n int, program string) bool {
	w := newWorld(t, env, fmt.Sprintf("%s%d", verb, n))
	w.program = program
	w.write(version1()...)
	w.drover(exitOK, "deploy", w.dir)
	before := w.specs()
	w.write(version2()...)
	k := &killer{n: n}
	out, code := k.run(w.command(k.serve(t, env), "deploy", w.dir, "--prune"))
	ended := code == exitOK
	if !ended && code != -1 {
		t.Fatalf("got exit code %d, want %d or a kill:\n%s", code, exitOK, out)
	}
	writes := k.proxy.Writes()
	t.Logf("killed after %s", writes[len(writes)-1])
	// The lock would expire, but only after the lease.
	w.drover(exitOK, "unlock", w.name, "--force")
	last, err := w.releases().Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := last.State.Open()
	if open && n%2 == 0 {
		w.want(w.drover(exitBusy, "deploy", w.dir), "release 2 of stack "+w.name, "is interrupted", "drover resume", "drover abort")
		w.want(w.drover(exitError, "status", w.dir), "release 2", "interrupted")
	}
	if open {
		if err := os.RemoveAll(w.dir); err != nil { // the record is enough
			t.Fatal(err)
		}
		w.drover(exitOK, verb, w.name)
	} else {
		w.drover(exitBusy, verb, w.name)
	}
	after := w.specs()
	switch {
	case verb == "abort" && (open || last.Number == 1):
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("got jobs\n%v\nwant\n%v", after, before)
		}
	case last.Number == 2:
		for _, s := range version2() {
			if got := w.value(s.name); got != s.value {
				t.Errorf("value of %s: got %q, want %q", s.name, got, s.value)
			}
		}
		if after[w.job("e")] != "" || after[w.job("c")] != before[w.job("c")] {
			t.Errorf("got jobs %v, want e removed and c unchanged", after)
		}
	}
	w.unlocked()
	if last, err = w.releases().Last(t.Context()); err != nil || last.State.Open() {
		t.Errorf("got release %v (%v), want one that is not open", last, err)
	}
	return ended
}

func twoDeployers(t *testing.T, env []string) {
	w := newWorld(t, env, "two")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	var codes [3]int
	var outs [3]string
	var wg sync.WaitGroup
	for i, args := range [][]string{{}, {}, {"--lock-wait", "2m"}} {
		wg.Go(func() {
			outs[i], codes[i] = run(w.command(env, append([]string{"deploy", w.dir, "--prune"}, args...)...))
		})
	}
	wg.Wait()
	good, busy := 0, 0
	for i, code := range codes {
		switch code {
		case exitOK:
			good++
		case exitBusy:
			busy++
			w.want(outs[i], "is being changed by", "drover deploy", "--lock-wait")
		default:
			t.Errorf("got exit code %d, want %d or %d:\n%s", code, exitOK, exitBusy, outs[i])
		}
	}
	if good < 1 || codes[2] != exitOK {
		t.Errorf("got exit codes %v, want one %d, and %d for the deployer that waits", codes, exitOK, exitOK)
	}
	list, err := w.releases().List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("got %d releases (%v), want 1", len(list), err)
	}
	w.unlocked()
}

func holderKilled(t *testing.T, env []string) {
	w := newWorld(t, env, "dead")
	w.write(svc{name: "a", value: "1"})
	k := &killer{n: 3}
	k.run(w.command(k.serve(t, env), "deploy", w.dir, "--prune"))
	begun := time.Now()
	w.drover(exitOK, "deploy", w.dir, "--prune", "--lock-wait", "2m", "--take-over")
	if took := time.Since(begun); took > 2*record.LockTTL+20*time.Second {
		t.Errorf("the next deploy took %s, want less than two leases", took)
	}
	w.unlocked()
}

func revertsFailedRelease(t *testing.T, env []string) {
	w := newWorld(t, env, "back")
	w.write(version1()...)
	w.drover(exitOK, "deploy", w.dir)
	before := w.specs()
	bad := version2()
	bad[3].crash = true
	w.write(bad...)
	out := w.drover(exitReverted, "deploy", w.dir, "--prune")
	w.want(out, "release 2: reverting its changes", "(release 2 is reverted)")
	if after := w.specs(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got jobs\n%v\nwant\n%v\n%s", after, before, out)
	}
	w.unlocked()
	w.want(w.drover(exitOK, "history", w.name), "reverted")
	w.want(w.drover(exitOK, "show", w.name, "2"), "because of: failed")
	// The same deploy makes a new release, which also fails.
	w.drover(exitReverted, "deploy", w.dir, "--prune")
	w.write(version1()...)
	w.want(w.drover(exitOK, "deploy", w.dir), "unchanged")
}

func keepsFailedFirstRelease(t *testing.T, env []string) {
	w := newWorld(t, env, "first")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}, crash: true})
	w.want(w.drover(exitFailed, "deploy", w.dir), "(release 1 is failed)")
	if len(w.specs()) != 2 {
		t.Errorf("got jobs %v, want 2", w.specs())
	}
	// With --on-failure revert-release it is reverted.
	w = newWorld(t, env, "firstback")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}, crash: true})
	w.want(w.drover(exitReverted, "deploy", w.dir, "--on-failure", "revert-release"), "a: stopped again", "b: stopped again")
	if len(w.specs()) > 0 {
		t.Errorf("got jobs %v, want none", w.specs())
	}
}

func revertsFailedService(t *testing.T, env []string) {
	w := newWorld(t, env, "single")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	w.drover(exitOK, "deploy", w.dir)
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}, crash: true})
	w.drover(exitFailed, "deploy", w.dir, "--on-failure", "revert-service")
	if w.value("a") != "2" || w.value("b") != "1" {
		t.Errorf("a %s, b %s", w.value("a"), w.value("b"))
	}
	w.want(w.drover(exitOK, "deploy", w.dir, "--service", "a"), "unchanged")
}

func rollsBackWithoutSource(t *testing.T, env []string) {
	w := newWorld(t, env, "rolls")
	w.write(version1()...)
	w.drover(exitOK, "deploy", w.dir, "-m", "the first")
	one := w.specs()
	w.write(version2()...)
	w.want(w.drover(exitOK, "deploy", w.dir, "--prune"), "e: stopped")
	two := w.specs()
	w.want(w.drover(exitOK, "diff", w.name, "1"), "- e: removed", "+ f: added", `group.g.task.t.env.VALUE: "1" → "2"`)
	w.want(w.drover(exitOK, "show", w.name, "1"), "the first")
	// Remove the source, and the jobs from Nomad.
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	for id := range two {
		if _, _, err := w.nomad.Jobs().Deregister(id, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.nomad.System().GarbageCollect(); err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitOK, "rollback", w.name, "1", "-m", "back"), "(release 3 is deployed)")
	if got := w.specs(); fmt.Sprint(got) != fmt.Sprint(one) {
		t.Errorf("got jobs\n%v\nwant\n%v", got, one)
	}
	// Without a number, a rollback does not return to the release that it left.
	w.want(w.drover(exitError, "rollback", w.name), "there is no good release before release 1")
	w.drover(exitOK, "rollback", w.name, "2", "--prune")
	if got := w.specs(); fmt.Sprint(got) != fmt.Sprint(two) {
		t.Errorf("got jobs\n%v\nwant\n%v", got, two)
	}
	w.want(w.drover(exitOK, "rollback", w.name, "2"), "unchanged")
	w.want(w.drover(exitError, "rollback", w.name, "9"), "no such release: 9; there are 1 to 4")
	w.want(w.drover(exitUsage, "rollback", w.name, "x"), `"x" is not the number of a release`)
	w.want(w.drover(exitError, "history", "nothing-of-this-name"), "has no releases in environment default", "rolls/default")
	w.want(w.drover(exitOK, "history", w.name), "rollback to 1", "rollback to 2", "the first", "back")
	job, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
	if err != nil || job.VersionTag == nil || job.VersionTag.Name != "drover-r4" {
		t.Errorf("got version tag %+v (%v), want drover-r4", job.VersionTag, err)
	}
	if len(job.Meta) > 0 {
		t.Errorf("got meta %v, want none", job.Meta)
	}
}

func foreignJob(t *testing.T, env []string) {
	w := newWorld(t, env, "mine")
	w.write(svc{name: "a", value: "1"})
	other := newWorld(t, env, "other")
	other.name = "mine"
	other.write(svc{name: "a", value: "theirs"})
	// Another stack, with a record of its own, deploys the same job.
	if err := os.WriteFile(other.dir+"/stack.hcl", []byte("stack \"others\" {}\nservice \"a\" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other.drover(exitOK, "deploy", other.dir)
	w.want(w.drover(exitUsage, "deploy", w.dir), "job mine-a belongs to release 1 of stack others, environment default", "`drover move others -e default --to-name mine`")
	if w.value("a") != "theirs" {
		t.Errorf("value of a: got %q, want %q", w.value("a"), "theirs")
	}
	w.unlocked()
}

// A deploy starts a stopped job, and a revert stops it again.
func stoppedJob(t *testing.T, env []string) {
	w := newWorld(t, env, "halted")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1"})
	w.drover(exitOK, "deploy", w.dir)
	if _, _, err := w.nomad.Jobs().Deregister(w.job("a"), false, nil); err != nil {
		t.Fatal(err)
	}
	w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}, crash: true})
	w.drover(exitReverted, "deploy", w.dir)
	if got := w.specs(); got[w.job("a")] != "stopped" || w.value("a") != "1" || w.value("b") != "1" {
		t.Errorf("got jobs %v with a=%s, b=%s; want a stopped, a=1, b=1", got, w.value("a"), w.value("b"))
	}
}

func tooLarge(t *testing.T, env []string) {
	w := newWorld(t, env, "large")
	var noise strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&noise, "%x", record.Digest([]byte{byte(i), byte(i >> 8)})[:8])
	}
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: noise.String()})
	w.want(w.drover(exitUsage, "deploy", w.dir), `job "large-b" is too large for the release record`)
	if len(w.specs()) > 0 {
		t.Errorf("got jobs %v, want none", w.specs())
	}
}

func takesOverInterrupted(t *testing.T, env []string) {
	w := newWorld(t, env, "takes")
	w.write(version1()...)
	k := &killer{n: 14}
	k.run(w.command(k.serve(t, env), "deploy", w.dir))
	w.drover(exitOK, "unlock", w.name, "--force")
	w.write(version2()...)
	w.drover(exitBusy, "deploy", w.dir)
	w.want(w.drover(exitOK, "deploy", w.dir, "--prune", "--take-over"), "release 1 is abandoned", "(release 2 is deployed)")
	list, err := w.releases().List(t.Context())
	if err != nil || len(list) != 2 || list[1].State != record.Abandoned {
		t.Errorf("got releases %v (%v), want the first one abandoned", list, err)
	}
	if w.value("a") != "2" || w.value("f") != "2" || w.value("e") != "" {
		t.Errorf("got a=%s, f=%s, e=%s; want 2, 2 and no e", w.value("a"), w.value("f"), w.value("e"))
	}

	// A release that was killed after all jobs were submitted and before its end was
	// recorded.
	w.write(append(version2(), svc{name: "z", value: "3"})...)
	slowly(w, "z", "8s")
	w.interrupted("z", "3")
	w.until("z is healthy", func() bool {
		d, _, err := w.nomad.Jobs().LatestDeployment(w.job("z"), nil)
		return err == nil && d != nil && d.Status == api.DeploymentStatusSuccessful
	})
	w.drover(exitOK, "deploy", w.dir, "--prune", "--take-over")
	list, err = w.releases().List(t.Context())
	if err != nil || len(list) != 4 || list[0].State != record.Done || list[1].State != record.Abandoned {
		t.Errorf("got releases %v (%v), want the first one abandoned", list, err)
	}
	w.want(w.drover(exitOK, "redeploy", w.name), "z")
	if w.value("z") != "3" {
		t.Errorf("value of z after a redeploy: got %q, want 3", w.value("z"))
	}
}

func pauses(t *testing.T, env []string) {
	w := newWorld(t, env, "paused")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	slowly(w, "a", "8s")
	conf := t.TempDir()
	write(t, conf, map[string]string{"prod.hcl": ""})
	prod := conf + "/prod.hcl"
	cmd := w.command(env, "deploy", w.dir, "-e", prod)
	done := make(chan string, 1)
	var code int
	go func() {
		out, c := run(cmd)
		code = c
		done <- out
	}()
	w.until("a is submitted", func() bool { return w.value("a") == "1" })
	w.want(w.drover(exitOK, "pause", w.name, "-e", "prod"), "release 1 is paused", "Next: drover resume paused -e prod, or drover abort paused -e prod\n")
	out := <-done
	if code != exitCancelled {
		t.Errorf("got exit code %d, want %d:\n%s", code, exitCancelled, out)
	}
	w.want(out, "drover resume paused -e prod")
	if w.value("b") != "" {
		t.Error("b was submitted")
	}
	w.want(w.drover(exitError, "status", w.dir, "-e", prod), "paused", "drover resume paused -e prod finishes it, drover abort paused -e prod restores the release before it\n")
	w.want(w.drover(exitOK, "resume", w.name, "-e", "prod"), "(release 1 is deployed)")
	if w.value("b") != "1" {
		t.Error("b was not submitted")
	}
}

// With -o json, the last line has the exit code of the process. Here the release
// succeeds, and its DNS records cannot be updated.
func lastLine(t *testing.T, env []string) {
	w := newWorld(t, env, "lastline")
	for _, value := range []string{"1", "2"} {
		w.write(svc{name: "a", value: value})
		w.drover(exitOK, "deploy", w.dir)
	}
	broken := &api.Variable{Path: dns.WantedFolder + "/" + dns.Owner(w.name, "default"), Items: api.VariableItems{"x": "of another client"}}
	if _, _, err := w.nomad.Variables().Create(broken, nil); err != nil {
		t.Fatal(err)
	}
	cmd := w.command(env, "rollback", w.name, "-o", "json")
	out, err := cmd.Output()
	var ends []map[string]any
	for line := range bytes.Lines(out) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e["event"] == "end" {
			ends = append(ends, e)
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != exitError || len(ends) != 1 || ends[0]["exit_code"] != float64(exitError) || ends[0]["outcome"] != "deployed" ||
		!strings.Contains(fmt.Sprint(ends[0]["error"]), "its DNS records could not be updated") {
		t.Errorf("got exit code %d (%v), want %d and one event end with it:\n%s", code, err, exitError, out)
	}
	w.want(w.drover(exitError, "redeploy", w.name), "(release 4 is deployed)\n", "Error: release 4 is deployed, but its DNS records could not be updated")
}

func slowly(w *world, service, minHealthy string) {
	path := w.dir + "/" + service + ".nomad.hcl"
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`min_healthy_time  = "200ms"`), []byte(`min_healthy_time  = "`+minHealthy+`"`), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		w.Fatal(err)
	}
}

// interrupted kills a deploy as soon as service has value in Nomad.
func (w *world) interrupted(service, value string) {
	w.Helper()
	cmd := w.command(w.env, "deploy", w.dir, "--prune")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.until(service+" is submitted", func() bool { return w.value(service) == value })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	w.drover(exitOK, "unlock", w.name, "--force")
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	devtest.Until(w, 3*time.Minute, what, ok)
}

// Another client changes jobs while a release is interrupted.
func keepsForeignChanges(t *testing.T, env []string) {
	for _, verb := range []string{"resume", "abort"} {
		w := newWorld(t, env, "moved"+verb)
		w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
		w.drover(exitOK, "deploy", w.dir)
		w.write(svc{name: "a", value: "2"}, svc{name: "b", value: "2", deps: []string{"a"}})
		slowly(w, "a", "8s")
		w.interrupted("a", "2")
		service := map[string]string{"resume": "b", "abort": "a"}[verb]
		job, _, err := w.nomad.Jobs().Info(w.job(service), nil)
		if err != nil {
			t.Fatal(err)
		}
		job.TaskGroups[0].Tasks[0].Env["VALUE"] = "theirs"
		if _, _, err := w.nomad.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
		out := w.drover(exitSuperseded, verb, w.name)
		if w.value(service) != "theirs" {
			t.Errorf("%s overwrote the change of another client:\n%s", verb, out)
		}
		w.unlocked()
	}
}

func endsAtTimeout(t *testing.T, env []string) {
	w := newWorld(t, env, "whole")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	slowly(w, "a", "8s")
	w.want(w.drover(exitTimeout, "deploy", w.dir, "--timeout", "3s"), "the release did not end within --timeout")
	if w.value("b") != "" {
		t.Error("b was submitted")
	}
}

// The stack has a pruned service, whose secrets still exist, and a service that a
// failed release left running.
func destroyed(t *testing.T, env []string) {
	w := newWorld(t, env, "former")
	withSecret := func(services ...svc) {
		w.write(services...)
		path := w.dir + "/stack.hcl"
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = append(bytes.ReplaceAll(text, []byte("depends_on"), []byte("secrets = [\"word\"]\n  depends_on")), "secret \"word\" {}\n"...)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c, d := svc{name: "a", value: "1"}, svc{name: "b", value: "1"}, svc{name: "c", value: "1"}, svc{name: "d", value: "1"}
	withSecret(a, b, c, d)
	w.drover(exitOK, "deploy", w.dir)
	if _, _, err := w.nomad.Jobs().Deregister(w.job("d"), false, nil); err != nil { // stopped, and listed until Nomad collects it
		t.Fatal(err)
	}
	withSecret(a, b)
	w.want(w.drover(exitOK, "deploy", w.dir, "--prune"), "c: stopped")
	a.crash = true
	withSecret(a)
	w.drover(exitReverted, "deploy", w.dir, "--prune")
	w.want(w.drover(exitOK, "destroy", w.dir, "-y", "--purge", "secrets,history"), "b: stopped", "destroyed: 2 of 2 services")
	left := w.specs()
	delete(left, w.job("d"))
	if len(left) > 0 {
		t.Errorf("got jobs %v, want none", left)
	}
	vars, _, err := w.nomad.Variables().PrefixList("nomad/jobs/former-", nil)
	if err != nil || len(vars) > 0 {
		t.Errorf("got %d variables (%v), want none", len(vars), err)
	}
}
