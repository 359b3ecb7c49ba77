package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// siteFiles are a stack with a route, its record and a wildcard certificate.
var siteFiles = map[string]string{
	"stack.hcl": `
stack "site" {}
dns {
  provider  = "powerdns"
  server    = var.dns_server
  zones     = var.dns_zones
  resolvers = var.dns_resolvers
  policy    = "sync"
  ttl       = 60

  credential_secret = "dns_key"
}
secret "dns_key" {
  type = "given"
}
record "@" {
  type   = "CAA"
  values = ["0 issue \"pebble.letsencrypt.org\""]
}
certificate "wild" {
  names     = ["*.drover.test", "drover.test"]
  challenge = "dns-01"
}
service "web" {}
`,
	"variables.hcl": `
variable "dns_server" {
  type = string
}
variable "dns_zones" {
  type = list(string)
}
variable "dns_resolvers" {
  type = list(string)
}
variable "host" {
  type    = string
  default = "shop.drover.test"
}
variable "canaries" {
  type    = number
  default = 0
}
`,
	"web.nomad.hcl": `
job "site-web" {
  group "web" {
    network {
      port "http" {}
    }
    service {
      name     = "site-web"
      port     = "http"
      provider = "consul"
      tags     = ["drover.route=${var.host}/", "drover.route=elsewhere.example.com/"]
      check {
        type     = "tcp"
        interval = "1s"
        timeout  = "1s"
      }
    }
    update {
      min_healthy_time = "1s"
      canary           = var.canaries
    }
    task "web" {
      driver = "raw_exec"
      user   = "nobody"
      config {
        command = "/usr/sbin/haproxy"
        args    = ["-db", "-f", "${NOMAD_TASK_DIR}/web.cfg"]
      }
      env {
        CANARIES = var.canaries # or Nomad would change it in place
      }
      template {
        destination = "local/web.cfg"
        data        = <<EOT
defaults
  mode http
  timeout client 10s
frontend web
  bind {{ env "NOMAD_ADDR_http" }}
  http-request return status 200 content-type text/plain string "here"
EOT
      }
    }
  }
}
`,
	"environments/dev.hcl": "",
}

// site is that stack on a cluster with Pebble and PowerDNS.
type site struct {
	*running
	dir   string
	roots *x509.CertPool
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), roots: x509.NewCertPool(), running: startOn(t, devcluster.Options{ACME: true, DNS: true})}
	pem, err := os.ReadFile(s.CA())
	if err != nil || !s.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	for name, text := range siteFiles {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) ca(args ...string) []string {
	return append(args, "--directory", s.ACMEDirectory(), "--ca", s.ACMECA())
}

// get asks for https://HOST/.
func (s *site) get(ctx context.Context, host string) (body string, leaf *x509.Certificate, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		return "", nil, err
	}
	status, body, leaf, err := s.do(req)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	return body, leaf, err
}

// do asks as anybody would: the name by DNS, the certificate by the CA.
func (s *site) do(req *http.Request) (status int, body string, leaf *x509.Certificate, err error) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.DNSServer())
	}}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Resolver: resolver}).DialContext(ctx, network, req.URL.Hostname()+":9443")
		},
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.TLS.PeerCertificates[0], err
}

// served waits until a host is.
func (s *site) served(t testing.TB, host string) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Log(err)
		}
	}()
	eventually(t, host+" is served", func() bool { _, _, err = s.get(t.Context(), host); return err == nil })
}

// says runs drover and expects an exit code and texts.
func (s *site) says(t testing.TB, code int, texts []string, args ...string) {
	t.Helper()
	out, errs, got := s.drover.run(t.Context(), args...)
	if got != code {
		t.Fatalf("drover %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	for _, text := range texts {
		if !strings.Contains(out+errs, text) {
			t.Errorf("drover %s does not say %q:\n%s%s", strings.Join(args, " "), text, out, errs)
		}
	}
}

// TestSite is a name, its certificate and its route, from nothing: DNS-01 with
// a wildcard through PowerDNS, served by the edge, found by DNS.
func TestSite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	seen, secrets := s.watch(t), hidden{}
	store := acme.NewStore(acme.NomadVariables(s.nomad))
	keep := func() {
		t.Helper()
		o, err := store.Get(t.Context(), "wild")
		if err != nil {
			t.Fatal(err)
		}
		secrets.key(t, "the key of "+o.Status.Serial, o.Key.Reveal())
	}

	s.says(t, 2, []string{"stack site needs its DNS credential, the secret dns_key"}, "deploy", s.dir, "-e", "dev")
	s.credential(t)

	// Without an edge, the address of the name is unknown.
	s.says(t, 1, []string{"shop.drover.test A is not as the stack wants it: no instance of the edge passes its check"}, "dns", "apply", s.dir, "-e", "dev")

	out, errs, code := s.drover.run(t.Context(), "deploy", s.dir, "-e", "dev")
	if code != 0 || !strings.Contains(out+errs, "record shop.drover.test A: create: 60s "+s.Loopback()) {
		t.Fatalf("deploy: %d\n%s%s", code, out, errs)
	}
	s.says(t, 0, []string{"0 created, 0 updated, 0 deleted, 2 unchanged"}, "dns", "apply", s.dir, "-e", "dev")
	s.served(t, "shop.drover.test")
	body, leaf, err := s.get(t.Context(), "shop.drover.test")
	if err != nil || body != "here" || !slices.Contains(leaf.DNSNames, "*.drover.test") {
		t.Fatalf("%q, %v, %v", body, leaf, err)
	}
	// No record of a challenge is left.
	s.says(t, 0, []string{"drover.test"}, "dns", "list", s.dir, "-e", "dev")
	if txt, err := (&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.DNSServer())
	}}).LookupTXT(t.Context(), "_acme-challenge.drover.test"); err == nil {
		t.Errorf("the record of the challenge is left: %q", txt)
	}

	t.Run("the controller alone", func(t *testing.T) {
		keep()
		// It has the cluster, and neither the stack's files nor its environment.
		s.powerdns(t, `{"name":"drover.test.","type":"CAA","changetype":"DELETE"}`)
		_, err := store.Update(t.Context(), "wild", func(o *acme.Object) error {
			o.Status.RenewAt, o.Status.RenewedBy = time.Now(), "a test asks for it" // as ARI would
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// The record comes back within five minutes, or when another replica
		// takes over.
		s.stopLeader(t)
		eventually(t, "the record is back", func() bool {
			out, _, _ := s.drover.run(t.Context(), "dns", "plan", s.dir, "-e", "dev")
			return strings.Contains(out, "0 to create, 0 to update, 0 to delete, 2 unchanged")
		})
		eventually(t, "the renewed certificate is served", func() bool {
			_, now, err := s.get(t.Context(), "shop.drover.test")
			return err == nil && now.SerialNumber.Cmp(leaf.SerialNumber) != 0
		})
		for _, text := range []string{"create drover.test CAA", "because a test asks for it"} {
			// Nomad collects a log some time after it was written.
			eventually(t, fmt.Sprintf("the controller says %q", text), func() bool { return strings.Contains(s.controllerLog(t), text) })
		}
	})
	t.Run("by hand, from what is deployed", func(t *testing.T) {
		s.says(t, 0, []string{"renewed"}, "cert", "renew", "wild", "--force")
	})
	t.Run("another host", func(t *testing.T) {
		devtest.NeedsFull(t)
		s.says(t, 0, []string{"record store.drover.test A: create", "record shop.drover.test A: delete"}, "deploy", s.dir, "-e", "dev", "-var", "host=store.drover.test")
		s.served(t, "store.drover.test")
		s.says(t, 0, []string{"The routes have other hosts"}, "rollback", s.dir, "-e", "dev")
		s.served(t, "shop.drover.test")
		s.says(t, 0, []string{"0 to create, 0 to update, 0 to delete, 2 unchanged"}, "dns", "plan", s.dir, "-e", "dev")
	})
	t.Run("a part", func(t *testing.T) {
		devtest.NeedsFull(t)
		s.says(t, 0, []string{"record part.drover.test A: create", "The routes have other hosts"}, "deploy", s.dir, "-e", "dev", "--service", "web", "-var", "host=part.drover.test")
		s.served(t, "part.drover.test")
		eventually(t, "the controller has deleted the record of before", func() bool {
			out, _, _ := s.drover.run(t.Context(), "dns", "plan", s.dir, "-e", "dev", "-var", "host=part.drover.test")
			return strings.Contains(out, "0 to create, 0 to update, 0 to delete, 2 unchanged")
		})
		s.says(t, 0, []string{"record shop.drover.test A: create", "record part.drover.test A: delete"}, "deploy", s.dir, "-e", "dev")
		s.served(t, "shop.drover.test")
	})
	t.Run("a host that waits", func(t *testing.T) {
		devtest.NeedsFull(t)
		late := []string{"deploy", s.dir, "-e", "dev", "-var", "host=late.drover.test", "-var", "canaries=1"}
		wanted := func(hosts string) {
			t.Helper()
			v, _, err := s.nomad.Variables().Peek(dns.WantedFolder+"/site/dev", nil)
			if err != nil || v == nil || !strings.Contains(v.Items["wanted"], `"hosts":[`+hosts+`]`) {
				t.Errorf("the controller is not told %s: %v, %v", hosts, v, err)
			}
		}
		s.says(t, 5, []string{"record late.drover.test A: create"}, late...)
		wanted(`"late.drover.test"`)
		s.says(t, 0, []string{"The routes have other hosts"}, "abort", s.dir, "-e", "dev")
		wanted(`"shop.drover.test"`)
		s.served(t, "shop.drover.test")
		s.says(t, 5, nil, late...)
		s.says(t, 0, nil, "promote", s.dir, "-e", "dev")
		s.served(t, "late.drover.test")
		wanted(`"late.drover.test"`)
		eventually(t, "the controller has deleted the record of before", func() bool {
			out, _, _ := s.drover.run(t.Context(), append([]string{"dns", "plan"}, late[1:]...)...)
			return strings.Contains(out, "0 to create, 0 to update, 0 to delete, 2 unchanged")
		})
		s.says(t, 0, []string{"record shop.drover.test A: create", "record late.drover.test A: delete"}, "deploy", s.dir, "-e", "dev")
	})
	t.Run("targets of one's own", func(t *testing.T) {
		s.says(t, 2, []string{"targets are addresses, or one name"}, "dns", "plan", s.with(t, `targets = ["a.example.com", "192.0.2.1"]`), "-e", "dev")
		s.says(t, 0, []string{"CNAME", "edge.example.com"}, "dns", "plan", s.with(t, `targets = ["edge.example.com"]`), "-e", "dev")
		s.says(t, 0, []string{"1 to delete", "1 unchanged"}, "dns", "plan", s.with(t, `routes = false`), "-e", "dev")
	})
	t.Run("faults", func(t *testing.T) { testSiteFaults(t, s) })
	t.Run("keys", func(t *testing.T) {
		keep()
		account, err := store.Account(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		secrets.key(t, "the account key", account.Key.Reveal())
		key, err := s.DNSKey()
		if err != nil {
			t.Fatal(err)
		}
		secrets.add("the key of PowerDNS", key)
		// `drover dev env` sets this one, so that it is in the environment of the user.
		seen.forget("PDNS_API_KEY=" + key)
		testKeys(t, s.running, seen, secrets, map[string]bool{"dns/api-key": true, "dns/pdns.conf": true})
	})
	t.Run("what the controller is left", func(t *testing.T) {
		left := func(folder string) api.VariableItems {
			t.Helper()
			v, _, err := s.nomad.Variables().Peek(folder+"/site/dev", nil)
			if err != nil {
				t.Fatal(err)
			}
			if v == nil {
				return nil
			}
			return v.Items
		}
		s.secret(t, "another-key-of-powerdns")
		if got := left(dns.CredentialFolder)["credential"]; got != "another-key-of-powerdns" {
			t.Errorf("the credential of the controller is the old one, or none: %d bytes", len(got))
		}
		if text := left(dns.WantedFolder)["wanted"]; !strings.Contains(text, `"hosts":["shop.drover.test"]`) || !strings.Contains(text, `"policy":"sync"`) {
			t.Error(text)
		}
		s.drover.must(t, "destroy", s.dir, "-e", "dev", "-y")
		for _, folder := range []string{dns.WantedFolder, dns.CredentialFolder} {
			if left(folder) != nil {
				t.Errorf("%s is left", folder)
			}
		}
	})
}

// credential gives the stack the key of PowerDNS.
func (s *site) credential(t testing.TB) {
	t.Helper()
	key, err := s.DNSKey()
	if err != nil {
		t.Fatal(err)
	}
	s.secret(t, key)
}

func (s *site) secret(t testing.TB, value string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.drover.must(t, "secrets", "set", s.dir, "dns_key", "-e", "dev", "--file", file)
}

// stopLeader stops the controller that works.
func (s *site) stopLeader(t testing.TB) {
	t.Helper()
	instances, _, err := s.consul.Health().Service("drover-controller", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range instances {
		resp, err := http.Get(fmt.Sprintf("http://%s/health", net.JoinHostPort(i.Service.Address, fmt.Sprint(i.Service.Port)))) //nolint:noctx // of this test's cluster
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(b), `"leader"`) {
			continue
		}
		_, id, _ := strings.Cut(i.Service.ID, "_nomad-task-")
		alloc, _, err := s.nomad.Allocations().Info(id[:36], nil)
		if err == nil {
			_, err = s.nomad.Allocations().Stop(alloc, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("none of %d controllers works", len(instances))
}

// with is the site with another line in its dns block.
func (s *site) with(t testing.TB, line string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(siteFiles["stack.hcl"], "dns {", "dns {\n  "+line, 1)
	if err := os.WriteFile(filepath.Join(dir, "stack.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// testSiteFaults breaks what issuing and DNS need, one after the other: each
// time it is said what is wrong, and the site is served.
func testSiteFaults(t *testing.T, s *site) {
	ctx := t.Context()
	renew := func(dir string) []string {
		return s.ca("cert", "renew", "wild", "--force", "--stack", dir, "-e", "dev")
	}
	// Known before: requests go on after the name servers have gone.
	address := s.Loopback() + ":9443"
	served := func(t *testing.T) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, ServerName: "shop.drover.test", MinVersion: tls.VersionTLS12}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "shop.drover.test"
		resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			t.Fatal("serving did not go on: ", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal("serving did not go on: ", resp.Status)
		}
	}
	// gone kills a server until the subtest ends, also when it fails: those after
	// it then show their own faults.
	gone := func(t *testing.T, server string) {
		t.Helper()
		if err := s.Kill(ctx, server); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Restart(ctx, server); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("name server gone", func(t *testing.T) {
		gone(t, "powerdns")
		s.says(t, 1, []string{"zone drover.test: powerdns: ", "connection refused"}, "dns", "apply", s.dir, "-e", "dev")
		s.says(t, 1, []string{"cannot find out whether _acme-challenge.drover.test is an alias", "connection refused"}, renew(s.dir)...)
		served(t)
	})
	t.Run("wrong zone", func(t *testing.T) {
		dir := s.with(t, "# elsewhere")
		args := []string{"-var", `dns_zones=["example.org"]`}
		s.says(t, 1, []string{"the record _acme-challenge.drover.test would be in none of the zones that may be changed (example.org)"}, append(renew(dir), args...)...)
		s.says(t, 1, []string{"zone example.org: powerdns: ", "does not have the zone"}, append([]string{"dns", "apply", dir, "-e", "dev"}, args...)...)
		served(t)
	})
	t.Run("a record is refused", func(t *testing.T) {
		dir := s.with(t, "# and more")
		more, err := os.OpenFile(filepath.Join(dir, "stack.hcl"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(more, `
record "good" {
  type   = "A"
  values = ["192.0.2.1"]
}
record "alias" {
  type   = "CNAME"
  values = ["x.example.org"]
}
`)
		if err := more.Close(); err != nil {
			t.Fatal(err)
		}
		s.powerdns(t, `{"name":"alias.drover.test.","type":"MX","ttl":60,"changetype":"REPLACE","records":[{"content":"10 mail.example.org."}]}`)
		s.says(t, 1, []string{"alias.drover.test", "good.drover.test", "1 created", "1 not as wanted"}, "dns", "apply", dir, "-e", "dev")
		served(t)
		s.powerdns(t, `{"name":"alias.drover.test.","type":"MX","changetype":"DELETE"}`)
		s.drover.must(t, "dns", "apply", s.dir, "-e", "dev")
	})
	t.Run("CA gone", func(t *testing.T) {
		gone(t, "pebble")
		// This command makes the attempt, or the controller does, which has read the
		// directory before.
		s.says(t, 1, []string{"issuer ", "connection refused"}, renew(s.dir)...)
		served(t)
		s.says(t, 1, []string{"Failing", "connection refused", "next attempt"}, "cert", "status", "wild")
	})
	t.Run("CA back without its accounts", func(t *testing.T) {
		pem, err := os.ReadFile(s.CA())
		if err != nil {
			t.Fatal(err)
		}
		s.roots.AppendCertsFromPEM(pem)
		store := acme.NewStore(acme.NomadVariables(s.nomad))
		before, err := store.Get(ctx, "wild")
		if err != nil {
			t.Fatal(err)
		}
		// Either this command makes the attempt or the controller, which the
		// request wakes: the first that takes the lock. A new Pebble knows no
		// account, so that either has to register one.
		s.says(t, 0, []string{"renewed"}, renew(s.dir)...)
		after, err := store.Get(ctx, "wild")
		if err != nil {
			t.Fatal(err)
		}
		if after.Status.Serial == before.Status.Serial {
			t.Errorf("the certificate is still the one of before, serial %s", before.Status.Serial)
		}
		served(t)
		s.says(t, 0, []string{after.Status.Serial}, "cert", "status", "wild")
	})
	t.Run("edge away", func(t *testing.T) {
		// Its record stays: deleting it would make a short stop a long one.
		s.drover.must(t, "destroy", "edge", "-e", "dev", "-y")
		s.says(t, 1, []string{"shop.drover.test A is not as the stack wants it: no instance of the edge passes its check", "0 deleted"}, "dns", "apply", s.dir, "-e", "dev")
		s.drover.must(t, "deploy", "edge", "-e", "dev", "-var", `certificates=["wild"]`)
		s.says(t, 0, []string{"0 created, 0 updated, 0 deleted, 2 unchanged"}, "dns", "apply", s.dir, "-e", "dev")
		s.served(t, "shop.drover.test")
	})
}

// testWildcard reaches oCIS by a name below a wildcard, which was proven by
// DNS-01 through PowerDNS: another way to the same proxy.
func testWildcard(t *testing.T, r *running) {
	stack := siteFiles["stack.hcl"]
	s := &site{running: r, dir: t.TempDir(), roots: x509.NewCertPool()}
	for name, text := range map[string]string{
		"stack.hcl": stack[:strings.Index(stack, "service ")], "variables.hcl": siteFiles["variables.hcl"], "environments/dev.hcl": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	proxy, _, err := r.consul.Catalog().Service("ocis-proxy", "", nil)
	if err != nil || len(proxy) == 0 {
		t.Fatalf("%d instances of the proxy: %v", len(proxy), err)
	}
	if err := r.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{
		Name: "ocis-alias", Address: proxy[0].ServiceAddress, Port: proxy[0].ServicePort,
		Tags: []string{"drover.route=cloud.drover.test/", "drover.protocol=https", "drover.ca=none"},
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.consul.Agent().ServiceDeregister("ocis-alias") }()
	s.credential(t)
	s.drover.must(t, s.ca("cert", "issue", s.dir, "-e", "dev")...)
	s.drover.must(t, "deploy", "edge", "-e", "dev", "-var", `certificates=["public", "wild"]`)
	s.powerdns(t, `{"name":"cloud.drover.test.","type":"A","ttl":60,"changetype":"REPLACE","records":[{"content":"`+s.Loopback()+`"}]}`)
	pem, err := os.ReadFile(s.CA())
	if err != nil || !s.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the CA of the dev cluster: %v", err)
	}
	eventually(t, "PROPFIND by name answers 207", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), "PROPFIND", "https://cloud.drover.test/remote.php/webdav/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(einstein.user, einstein.password)
		status, _, leaf, err := s.do(req)
		return err == nil && status == http.StatusMultiStatus && slices.Contains(leaf.DNSNames, "*.drover.test")
	})
}

// powerdns writes a record past drover.
func (s *site) powerdns(t testing.TB, set string) {
	t.Helper()
	key, err := s.DNSKey()
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, s.DNSAPI()+"/api/v1/servers/localhost/zones/drover.test.", strings.NewReader(`{"rrsets":[`+set+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("writing a record: %s", resp.Status)
	}
}
