package devcluster_test

import (
	"context"
	"crypto/tls"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// TestSecure asks a secure cluster for what it must refuse, runs a job that
// needs all of it, and does that again after down and up.
func TestSecure(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{Secure: true})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	before, err := c.Env("")
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, c)
	closed(t, c.Dir())
	registers(t, c)

	if err := c.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	c = up(t, opts)
	after, err := c.Env("")
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("the environment changed over down and up: %v\n%s\n%s", err, before, after)
	}
	registers(t, c)

	opts.Secure = false
	if _, err := devcluster.Up(t.Context(), opts); err != nil {
		t.Errorf("up without --secure of a cluster that is secure: %v", err)
	}
}

// refuses checks that there is no way in without certificate and token.
func refuses(t *testing.T, c *devcluster.Cluster) {
	t.Helper()
	// Without a certificate.
	hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // #nosec G402 -- the server's side is not in question
	}}
	for _, url := range []string{c.NomadAddr() + "/v1/status/leader", c.ConsulAddr() + "/v1/status/leader"} {
		res, err := hc.Get(url)
		if err == nil {
			_ = res.Body.Close()
			t.Errorf("%s answers a client without a certificate: %s", url, res.Status)
		}
	}
	// With one, but no token.
	nc := c.NomadConfig()
	nc.SecretID = ""
	nomad, err := api.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := nomad.Jobs().List(nil); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("Nomad lists jobs without a token: %v", err)
	}
	cc := c.ConsulConfig()
	cc.Token = "00000000-0000-0000-0000-000000000002" // Consul's anonymous token
	consul, err := capi.NewClient(cc)
	if err != nil {
		t.Fatal(err)
	}
	if services, _, err := consul.Catalog().Services(nil); err == nil && len(services) > 0 {
		t.Errorf("Consul lists services without a token: %v", services)
	}
}

// closed checks that no other user can read a key or a token.
func closed(t *testing.T, dir string) {
	t.Helper()
	secret := func(name string) bool {
		return strings.HasSuffix(name, "-key.pem") || name == "tokens.json" || strings.HasSuffix(name, ".hcl")
	}
	found := 0
	for _, sub := range []string{"secure", "config"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !secret(d.Name()) {
				return err
			}
			found++
			fi, err := os.Stat(path)
			if err == nil && fi.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if found < 10 {
		t.Errorf("there are %d keys and tokens, too few", found)
	}
}

// registers runs a job whose service registers with its workload identity and
// whose template reads services with the task's, and takes it away again.
func registers(t *testing.T, c *devcluster.Cluster) {
	t.Helper()
	nomad, consul := nomadClient(t, c), consulClient(t, c)
	job, err := nomad.Jobs().ParseHCL(`
job "secured" {
  group "g" {
    network {
      port "http" {}
    }
    service {
      name     = "secured"
      port     = "http"
      provider = "consul"
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "test -n \"$CONSUL_HTTP_TOKEN\" && test -s local/services && exec sleep 3600"]
      }
      consul {}
      template {
        destination = "local/services"
        data        = "{{ range services }}{{ .Name }}\n{{ end }}"
        change_mode = "noop"
      }
    }
  }
}`, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := nomad.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	instances := func(want int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for q := (&capi.QueryOptions{WaitTime: 5 * time.Second}); ; {
			all, meta, err := consul.Catalog().Service("secured", "", q.WithContext(ctx))
			if err != nil {
				t.Fatalf("waiting for %d instances of the service: %v", want, err)
			}
			if len(all) == want {
				return
			}
			q.WaitIndex = meta.LastIndex
		}
	}
	instances(1)
	if _, _, err := nomad.Jobs().Deregister("secured", true, nil); err != nil {
		t.Fatal(err)
	}
	instances(0)
}
