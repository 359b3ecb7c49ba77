package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// TestOCISCompact runs all services in one process, and then the same data with one job
// per service.
func TestOCISCompact(t *testing.T) {
	devtest.NeedsFull(t)
	t.Parallel()
	r := start(t, true)
	values := []string{"-e", "dev", "-var", "layout=compact"}
	began := time.Now()
	r.drover.must(t, append([]string{"deploy", "ocis"}, values...)...)
	t.Logf("deployed in %s", time.Since(began).Round(time.Second))
	if jobs := r.jobs(t); len(jobs) != 3 {
		t.Errorf("%d jobs, want oCIS, the edge and the controller", len(jobs))
	}
	o := r.ocis
	eventually(t, "the PROPFIND works", func() bool { return o.propfind(t.Context()) })
	admin := login{"admin", strings.TrimSpace(r.drover.must(t, "secrets", "show", "ocis", "admin_password", "-e", "dev"))}
	testOCIS(t, o, admin)
	t.Logf("the process has %d MB", residentMB(t, r))
	t.Run("backup and restore", func(t *testing.T) { testBackup(t, r, admin, "-var", "layout=compact") })

	// A roll interrupts: one process holds the data.
	o.must(t, http.StatusCreated, einstein, "PUT", "/remote.php/webdav/kept.txt", nil, []byte("kept"))
	ctx, stop := context.WithCancel(t.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		last := time.Now()
		for ctx.Err() == nil {
			if o.propfind(ctx) {
				most = max(most, time.Since(last))
				last = time.Now()
			}
		}
		longest <- most
	}()
	r.drover.must(t, "redeploy", "ocis", "server", "-e", "dev")
	eventually(t, "the PROPFIND works", func() bool { return o.propfind(t.Context()) })
	stop()
	t.Logf("a roll interrupted the PROPFIND for %s", (<-longest).Round(100*time.Millisecond))

	// One job per service must not start while the process holds the data.
	if _, errs, code := r.drover.run(t.Context(), "plan", "ocis", "-e", "dev"); code != 2 || !strings.Contains(errs, "cannot deploy distributed over compact") {
		t.Errorf("the other layout: exit code %d, want 2\n%s", code, errs)
	}

	// Offline, nothing holds the data when the other layout starts. Files and secrets are
	// still there after a destroy.
	r.drover.must(t, append([]string{"deploy", "ocis", "--prune", "-var", "offline=true"}, values...)...)
	eventually(t, "the process is gone", func() bool { return len(servers(t, r)) == 0 })
	r.drover.must(t, "destroy", "ocis", "-e", "dev", "-y")
	if jobs := r.jobs(t); len(jobs) != 2 {
		t.Errorf("%d jobs are left beside the edge and the controller", len(jobs)-2)
	}
	r.drover.must(t, "deploy", "ocis", "-e", "dev")
	eventually(t, "the PROPFIND works", func() bool { return o.propfind(t.Context()) })
	if got := o.must(t, http.StatusOK, einstein, "GET", "/remote.php/webdav/kept.txt", nil, nil); string(got) != "kept" {
		t.Errorf("with one job per service, the file holds %q", got)
	}
	if again := strings.TrimSpace(r.drover.must(t, "secrets", "show", "ocis", "admin_password", "-e", "dev")); again != admin.password {
		t.Error("got another password of the administrator than before the destroy")
	}
	r.drover.must(t, "destroy", "ocis", "-e", "dev", "-y", "--purge", "secrets,history")
	eventually(t, "all processes are gone", func() bool { return len(r.processes(t)) == 0 })
}

// servers are the pids of `ocis server`.
func servers(t testing.TB, r *running) []int {
	t.Helper()
	var pids []int
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		b, err := os.ReadFile(file)
		if err == nil && string(b) == filepath.Join(r.BinDir(), "ocis")+"\x00server\x00" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// residentMB is the memory of the process of the layout compact.
func residentMB(t testing.TB, r *running) int {
	t.Helper()
	for _, pid := range servers(t, r) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if name, value, _ := strings.Cut(line, ":"); name == "VmRSS" {
				kb, err := strconv.Atoi(strings.Fields(value)[0])
				if err != nil {
					t.Fatal(err)
				}
				return kb / 1024
			}
		}
	}
	t.Fatal("there is no process of `ocis server`")
	return 0
}
