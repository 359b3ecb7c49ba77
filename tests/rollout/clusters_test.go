package rollout_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// abroad is an environment over two clusters that know nothing of each other:
// the one of the command line, and one with an address and tokens of its own.
// Both call their region "global".
func abroad(t *testing.T, other *devcluster.Cluster, probe string) (environment string, token string) {
	t.Helper()
	vars, err := other.Env("")
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]string{}
	for _, v := range append(vars, devtest.Tokens(t, other, acl.Deployer)...) {
		name, value, _ := strings.Cut(v, "=")
		of[name] = value
	}
	file := filepath.Join(t.TempDir(), "consul-token")
	if err := os.WriteFile(file, []byte(of["CONSUL_HTTP_TOKEN"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
cluster "overseas" {
  address     = %q
  ca_cert     = %q
  client_cert = %q
  client_key  = %q
  token_env   = "NOMAD_TOKEN_OVERSEAS"
  consul {
    address     = %q
    ca_cert     = %q
    client_cert = %q
    client_key  = %q
    token_file  = %q
  }
}
target "here" {}
target "there" {
  cluster  = "overseas"
  services = ["web"]
}
wave "here" {
  targets = ["here"]
  gate {
    http = %q
    basic_auth {
      username = "probe"
      secret   = "pw"
    }
  }
}
wave "there" {
  targets = ["there"]
  approve = true
}
`, of["NOMAD_ADDR"], of["NOMAD_CACERT"], of["NOMAD_CLIENT_CERT"], of["NOMAD_CLIENT_KEY"],
		of["CONSUL_HTTP_ADDR"], of["CONSUL_CACERT"], of["CONSUL_CLIENT_CERT"], of["CONSUL_CLIENT_KEY"], file, probe), of["NOMAD_TOKEN"]
}

// TestClusters is a life of one stack over two clusters that are not
// federated, each with ACLs and a CA of its own.
func TestClusters(t *testing.T) {
	t.Parallel()
	w := newShop(t)
	w.write("web.nomad.hcl", `
job "shop-web" {
  group "g" {
    service {
      name = "shop-web"
    }
    task "t" {
      config {
        run_for = local.run_for
      }
      env {
        MODE = var.mode
      }
      template {
        destination = "local/pw"
        change_mode = "noop"
        data        = "pw {{ with nomadVar (printf \"nomad/jobs/%s\" (env \"NOMAD_JOB_ID\")) }}{{ len .pw.Value }}{{ end }}"
      }
    }
  }
}
`)
	w.dev = devtest.Cluster(t, devcluster.Options{Secure: true})
	there := devtest.Cluster(t, devcluster.Options{Secure: true})
	env, err := w.dev.Env("")
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, devtest.Tokens(t, w.dev, acl.Deployer)...)
	var passwords sync.Map // that the gate's probe came with
	probe := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		passwords.Store(user+":"+password, true)
	}))
	defer probe.Close()
	environment, token := abroad(t, there, probe.URL)
	w.write("environments/prod.hcl", environment)

	// Each cluster gets its own token and no other.
	w.env = env
	w.expect(10, []string{"target there", "NOMAD_TOKEN_OVERSEAS", "is empty"}, "deploy")
	w.env = append(env, "NOMAD_TOKEN_OVERSEAS=00000000-0000-4000-8000-000000000000")
	w.expect(10, []string{"target there", "refuses the token"}, "deploy")
	w.env = append(env, "NOMAD_TOKEN_OVERSEAS="+token)

	clients := map[string]*api.Client{}
	for name, c := range map[string]*devcluster.Cluster{"here": w.dev, "there": there} {
		if clients[name], err = api.NewClient(c.NomadConfig()); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(where, job string) string {
		t.Helper()
		j, _, err := clients[where].Jobs().Info(job, nil)
		if err != nil {
			return err.Error()
		}
		if *j.Stop {
			return "stopped"
		}
		return j.TaskGroups[0].Tasks[0].Env["MODE"]
	}
	runs := func(here, abroad string) {
		t.Helper()
		if a, b := mode("here", "shop-web"), mode("there", "shop-web"); a != here || b != abroad {
			t.Errorf("shop-web is %q here and %q there, want %q and %q", a, b, here, abroad)
		}
	}

	w.expect(5, []string{"web@here: deployed", "wave there", "drover approve"}, "deploy")
	w.expect(0, []string{"web@there: deployed"}, "approve")
	runs("one", "one")
	if text := mode("there", "shop-db"); !strings.Contains(text, "404") {
		t.Errorf("shop-db is there: %s", text)
	}
	w.expect(0, []string{"web@there", "web@here", "db@here", "release 1, deployed"}, "status")
	w.expect(0, []string{"unchanged"}, "deploy")
	w.expect(0, nil, "drift", "--detailed-exitcode")

	// The other cluster is cut off between the waves: the release stays open,
	// and goes on when the cluster is back.
	type ended struct {
		out  string
		code int
	}
	done := make(chan ended, 1)
	go func() {
		out, code := w.drover("deploy", "--var", "mode=two", "--approval-wait", "2m", "--unreachable-after", "3s")
		done <- ended{out, code}
	}()
	w.until("the wave of this cluster has begun", func() bool { return mode("here", "shop-web") == "two" })
	if err := there.Kill(t.Context(), "nomad-server"); err != nil {
		t.Fatal(err)
	}
	w.approve("there")
	if e := <-done; e.code != 10 || !strings.Contains(e.out, "web@there: unreachable") || !strings.Contains(e.out, "drover resume shop -e prod") {
		t.Fatalf("it ended with %d:\n%s", e.code, e.out)
	}
	w.expect(10, []string{"target there"}, "resume", "--lock-wait", "1m")
	w.expect(10, []string{"target there"}, "status")
	if err := there.Restart(t.Context(), "nomad-server"); err != nil {
		t.Fatal(err)
	}
	w.expect(0, []string{"web@there: deployed"}, "resume", "--lock-wait", "1m")
	runs("two", "two")

	w.expect(0, []string{"web@there: deployed", "web@here: deployed"}, "rollback")
	runs("one", "one")

	// Every gate had the password, that of the rollback too, which works from
	// the record; the record has it not.
	out, code := w.run("secrets", "show", w.dir, "pw", "-e", "prod")
	password := strings.TrimSpace(out)
	if _, ok := passwords.Load("probe:" + password); code != 0 || !ok {
		t.Errorf("the probe came without the password: %s", out)
	}
	passwords.Range(func(came, _ any) bool {
		if came != "probe:"+password {
			t.Errorf("the probe came as %v", came)
		}
		return true
	})
	vars, _, err := clients["here"].Variables().PrefixList("drover/stacks/shop/prod/releases/", nil)
	if err != nil || len(vars) == 0 {
		t.Fatal(vars, err)
	}
	for _, v := range vars {
		if is, _, err := clients["here"].Variables().Read(v.Path, nil); err != nil || strings.Contains(fmt.Sprint(is.Items), password) {
			t.Errorf("%s has the password, or is not readable: %v", v.Path, err)
		}
	}

	// The target goes, and with it the cluster block: what runs there stops.
	w.write("environments/prod.hcl", `target "here" {}`)
	w.expect(0, []string{"- web@there  stop"}, "plan")
	w.expect(0, []string{"1 stopped"}, "deploy", "-y")
	runs("one", `Unexpected response code: 404 (job not found)`)
}
