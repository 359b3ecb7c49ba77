package security

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/edge"
)

// service is a job that does nothing and registers a service in Consul.
func service(namespace, id, name string, tags []string, meta map[string]string) *api.Job {
	job := api.NewServiceJob(id, id, "global", 50)
	job.Namespace = &namespace
	job.Datacenters = []string{"*"}
	task := api.NewTask("t", "raw_exec").SetConfig("command", "/bin/sleep").SetConfig("args", []string{"600"}).Require(&api.Resources{CPU: ptr(10), MemoryMB: ptr(10)})
	group := api.NewTaskGroup("g", 1).AddTask(task)
	group.Networks = []*api.NetworkResource{{DynamicPorts: []api.Port{{Label: "http"}}}}
	group.Services = []*api.Service{{Name: name, PortLabel: "http", Provider: "consul", Tags: tags, Meta: meta}}
	return job.AddTaskGroup(group)
}

func ptr[T any](v T) *T { return &v }

// run registers a job of a tenant and waits until Consul has its service.
func (s *site) run(t *testing.T, client *api.Client, job *api.Job) {
	t.Helper()
	if _, _, err := client.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = client.Jobs().Deregister(*job.ID, true, nil) })
	var allocs []*api.AllocationListStub
	until(t, *job.ID+" is registered in Consul", func() bool {
		var err error
		if allocs, _, err = client.Jobs().Allocations(*job.ID, false, nil); err != nil {
			t.Fatal(err)
		}
		entries, _, err := s.consul.Health().Service(job.TaskGroups[0].Services[0].Name, "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return strings.Contains(e.Service.ID, a.ID) }) {
				return true
			}
		}
		return false
	})
}

// A tenant registers a service with the name of the edge: one with an address of
// its own, and one with a value that is no address. Neither gets into the DNS
// records of all stacks, nor keeps them from being made.
func becomesTheEdge(t *testing.T, s *site) {
	const ours = "203.0.113.1"
	s.run(t, s.nomad, service("default", "edge", "edge", nil, map[string]string{"public_address": ours}))
	attacker := s.as(t, acl.Deployer, evil)
	s.run(t, attacker, service(evil, "edge", "edge", nil, map[string]string{"public_address": "198.51.100.66"}))
	s.run(t, attacker, service(evil, "spoiler", "edge", nil, map[string]string{"public_address": "nowhere"}))
	got, skipped, err := edge.Finder{Nomad: s.as(t, acl.Controller, "default"), Consul: s.consul}.Public(t.Context())
	if err != nil || !slices.Equal(got, []string{ours}) {
		t.Errorf("got addresses %q, %v, want only %s", got, err, ours)
	}
	if len(skipped) != 2 {
		t.Errorf("got %v, want that both instances of the tenant are reported", skipped)
	}
}
