package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// settings are of services without state of their own, through which the
// requests of reader pass.
var settings = []struct {
	service  string
	variable string // any value of good will do
	good     []string
	broken   string // where no node of the cluster can listen, the service cannot
	bad      string
}{
	{"proxy", "PROXY_LOG_LEVEL", []string{"error", "warn"}, "PROXY_HTTP_ADDR", "192.0.2.1:9200"},
	{"ocdav", "OCDAV_LOG_LEVEL", []string{"error", "warn"}, "OCDAV_HTTP_ADDR", "192.0.2.1:9162"},
}

// reader asks for the properties of a small file, and every fourth time for the
// file, on one connection that it keeps, until ctx ends.
func (m *mixed) reader(ctx context.Context, o *ocis, as login, file, holds string) {
	for n := 0; ctx.Err() == nil; n++ {
		method, want := "PROPFIND", http.StatusMultiStatus
		if n%4 == 3 {
			method, want = "GET", http.StatusOK
		}
		// A request that has begun is not cut off by the end of the load.
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		status, got, err := o.do(rctx, as, method, file, http.Header{"Depth": {"0"}}, nil)
		cancel()
		if method == "GET" && err == nil && status == want && string(got) != holds {
			method, status = "GET of something else", 0
		}
		m.count(method, status, want, err)
	}
}

// TestSettingUnderLoad changes one setting of one service several times while clients
// read over WebDAV through the edge. Then it sets a value with which the service cannot
// run. No request fails, and no other job is changed.
func TestSettingUnderLoad(t *testing.T) {
	only := os.Getenv(envLoad)
	if only == "" {
		t.Skip("make load runs it")
	}
	const clients, atLeast = 8, 2000
	r := start(t, true)
	dir := filepath.Join(t.TempDir(), "ocis")
	r.drover.must(t, "init", "ocis", dir)
	// On a busy machine the first instances of all services at once may outlast
	// the deadlines of one.
	for range 3 {
		if _, _, code := r.drover.run(t.Context(), "deploy", dir, "-e", "dev"); code == 0 {
			break
		}
	}
	r.drover.must(t, "check", dir, "-e", "dev", "--retry-for", "60s")
	environment := filepath.Join(dir, "environments", "dev.hcl")
	shipped, err := os.ReadFile(environment)
	if err != nil {
		t.Fatal(err)
	}
	write := func(overlay string) {
		t.Helper()
		if err := os.WriteFile(environment, append(slices.Clone(shipped), overlay...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay := func(service string, env ...string) string {
		return fmt.Sprintf("\njob \"ocis-%s\" {\n  group \"*\" {\n    task \"*\" {\n      env {\n        %s\n      }\n    }\n  }\n}\n", service, strings.Join(env, "\n        "))
	}

	m := &mixed{why: map[string]int{}, good: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	// One client logs in with each request, for which idm takes longer than
	// all else together; the others have a public link.
	const folder = "/remote.php/webdav/setting"
	r.ocis.must(t, http.StatusCreated, einstein, "MKCOL", folder, nil, nil)
	_, token := r.ocis.share(t, "shareType", "3", "path", "/setting", "permissions", "1")
	for n := range clients {
		name, holds := fmt.Sprintf("/%d.txt", n), fmt.Sprintf("file %d", n)
		r.ocis.must(t, http.StatusCreated, einstein, "PUT", folder+name, nil, []byte(holds))
		as, file := login{}, "/remote.php/dav/public-files/"+token+name
		if n == 0 {
			as, file = einstein, folder+name
		}
		o := &ocis{base: r.ocis.base, http: &http.Client{Transport: r.ocis.http.Transport.(*http.Transport).Clone()}}
		load.Go(func() { m.reader(ctx, o, as, file, holds) })
	}

	var b strings.Builder
	fmt.Fprintf(&b, "%s %d clients, each on a connection that it keeps, of which one logs in with each request and the others have a public link; at least %d requests for each row.\n\n",
		heading(t, "make load"), clients, atLeast)
	b.WriteString("| service | setting | releases | of them reverted | requests | failed | longest time without an answer that was right |\n|---|---|---:|---:|---:|---:|---:|\n")

	// during makes releases, all of them of one job, for as many requests as a
	// row has.
	during := func(service, variable string, code int, release func(n int)) {
		t.Helper()
		_, _, _, _ = m.take()
		count, reverted := 0, 0
		for ; m.total.Load() < atLeast; count++ {
			want := r.jobVersions(t)
			release(count)
			out, errs, got := r.drover.run(t.Context(), "deploy", dir, "-e", "dev")
			if got != code {
				t.Fatalf("%s of %s: exit code %d, want %d\n%s%s", variable, service, got, code, out, errs)
			}
			want["ocis-"+service]++
			if got != 0 { // there and back
				want["ocis-"+service]++
				reverted++
			}
			if is := r.jobVersions(t); !maps.Equal(is, want) {
				t.Errorf("%s of %s: the jobs have the versions %v, want %v", variable, service, is, want)
			}
		}
		total, failed, why, gap := m.take()
		line := fmt.Sprintf("| %s | `%s` | %d | %d | %d | %s | %.1f s |\n", service, variable, count, reverted, total, failures(failed, why), gap.Seconds())
		b.WriteString(line)
		t.Log(strings.TrimSpace(line))
		if failed > 0 {
			t.Errorf("%s of %s: %d of %d requests failed: %v", variable, service, failed, total, why)
		}
	}
	kept := "" // rows of settings without a failure
	for _, s := range settings {
		if only != "all" && !slices.Contains(strings.Split(only, ","), s.service) {
			continue
		}
		good := ""
		during(s.service, s.variable, 0, func(n int) {
			good = fmt.Sprintf("%s = %q", s.variable, s.good[n%len(s.good)])
			write(kept + overlay(s.service, good))
		})
		bad := fmt.Sprintf("%s = %q", s.broken, s.bad)
		during(s.service, s.broken, 4, func(int) { write(kept + overlay(s.service, good, bad)) })
		kept += overlay(s.service, good)
		write(kept)
		r.drover.must(t, "plan", dir, "-e", "dev", "--detailed-exitcode") // that is what runs
	}
	t.Log(b.String())
	renew(t, "setting", b.String())
}

// jobVersions are the versions of all jobs, by their IDs.
func (r *running) jobVersions(t testing.TB) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, j := range r.jobs(t) {
		job, _, err := r.nomad.Jobs().Info(j.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		out[j.ID] = *job.Version
	}
	return out
}
