package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// Kinds of sites.
const (
	single  = "one node"    // with an edge and a controller
	nodes   = "two nodes"   // three servers, two clients
	regions = "two regions" // a wave each
	secure  = "secured"     // one node with ACLs and mutual TLS
	full    = "small disk"  // one node, all data on a disk of its own
	clocks  = "clock"       // one node as single, and drover, with clocks that can be set
	ocis    = "oCIS"        // one node with the whole of it, edge and controller
)

// site is a cluster on which runs follow each other.
type site struct {
	kind    string
	secured bool
	dev     *devcluster.Cluster
	nomad   *api.Client
	consul  *capi.Client
	env     []string
	exe     string // this test binary, as a service
	drover  string
	regions []string
	host    string // of routes; "" without an edge
	disk    string // mounted; "" without one
	roots   *x509.CertPool
	hosts   *hosts // of several nodes
	clock   string // of the node, see newClock; "" where it cannot be set
}

// name is how the table calls the site.
func (s *site) name() string {
	if s.secured && s.kind != secure {
		return s.kind + ", secured"
	}
	return s.kind
}

// client trusts the CA of the site.
func (s *site) client(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}}}
}

// Each is built once.
var (
	built         []string // directories, for TestMain
	building      sync.Mutex
	droverBinary  = sync.OnceValues(func() (string, error) { return buildDrover() })
	droverClocked = sync.OnceValues(func() (string, error) {
		flags, err := clockFlags(context.Background())
		if err != nil {
			return "", err
		}
		return buildDrover(flags...)
	})
)

func buildDrover(flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return "", err
	}
	building.Lock()
	built = append(built, dir)
	building.Unlock()
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- the controller runs as nobody
		return "", err
	}
	binary := filepath.Join(dir, "drover")
	args := append([]string{"build", "-o", binary}, flags...)
	out, err := exec.Command("go", append(args, "../../cmd/drover")...).CombinedOutput() //nolint:noctx // for all tests
	if err != nil {
		return "", fmt.Errorf("building drover: %w\n%s", err, out)
	}
	return binary, nil
}

func newSite(t *testing.T, kind string) *site {
	t.Helper()
	s := &site{kind: kind, regions: []string{"global"}}
	opts := devcluster.Options{Secure: kind == secure || devtest.Secured()}
	s.secured = opts.Secure
	switch kind {
	case single, clocks:
		opts.ACME = true
	case ocis:
		opts.ACME, opts.Tools = true, []string{devcluster.OCIS}
	case nodes:
		opts.Shape = devcluster.Shape{Servers: 3, Clients: 2}
	case regions:
		opts.Shape.Regions = []string{"eu", "us"}
		s.regions = opts.Shape.Regions
	case full:
		s.disk = mountDisk(t)
		opts.Dir = filepath.Join(s.disk, "c")
	}
	var err error
	if s.exe, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	binary := droverBinary
	switch kind {
	case nodes, regions:
		s.hosts = newHosts(t)
		opts.Finder.Programs = s.wrapped(t, devcluster.Tools{})
	case clocks:
		binary = droverClocked
		flags, err := clockFlags(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		opts.Finder.Programs = s.wrapped(t, devcluster.Tools{BuildFlags: flags, Events: func(e devcluster.Event) {
			if !e.Transient {
				t.Logf("%s: %s", e.Subject, e.Text)
			}
		}})
	}
	if s.drover, err = binary(); err != nil {
		t.Fatal(err)
	}
	s.dev = devtest.Cluster(t, opts)
	if s.env, err = s.dev.Env(""); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "NOMAD_VAR_drover_binary="+s.drover)
	if s.nomad, err = api.NewClient(s.dev.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	if s.consul, err = capi.NewClient(s.dev.ConsulConfig()); err != nil {
		t.Fatal(err)
	}
	if kind == single || kind == clocks {
		s.openEdge(t)
	}
	return s
}

// wrapped are the programs of agents that are hosts, or have a clock that can
// be set.
func (s *site) wrapped(t *testing.T, tools devcluster.Tools) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // #nosec G302 -- the controller runs as nobody
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var env []string
	if tools.BuildFlags != nil {
		s.clock = newClock(t, dir)
		env = append(env, envClock+"="+s.clock)
	}
	out := map[string]string{}
	for _, name := range []string{devcluster.Nomad, devcluster.Consul} {
		program, err := tools.Path(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = wrap(t, s.hosts, dir, program, env...)
	}
	return out
}

// mountDisk is a disk of 1 GiB for one test, in memory.
func mountDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1g,mode=0755"); err != nil {
		t.Skipf("a disk of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// openEdge deploys a stack with a certificate, and so the edge and the
// controller.
func (s *site) openEdge(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	s.host = s.dev.Loopback()
	r := &run{t: t, site: s, name: "site", dir: dir, data: dir}
	r.write([]service{{name: "front", value: "site", count: 1}})
	for name, text := range map[string]string{
		"stack.hcl": "stack \"site\" {}\nservice \"front\" {\n  secrets = [\"word\"]\n}\nsecret \"word\" {}\n" +
			"certificate \"public\" {\n  names = [" + strconv.Quote(s.host) + "]\n}\n",
		"environments/dev.hcl": "",
		"front.nomad.hcl":      strings.Replace(r.spec(service{name: "front", value: "site", count: 1}), "tags = []", fmt.Sprintf("tags = [\"drover.route=%s/\"]", s.host), 1),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := s.run(t.Context(), s.env, "deploy", dir, "-e", "dev"); code != 0 {
		t.Fatalf("the edge and the controller: exit code %d\n%s", code, out)
	}
}

// run runs drover to its end and returns all that it said.
func (s *site) run(ctx context.Context, env []string, args ...string) (string, int) {
	p := s.start(ctx, env, args...)
	return p.wait()
}

// process is a drover.
type process struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{} // closed when it has ended
	err  error
}

// most is how long a drover may take for anything here.
const most = 4 * time.Minute

func (s *site) start(ctx context.Context, env []string, args ...string) *process {
	ctx, cancel := context.WithTimeout(ctx, most)
	p := &process{cmd: exec.CommandContext(ctx, s.drover, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGQUIT) } // where it hangs
	p.cmd.WaitDelay = 5 * time.Second
	p.err = p.cmd.Start()
	if p.err != nil {
		cancel()
		close(p.done)
		return p
	}
	go func() {
		defer cancel()
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// hung is the code of a drover that did not end in time.
const hung = -2

// wait returns all that it said, and its exit code: -1 when it was killed.
func (p *process) wait() (string, int) {
	<-p.done
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return p.out.String() + p.err.Error(), hung
	}
	if p.cmd.ProcessState.ExitCode() == 2 && bytes.Contains(p.out.Bytes(), []byte("SIGQUIT: quit")) {
		return p.out.String(), hung
	}
	return p.out.String(), p.cmd.ProcessState.ExitCode()
}

// agents are those whose name has all the parts.
func (s *site) agents(ctx context.Context, program string, server bool) []string {
	var out []string
	for _, a := range s.dev.Agents(ctx) {
		if a.Program == program && a.Server == server {
			out = append(out, a.Name)
		}
	}
	return out
}

// processes are the pids of tasks of the cluster's jobs with this prefix.
func (s *site) processes(jobPrefix string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !bytes.Contains(env, []byte("NOMAD_JOB_ID="+jobPrefix)) || !bytes.Contains(env, []byte("NOMAD_ALLOC_DIR="+s.dev.Dir()+"/")) {
			continue
		}
		if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err != nil || bytes.Contains(stat, []byte(") Z ")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}
