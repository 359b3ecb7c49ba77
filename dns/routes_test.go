package dns_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
)

func TestRouteHosts(t *testing.T) {
	t.Parallel()
	service := func(tags ...string) *api.Service { return &api.Service{Tags: tags} }
	jobs := []*api.Job{{TaskGroups: []*api.TaskGroup{{
		Services: []*api.Service{
			service("drover.route=b.example.org/x", "drover.route=b.example.org/y", "drover.strip=/x", "metrics"),
			service("drover.redirect=www.example.org/ 301 https://example.org/", "drover.route=127.0.0.1/", "drover.route="),
		},
		Tasks: []*api.Task{{Services: []*api.Service{service("drover.sni=mail.example.org"), {CanaryTags: []string{"drover.route=a.example.org/"}}}}},
	}}}}
	want := []string{"a.example.org", "b.example.org", "mail.example.org", "www.example.org"}
	if got := dns.RouteHosts(jobs); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRouteRecords(t *testing.T) {
	t.Parallel()
	hosts := []string{"a.example.org", "other.example.com", "own.example.org", "example.org"}
	own := []dns.Record{{Name: "own", Type: "CNAME", Values: []string{"x.example.net"}}, {Name: "@", Type: "CAA", Values: []string{`0 issue "ca.example"`}}}
	for _, c := range []struct {
		targets []string
		want    []string // NAME TYPE VALUES
	}{
		{nil, nil},
		{[]string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}, []string{
			"a.example.org. A 192.0.2.1,192.0.2.2", "a.example.org. AAAA 2001:db8::1", "example.org. A 192.0.2.1,192.0.2.2", "example.org. AAAA 2001:db8::1",
		}},
		{[]string{"edge.example.net"}, []string{"a.example.org. CNAME edge.example.net", "example.org. CNAME edge.example.net"}},
	} {
		records, err := dns.RouteRecords(hosts, c.targets, []string{"example.org"}, 60, own)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range records {
			if r.TTL != 60 || !strings.HasPrefix(r.Source, "route ") {
				t.Errorf("%+v", r)
			}
			got = append(got, r.Name+" "+r.Type+" "+strings.Join(r.Values, ","))
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.targets, got, c.want)
		}
	}
	for _, bad := range [][]string{{"a.example.net", "b.example.net"}, {"a.example.net", "192.0.2.1"}} {
		if _, err := dns.RouteRecords(hosts, bad, []string{"example.org"}, 0, nil); err == nil {
			t.Errorf("%q are taken", bad)
		}
	}
	// A CNAME at the apex is reported as such.
	records, err := dns.RouteRecords([]string{"example.org"}, []string{"edge.example.net"}, []string{"example.org"}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dns.Normalize(records, []string{"example.org"}); err == nil || !strings.Contains(err.Error(), "route example.org: record example.org CNAME: a CNAME cannot stand at the apex") {
		t.Error(err)
	}
}

// TestHeld: records of held names stay, with the policy sync too.
func TestHeld(t *testing.T) {
	t.Parallel()
	zone := "example.org"
	set := dns.Set{TTL: 300, Values: []string{"192.0.2.1"}}
	a, gone := dns.Key{Name: "a.example.org", Type: "A"}, dns.Key{Name: "b.example.org", Type: "A"}
	p := dns.NewPlan(dns.Input{
		Actual: map[string]map[dns.Key]dns.Set{zone: {a: set, gone: set}},
		Owned:  map[dns.Key]dns.Claim{a: {Zone: zone}, gone: {Zone: zone}},
		Held:   map[string]string{"a.example.org": "why", "new.example.org": "why"},
		Policy: dns.Sync,
	})
	var got []string
	for _, c := range p.Changes {
		got = append(got, string(c.Action)+" "+c.Name)
	}
	if want := []string{"keep a.example.org", "delete b.example.org", "keep new.example.org"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if len(p.Conflicts()) != 2 {
		t.Errorf("%+v", p.Conflicts())
	}
}
