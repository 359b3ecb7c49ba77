package rollout

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// shared is the one Nomad and Consul of this package's tests.
var shared = struct {
	sync.Once
	clients Clients
	addr    string
	err     error
	stop    []func()
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, stop := range shared.stop {
		stop()
	}
	os.Exit(code)
}

func cluster(t *testing.T) Clients {
	t.Helper()
	shared.Do(func() { shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.clients
}

func ports(n int) []int {
	var out []int
	var ls []net.Listener
	for range n {
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		ls = append(ls, l)
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range ls {
		l.Close()
	}
	return out
}

func startShared() error {
	dir, err := os.MkdirTemp("", "rollout-test")
	if err != nil {
		return err
	}
	p := ports(9)
	start := func(name string, args ...string) error {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return err
		}
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			return err
		}
		shared.stop = append([]func(){func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }}, shared.stop...)
		return nil
	}
	shared.stop = append(shared.stop, func() { os.RemoveAll(dir) })
	if err := start("consul", "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-hcl", fmt.Sprintf(`disable_update_check = true
ports { http = %d  grpc = -1  grpc_tls = -1  dns = -1  server = %d  serf_lan = %d  serf_wan = %d }`, p[0], p[1], p[2], p[3])); err != nil {
		return err
	}
	shared.addr = fmt.Sprintf("http://127.0.0.1:%d", p[4])
	cfg := filepath.Join(dir, "nomad.hcl")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, `
disable_update_check = true
ports {
  http = %d
  rpc  = %d
  serf = %d
}
client {
  cpu_total_compute = 20000
  memory_total_mb   = 16000
  options = { "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }
}
consul { address = "127.0.0.1:%d" }
`, p[4], p[5], p[6], p[0]), 0o600); err != nil {
		return err
	}
	consulCfg := capi.DefaultConfig()
	consulCfg.Address = fmt.Sprintf("127.0.0.1:%d", p[0])
	if shared.clients.Consul, err = capi.NewClient(consulCfg); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := poll(ctx, func() bool { l, err := shared.clients.Consul.Status().Leader(); return err == nil && l != "" }); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	if err := start("nomad", "agent", "-dev", "-bind=127.0.0.1", "-config", cfg); err != nil {
		return err
	}
	if shared.clients.Nomad, err = nomadClient(shared.addr, nil); err != nil {
		return err
	}
	return poll(ctx, func() bool {
		nodes, _, err := shared.clients.Nomad.Nodes().List(nil)
		return err == nil && len(nodes) == 1 && nodes[0].Status == "ready"
	})
}

func nomadClient(addr string, hc *http.Client) (*api.Client, error) {
	cfg := api.DefaultConfig()
	cfg.Address, cfg.HttpClient = addr, hc
	return api.NewClient(cfg)
}

// poll tries until ok or ctx ends.
func poll(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
