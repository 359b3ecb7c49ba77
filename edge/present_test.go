package edge

import (
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

func TestServes(t *testing.T) {
	t.Parallel()
	if p := (Present{Edge: true, Certificates: []string{"public"}}); !p.Serves("public") || p.Serves("other") {
		t.Error("only what is read is served")
	}
	if !(Present{Edge: true}).Serves("any") {
		t.Error("got false, want true if it is unknown")
	}
}
