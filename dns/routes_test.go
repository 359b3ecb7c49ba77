package dns_test

import (
	"fmt"
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

func TestRouteSettings(t *testing.T) {
	t.Parallel()
	jobs := func(services ...*api.Service) []*api.Job {
		return []*api.Job{{TaskGroups: []*api.TaskGroup{{Services: services}}}}
	}
	service := func(name string, tags ...string) *api.Service { return &api.Service{Name: name, Tags: tags} }
	settings, err := dns.RouteSettings(jobs(
		service("web", "drover.route=a.example.org/", "drover.redirect=www.example.org/ 301 https://a.example.org/", "drover-dns.ttl=60", "drover-dns.target=192.0.2.9,2001:db8::9", "drover-dns.proxied=false"),
		service("api", "drover.route=b.example.org/", "drover-dns.target=lb.example.net"),
		service("plain", "drover.route=c.example.org/"),
	))
	if err != nil || len(settings) != 3 {
		t.Fatalf("got %+v and error %v, want three hosts with settings", settings, err)
	}
	w := &dns.Wanted{Owner: "o", Options: dns.Options{Provider: dns.ProviderCloudflare}, Zones: []string{"example.org"}, TTL: 300, Hosts: []string{"a.example.org", "b.example.org", "c.example.org"}, Settings: settings}
	if !w.OfEdge() {
		t.Error("got no need of the edge, want one for c.example.org")
	}
	m, records, err := w.Manager(nil, &dns.MemoryStore{}, []string{"192.0.2.1"})
	if err != nil || len(m.Held) != 0 {
		t.Fatal(m.Held, err)
	}
	var got []string
	for _, r := range records {
		proxied := ""
		if r.Proxied != nil {
			proxied = fmt.Sprintf(" proxied=%v", *r.Proxied)
		}
		got = append(got, fmt.Sprintf("%s %d %s %s%s", r.Name, r.TTL, r.Type, strings.Join(r.Values, ","), proxied))
	}
	want := []string{
		"a.example.org. 60 A 192.0.2.9 proxied=false", "a.example.org. 60 AAAA 2001:db8::9 proxied=false",
		"b.example.org. 300 CNAME lb.example.net", "c.example.org. 300 A 192.0.2.1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	other := *w
	other.Options.Provider = dns.ProviderPowerDNS
	routed, err := other.Routed([]string{"192.0.2.1"})
	if err != nil || slices.ContainsFunc(routed, func(r dns.Record) bool { return r.Proxied != nil }) {
		t.Errorf("at a provider that cannot proxy: got %+v, %v, want no setting for it", routed, err)
	}
	// Without an instance of the edge, hosts with their own targets change.
	if m, records, err = w.Manager(nil, &dns.MemoryStore{}, nil); err != nil || len(m.Held) != 1 || m.Held["c.example.org"] == "" || len(records) != 3 {
		t.Errorf("got %d records, held %v and error %v, want three and c.example.org held", len(records), m.Held, err)
	}
	if before, _ := w.Digest(); before == "" {
		t.Error("no digest")
	} else if w.Settings = nil; true {
		if after, _ := w.Digest(); after != before {
			t.Error("the digest depends on what runs")
		}
	}
	for tag, want := range map[string]string{
		"drover-dns.ttl=0":              "ttl=SECONDS",
		"drover-dns.ttl=soon":           "ttl=SECONDS",
		"drover-dns.proxied=yes":        "proxied=true or",
		"drover-dns.target=a.org,b.org": "target=NAME or",
		"drover-dns.target=*.org":       "target=NAME or",
		"drover-dns.target=":            "target=NAME or",
		"drover-dns.weight=5":           "one of drover-dns.target",
	} {
		if _, err := dns.RouteSettings(jobs(service("web", "drover.route=a.example.org/", tag))); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "service web: ") {
			t.Errorf("%s: got %v, want %q", tag, err, want)
		}
	}
	settings, err = dns.RouteSettings(jobs(service("one", "drover.route=a.example.org/x", "drover-dns.ttl=60"), service("two", "drover.route=a.example.org/y", "drover-dns.ttl=30")))
	if err == nil || !strings.Contains(err.Error(), "service two: its tags drover-dns.* for a.example.org differ") || settings["a.example.org"].TTL != 60 {
		t.Errorf("got %v and error %v, want the first to count", settings, err)
	}
}
