package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// envLoad asks for the tests under load, which take longer than a test should:
// all, or the services, with commas.
const envLoad = "DROVER_TEST_LOAD"

var writeLoad = flag.String("write-load", "", "file whose parts between marks the tests renew")

// mesh is the one service whose job is not called after the stack first.
const mesh = "mesh"

// mixed is what several WebDAV clients do at once, each in a folder of its
// own: each looks at what it gets.
type mixed struct {
	total, failed atomic.Int64
	mu            sync.Mutex
	why           map[string]int
	good          time.Time     // when something last worked
	gap           time.Duration // the longest time in which nothing did
	pause         time.Duration // of a client between two rounds
}

func (m *mixed) count(what string, status, want int, err error) bool {
	m.total.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && status == want {
		m.gap = max(m.gap, time.Since(m.good))
		m.good = time.Now()
		return true
	}
	m.failed.Add(1)
	if err != nil {
		text := err.Error()
		if i := strings.LastIndex(text, ": "); i >= 0 {
			text = text[i+2:]
		}
		m.why[what+": "+text]++
	} else {
		m.why[fmt.Sprintf("%s: %d", what, status)]++
	}
	return false
}

// take returns what was counted since the last time, and begins anew.
func (m *mixed) take() (total, failed int64, why map[string]int, gap time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	total, failed, why, gap = m.total.Swap(0), m.failed.Swap(0), m.why, max(m.gap, time.Since(m.good))
	m.why, m.gap, m.good = map[string]int{}, 0, time.Now()
	return total, failed, why, gap
}

// client works in the folder until ctx ends: PROPFIND, PUT of 1 MiB and GET of
// it, MKCOL and DELETE.
func (m *mixed) client(ctx context.Context, o *ocis, folder string) {
	body := make([]byte, 1<<20)
	rnd := rand.New(rand.NewSource(int64(len(folder))))
	for n := 0; ctx.Err() == nil; n++ {
		do := func(want int, method, path string, send []byte) []byte {
			if ctx.Err() != nil {
				return nil
			}
			// A request that has begun is not cut off by the end of the load.
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			status, got, err := o.do(rctx, einstein, method, path, nil, send)
			m.count(method, status, want, err)
			return got
		}
		rnd.Read(body[:4096])
		file, sub := fmt.Sprintf("%s/%d.bin", folder, n), fmt.Sprintf("%s/%d", folder, n)
		do(http.StatusMultiStatus, "PROPFIND", folder, nil)
		do(http.StatusCreated, "PUT", file, body)
		if got := do(http.StatusOK, "GET", file, nil); len(got) == len(body) && !bytes.Equal(got, body) {
			m.count("GET of something else", 0, 1, nil)
		}
		do(http.StatusCreated, "MKCOL", sub, nil)
		do(http.StatusNoContent, "DELETE", sub, nil)
		do(http.StatusNoContent, "DELETE", file, nil)
		select {
		case <-ctx.Done():
		case <-time.After(m.pause):
		}
	}
}

// TestRollUnderLoad replaces each service of oCIS, one after the other and
// then all in one release, while WebDAV clients work through the edge.
func TestRollUnderLoad(t *testing.T) {
	if os.Getenv(envLoad) == "" {
		t.Skip("make load runs it")
	}
	r := start(t, true)
	r.drover.must(t, "deploy", "ocis", "-e", "dev")
	r.drover.must(t, "check", "ocis", "-e", "dev", "--retry-for", "60s")

	m := &mixed{why: map[string]int{}, good: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	const many = 4
	for n := range many {
		folder := fmt.Sprintf("/remote.php/webdav/load-%d", n)
		r.ocis.must(t, http.StatusCreated, einstein, "MKCOL", folder, nil, nil)
		clients.Go(func() { m.client(ctx, r.ocis, folder) })
	}
	pass := func() {
		select {
		case <-time.After(3 * time.Second): // of load, so that each row has some before and after
		case <-ctx.Done():
		}
	}
	pass()
	_, _, _, _ = m.take()
	pass()

	var b strings.Builder
	fmt.Fprintf(&b, "%s %d clients; every answer is looked at, and what was written is read and compared.\n\n", heading(t, "make load"), many)
	b.WriteString("| service | release | of it Nomad's deployment | requests | failed | longest time without an answer that was right |\n|---|---:|---:|---:|---:|---:|\n")
	row := func(name string, took, nomad time.Duration) {
		t.Helper()
		total, failed, why, gap := m.take()
		line := fmt.Sprintf("| %s | %s | %s | %d | %s | %.1f s |\n", name, seconds(took), seconds(nomad), total, failures(failed, why), gap.Seconds())
		b.WriteString(line)
		t.Log(strings.TrimSpace(line))
	}
	row("(nothing)", 0, 0)
	var releases, nomad time.Duration
	var services []string
	for _, j := range r.jobs(t) {
		if s, ok := strings.CutPrefix(j.ID, "ocis-"); ok {
			services = append(services, s)
		}
	}
	if len(services) != 29 {
		t.Fatalf("the services are %v", services)
	}
	services = append(services, mesh)
	if only := os.Getenv(envLoad); only != "all" {
		services = strings.Split(only, ",")
	}
	for _, s := range services {
		began := time.Now()
		r.drover.must(t, "redeploy", "ocis", s, "-e", "dev")
		job := "ocis-" + s
		if s == mesh {
			job = s + "-ocis"
		}
		took, of := time.Since(began), r.deployment(t, job)
		pass()
		row(s, took, of)
		releases, nomad = releases+took, nomad+of
	}
	began := time.Now()
	r.drover.must(t, "redeploy", "ocis", "-e", "dev")
	all := time.Since(began)
	pass()
	row("all in one release", all, 0)
	stop()
	clients.Wait()
	fmt.Fprintf(&b, "\nThe releases of single services took %.2f times what Nomad's deployments took, %s of %s.\n",
		float64(releases)/float64(nomad), seconds(releases), seconds(nomad))
	renew(t, "load", b.String())
}

// heading returns the command, the date and the load of the machine for a table.
func heading(t testing.TB, command string) string {
	t.Helper()
	b, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(b), " ")
	return fmt.Sprintf("    %s\n\nran on %s, at commit %s, %d cores, load before %s.", command, time.Now().UTC().Format(time.DateOnly), commit(t), runtime.NumCPU(), load)
}

// renew writes what a test found into the file of the flag, between the marks.
func renew(t testing.TB, mark, text string) {
	t.Helper()
	t.Log(text)
	if *writeLoad == "" || t.Failed() {
		return
	}
	if err := between(*writeLoad, mark, text); err != nil {
		t.Fatal(err)
	}
}

// failures are the cell of a table.
func failures(failed int64, why map[string]int) string {
	said := fmt.Sprint(failed)
	if failed > 0 {
		var list []string
		for _, k := range slices.Sorted(maps.Keys(why)) {
			list = append(list, fmt.Sprintf("%d× %s", why[k], k))
		}
		said += ": " + strings.Join(list, ", ")
	}
	return said
}

// deployment is how long Nomad's newest one of a job took, until its last
// allocation was healthy.
func (r *running) deployment(t testing.TB, job string) time.Duration {
	t.Helper()
	d, _, err := r.nomad.Jobs().LatestDeployment(job, nil)
	if err != nil || d == nil || d.Status != api.DeploymentStatusSuccessful {
		t.Fatalf("the deployment of %s: %+v, %v", job, d, err)
	}
	allocs, _, err := r.nomad.Deployments().Allocations(d.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	for _, a := range allocs {
		if a.DeploymentStatus != nil {
			took = max(took, a.DeploymentStatus.Timestamp.Sub(time.Unix(0, d.CreateTime)))
		}
	}
	return took
}

func seconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func commit(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// between replaces what a file has between <!-- NAME --> and <!-- /NAME -->.
func between(file, name, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	first, last := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(string(b), first)
	_, after, ok2 := strings.Cut(rest, last)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks of %s", file, name)
	}
	return os.WriteFile(file, []byte(before+first+"\n"+text+"\n"+last+after), 0o644)
}
