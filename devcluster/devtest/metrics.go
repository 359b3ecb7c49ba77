package devtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
)

// Servers of metrics with the HTTP API of Prometheus.
const (
	Prometheus      = "prometheus" // of the distribution, from PATH
	VictoriaMetrics = devcluster.VictoriaMetrics
)

// MetricsServer starts a server of that kind, which scrapes the targets, each HOST:PORT,
// every second until the test ends. It returns its URL and a function that stops it early.
func MetricsServer(t testing.TB, kind string, targets ...string) (url string, stop func()) {
	t.Helper()
	NeedsServers(t)
	dir, err := os.MkdirTemp("", "metrics")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Remove(t, dir) })
	config := filepath.Join(dir, "scrape.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: test\n    static_configs: [{targets: [%s]}]\n", strings.Join(targets, ", "))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	var program string
	var args []string
	switch kind {
	case Prometheus:
		program, err = exec.LookPath(Prometheus)
		args = []string{"--config.file=" + config, "--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + address, "--log.level=warn"}
	case VictoriaMetrics:
		program, err = devcluster.Tools{}.Path(t.Context(), VictoriaMetrics)
		// By default an instant query sees nothing of the last 30 seconds.
		args = []string{"-promscrape.config=" + config, "-storageDataPath=" + dir + "/data", "-httpListenAddr=" + address, "-search.latencyOffset=1s", "-loggerLevel=ERROR"}
	}
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() {
		stop()
		if out, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the log of %s:\n%s", kind, out[max(0, len(out)-4000):])
		}
	})
	url = "http://" + address
	Until(t, time.Minute, kind+" listens", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/query?query=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return url, stop
}

// freeAddress returns an address of the loopback interface with a port that is free now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return fmt.Sprint(l.Addr())
}
