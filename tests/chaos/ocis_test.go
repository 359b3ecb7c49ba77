package chaos

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// repeatCommand returns the command that repeats the run.
func (r *run) repeatCommand() string {
	again := fmt.Sprintf("make chaos CHAOS='-seed %d'", r.seed)
	if r.site.kind == ocis {
		again = fmt.Sprintf("make chaos CHAOS='-from %d -ocis 1'", r.seed)
	}
	if devtest.Secured() {
		again = "DROVER_TEST_SECURE=1 " + again
	}
	return again
}

// TestOCIS injects faults into releases that each replace three services of oCIS, one
// after the other on one cluster. It compares the files over WebDAV.
func TestOCIS(t *testing.T) {
	if *flagOCIS == 0 {
		t.Skip("-ocis N strikes N releases of oCIS")
	}
	rows := openRows(t)
	s := newSite(t, ocis)
	s.host = s.dev.Loopback()
	pem, err := os.ReadFile(s.dev.CA())
	if s.roots = x509.NewCertPool(); err != nil || !s.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "ocis")
	for _, args := range [][]string{{"init", "ocis", dir}, {"deploy", dir, "-e", "dev"}, {"check", dir, "-e", "dev", "--retry-for", "90s"}} {
		if out, code := s.run(t.Context(), s.env, args...); code != 0 {
			t.Fatalf("drover %v: exit code %d\n%s", args, code, out)
		}
	}
	envFile := filepath.Join(dir, "environments", "dev.hcl")
	shipped, err := os.ReadFile(envFile)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]string{} // job → VALUE
	for i := range *flagOCIS {
		seed := *flagFrom + i
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRun(t, s, seed)
			r.name, r.dir = "ocis", dir
			r.look, r.store, r.fetch = r.propfind, r.dav, r.davGet
			rows.write(t, r, func(r *run) { r.strikeOCIS(envFile, shipped, changed) })
		}) {
			return // what is left is no place to begin
		}
	}
}

func (r *run) strikeOCIS(envFile string, shipped []byte, changed map[string]string) {
	before, err := r.values()
	if err != nil {
		r.t.Fatal(err)
	}
	r.counts = map[string]int{}
	for id := range before {
		job, _, err := r.site.nomad.Jobs().Info(strings.TrimPrefix(id, r.site.regions[0]+"/"), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, g := range job.TaskGroups {
			r.counts[*job.ID] += *g.Count
		}
	}
	p := r.plan()
	for i, f := range p.faults {
		if f.site != single { // of the same seed, one that a single node knows
			p.faults[i] = all[r.seed%25]
		}
	}
	p.crash = false
	jobs := slices.Sorted(maps.Keys(r.counts))
	for range 3 {
		changed[jobs[r.rng.IntN(len(jobs))]] = fmt.Sprint(r.seed)
	}
	to := version{runs: maps.Clone(before)}
	text := slices.Clone(shipped)
	for _, job := range slices.Sorted(maps.Keys(changed)) {
		text = fmt.Appendf(text, "\njob %q {\n  group \"*\" {\n    task \"*\" {\n      env {\n        VALUE = %q\n      }\n    }\n  }\n}\n", job, changed[job])
		to.runs[r.site.regions[0]+"/"+job] = changed[job]
	}
	to.write = func() {
		if err := os.WriteFile(envFile, text, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	folder := http.Client{Timeout: time.Minute, Transport: r.site.client(0).Transport}
	if status, _, err := r.webdav(r.t.Context(), &folder, "MKCOL", fmt.Sprintf("chaos-%d", r.seed), nil); err != nil || status != http.StatusCreated {
		r.violate("MKCOL before any fault: %d, %v", status, err)
		return
	}
	r.known()
	r.release(p, version{runs: before}, to, to)
}

func (r *run) webdav(ctx context.Context, client *http.Client, method, path string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://%s:9443/remote.php/webdav/%s", r.site.host, path), bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.SetBasicAuth("einstein", "relativity") // a demo user
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

func (r *run) propfind(ctx context.Context, client *http.Client) bool {
	status, _, err := r.webdav(ctx, client, "PROPFIND", "", nil)
	return err == nil && status == http.StatusMultiStatus
}

func (r *run) dav(ctx context.Context, client *http.Client, name string, body []byte) bool {
	status, _, err := r.webdav(ctx, client, http.MethodPut, fmt.Sprintf("chaos-%d/%s", r.seed, name), body)
	return err == nil && (status == http.StatusCreated || status == http.StatusNoContent)
}

func (r *run) davGet(name string) ([]byte, error) {
	client := r.site.client(30 * time.Second)
	defer client.CloseIdleConnections()
	status, b, err := r.webdav(r.t.Context(), client, http.MethodGet, fmt.Sprintf("chaos-%d/%s", r.seed, name), nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return b, err
}
