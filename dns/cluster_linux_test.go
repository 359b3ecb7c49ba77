package dns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/cmd/cli"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// run is one command line, as a pipe sees it.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), &cli.IO{In: strings.NewReader(""), Out: &out, Err: &errs, Width: 80}, args)
	for _, text := range []string{out.String(), errs.String()} {
		if strings.Contains(text, "dnstest-api-key") {
			t.Errorf("%v prints the API key", args)
		}
	}
	return code, out.String(), errs.String()
}

func writeStack(t *testing.T, dir string, s *dnstest.Server, policy, records string) {
	t.Helper()
	text := fmt.Sprintf(`stack "shop" {}

dns {
  provider = "powerdns"
  server   = %q
  zones    = ["example.org", "example.net"]
  policy   = %q
  repair   = true
}
%s`, s.API, policy, records)
	if err := os.WriteFile(filepath.Join(dir, "stack.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCommands is `drover dns` on a real Nomad and a real PowerDNS. It is not
// parallel: commands read the process's environment.
func TestCommands(t *testing.T) {
	c := devtest.Cluster(t, devcluster.Options{})
	s := dnstest.PowerDNS(t, "example.org", "example.net")
	t.Setenv("NOMAD_ADDR", c.NomadAddr())
	t.Setenv("PDNS_API_KEY", s.Key)
	dir := t.TempDir()
	const two = `
record "www" {
  zone   = "example.org"
  type   = "A"
  values = ["192.0.2.1"]
}
record "*.apps.example.net" {
  type   = "CNAME"
  values = ["www.example.org."]
  ttl    = 60
}
`
	writeStack(t, dir, s, "upsert-only", two)
	expect := func(wantCode int, wantOut []string, args ...string) string {
		t.Helper()
		code, out, errs := run(t, args...)
		if code != wantCode {
			t.Fatalf("%v ended with %d, want %d\n%s%s", args, code, wantCode, out, errs)
		}
		for _, w := range wantOut {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%v does not say %q:\n%s%s", args, w, out, errs)
			}
		}
		return out
	}
	expect(0, []string{"+ create", "www.example.org", "*.apps.example.net", "2 to create"}, "dns", "plan", dir)
	if d := append(s.Dump(t, "example.org"), s.Dump(t, "example.net")...); len(d) > 0 {
		t.Fatalf("plan has changed the zones: %q", d)
	}
	expect(0, []string{"2 created"}, "dns", "apply", dir)
	want := []string{"*.apps.example.net. 60 CNAME www.example.org.", "www.example.org. 300 A 192.0.2.1"}
	if d := append(s.Dump(t, "example.net"), s.Dump(t, "example.org")...); !slices.Equal(d, want) {
		t.Fatalf("the zones hold %q", d)
	}
	expect(0, []string{"0 created, 0 updated, 0 deleted, 2 unchanged"}, "dns", "apply", dir)
	expect(0, []string{"www.example.org", "present", "*.apps.example.net"}, "dns", "list", dir)

	// The content of the store.
	nomad, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := nomad.Variables().Read("drover/dns/shop/default", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.Items["_layout"] != "1" || !strings.Contains(v.Items["CNAME/*.apps.example.net"], `"zone":"example.net"`) || strings.Contains(fmt.Sprint(v.Items), "pending") {
		t.Errorf("the variable holds %v", v.Items)
	}

	// NDJSON.
	s.Set(t, "example.org", "www.example.org", "A", 300, "198.51.100.1")
	out := expect(0, nil, "dns", "plan", "-o", "json", dir)
	var events []map[string]any
	for line := range strings.Lines(out) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, e)
	}
	if len(events) != 3 || events[1]["action"] != "update" || events[1]["name"] != "www.example.org" || events[2]["outcome"] != "changes" {
		t.Errorf("events: %v", events)
	}
	expect(0, []string{`"event":"done"`, `"outcome":"applied"`}, "dns", "apply", "-o", "json", dir)

	// Another stack's record is not to be had, nor a foreign one without --adopt.
	s.Set(t, "example.org", "old.example.org", "A", 300, "198.51.100.1")
	foreign := two + `
record "old" {
  zone   = "example.org"
  type   = "A"
  values = ["192.0.2.7"]
}
`
	writeStack(t, dir, s, "upsert-only", foreign)
	expect(1, []string{"old.example.org A is not as the stack wants it", "--adopt", "1 not as wanted"}, "dns", "apply", dir)
	expect(0, []string{"adopted", "1 updated"}, "dns", "apply", "--adopt", dir)
	if err := os.WriteFile(filepath.Join(dir, "variables.hcl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	writeStack(t, other, s, "sync", strings.ReplaceAll(two, "192.0.2.1", "192.0.2.66"))
	text, _ := os.ReadFile(filepath.Join(other, "stack.hcl"))
	if err := os.WriteFile(filepath.Join(other, "stack.hcl"), bytes.Replace(text, []byte(`"shop"`), []byte(`"rival"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(1, []string{"belongs to shop/default"}, "dns", "apply", "--adopt", other)

	// After a hand-over the other stack takes the records, which stay meanwhile.
	before := append(s.Dump(t, "example.net"), s.Dump(t, "example.org")...)
	expect(0, []string{"www.example.org A is no longer drover's", "3 records handed over"}, "dns", "hand-over", dir)
	if after := append(s.Dump(t, "example.net"), s.Dump(t, "example.org")...); !slices.Equal(after, before) {
		t.Errorf("a hand-over changed the zones to %q, want %q", after, before)
	}
	if w, err := (dns.DesiredRecords{Client: nomad}).Get(t.Context(), "shop/default"); w != nil || err != nil {
		t.Errorf("the controller still has %+v (%v) after a hand-over", w, err)
	}
	expect(0, []string{"adopted", "2 updated"}, "dns", "apply", "--adopt", other)
	expect(0, []string{`"outcome":"handed-over"`, `"handed-over":2`}, "dns", "hand-over", "-o", "json", other)
	expect(0, []string{"adopted", "3 updated"}, "dns", "apply", "--adopt", dir)

	// Deletion needs sync.
	writeStack(t, dir, s, "upsert-only", "")
	expect(0, []string{"3 kept", "deletes nothing"}, "dns", "plan", dir)
	writeStack(t, dir, s, "sync", "")
	expect(0, []string{"3 deleted"}, "dns", "apply", dir)
	if d := append(s.Dump(t, "example.net"), s.Dump(t, "example.org")...); len(d) > 0 {
		t.Errorf("the zones hold %q", d)
	}

	// A service says where its routes lead, and for how long that is known.
	routed := t.TempDir()
	writeStack(t, routed, s, "sync", `
service "web" {}
`)
	web := func(tags string) {
		t.Helper()
		text := fmt.Sprintf(`job "shop-web" {
  group "web" {
    service {
      name     = "web"
      provider = "nomad"
      tags     = ["drover.route=routed.example.org/", %s]
    }
    task "web" {
      driver = "raw_exec"
      config {
        command = "/bin/true"
      }
    }
  }
}
`, tags)
		if err := os.WriteFile(filepath.Join(routed, "web.nomad.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web(`"drover-dns.target=192.0.2.50,2001:db8::50", "drover-dns.ttl=42"`)
	expect(0, []string{"2 created"}, "dns", "apply", routed)
	want = []string{"routed.example.org. 42 A 192.0.2.50", "routed.example.org. 42 AAAA 2001:db8::50"}
	if d := sorted(s.Dump(t, "example.org")); !slices.Equal(d, want) {
		t.Errorf("got %q, want %q", d, want)
	}
	web(`"drover-dns.ttl=soon"`)
	expect(2, []string{`service web: the tag "drover-dns.ttl=soon" is not drover-dns.ttl=SECONDS`}, "dns", "plan", routed)
	web(`"drover-dns.target=192.0.2.50", "drover-dns.proxied=true"`)
	expect(2, []string{"route routed.example.org: the DNS provider powerdns cannot proxy a record"}, "dns", "plan", routed)

	// All mistakes are reported at once, each with its place.
	writeStack(t, dir, s, "sync", `
record "www.example.com." {
  type   = "A"
  values = ["192.0.2.1"]
}
record "@" {
  zone   = "example.org"
  type   = "CNAME"
  values = ["x.example.net"]
}
`)
	expect(2, []string{"stack.hcl:11:1: error: ", "stack.hcl:15:1: error: ", "none of the allowed zones", "example.org, example.net", "apex"}, "dns", "apply", dir)
	t.Setenv("PDNS_API_KEY", "")
	writeStack(t, dir, s, "sync", two)
	expect(2, []string{"stack.hcl:3:1: error: ", "PDNS_API_KEY"}, "dns", "plan", dir)
	t.Setenv("PDNS_API_KEY", "wrong-api-key")
	expect(1, []string{"zone example.org: powerdns: ", "does not accept the credential", "2 zones could not be read"}, "dns", "apply", dir)

	// The store itself: check-and-set, and odd owner names.
	store := dns.NomadStore{Client: nomad}
	owner := "a.stack/with dots & " + strings.Repeat("x", 200)
	o := dns.Ownership{Claims: map[dns.Key]dns.Claim{{Name: "*.example.org", Type: "A"}: {Zone: "example.org"}}}
	index, err := store.Save(t.Context(), owner, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Save(t.Context(), owner, o); !errors.Is(err, dns.ErrChanged) {
		t.Errorf("a second creation: %v", err)
	}
	back, err := store.Load(t.Context(), owner)
	if err != nil || back.Index != index || len(back.Claims) != 1 {
		t.Errorf("%+v %v", back, err)
	}
	if others, err := store.Others(t.Context(), "somebody", ""); err != nil || others[dns.Key{Name: "*.example.org", Type: "A"}] == "" {
		t.Errorf("%v %v", others, err)
	}

	// More records than a variable has room for as items.
	many := dns.Ownership{Claims: map[dns.Key]dns.Claim{}}
	for i := range 2000 {
		many.Claims[dns.Key{Name: fmt.Sprintf("host-%d.example.org", i), Type: "A"}] = dns.Claim{Zone: "example.org", Pending: fmt.Sprintf("%016x", i*7919)}
	}
	if _, err := store.Save(t.Context(), "many", many); err != nil {
		t.Fatal(err)
	}
	if back, err = store.Load(t.Context(), "many"); err != nil || !reflect.DeepEqual(back.Claims, many.Claims) {
		t.Errorf("%d of 2000 claims came back: %v", len(back.Claims), err)
	}

	// Written by a newer drover, or by another program.
	for _, layout := range []string{"2", ""} {
		if _, _, err := nomad.Variables().Update(&api.Variable{Path: "drover/dns/future", Items: api.VariableItems{"_layout": layout}}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load(t.Context(), "future"); err == nil || !strings.Contains(err.Error(), "layout") {
			t.Errorf("layout %q: %v", layout, err)
		}
	}
	if _, err := nomad.Variables().Delete("drover/dns/future", nil); err != nil {
		t.Fatal(err)
	}

	// Two at once, on the real store: nothing is lost.
	p := open(t, powerdns(s), s.Key)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			m := &dns.Manager{Owner: "race", Provider: p, Zones: []string{"example.org"}, Store: store}
			desired := []dns.Record{{Name: "race", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}
			if _, res, err := m.Reconcile(t.Context(), desired); len(res.Failed) > 0 || err != nil && !errors.Is(err, dns.ErrChanged) {
				t.Errorf("racer %d: %v %v", i, res, err)
			}
		})
	}
	wg.Wait()
	m := &dns.Manager{Owner: "race", Provider: p, Zones: []string{"example.org"}, Store: store, Policy: dns.Sync}
	if plan, _ := reconcile(t, m, nil); plan.Count(dns.Delete) != 1 {
		t.Errorf("after the race: %+v", plan.Changes)
	}

	t.Setenv("NOMAD_ADDR", "http://127.0.0.1:1")
	expect(10, []string{"Nomad"}, "dns", "apply", dir)
}
