package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
)

// envEveryWrite makes the kill tests whole: `make kill`.
const envEveryWrite = "DROVER_TEST_EVERY_WRITE"

// Releases on a real Nomad, through the program as it is run.
func TestReleasesOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	kills := make(chan struct{}, 6) // a few at a time
	for name, test := range map[string]func(*testing.T, []string){
		"killed and resumed": func(t *testing.T, env []string) { killedAnywhere(t, env, "resume", kills) },
		"killed and aborted": func(t *testing.T, env []string) { killedAnywhere(t, env, "abort", kills) },
		"busy":               func(t *testing.T, env []string) { busyAnywhere(t, env, "deploy", kills) },
		"busy and back":      func(t *testing.T, env []string) { busyAnywhere(t, env, "back", kills) },
		"busy and resumed":   func(t *testing.T, env []string) { busyAnywhere(t, env, "resume", kills) },
		"two deployers":      twoDeployers,
		"holder killed":      holderKilled,
		"failure goes back":  failureGoesBack,
		"first one stays":    firstOneStays,
		"one service back":   oneServiceBack,
		"rollback":           rollsBack,
		"foreign job":        foreignJob,
		"stopped job":        stoppedJob,
		"too large":          tooLarge,
		"take over":          takesOver,
		"pause":              pauses,
		"moved":              moved,
		"whole timeout":      wholeTimeout,
		"destroyed":          destroyed,
		"refused midway":     refusedMidway,
		"bad answers":        badAnswers,
		"lease kept":         leaseKept,
		"approved replace":   approvedReplacement,
		"schedule goes on":   scheduleGoesOn,
		"carried on":         carriedOn,
		"paused abroad":      pausedAbroad,
		"history kept":       historyKept,
		"last line":          lastLine,
		"gate not seen":      gateNotSeen,
		"scaled meanwhile":   scaledMeanwhile,
		"back interrupted":   backInterrupted,
		"bad network":        badNetwork,
		"lost and failed":    lostAndFailed,
		"dns unanswered":     dnsUnanswered,
		"end not written":    endNotWritten,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, env)
		})
	}
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

// world is a stack in a directory of its own and the jobs that it makes.
type world struct {
	*testing.T
	env   []string
	nomad *api.Client
	name  string
	dir   string

	program string // the drover that it runs
}

// svc is a service of a world: what differs from one version to the next.
type svc struct {
	name, value string
	deps        []string
	crash       bool // it does not start
	scaled      bool // its count is an autoscaler's
	logs        bool // Nomad collects its output, for which it starts a process
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
		run := `run_for = "1h"`
		if s.crash {
			run = `start_error = "broken"` // one that runs for a moment can be healthy first
		}
		scaling := ""
		if s.scaled {
			scaling = "scaling {\n      min = 1\n      max = 5\n    }"
		}
		files[s.name+".nomad.hcl"] = fmt.Sprintf(`job %q {
  update {
    min_healthy_time  = "200ms"
    healthy_deadline  = "30s"
    progress_deadline = "40s"
    health_check      = "task_states"
  }
  group "g" {
    %s
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
      logs {
        disabled = %t
      }
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
}
`, w.job(s.name), scaling, !s.logs, s.value, run)
	}
	write(w.T, w.dir, files)
}

func (w *world) command(env []string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(w.Context(), 4*time.Minute)
	w.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, w.program, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// drover runs one command, which must end with code, and returns what it
// said.
func (w *world) drover(code int, args ...string) string {
	w.Helper()
	out, got := run(w.command(w.env, args...))
	if got != code {
		w.Fatalf("drover %s ended with %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
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
	for _, p := range parts {
		if !strings.Contains(out, p) {
			w.Errorf("%q is not in:\n%s", p, out)
		}
	}
}

// specs are the digests of the jobs as Nomad has them, without what only the
// server writes; "stopped" for stopped ones.
func (w *world) specs() map[string]string {
	w.Helper()
	list, _, err := w.nomad.Jobs().List(&api.QueryOptions{Prefix: w.name + "-"})
	if err != nil {
		w.Fatal(err)
	}
	out := map[string]string{}
	for _, stub := range list {
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
		w.Errorf("the lock is held by %v, %v", h, err)
	}
}

// proxyOf is a proxy before the Nomad of env.
func proxyOf(t *testing.T, env []string) *devtest.Proxy {
	t.Helper()
	return devtest.NewProxy(t, &api.Config{Address: strings.TrimPrefix(env[0], "NOMAD_ADDR="), TLSConfig: &api.TLSConfig{}})
}

// through is env for a program that goes through the proxy.
func through(proxy *devtest.Proxy, env []string) []string {
	return []string{"NOMAD_ADDR=" + proxy.URL, env[1]}
}

// killer kills a program when its n-th write to Nomad has been done there,
// before the program knows.
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
	k.mu.Lock() // until there is somebody to kill
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

// killedAnywhere kills a deploy after each of its writes to Nomad in turn and
// lets the verb clean up: after every sixth write, the two verbs after
// different ones, unless envEveryWrite is set.
func killedAnywhere(t *testing.T, env []string, verb string, slots chan struct{}) {
	first, step := 1, 6
	if verb == "abort" {
		first = 4
	}
	atWrites(t, first, step, slots, func(t *testing.T, n int, program string) bool { return killedAt(t, env, verb, n, program) })
}

// atWrites calls strike with the number of a write, from the first on and step
// by step, or with each when envEveryWrite is set, until it says that the deploy
// has ended before that. The program of the first strike has the race detector
// if the test has, the others repeat it with plainDrover.
func atWrites(t *testing.T, first, step int, slots chan struct{}, strike func(t *testing.T, n int, program string) bool) {
	var ended atomic.Bool
	const most = 80
	var left sync.WaitGroup
	if os.Getenv(envEveryWrite) != "" {
		first, step = 1, 1
	}
	for n := first; n <= most && !ended.Load(); n += step {
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
	left.Wait()
	if !ended.Load() {
		t.Errorf("no deploy ended within %d writes", most)
	}
}

// killedAt says whether the deploy ended before its n-th write.
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
		t.Fatalf("the deploy ended with %d by itself: %s", code, out)
	}
	writes := k.proxy.Writes()
	t.Logf("killed after %s", writes[len(writes)-1])
	// Its lock would run out by itself.
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
			t.Errorf("before\n%v\nafter\n%v", before, after)
		}
	case last.Number == 2:
		for _, s := range version2() {
			if got := w.value(s.name); got != s.value {
				t.Errorf("%s has %q, want %q", s.name, got, s.value)
			}
		}
		if after[w.job("e")] != "" || after[w.job("c")] != before[w.job("c")] {
			t.Errorf("e should be gone and c untouched: %v", after)
		}
	}
	w.unlocked()
	if last, err = w.releases().Last(t.Context()); err != nil || last.State.Open() {
		t.Errorf("the release is %v, %v", last, err)
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
			t.Errorf("%d: %s", code, outs[i])
		}
	}
	if good < 1 || codes[2] != exitOK {
		t.Errorf("%v", codes)
	}
	list, err := w.releases().List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%d releases, %v", len(list), err)
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
		t.Errorf("the next one was through after %s", took)
	}
	w.unlocked()
}

func failureGoesBack(t *testing.T, env []string) {
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
		t.Errorf("before\n%v\nafter\n%v\n%s", before, after, out)
	}
	w.unlocked()
	w.want(w.drover(exitOK, "history", w.name), "reverted")
	w.want(w.drover(exitOK, "show", w.name, "2"), "because of: failed")
	// The same again is a new release, and fails again.
	w.drover(exitReverted, "deploy", w.dir, "--prune")
	w.write(version1()...)
	w.want(w.drover(exitOK, "deploy", w.dir), "unchanged")
}

func firstOneStays(t *testing.T, env []string) {
	w := newWorld(t, env, "first")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}, crash: true})
	w.want(w.drover(exitFailed, "deploy", w.dir), "(release 1 is failed)")
	if len(w.specs()) != 2 {
		t.Errorf("left: %v", w.specs())
	}
	// Unless that is asked for.
	w = newWorld(t, env, "firstback")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}, crash: true})
	w.want(w.drover(exitReverted, "deploy", w.dir, "--on-failure", "revert-release"), "a: stopped again", "b: stopped again")
	if len(w.specs()) > 0 {
		t.Errorf("left: %v", w.specs())
	}
}

func oneServiceBack(t *testing.T, env []string) {
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

func rollsBack(t *testing.T, env []string) {
	w := newWorld(t, env, "rolls")
	w.write(version1()...)
	w.drover(exitOK, "deploy", w.dir, "-m", "the first")
	one := w.specs()
	w.write(version2()...)
	w.want(w.drover(exitOK, "deploy", w.dir, "--prune"), "e: stopped")
	two := w.specs()
	w.want(w.drover(exitOK, "diff", w.name, "1"), "- e: removed", "+ f: added", `group.g.task.t.env.VALUE: "1" → "2"`)
	w.want(w.drover(exitOK, "show", w.name, "1"), "the first")
	// The source is gone, and Nomad knows the jobs no more.
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
		t.Errorf("want\n%v\ngot\n%v", one, got)
	}
	// Without a number it does not return to what was rolled back.
	w.want(w.drover(exitError, "rollback", w.name), "there is no good release before release 1")
	w.drover(exitOK, "rollback", w.name, "2", "--prune")
	if got := w.specs(); fmt.Sprint(got) != fmt.Sprint(two) {
		t.Errorf("want\n%v\ngot\n%v", two, got)
	}
	w.want(w.drover(exitOK, "rollback", w.name, "2"), "unchanged")
	w.want(w.drover(exitError, "rollback", w.name, "9"), "no such release: 9; there are 1 to 4")
	w.want(w.drover(exitUsage, "rollback", w.name, "x"), `"x" is not the number of a release`)
	w.want(w.drover(exitError, "history", "nothing-of-this-name"), "has no releases in environment default", "rolls/default")
	w.want(w.drover(exitOK, "history", w.name), "rollback to 1", "rollback to 2", "the first", "back")
	job, _, err := w.nomad.Jobs().Info(w.job("a"), nil)
	if err != nil || job.VersionTag == nil || job.VersionTag.Name != "drover-r4" {
		t.Errorf("tag %+v, %v", job.VersionTag, err)
	}
	if len(job.Meta) > 0 {
		t.Errorf("meta %v", job.Meta)
	}
}

func foreignJob(t *testing.T, env []string) {
	w := newWorld(t, env, "mine")
	w.write(svc{name: "a", value: "1"})
	other := newWorld(t, env, "other")
	other.name = "mine"
	other.write(svc{name: "a", value: "theirs"})
	// The same job from another stack: a record of its own.
	if err := os.WriteFile(other.dir+"/stack.hcl", []byte("stack \"others\" {}\nservice \"a\" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other.drover(exitOK, "deploy", other.dir)
	w.want(w.drover(exitUsage, "deploy", w.dir), "job mine-a belongs to release 1 of stack others, environment default", "`drover move others -e default --to-name mine`")
	if w.value("a") != "theirs" {
		t.Errorf("a has %q", w.value("a"))
	}
	w.unlocked()
}

// A job that somebody has stopped is started by a deploy, and stopped again
// when the release is given up.
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
		t.Errorf("%v, a %s, b %s", got, w.value("a"), w.value("b"))
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
		t.Errorf("touched: %v", w.specs())
	}
}

func takesOver(t *testing.T, env []string) {
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
		t.Errorf("%v, %v", list, err)
	}
	if w.value("a") != "2" || w.value("f") != "2" || w.value("e") != "" {
		t.Errorf("a %s, f %s, e %s", w.value("a"), w.value("f"), w.value("e"))
	}

	// One that has submitted all, and was killed before it could say so.
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
		t.Errorf("%v, %v", list, err)
	}
	w.want(w.drover(exitOK, "redeploy", w.name), "z")
	if w.value("z") != "3" {
		t.Errorf("a redeploy made %q of z", w.value("z"))
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
		t.Errorf("the deploy ended with %d:\n%s", code, out)
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

// lastLine: with -o json it has the code with which the process ends, also when
// the release is good and what comes behind it is not.
func lastLine(t *testing.T, env []string) {
	w := newWorld(t, env, "lastline")
	for _, value := range []string{"1", "2"} {
		w.write(svc{name: "a", value: value})
		w.drover(exitOK, "deploy", w.dir)
	}
	broken := &api.Variable{Path: dns.WantedFolder + "/" + dns.Owner(w.name, "default"), Items: api.VariableItems{"x": "of somebody else"}}
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
		t.Errorf("it ended with %d, %v:\n%s", code, err, out)
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

// interrupted kills a deploy as soon as the service has the value.
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
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.After(3 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			w.Fatal("not within three minutes: " + what)
		}
	}
}

// moved has somebody else change jobs while a release is interrupted.
func moved(t *testing.T, env []string) {
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
			t.Errorf("%s overwrote it: %s", verb, out)
		}
		w.unlocked()
	}
}

func wholeTimeout(t *testing.T, env []string) {
	w := newWorld(t, env, "whole")
	w.write(svc{name: "a", value: "1"}, svc{name: "b", value: "1", deps: []string{"a"}})
	slowly(w, "a", "8s")
	w.want(w.drover(exitTimeout, "deploy", w.dir, "--timeout", "3s"), "the release did not end within --timeout")
	if w.value("b") != "" {
		t.Error("b was submitted")
	}
}

// destroyed has services that the stack does not have any more: one that was
// pruned, whose secrets are still there, and one that a failed release has
// left running.
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
	if _, _, err := w.nomad.Jobs().Deregister(w.job("d"), false, nil); err != nil { // stopped, and there until Nomad collects it
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
		t.Errorf("left: %v", left)
	}
	vars, _, err := w.nomad.Variables().PrefixList("nomad/jobs/former-", nil)
	if err != nil || len(vars) > 0 {
		t.Errorf("%d variables are left, %v", len(vars), err)
	}
}
