package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// clusterEnv starts the dev cluster of a test and returns its environment
// variables.
func clusterEnv(t *testing.T) []string {
	t.Helper()
	dev := startCluster(t, devcluster.Options{})
	return []string{"NOMAD_ADDR=" + dev.NomadAddr(), "CONSUL_HTTP_ADDR=" + dev.ConsulAddr()}
}

// startCluster starts a dev cluster that is removed at the end of the test, or at the
// latest with the process.
func startCluster(t *testing.T, opts devcluster.Options) *devcluster.Cluster {
	t.Helper()
	devtest.NeedsServers(t)
	tmp, err := os.MkdirTemp("", "cli-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	opts.Dir, opts.Lifeline, opts.Throwaway = filepath.Join(tmp, "c"), true, true
	opts.Supervisor = devcluster.Command{Path: plainDrover(t), Args: []string{"dev", "supervise", "--dir", opts.Dir}}
	devtest.WaitCalm(t)
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
	return dev
}

// The scripts deploy to the same real Nomad and Consul: each has its own job names.
func TestOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"scripts":   func(t *testing.T, env []string) { runOnCluster(t, scripts("cluster", env...)) },
		"unchanged": unchanged, "approvals": approvals, "watches": watches, "annotates": annotates,
		"requests": requests, "preflight": preflight, "interrupt": interrupt,
	})
}

// turns are those of subtests on clusters.
var turns = make(chan struct{}, 6)

// together runs subtests on a cluster side by side, in turn with those of other clusters,
// and returns when all have ended. With a subtest that calls t.Parallel, its test waits
// aside, and the next one starts its cluster: so all would run before the first subtest.
func together(t *testing.T, env []string, tests map[string]func(*testing.T, []string)) {
	t.Helper()
	var running sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			t.Run(name, func(t *testing.T) { tests[name](t, env) })
		})
	}
	running.Wait()
}

// runOnCluster is testscript.Run for scripts that take turns with the subtests of
// together.
func runOnCluster(t *testing.T, p testscript.Params) {
	t.Helper()
	p.Deadline, _ = t.Deadline()
	var running sync.WaitGroup
	testscript.RunT(inTurn{t, &running}, p)
	running.Wait()
}

// inTurn runs the subtests of a test in turn.
type inTurn struct {
	*testing.T
	running *sync.WaitGroup
}

// Run implements [testscript.T].
func (t inTurn) Run(name string, f func(testscript.T)) {
	t.running.Go(func() {
		turns <- struct{}{}
		defer func() { <-turns }()
		t.T.Run(name, func(s *testing.T) { f(inTurn{s, nil}) })
	})
}

// Parallel implements [testscript.T].
func (inTurn) Parallel() {}

// Verbose implements [testscript.T].
func (inTurn) Verbose() bool { return testing.Verbose() }

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

// unchanged counts the requests of a deploy of an unchanged stack: one for the secrets
// of each service, a fixed number of others, and no write.
func unchanged(t *testing.T, env []string) {
	var (
		mu            sync.Mutex
		reads, writes []string
	)
	proxy := proxyOf(t, env)
	proxy.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/plan") {
			reads = append(reads, r.URL.Path)
		} else {
			writes = append(writes, r.Method+" "+r.URL.Path)
		}
		return true
	})

	dir := t.TempDir()
	files := map[string]string{"stack.hcl": "stack \"counted\" {}\nsecret \"word\" {\n  type = \"random\"\n}\n"}
	const services = 5
	for i := range services {
		name := "counted-" + strconv.Itoa(i)
		files["stack.hcl"] += "service \"" + name + "\" {\n  secrets = [\"word\"]\n}\n"
		files[name+".nomad.hcl"] = strings.Replace(mockJob(name, "100ms"), "    task", "    service {\n      name = \""+name+"\"\n    }\n    task", 1)
	}
	write(t, dir, files)
	for _, want := range []string{"counted: deployed: ", "counted: unchanged: "} {
		mu.Lock()
		reads, writes = nil, nil
		mu.Unlock()
		cmd := exec.CommandContext(t.Context(), "drover", "deploy", dir)
		cmd.Env = append(os.Environ(), through(proxy, env)...)
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Fatalf("%s: %v", out, err)
		}
	}
	// The agent; the last release (its number, head and services); the master of
	// the secrets; the DNS records and credentials; jobs, their statuses and
	// allocations.
	const stack = 10
	if len(reads) > stack+services || len(writes) > 0 {
		t.Errorf("got %d reads %v and writes %v, want at most %d reads and no write", len(reads), reads, writes, stack+services)
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// interrupt sends SIGINT to a deploy when its first service is submitted.
func interrupt(t *testing.T, env []string) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"stack.hcl":       "stack \"interrupted\" {}\nservice \"int-a\" {}\nservice \"int-b\" {\n  depends_on = [\"int-a\"]\n}\n",
		"int-a.nomad.hcl": mockJob("int-a", "30s"),
		"int-b.nomad.hcl": mockJob("int-b", "30s"),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
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
		t.Errorf("got exit code %d, want %d", code, exitCancelled)
	}
	if !slices.Contains(lines, "Interrupted. Submitted and left running in Nomad: int-a") || slices.Contains(lines, "int-b: submitted") || !strings.HasPrefix(out.String(), "interrupted: cancelled: 2 cancelled") {
		t.Errorf("got\n%s\n%s\nwant an interrupted deploy of int-a only", strings.Join(lines, "\n"), out.String())
	}
}

// mockJob returns a job without a process that is healthy after minHealthy.
func mockJob(name, minHealthy string) string {
	return devtest.MockJob{ID: name, MinHealthy: minHealthy}.String()
}
