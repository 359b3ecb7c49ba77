package dns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// TestSplitHorizon has one zone at two providers, on a real Nomad and two real servers.
// It is not parallel: commands read the process's environment.
func TestSplitHorizon(t *testing.T) {
	c := devtest.Cluster(t, devcluster.Options{})
	inside, outside := dnstest.PowerDNS(t, "example.org"), dnstest.PowerDNS(t, "example.org")
	t.Setenv("NOMAD_ADDR", c.NomadAddr())
	t.Setenv("INSIDE_KEY", inside.Key)
	t.Setenv("OUTSIDE_KEY", outside.Key)
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	wants := dns.DesiredRecords{Client: client}
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
	zones := func(wantInside, wantOutside []string) {
		t.Helper()
		for _, z := range []struct {
			name string
			s    *dnstest.Server
			want []string
		}{{"inside", inside, wantInside}, {"outside", outside, wantOutside}} {
			if got := sorted(z.s.Dump(t, "example.org")); !slices.Equal(got, z.want) {
				t.Errorf("%s the zone holds\n%s\nwant\n%s", z.name, strings.Join(got, "\n"), strings.Join(z.want, "\n"))
			}
		}
	}
	block := func(label string, s *dnstest.Server, more string) string {
		if label != "" {
			label = fmt.Sprintf(" %q", label)
		}
		key := "OUTSIDE_KEY"
		if s == inside {
			key = "INSIDE_KEY"
		}
		return fmt.Sprintf("dns%s {\n  provider       = \"powerdns\"\n  server         = %q\n  credential_env = %q\n  zones          = [\"example.org\"]\n%s}\n", label, s.API, key, more)
	}
	stack := func(name string, blocks ...string) string {
		t.Helper()
		dir := t.TempDir()
		text := fmt.Sprintf("stack %q {}\n%s\n", name, strings.Join(blocks, ""))
		if err := os.WriteFile(filepath.Join(dir, "stack.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	records := `
record "www" {
  type   = "A"
  values = ["10.0.0.1"]
  dns    = ["inside"]
}
record "www" {
  type   = "A"
  values = ["192.0.2.1"]
  dns    = ["outside"]
}
record "both" {
  type   = "TXT"
  values = ["seen by all"]
}
service "web" {}
`
	in := block("inside", inside, "  targets = [\"10.0.0.9\"]\n  policy = \"sync\"\n  challenges = false\n")
	out := block("outside", outside, "  targets = [\"192.0.2.9\"]\n")
	dir := stack("split", in, out, records)
	web := `job "split-web" {
  group "web" {
    service {
      name     = "web"
      provider = "nomad"
      tags     = ["drover.route=shop.example.org/"]
    }
    service {
      name     = "admin"
      provider = "nomad"
      tags     = ["drover.route=admin.example.org/", "drover-dns.in=inside"]
    }
    task "web" {
      driver = "raw_exec"
      config {
        command = "/bin/true"
      }
    }
  }
}
`
	if err := os.WriteFile(filepath.Join(dir, "web.nomad.hcl"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(0, []string{"split/default/inside: 4 to create", "split/default/outside: 3 to create"}, "dns", "plan", dir)
	zones(nil, nil)
	expect(0, []string{"split/default/inside: 4 created", "split/default/outside: 3 created"}, "dns", "apply", dir)
	inZone := []string{"admin.example.org. 300 A 10.0.0.9", `both.example.org. 300 TXT "seen by all"`, "shop.example.org. 300 A 10.0.0.9", "www.example.org. 300 A 10.0.0.1"}
	outZone := []string{`both.example.org. 300 TXT "seen by all"`, "shop.example.org. 300 A 192.0.2.9", "www.example.org. 300 A 192.0.2.1"}
	zones(inZone, outZone)

	// The last of the events counts all blocks; each other names its block.
	lines := strings.Split(strings.TrimSpace(expect(0, nil, "dns", "apply", "-o", "json", dir)), "\n")
	blocks := map[string]int{}
	for _, line := range lines {
		var e struct {
			Event, DNS, Owner, Outcome string
			Counts                     map[string]int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == "end" && (e.Owner != "split/default" || e.Outcome != "unchanged" || e.Counts["unchanged"] != 7) {
			t.Errorf("the last event is %s", line)
		}
		blocks[e.Event+" "+e.DNS]++
	}
	if len(lines) != 8 || blocks["left inside"] != 4 || blocks["left outside"] != 3 || blocks["end "] != 1 {
		t.Errorf("got events %v", blocks)
	}
	expect(0, []string{"10.0.0.1  (inside)", "192.0.2.1  (outside)"}, "dns", "list", dir)

	// The controller gets each block, with its own hosts and digest.
	deployed := map[string]string{}
	for name, hosts := range map[string][]string{"inside": {"admin.example.org", "shop.example.org"}, "outside": {"shop.example.org"}} {
		w, err := wants.Get(t.Context(), "split/default/"+name)
		if err != nil || w == nil || !slices.Equal(w.Hosts, hosts) || w.NoChallenges != (name == "inside") {
			t.Fatalf("of block %s the controller has %+v (%v)", name, w, err)
		}
		if deployed[name], err = w.Digest(); err != nil {
			t.Fatal(err)
		}
		w.Pending = true
		if _, err := wants.Put(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	job := &api.Job{TaskGroups: []*api.TaskGroup{{Services: []*api.Service{{Tags: []string{"drover.route=admin.example.org/", "drover-dns.in=inside"}}}}}}
	asked := 0
	changed, err := wants.Follow(t.Context(), "split/default", func(context.Context) (dns.Runs, error) {
		asked++
		return dns.Runs{Jobs: []*api.Job{job}, Deployed: deployed["outside"] + "," + deployed["inside"]}, nil
	})
	if err != nil || !changed || asked != 1 {
		t.Errorf("follow: changed %t, asked %d times, %v", changed, asked, err)
	}
	for name, hosts := range map[string][]string{"inside": {"admin.example.org"}, "outside": nil} {
		if w, err := wants.Get(t.Context(), "split/default/"+name); err != nil || w.Pending || !slices.Equal(w.Hosts, hosts) {
			t.Errorf("of block %s the controller has %+v (%v), want hosts %q, not pending", name, w, err, hosts)
		}
	}

	// Another stack takes no record of the same place, and may have the name at another.
	rival := func(s *dnstest.Server) string {
		return stack("rival", block("mine", s, ""), "record \"www\" {\n  type   = \"A\"\n  values = [\"10.6.6.6\"]\n}\n")
	}
	expect(1, []string{"it belongs to split/default/inside"}, "dns", "apply", "--adopt", rival(inside))
	third := dnstest.PowerDNS(t, "example.org")
	t.Setenv("OUTSIDE_KEY", third.Key)
	third.Set(t, "example.org", "www.example.org", "A", 300, "203.0.113.1") // made by hand
	expect(0, []string{"adopted"}, "dns", "apply", "--adopt", rival(third))
	t.Setenv("OUTSIDE_KEY", outside.Key)
	if err := dns.EndClaims(t.Context(), client, "rival/default"); err != nil {
		t.Fatal(err)
	}

	// A move and a hand-over are about all blocks.
	if moved, err := dns.Move(t.Context(), client, "split/default", "moved/default"); err != nil || !moved {
		t.Fatalf("moved: %t, %v", moved, err)
	}
	if used, err := dns.InUse(t.Context(), client, "split/default"); used || err != nil {
		t.Errorf("the former name is in use: %t, %v", used, err)
	}
	if used, err := dns.InUse(t.Context(), client, "moved/default"); !used || err != nil {
		t.Errorf("the new name is in use: %t, %v", used, err)
	}
	if moved, err := dns.Move(t.Context(), client, "moved/default", "split/default"); err != nil || !moved {
		t.Fatalf("moved back: %t, %v", moved, err)
	}
	if p := expect(0, nil, "dns", "plan", dir); strings.Contains(p, "foreign") {
		t.Errorf("after moves the records are foreign:\n%s", p)
	}

	// Without a block, the controller forgets it and its records stay.
	only := stack("split", out, strings.ReplaceAll(strings.ReplaceAll(records, "\n  dns    = [\"outside\"]", ""), `dns    = ["inside"]`, `dns    = ["outside"]`))
	text, _ := os.ReadFile(filepath.Join(only, "stack.hcl"))
	first := strings.Index(string(text), "record")
	second := first + 1 + strings.Index(string(text[first+1:]), "record")
	if err := os.WriteFile(filepath.Join(only, "stack.hcl"), slices.Concat(text[:first], text[second:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(only, "web.nomad.hcl"), []byte(web), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(0, []string{"split/default/outside: 0 created, 0 updated, 0 deleted, 3 unchanged"}, "dns", "apply", only)
	if w, err := wants.Get(t.Context(), "split/default/inside"); w != nil || err != nil {
		t.Errorf("the controller still has %+v (%v)", w, err)
	}
	zones(inZone, outZone)
	expect(0, []string{"7 records handed over"}, "dns", "hand-over", only)
	for _, name := range []string{"inside", "outside"} {
		if o, err := (dns.NomadStore{Client: client}).Load(t.Context(), "split/default/"+name); len(o.Claims) > 0 || err != nil {
			t.Errorf("block %s still claims %v (%v)", name, o.Claims, err)
		}
	}
	if stored, err := wants.Stored(t.Context(), "split/default"); stored || err != nil {
		t.Errorf("stored: %t, %v", stored, err)
	}

	// A mistake in a record is reported once, at its place.
	bad := stack("split", in, out, "record \"www.example.com.\" {\n  type   = \"A\"\n  values = [\"192.0.2.1\"]\n}\n")
	code, stdout, stderr := run(t, "dns", "plan", bad)
	if n := strings.Count(stdout+stderr, "in none of the allowed zones"); code != 2 || n != 1 {
		t.Errorf("ended with %d, and reports the mistake %d times:\n%s%s", code, n, stdout, stderr)
	}
}
