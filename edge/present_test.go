package edge

import (
	"maps"
	"slices"
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestRequested(t *testing.T) {
	t.Parallel()
	service := func(tags ...string) []*api.Service { return []*api.Service{{Tags: tags}} }
	got := Requested([]*api.Job{{TaskGroups: []*api.TaskGroup{
		{Services: service("metrics", "drover.route=b.example.org/", "drover.protocol=https")},
		{Tasks: []*api.Task{{Services: service("drover.route=a.example.org/x")}}},
	}}, {TaskGroups: []*api.TaskGroup{{Services: service("drover.route=b.example.org/")}}}})
	if !slices.Equal(got, []string{"a.example.org/x", "b.example.org/"}) {
		t.Errorf("%v", got)
	}
}

// A stack is compared with the edges that take its services only.
func TestPresent_Classes(t *testing.T) {
	t.Parallel()
	outer := Place{"a:443", []string{"public", "both"}, HAProxy, &Settings{Class: "default", DefaultClass: "default"}}
	inner := Place{"b:443", []string{"office", "both"}, Nginx, &Settings{Class: "internal", DefaultClass: "default"}}
	old := Place{"c:443", []string{"both"}, HAProxy, &Settings{}}
	const class = "drover.class=internal"
	for _, c := range []struct {
		name         string
		places       []Place
		services     [][]string
		certificates []string
		untaken      []string
	}{
		{"no routes", []Place{outer, inner}, nil, []string{"public", "both", "office", "both"}, nil},
		{"outer", []Place{outer, inner}, [][]string{{"drover.route=a.test/"}}, []string{"public", "both"}, nil},
		{"inner", []Place{outer, inner}, [][]string{{class}}, []string{"office", "both"}, nil},
		{"both", []Place{outer, inner}, [][]string{{class}, {}}, []string{"both"}, nil},
		{"one of two classes", []Place{outer}, [][]string{{class, "drover.class=default"}}, []string{"public", "both"}, nil},
		{"no edge of the class", []Place{outer}, [][]string{{class}, {class}}, nil, []string{"internal"}},
		{"no default edge", []Place{inner}, [][]string{{}}, nil, []string{""}},
		{"an edge without classes", []Place{old}, [][]string{{class}, {}}, []string{"both"}, nil},
		{"no edge", nil, [][]string{{class}}, nil, nil},
	} {
		var p Present
		var services []*api.Service
		for _, tags := range c.services {
			services = append(services, &api.Service{Name: "web", Tags: tags})
		}
		p.read(c.places, services)
		if !slices.Equal(p.Certificates, c.certificates) || !slices.Equal(p.Untaken, c.untaken) {
			t.Errorf("%s: got certificates %q and untaken classes %q, want %q and %q", c.name, p.Certificates, p.Untaken, c.certificates, c.untaken)
		}
	}
}

// A deploy names tags of its services that an edge does not serve: of its class only.
func TestPresent_Problems(t *testing.T) {
	t.Parallel()
	outer := Place{Address: "a:443", kind: HAProxy, settings: &Settings{Class: "default", DefaultClass: "default", TCPPorts: []int{636}}}
	inner := Place{Address: "b:443", kind: Nginx, settings: &Settings{Class: "internal", DefaultClass: "default"}}
	const class = "drover.class=internal"
	for _, c := range []struct {
		tags []string
		want map[string]string // messages by tag
	}{
		{[]string{"drover.tcp=636", "drover.sni=a.test"}, nil},
		{[]string{"drover.tcp=637"}, map[string]string{"drover.tcp=637": "The edge does not listen on port 637"}},
		{[]string{class, "drover.tcp=636", "drover.sni=a.test"}, map[string]string{"drover.tcp=636": "nginx cannot do this", "drover.sni=a.test": "nginx cannot do this"}},
		{[]string{class, "drover.route=a.test/", "drover.send-proxy=v2"}, map[string]string{"drover.send-proxy=v2": "nginx cannot do this"}},
		{[]string{class, "drover.route=a.test/", "drover.timeout=tunnel 5m"}, map[string]string{"drover.timeout=tunnel 5m": "nginx cannot do this"}},
		{[]string{"drover.sni=a.test", "drover.send-proxy=${meta.version}"}, nil},
	} {
		var p Present
		p.read([]Place{outer, inner}, []*api.Service{{Name: "web", Tags: c.tags}})
		got := map[string]string{}
		for _, problem := range p.Problems {
			got[problem.Tag] = problem.Message
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.tags, got, c.want)
		}
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	places := []Place{{Address: "a:443", Certificates: []string{"public"}}, {Address: "b:443", Certificates: []string{"office"}}}
	for certificate, want := range map[string][]string{"public": {"a:443"}, "office": {"b:443"}, "other": {"a:443", "b:443"}} {
		if got := Reading(places, certificate); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", certificate, got, want)
		}
	}
	if got := Reading([]Place{{Address: "x:443"}}, "public"); !slices.Equal(got, []string{"x:443"}) {
		t.Errorf("an address whose certificates are unknown: got %q, want it", got)
	}
}

func TestServes(t *testing.T) {
	t.Parallel()
	if p := (Present{Edge: true, Certificates: []string{"public"}}); !p.Serves("public") || p.Serves("other") {
		t.Error("only what is read is served")
	}
	if !(Present{Edge: true}).Serves("any") {
		t.Error("got false, want true if it is unknown")
	}
}
