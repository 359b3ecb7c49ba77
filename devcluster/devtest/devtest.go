// Package devtest has what tests on real servers share. Its clusters are real agents in a
// temporary directory, gone with the test however it ends.
package devtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
)

const (
	envSupervise = "DROVER_DEVTEST_SUPERVISE" // directory of the cluster to supervise
	envMain      = "DROVER_DEVTEST_MAIN"      // process that called Main
)

// Main is the TestMain of a package whose tests use Cluster:
//
//	func TestMain(m *testing.M) { devtest.Main(m) }
//
// The test binary is also the clusters' supervisor, so that tests need no
// other program: Main tells which of the two this process is. When the tests are
// over it calls after.
func Main(m *testing.M, after ...func()) {
	if dir := os.Getenv(envSupervise); dir != "" {
		if err := devcluster.Supervise(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := os.Setenv(envMain, strconv.Itoa(os.Getpid())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	for _, f := range after {
		f()
	}
	os.Exit(code)
}

// NeedsServers skips the test in a run with -short: such a run starts no server
// of Nomad, Consul, ACME or DNS, and downloads and builds none. Options, and
// with it Cluster, call it; so do the test servers of acmetest and dnstest.
func NeedsServers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real servers, and -short starts none")
	}
}

// Options completes opts for a cluster that ends with the test process: a
// temporary directory, the test binary as supervisor, progress in the test's
// log. Most tests want Cluster; this is for those that call devcluster.Up. Of the
// supervisor in opts only Env is kept: a DOCKER_HOST there lets the clients of Nomad use a
// Docker engine.
func Options(t testing.TB, opts devcluster.Options) devcluster.Options {
	t.Helper()
	NeedsServers(t)
	if os.Getenv(envMain) != strconv.Itoa(os.Getpid()) {
		// Without it the supervisor would run the tests again.
		t.Fatal("devtest: TestMain must call devtest.Main")
	}
	if opts.Name == "" {
		opts.Name = "test"
	}
	if opts.Dir == "" {
		// Not t.TempDir: only its owner may enter it, but tasks run as the user
		// nobody; and its path is too long for sockets.
		tmp, err := os.MkdirTemp("", "dev-")
		if err == nil {
			err = os.Chmod(tmp, 0o755) // #nosec G302 -- see above
		}
		if err != nil {
			t.Fatal(err)
		}
		opts.Dir = tmp
		t.Cleanup(func() {
			if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the cluster's directory is not empty: %v", err)
			}
		})
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Each Nomad client asks a Docker engine for its state, and the engine starts three
	// programs for each answer. So only those see it that use it.
	env := append([]string{"DOCKER_HOST=unix:///run/drover-no-docker.sock"}, opts.Supervisor.Env...)
	opts.Supervisor = devcluster.Command{Path: exe, Env: append(env, envSupervise+"="+opts.Dir)}
	opts.Lifeline, opts.Throwaway = true, true
	if opts.Events == nil {
		opts.Events = func(e devcluster.Event) {
			if !e.Transient {
				t.Log(strings.TrimPrefix(e.Subject+": "+e.Text, ": "))
			}
		}
	}
	return opts
}

// Cluster starts a cluster for the test. When the test is over the cluster is
// stopped and removed, and a process that it leaves behind fails the test.
func Cluster(t testing.TB, opts devcluster.Options) *devcluster.Cluster {
	t.Helper()
	opts = Options(t, opts)
	WaitCalm(t)
	c, err := devcluster.Up(t.Context(), opts)
	if errors.Is(err, devcluster.ErrUnsupported) {
		t.Skip(err)
	}
	t.Cleanup(func() { Remove(t, opts.Dir) }) // also what a failed Up made
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logAgents(t, c)
		}
		if err := c.Down(context.WithoutCancel(t.Context()), false); err != nil && !errors.Is(err, devcluster.ErrNoCluster) {
			t.Error(err)
		}
	})
	return c
}

// Full reports whether `make full` runs, or another command that runs all of its tests.
func Full() bool { return os.Getenv("DROVER_TEST_FULL") != "" }

// NeedsFull skips a test that `make test` leaves to `make full`: it repeats on another
// server, in another layout or at other moments what a test of `make test` shows, or it
// measures.
func NeedsFull(t testing.TB) {
	t.Helper()
	if !Full() {
		t.Skip("make full runs it")
	}
}

// Secured reports whether `make e2e-secure` runs. Tests that take part in it
// start their clusters with ACLs and mutual TLS, and use tokens with the policies
// of each use.
func Secured() bool { return os.Getenv("DROVER_TEST_SECURE") != "" }

// Tokens returns the environment variables with the tokens of one use in a
// secure cluster. It waits until every region knows the tokens.
func Tokens(t testing.TB, c *devcluster.Cluster, use acl.Use) []string {
	t.Helper()
	nomad, err := api.NewClient(c.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	consul, err := capi.NewClient(c.ConsulConfig())
	if err != nil {
		t.Fatal(err)
	}
	n, _, err := nomad.ACLTokens().Create(&api.ACLToken{Type: "client", Global: true, Policies: []string{acl.Scope{}.Nomad(use).Name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := consul.ACL().TokenCreate(&capi.ACLToken{Policies: []*capi.ACLTokenPolicyLink{{Name: acl.Scope{}.Consul(use).Name}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Regions() {
		there, those := c.NomadConfig(), c.ConsulConfig()
		there.Address, there.Region, those.Address = r.NomadAddr, r.Region, r.ConsulAddr
		if nomad, err = api.NewClient(there); err != nil {
			t.Fatal(err)
		}
		if consul, err = capi.NewClient(those); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; {
			_, _, err := nomad.ACLTokens().Self(&api.QueryOptions{AuthToken: n.SecretID})
			_, _, kerr := consul.ACL().TokenReadSelf(&capi.QueryOptions{Token: k.SecretID})
			if err = errors.Join(err, kerr); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("region %s does not know the tokens: %v", r.Region, err)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
	}
	return []string{"NOMAD_TOKEN=" + n.SecretID, "CONSUL_HTTP_TOKEN=" + k.SecretID}
}

// Remove stops and removes the cluster in dir, if there is one, and fails the
// test for every process that is left.
func Remove(t testing.TB, dir string) {
	t.Helper()
	opts := devcluster.Options{Dir: dir}
	c, err := devcluster.Open(opts)
	if errors.Is(err, devcluster.ErrNoCluster) {
		_ = os.Remove(dir)
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if err := devcluster.Down(ctx, opts, false); err != nil && !errors.Is(err, devcluster.ErrNoCluster) {
		t.Error(err)
	}
	left, err := c.Leftovers()
	if err != nil {
		t.Error(err)
	}
	for _, p := range left {
		t.Errorf("the cluster left a process behind: %s", p)
	}
	if err := devcluster.Down(ctx, opts, true); err != nil && !errors.Is(err, devcluster.ErrNoCluster) {
		t.Error(err)
	}
}

// logAgents writes the end of each agent's log to the log of a failed test.
func logAgents(t testing.TB, c *devcluster.Cluster) {
	const lines = 20
	for _, a := range c.Agents(context.WithoutCancel(t.Context())) {
		b, err := os.ReadFile(a.Log)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(all) > lines {
			all = all[len(all)-lines:]
		}
		t.Logf("%s (%s):\n%s", a.Name, a.State, strings.Join(all, "\n"))
	}
}
