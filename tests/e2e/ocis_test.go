// Package e2e runs drover, as a user would type it, against real Nomad,
// Consul, HAProxy and oCIS.
package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

func TestMain(m *testing.M) {
	if os.Getenv(envBackend) != "" {
		runBackend()
		return
	}
	devtest.Main(m)
}

// drover runs the built binary against one cluster.
type drover struct {
	binary string
	env    []string

	mu   sync.Mutex   // of said; subtests run side by side
	said bytes.Buffer // all output
}

// run returns stdout, stderr and the exit code.
func (d *drover) run(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Env = append(os.Environ(), d.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return "", err.Error(), -1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said.Write(out.Bytes())
	d.said.Write(errs.Bytes())
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs drover and expects exit code 0; it returns stdout.
func (d *drover) must(t testing.TB, args ...string) string {
	t.Helper()
	out, errs, code := d.run(t.Context(), args...)
	if code != 0 {
		t.Fatalf("drover %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// running is a dev cluster with clients of its APIs and a drover for it.
type running struct {
	*devcluster.Cluster
	drover *drover
	nomad  *api.Client
	consul *capi.Client
	roots  *x509.CertPool // of the dev cluster's CA; nil when the edge is not used
	ocis   *ocis
}

// start brings a cluster up; with an ACME CA, oCIS is reached through the
// edge, and otherwise at the proxy's own address with its own certificate.
func start(t *testing.T, withACME bool) *running {
	t.Helper()
	tools := []string{devcluster.OCIS}
	if devtest.Full() { // to build them takes minutes
		tools = append(tools, devcluster.VictoriaMetrics, devcluster.VMAlert)
	}
	r := startOn(t, devcluster.Options{Tools: tools, ACME: withACME, DNS: withACME})
	devtest.WaitCalm(t) // oCIS takes far more than its cluster
	if !withACME {
		r.ocis = newOCIS("https://"+r.Loopback()+":9200", nil)
		return r
	}
	r.roots = x509.NewCertPool()
	pem, err := os.ReadFile(r.CA())
	if err != nil || !r.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	r.ocis = newOCIS("https://"+r.Loopback()+":9443", r.roots)
	return r
}

// startOn brings any cluster up.
func startOn(t *testing.T, opts devcluster.Options) *running {
	t.Helper()
	opts.Secure = devtest.Secured()
	cluster := devtest.Cluster(t, opts)
	env, err := cluster.Env("")
	if err != nil {
		t.Fatal(err)
	}
	nomad, err := api.NewClient(cluster.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	consul, err := capi.NewClient(cluster.ConsulConfig())
	if err != nil {
		t.Fatal(err)
	}
	if opts.Secure {
		env = append(env, devtest.Tokens(t, cluster, acl.Deployer)...)
	}
	binary := devtest.Build(t, cluster.BinDir()) // where tasks find it
	return &running{
		Cluster: cluster,
		drover:  &drover{binary: binary, env: append(env, "NOMAD_VAR_drover_binary="+binary)},
		nomad:   nomad,
		consul:  consul,
	}
}

// services are the names of the stack's services with their job IDs.
func (r *running) jobs(t testing.TB) []*api.JobListStub {
	t.Helper()
	jobs, _, err := r.nomad.Jobs().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

// TestOCIS is the proof: the whole of oCIS from one command, used, broken and
// taken down again. No test of this package runs beside it, because its 29 services take
// most of two processors while they start.
func TestOCIS(t *testing.T) {
	r := start(t, true)
	r.drover.env = append(r.drover.env, "NOMAD_VAR_monitoring=true")
	began := time.Now()
	r.drover.must(t, "deploy", "ocis", "-e", "dev") // with the edge, the controller and the certificate
	t.Logf("deployed in %s", time.Since(began).Round(time.Second))
	r.drover.must(t, "check", "ocis", "-e", "dev", "--retry-for", "60s")

	admin := login{"admin", strings.TrimSpace(r.drover.must(t, "secrets", "show", "ocis", "admin_password", "-e", "dev"))}

	type step struct {
		name string
		test func(*testing.T)
	}
	steps := []step{
		{"cluster", func(t *testing.T) { testCluster(t, r) }},
		{"works", func(t *testing.T) { testOCIS(t, r.ocis, admin) }},
		{"unchanged", func(t *testing.T) { testUnchanged(t, r) }},
		{"another line is refused", func(t *testing.T) { testUpgradeRefused(t, r) }},
		{"plain job specs", func(t *testing.T) { testPlainSpecs(t, r) }},
		{"secrets", func(t *testing.T) { testNoSecretInClear(t, r) }},
		{"renewal is served", func(t *testing.T) { testRenewal(t, r, edge.HAProxy) }},
		{"wildcard by DNS-01", func(t *testing.T) { testWildcard(t, r) }},
		{"monitoring", func(t *testing.T) {
			devtest.NeedsFull(t)
			if devtest.Secured() {
				t.Skip("the agents of a secured dev cluster want client certificates")
			}
			testMonitoring(t, r)
		}},
		{"nginx as the edge", func(t *testing.T) {
			devtest.NeedsFull(t)
			// One job of two stacks: neither takes it from the other.
			r.drover.must(t, "destroy", "edge", "-e", "dev", "-y")
			r.drover.must(t, "deploy", "edge-nginx", "-e", "dev")
			eventually(t, "the PROPFIND works", func() bool { return r.ocis.propfind(t.Context()) })
			testOCIS(t, r.ocis, admin)
			testRenewal(t, r, edge.Nginx)
		}},
		{"kill -9", func(t *testing.T) { testKill9(t, r) }},
	}
	if r.Secure() || os.Getenv(envLoad) != "" { // else TestOCISCompact, with a quarter of the work
		steps = append(steps, step{"backup and restore", func(t *testing.T) { testBackup(t, r, admin) }})
	}
	for _, s := range steps {
		if !t.Run(s.name, s.test) && s.name == "cluster" {
			return
		}
	}
}

// testCluster looks at what Nomad and Consul say.
func testCluster(t *testing.T, r *running) {
	jobs := r.jobs(t)
	if len(jobs) != 32 {
		t.Errorf("%d jobs, want 29 services, the mesh, the edge and the controller", len(jobs))
	}
	for _, j := range jobs {
		if j.Status != "running" {
			t.Errorf("%s is %s", j.ID, j.Status)
		}
		d, _, err := r.nomad.Jobs().LatestDeployment(j.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d == nil || d.Status != api.DeploymentStatusSuccessful {
			t.Errorf("the deployment of %s: %+v", j.ID, d)
		}
	}
	// go-micro registers a moment after its port opens.
	var registered []string
	eventually(t, "28 registrations under com.owncloud", func() bool {
		names, _, err := r.consul.Catalog().Services(nil)
		if err != nil {
			t.Fatal(err)
		}
		registered = registered[:0]
		for name := range names {
			if strings.HasPrefix(name, "com.owncloud.") {
				registered = append(registered, name)
			}
		}
		return len(registered) == 28
	})
	checks, _, err := r.consul.Health().State(capi.HealthAny, nil)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, c := range checks {
		// A deployment does not wait for the debug ports.
		if !strings.HasPrefix(c.ServiceName, "ocis-") || c.ServiceName == "ocis-metrics" {
			continue
		}
		count++
		if c.Status != capi.HealthPassing {
			t.Errorf("check of %s is %s: %s", c.ServiceName, c.Status, c.Output)
		}
	}
	if count < 28 {
		t.Errorf("%d checks of ocis-* services", count)
	}
	eventually(t, "the checks of the debug ports pass", func() bool {
		checks, _, err := r.consul.Health().Checks("ocis-metrics", nil)
		return err == nil && len(checks) > 0 && checks.AggregatedStatus() == capi.HealthPassing
	})
	status := r.drover.must(t, "status", "ocis", "-e", "dev")
	for _, name := range []string{"gateway", "idm", "proxy"} {
		if !strings.Contains(status, name) {
			t.Errorf("status does not show %s:\n%s", name, status)
		}
	}
}

// testUnchanged deploys again: nothing may be written.
func testUnchanged(t *testing.T, r *running) {
	eventually(t, "the stack is settled", func() bool {
		_, _, code := r.drover.run(t.Context(), "status", "ocis", "-e", "dev")
		return code == 0
	})
	before := versions(t, r)
	began := time.Now()
	r.drover.must(t, "deploy", "ocis", "-e", "dev")
	t.Logf("a second deploy took %s", time.Since(began).Round(100*time.Millisecond))
	if after := versions(t, r); !slices.Equal(before, after) {
		t.Errorf("a second deploy changed something:\nbefore %v\nafter  %v", before, after)
	}
}

// testUpgradeRefused plans a line that does not read the data of 2.0.
func testUpgradeRefused(t *testing.T, r *running) {
	_, errs, code := r.drover.run(t.Context(), "plan", "ocis", "-e", "dev", "-var", "line=7.1")
	if code != 2 || !strings.Contains(errs, "cannot deploy 7.1.4 over 2.0.0 of release 1") {
		t.Errorf("exit code %d, want 2\n%s", code, errs)
	}
}

// versions lists JobModifyIndex of every job and ModifyIndex of every Nomad
// Variable but the lease of the controller's leader, which it renews.
func versions(t testing.TB, r *running) []string {
	t.Helper()
	var out []string
	for _, j := range r.jobs(t) {
		out = append(out, fmt.Sprint(j.ID, "=", j.JobModifyIndex))
	}
	vars, _, err := r.nomad.Variables().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		if path.Base(v.Path) != "leader" {
			out = append(out, fmt.Sprint(v.Path, "=", v.ModifyIndex))
		}
	}
	slices.Sort(out)
	return out
}

// testPlainSpecs leaves drover: the rendered files are what runs, for Nomad's
// own command line too.
func testPlainSpecs(t *testing.T, r *running) {
	nomad, err := devcluster.Tools{}.Path(t.Context(), devcluster.Nomad)
	if err != nil {
		t.Fatal(err)
	}
	env, err := r.Env("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r.drover.must(t, "render", "ocis", "-e", "dev", "-o", "hcl", "--out", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.nomad.hcl"))
	if err != nil || len(files) != 30 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, sub := range []string{"run", "plan"} {
		for _, f := range files {
			args := []string{"job", sub, f}
			if sub == "run" {
				args = []string{"job", sub, "-detach", f}
			}
			cmd := exec.CommandContext(t.Context(), nomad, args...)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("nomad %s: %v\n%s", strings.Join(args[:2], " "), err, out)
			}
			if sub == "plan" && bytes.Contains(out, []byte("+/-")) {
				t.Errorf("nomad job plan %s shows a difference:\n%s", filepath.Base(f), out)
			}
		}
	}
}

// testNoSecretInClear looks for every secret where anybody may read.
func testNoSecretInClear(t *testing.T, r *running) {
	var secrets map[string]any
	out := r.drover.must(t, "secrets", "export", "ocis", "-e", "dev", "-o", "json")
	if err := json.Unmarshal([]byte(out), &secrets); err != nil {
		t.Fatalf("export: %v", err)
	}
	var values []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= 16 {
				values = append(values, v)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(secrets)
	if len(values) < 13 {
		t.Fatalf("only %d secrets were exported", len(values))
	}
	seen := map[string][]byte{}
	for _, j := range r.jobs(t) {
		job, _, err := r.nomad.Jobs().Info(j.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		seen["job "+j.ID] = b
		if sub, _, err := r.nomad.Jobs().Submission(j.ID, int(*job.Version), nil); err == nil && sub != nil {
			seen["submission "+j.ID] = []byte(sub.Source)
		}
	}
	kv, _, err := r.consul.KV().List("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range kv {
		seen["Consul KV "+p.Key] = p.Value
	}
	pids, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pids {
		if b, err := os.ReadFile(p); err == nil {
			seen[p] = b
		}
	}
	for where, b := range seen {
		for _, v := range values {
			if bytes.Contains(b, []byte(v)) {
				t.Errorf("a secret stands in clear in %s", where)
			}
		}
	}
}

// testRenewal renews the certificate while requests run. The edge presents the new one
// within seconds, and no request fails. With nginx, each request has its own
// connection: at a reload nginx closes idle connections, and a request may be in flight
// on one, which TestEdge measures.
func testRenewal(t *testing.T, r *running, kind edge.Kind) {
	client := newOCIS(r.ocis.base, r.roots)
	client.http.Transport.(*http.Transport).DisableKeepAlives = kind == edge.Nginx
	ctx, stop := context.WithCancel(t.Context())
	var failed []string
	var total int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			status, _, err := client.do(ctx, login{}, "POST", "/status.php", nil, []byte("x"))
			if ctx.Err() != nil {
				return
			}
			total++
			if err != nil || status >= 500 {
				failed = append(failed, fmt.Sprint(status, " ", err))
			}
		}
	}()
	r.drover.must(t, "cert", "renew", "public", "--force", "--no-check", "--directory", r.ACMEDirectory(), "--ca", r.ACMECA())
	renewed := time.Now()
	eventually(t, "the renewed certificate is served", func() bool {
		_, _, code := r.drover.run(t.Context(), "cert", "verify", "public", "--at", r.Loopback()+":9443")
		return code == 0
	})
	t.Logf("served %s after it was stored", time.Since(renewed).Round(100*time.Millisecond))
	stop()
	<-done
	if total == 0 || len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(failed), total, failed)
	}
}

// processes maps the service of every running oCIS process of the cluster to
// its pid.
func (r *running) processes(t testing.TB) map[string]int {
	t.Helper()
	out := map[string]int{}
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range pids {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		if len(args) != 3 || args[0] != filepath.Join(r.BinDir(), "ocis") || args[2] != "server" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		out[args[1]] = pid
	}
	return out
}

// testKill9 kills every service and waits until the PROPFIND answers 207. Three that are
// next to each other in the alphabet end at once; in make load each does alone, and how
// long it takes is for docs/reliability.md.
func testKill9(t *testing.T, r *running) {
	procs := r.processes(t)
	if len(procs) != 29 {
		t.Fatalf("%d oCIS processes, want 29: %v", len(procs), procs)
	}
	atOnce := 3
	if os.Getenv(envLoad) == "all" {
		atOnce = 1
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%s\n\n| service | process back after | PROPFIND answers again after |\n|---|---|---|\n", heading(t, "make load"))
	for names := range slices.Chunk(slices.Sorted(maps.Keys(procs)), atOnce) {
		for _, name := range names {
			if err := kill(procs[name]); err != nil {
				t.Fatalf("kill %s: %v", name, err)
			}
		}
		began := time.Now()
		what := strings.Join(names, ", ")
		eventually(t, what+" run again", func() bool {
			now := r.processes(t)
			return !slices.ContainsFunc(names, func(name string) bool { return now[name] == 0 || now[name] == procs[name] })
		})
		back := time.Since(began)
		answers := time.Duration(0)
		// Two in a row: the first one may be answered from a cache.
		good := 0
		eventually(t, "the PROPFIND works after kill -9 of "+what, func() bool {
			if !r.ocis.propfind(t.Context()) {
				good = 0
				return false
			}
			if good++; good == 1 {
				answers = time.Since(began)
			}
			return good == 2
		})
		fmt.Fprintf(&table, "| %s | %.1f s | %.1f s |\n", what, back.Seconds(), answers.Seconds())
	}
	t.Log(table.String())
	if atOnce > 1 {
		return
	}
	renew(t, "kill", table.String())
}
