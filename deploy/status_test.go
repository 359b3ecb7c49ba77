package deploy

import (
	"errors"
	"reflect"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func TestStatusResult_OK(t *testing.T) {
	well, ill := rollout.ServiceStatus{Service: "web", OK: true}, rollout.ServiceStatus{Service: "db"}
	holder := &record.Holder{User: "ci", Host: "runner-7"}
	for _, test := range []struct {
		name   string
		status StatusResult
		want   bool
	}{
		{"no services", StatusResult{}, false},
		{"all services are well, and there is no release", StatusResult{Services: []rollout.ServiceStatus{well}}, true},
		{"one service is ill", StatusResult{Services: []rollout.ServiceStatus{well, ill}}, false},
		{"deployed", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Done}}, true},
		{"reverted, and what runs is well", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Reverted}}, true},
		{"in progress", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Running}, Holder: holder}, true},
		{"interrupted", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Running}}, false},
		{"paused", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Paused}}, false},
		{"the newest release cannot be read", StatusResult{Services: []rollout.ServiceStatus{well}, Release: &record.Release{State: record.Unreadable}, Holder: holder}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.status.isOK(); got != test.want {
				t.Errorf("isOK() = %v, want %v", got, test.want)
			}
		})
	}
}

func TestSameServers(t *testing.T) {
	t.Parallel()
	home := nomad.Defaults{Region: "global", Namespace: "default"}
	clients := map[string]nomad.Clients{
		"a": {Defaults: home}, "b": {Defaults: home}, "own": {Defaults: home}, "too": {Defaults: home},
		"region":     {Defaults: nomad.Defaults{Region: "west", Namespace: "default"}},
		"consul":     {Defaults: home, Consul: &capi.Client{}},
		"datacenter": {Defaults: home, Consul: &capi.Client{}, ConsulDatacenters: []string{"east"}},
		"named":      {Defaults: home, Consul: &capi.Client{}},
	}
	known := []*stack.Target{{Name: "a"}, {Name: "b"}, {Name: "own", Cluster: &stack.Cluster{}}, {Name: "too", Cluster: &stack.Cluster{}}, {Name: "named", ConsulDatacenter: "east"}}
	targets := []string{"a", "own", "b", "too", "region", "consul", "datacenter", "named"}
	got := sameServers(clients, known, targets)
	if want := [][]int{{0, 2}, {1}, {3}, {4}, {5}, {6}, {7}}; !reflect.DeepEqual(got, want) {
		t.Errorf("sameServers() = %v, want %v", got, want)
	}
}

func TestMarkForeign(t *testing.T) {
	list := []rollout.ServiceStatus{{Status: "running", OK: true}, {Status: rollout.StatusMissing, Detail: "not deployed"}}
	markForeign(list)
	if got, want := list[0].Detail, "no release of this stack and environment made it"; list[0].OK || got != want {
		t.Errorf("a job that runs: OK = %v, Detail = %q, want false, %q", list[0].OK, got, want)
	}
	if got, want := list[1].Detail, "not deployed"; got != want {
		t.Errorf("a missing job: Detail = %q, want %q", got, want)
	}
}

func TestNewestReadable(t *testing.T) {
	broken := &record.Release{Number: 3, Stack: "shop", Environment: "prod", State: record.Unreadable, Detail: "cannot read drover/stacks/shop/prod/releases/000003"}
	good := &record.Release{Number: 2, State: record.Done}
	for _, test := range []struct {
		name  string
		heads []*record.Release
		want  *record.Release
		err   string
	}{
		{"no release", nil, nil, ""},
		{"skips what cannot be read", []*record.Release{broken, good}, good, ""},
		{"nothing can be read", []*record.Release{broken}, nil, "cannot read drover/stacks/shop/prod/releases/000003; run `drover record check shop -e prod`"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := newestReadable(test.heads)
			if got != test.want {
				t.Errorf("newestReadable() = %v, want %v", got, test.want)
			}
			if message(err) != test.err {
				t.Errorf("error = %q, want %q", message(err), test.err)
			}
		})
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNoReleaseError(t *testing.T) {
	for want, err := range map[string]*NoReleaseError{
		"stack shop has no releases in environment prod":                                         {Stack: "shop", Environment: "prod"},
		"stack shop has no releases in environment prod; there are releases of shop/dev, ocis/x": {Stack: "shop", Environment: "prod", Others: []string{"shop/dev", "ocis/x"}},
	} {
		if got := err.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

func TestHistoryResult_StateOf(t *testing.T) {
	holder := &record.Holder{}
	for _, test := range []struct {
		state  record.State
		holder *record.Holder
		want   record.State
	}{
		{record.Running, nil, record.Interrupted},
		{record.Reverting, nil, record.Interrupted},
		{record.Running, holder, record.Running},
		{record.Paused, nil, record.Paused},
		{record.Done, nil, record.Done},
	} {
		if got := (HistoryResult{Holder: test.holder}).StateOf(&record.Release{State: test.state}); got != test.want {
			t.Errorf("StateOf(%s), locked: %v = %s, want %s", test.state, test.holder != nil, got, test.want)
		}
	}
}

func TestMarkUnreadable(t *testing.T) {
	t.Parallel()
	id := "web"
	list := []rollout.ServiceStatus{{Service: "web", JobID: id, OK: true}, {Service: "api", JobID: "api", OK: true}}
	markUnreadable(list, render.Job{Service: "web", Job: &api.Job{ID: &id}}, errors.New("its spec is gone"))
	if list[0].OK || list[0].Detail != "its spec is gone" || !list[1].OK {
		t.Errorf("got %+v, want only web to be not OK", list)
	}
}
