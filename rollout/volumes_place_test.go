package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// TestPlaceVolumes chooses nodes for the host volumes of groups.
func TestPlaceVolumes(t *testing.T) {
	node := func(name string, more func(*nodeFacts)) *nodeFacts {
		n := &nodeFacts{
			stub: &api.NodeListStub{
				ID: name, Name: name, Datacenter: "dc1", NodePool: "default", Status: "ready", SchedulingEligibility: "eligible",
				Drivers: map[string]*api.DriverInfo{"docker": {Detected: true, Healthy: true}},
			},
			node: &api.Node{Attributes: map[string]string{"plugins.host_volume.mkdir.version": "1"}, Meta: map[string]string{}},
		}
		if more != nil {
			more(n)
		}
		return n
	}
	nodes := func(n int) []*nodeFacts {
		var out []*nodeFacts
		for i := range n {
			out = append(out, node(fmt.Sprintf("n%d", i+1), nil))
		}
		return out
	}
	meta := func(n *nodeFacts, key, value string) *nodeFacts { n.node.Meta[key] = value; return n }
	asks := func(v ...api.VolumeRequest) map[string]*api.VolumeRequest {
		out := map[string]*api.VolumeRequest{}
		for i := range v {
			v[i].Type = "host"
			out[fmt.Sprintf("v%d", i)] = &v[i]
		}
		return out
	}
	job := func(count int, volumes map[string]*api.VolumeRequest, more ...func(*api.Job)) *api.Job {
		j := api.NewServiceJob("j", "j", "global", 50)
		tg := api.NewTaskGroup("g", count)
		tg.Volumes = volumes
		tg.AddTask(api.NewTask("t", "docker"))
		j.AddTaskGroup(tg)
		for _, f := range more {
			f(j)
		}
		return j
	}
	constrained := func(l, operand, r string) func(*api.Job) {
		return func(j *api.Job) { j.Constrain(api.NewConstraint(l, operand, r)) }
	}
	on := func(name, node string, state api.HostVolumeState) func(hostVolumes) {
		return func(h hostVolumes) { h.add(name, node, volumeState{id: name + "-" + node, state: state}) }
	}
	const ready, lost, pending = api.HostVolumeStateReady, api.HostVolumeStateUnavailable, api.HostVolumeStatePending
	perAlloc := api.VolumeRequest{Source: "data", PerAlloc: true}
	sticky := api.VolumeRequest{Source: "data", Sticky: true}
	plain := api.VolumeRequest{Source: "data"}

	for name, c := range map[string]struct {
		jobs  []*api.Job
		nodes []*nodeFacts
		have  []func(hostVolumes)
		want  []string // "name@node" to create, "name@node state", or a part of the message
	}{
		"per_alloc on several nodes":       {jobs: []*api.Job{job(3, asks(perAlloc))}, nodes: nodes(3), want: []string{"data[0]@n1", "data[1]@n2", "data[2]@n3"}},
		"per_alloc on one node":            {jobs: []*api.Job{job(3, asks(perAlloc))}, nodes: nodes(1), want: []string{"data[0]@n1", "data[1]@n1", "data[2]@n1"}},
		"per_alloc, one is missing":        {jobs: []*api.Job{job(3, asks(perAlloc))}, nodes: nodes(3), have: []func(hostVolumes){on("data[0]", "n2", ready), on("data[2]", "n1", ready)}, want: []string{"data[1]@n3"}},
		"per_alloc, both of an instance":   {jobs: []*api.Job{job(2, asks(perAlloc, api.VolumeRequest{Source: "logs", PerAlloc: true}))}, nodes: nodes(2), want: []string{"data[0]@n1", "logs[0]@n1", "data[1]@n2", "logs[1]@n2"}},
		"sticky, one for each instance":    {jobs: []*api.Job{job(3, asks(sticky))}, nodes: nodes(4), want: []string{"data@n1", "data@n2", "data@n3"}},
		"sticky, one is there":             {jobs: []*api.Job{job(3, asks(sticky))}, nodes: nodes(4), have: []func(hostVolumes){on("data", "n3", ready)}, want: []string{"data@n1", "data@n2"}},
		"sticky, fewer nodes":              {jobs: []*api.Job{job(3, asks(sticky))}, nodes: nodes(2), want: []string{"data@n1", "data@n2"}},
		"sticky, one is on a lost node":    {jobs: []*api.Job{job(3, asks(sticky))}, nodes: nodes(4), have: []func(hostVolumes){on("data", "n1", ready), on("data", "n2", lost)}, want: []string{"data@n2 unavailable", "data@n3"}},
		"plain, shared by all":             {jobs: []*api.Job{job(3, asks(plain))}, nodes: nodes(3), want: []string{"data@n1"}},
		"plain, is there":                  {jobs: []*api.Job{job(3, asks(plain))}, nodes: nodes(3), have: []func(hostVolumes){on("data", "n3", ready)}},
		"plain, on a lost node":            {jobs: []*api.Job{job(1, asks(plain))}, nodes: nodes(3), have: []func(hostVolumes){on("data", "n3", lost)}, want: []string{"data@n3 unavailable"}},
		"plain, on its way":                {jobs: []*api.Job{job(1, asks(plain))}, nodes: nodes(3), have: []func(hostVolumes){on("data", "n3", pending)}, want: []string{"data@n3 pending"}},
		"single writer":                    {jobs: []*api.Job{job(2, asks(api.VolumeRequest{Source: "data", AccessMode: "single-node-single-writer"}))}, nodes: nodes(3), want: []string{"data@n1", "data@n2"}},
		"single writer, too few nodes":     {jobs: []*api.Job{job(2, asks(api.VolumeRequest{Source: "data", AccessMode: "single-node-single-writer"}))}, nodes: nodes(1), want: []string{"data@n1", "only 1 of its 2 instances"}},
		"distinct_hosts":                   {jobs: []*api.Job{job(2, asks(plain), constrained("", "distinct_hosts", "true"))}, nodes: nodes(3), want: []string{"data@n1", "data@n2"}},
		"distinct_hosts, per_alloc":        {jobs: []*api.Job{job(3, asks(perAlloc), constrained("", "distinct_hosts", "true"))}, nodes: nodes(2), want: []string{"data[0]@n1", "data[1]@n2", "only 2 of its 3 instances"}},
		"distinct_property":                {jobs: []*api.Job{job(2, asks(perAlloc), constrained("${meta.rack}", "distinct_property", "1"))}, nodes: []*nodeFacts{meta(node("n1", nil), "rack", "a"), meta(node("n2", nil), "rack", "a"), meta(node("n3", nil), "rack", "b")}, want: []string{"data[0]@n1", "data[1]@n3"}},
		"spread":                           {jobs: []*api.Job{job(2, asks(perAlloc), func(j *api.Job) { j.AddSpread(api.NewSpread("${meta.rack}", 100, nil)) })}, nodes: []*nodeFacts{meta(node("n1", nil), "rack", "a"), meta(node("n2", nil), "rack", "a"), meta(node("n3", nil), "rack", "b")}, want: []string{"data[0]@n1", "data[1]@n3"}},
		"constraint":                       {jobs: []*api.Job{job(1, asks(plain), constrained("${meta.disk}", "=", "ssd"))}, nodes: []*nodeFacts{node("n1", nil), meta(node("n2", nil), "disk", "ssd")}, want: []string{"data@n2"}},
		"a volume that a constraint bars":  {jobs: []*api.Job{job(1, asks(plain), constrained("${meta.disk}", "=", "ssd"))}, nodes: []*nodeFacts{node("n1", nil), meta(node("n2", nil), "disk", "ssd")}, have: []func(hostVolumes){on("data", "n1", ready)}, want: []string{"data@n2"}},
		"no node satisfies the constraint": {jobs: []*api.Job{job(1, asks(plain), constrained("${meta.disk}", "=", "ssd"))}, nodes: nodes(2), want: []string{"no node of pool default in datacenters * satisfies its constraints"}},
		"no driver":                        {jobs: []*api.Job{job(1, asks(plain))}, nodes: []*nodeFacts{node("n1", func(n *nodeFacts) { n.stub.Drivers["docker"].Healthy = false }), node("n2", nil)}, want: []string{"data@n2"}},
		"no plugin":                        {jobs: []*api.Job{job(1, asks(plain))}, nodes: []*nodeFacts{node("n1", func(n *nodeFacts) { n.node.Attributes = nil })}, want: []string{"lacks the host volume plugin mkdir"}},
		"draining":                         {jobs: []*api.Job{job(1, asks(plain))}, nodes: []*nodeFacts{node("n1", func(n *nodeFacts) { n.stub.SchedulingEligibility = "ineligible" }), node("n2", nil)}, want: []string{"data@n2"}},
		"read only":                        {jobs: []*api.Job{job(1, asks(api.VolumeRequest{Source: "data", ReadOnly: true}))}, nodes: nodes(1), want: []string{`reads host volume "data"`}},
		"read by one, written by another":  {jobs: []*api.Job{job(1, asks(api.VolumeRequest{Source: "data", ReadOnly: true})), job(1, asks(plain), func(j *api.Job) { *j.ID = "writer" })}, nodes: nodes(2), want: []string{"data@n1"}},
		"two on different nodes":           {jobs: []*api.Job{job(1, asks(plain, api.VolumeRequest{Source: "logs"}))}, nodes: nodes(2), have: []func(hostVolumes){on("data", "n1", ready), on("logs", "n2", ready)}, want: []string{"there are data on n1, logs on n2"}},
		"the second beside the first":      {jobs: []*api.Job{job(1, asks(plain, api.VolumeRequest{Source: "logs"}))}, nodes: nodes(2), have: []func(hostVolumes){on("data", "n2", ready)}, want: []string{"logs@n2"}},
		"shared with a narrower job":       {jobs: []*api.Job{job(1, asks(plain)), job(1, asks(plain), constrained("${node.unique.name}", "=", "n2"), func(j *api.Job) { *j.ID = "narrow" })}, nodes: nodes(2), want: []string{"data@n2"}},
		"system job, none is there":        {jobs: []*api.Job{job(1, asks(plain), func(j *api.Job) { *j.Type = "system" })}, nodes: nodes(2), want: []string{"data@n1", "data@n2"}},
		"system job, one says where":       {jobs: []*api.Job{job(1, asks(plain), func(j *api.Job) { *j.Type = "system" })}, nodes: nodes(2), have: []func(hostVolumes){on("data", "n2", ready)}},
	} {
		t.Run(name, func(t *testing.T) {
			have := hostVolumes{}
			for _, f := range c.have {
				f(have)
			}
			var groups []*volumeGroup
			for _, j := range c.jobs {
				groups = append(groups, volumeGroups(j)...)
			}
			var got []string
			for _, m := range placeVolumes(groups, c.nodes, have, func(string) string { return "mkdir" }) {
				switch {
				case m.Creatable() && m.State == "":
					got = append(got, m.Name+"@"+m.Node)
				case m.State != "":
					got = append(got, m.Name+"@"+m.Node+" "+string(m.State))
				default:
					got = append(got, m.String())
				}
			}
			if !slices.EqualFunc(got, c.want, func(g, w string) bool { return g == w || strings.Contains(w, " ") && strings.Contains(g, w) }) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestSatisfies compares constraints with a node as Nomad does.
func TestSatisfies(t *testing.T) {
	n := &nodeFacts{
		stub: &api.NodeListStub{ID: "id", Name: "n1", Datacenter: "dc1", NodeClass: "big", NodePool: "gpu"},
		node: &api.Node{Attributes: map[string]string{"kernel.name": "linux", "cpu.numcores": "8"}, Meta: map[string]string{"roles": "db, web"}},
	}
	for _, c := range []struct {
		l, operand, r string
		want          bool
	}{
		{"${node.datacenter}", "=", "dc1", true}, {"${node.class}", "=", "small", false}, {"${node.pool}", "!=", "default", true},
		{"${node.unique.id}", "=", "id", true}, {"${attr.kernel.name}", "regexp", "^lin", true}, {"${attr.kernel.name}", "=", "windows", false},
		{"${attr.cpu.numcores}", ">=", "10", false}, {"${attr.cpu.numcores}", "<", "10", true}, {"${meta.roles}", "set_contains", "web,db", true},
		{"${meta.roles}", "set_contains", "web,cache", false}, {"${meta.roles}", "set_contains_any", "cache,web", true},
		{"${meta.none}", "is_set", "", false}, {"${meta.none}", "is_not_set", "", true}, {"${meta.none}", "!=", "x", true}, {"${meta.none}", "=", "x", false},
		{"${attr.kernel.version}", "version", ">= 5", true}, {"", "distinct_hosts", "true", true},
	} {
		if got := n.satisfies([]*api.Constraint{api.NewConstraint(c.l, c.operand, c.r)}); got != c.want {
			t.Errorf("%s %s %s: got %v, want %v", c.l, c.operand, c.r, got, c.want)
		}
	}
}
