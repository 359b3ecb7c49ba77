package dns_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

const bindSecret = "YW5vdGhlciBzZXJ2ZXIsIGFub3RoZXIgc2VjcmV0ISE="

// bind starts BIND with one zone, in which the key may not touch the name
// denied. It answers with the server's address.
func bind(t *testing.T, zone string) string {
	t.Helper()
	devtest.NeedsServers(t)
	named, err := exec.LookPath("/usr/sbin/named")
	if err != nil {
		t.Skip("BIND is not installed (apt-get install bind9); TestRFC2136 runs with PowerDNS")
	}
	for range 3 {
		// Another process may take the port before the server does.
		if addr := startBIND(t, named, zone); addr != "" {
			return addr
		}
	}
	t.Fatal("BIND does not answer")
	return ""
}

func startBIND(t *testing.T, named, zone string) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	conf := fmt.Sprintf(`options {
  directory %q; pid-file none; session-keyfile none; managed-keys-directory %q;
  listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; notify no; dnssec-validation no; allow-transfer { key "drover"; };
};
controls { };
key "drover" { algorithm hmac-sha256; secret %q; };
zone %q {
  type primary; file "zone";
  update-policy { deny drover name denied.%s ANY; grant drover zonesub ANY; };
};
`, dir, dir, port, bindSecret, zone, zone)
	soa := "$TTL 60\n@ IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ NS ns1\nns1 A 127.0.0.1\nmail 3600 MX 10 ns1\n"
	for name, text := range map[string]string{"named.conf": conf, "zone": soa} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := &strings.Builder{}
	cmd := exec.CommandContext(t.Context(), named, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p := open(t, dns.Options{Provider: dns.ProviderRFC2136, Server: addr, KeyName: "drover"}, bindSecret)
	for range 250 {
		if _, err := p.GetRecords(t.Context(), zone); err == nil {
			return addr
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ""
}

// TestBIND is TestRFC2136 in short, on the other implementation: it ignores
// some updates silently and has a policy for each name.
func TestBIND(t *testing.T) {
	t.Parallel()
	addr := bind(t, "example.org")
	o := dns.Options{Provider: dns.ProviderRFC2136, Server: addr, KeyName: "drover"}
	p := open(t, o, bindSecret)
	m := manager(p, "example.org")
	desired := append(everyType(), dns.Record{Name: "denied", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}})
	_, res := reconcile(t, m, desired)
	if len(res.Done) != len(everyType()) || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "denied.example.org A") {
		t.Fatalf("%d done, failed %v", len(res.Done), res.Failed)
	}
	if plan, _ := reconcile(t, m, everyType()); !plan.Empty() || plan.Count(dns.Unchanged) != len(everyType()) {
		t.Errorf("a second plan: %+v", plan.Changes)
	}
	late := append(everyType(), dns.Record{Name: "late", Zone: "example.org", Type: "CNAME", Values: []string{"edge.example.net"}})
	plan, err := m.Plan(t.Context(), late)
	if err != nil {
		t.Fatal(err)
	}
	other := dns.ToLibdns("example.org", dns.Key{Name: "late.example.org", Type: "A"}, dns.Set{TTL: 60, Values: []string{"198.51.100.1"}})
	if _, err := p.AppendRecords(t.Context(), "example.org", other); err != nil {
		t.Fatal(err)
	}
	if res, err := m.Apply(t.Context(), plan, nil); err != nil || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "it has changed since the plan was made") {
		t.Errorf("a CNAME beside an address that came later: %+v %v", res, err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.org", other); err != nil {
		t.Fatal(err)
	}
	m.Policy = dns.Sync
	if _, res := reconcile(t, m, []dns.Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}); len(res.Failed) != 0 {
		t.Errorf("a CNAME that makes room: %v", res.Failed)
	}
	actual, errs := m.Read(t.Context())
	var names []string
	for key := range actual["example.org"] {
		names = append(names, key.String())
	}
	if want := []string{"example.org NS", "example.org SOA", "mail.example.org MX", "ns1.example.org A", "www.example.org A"}; len(errs) > 0 || !slices.Equal(sorted(names), want) {
		t.Errorf("the zone holds %q %v", names, errs)
	}
	dns.LibdnsContract(t, p, "example.org")
	for _, bad := range []struct{ key, secret, zone string }{{"drover", "d3Jvbmctd3Jvbmctd3Jvbmctd3JvbmctIQ==", "example.org"}, {"stranger", bindSecret, "example.org"}, {"drover", bindSecret, "example.com"}} {
		o.KeyName = bad.key
		plan, err := manager(open(t, o, bad.secret), bad.zone).Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "does not have the zone, or does not accept the key "+bad.key) {
			t.Errorf("%v: %v %v", bad, plan.Errors, err)
		}
	}
}
