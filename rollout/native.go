package rollout

import (
	"context"
	"fmt"
	"slices"
	"sync"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
)

// nativeInstances reads the instances of the services that s registers in Nomad
// itself (GET /v1/service/:name), with the checks of the running allocations
// (GET /v1/client/allocation/:id/checks), which are named as in Consul. running
// maps allocation IDs to their task groups. It makes no request when there is
// nothing to read.
func (s spec) nativeInstances(ctx context.Context, c nomad.Clients, running map[string]string) (map[string][]consul.Instance, error) {
	checked := map[string]bool{} // groups
	for _, service := range s.native {
		checked[service.Group] = checked[service.Group] || len(service.Checks) > 0
	}
	var allocs []string
	for id, group := range running {
		if checked[group] {
			allocs = append(allocs, id)
		}
	}
	if len(running) == 0 || len(s.native) == 0 {
		return nil, nil
	}
	var mu sync.Mutex
	checks := map[string][]api.AllocCheckStatus{} // by allocation
	unread := map[string]error{}
	err := parallel.Each(len(allocs), 8, func(i int) error {
		statuses, err := c.Nomad.Allocations().Checks(allocs[i], s.query(ctx))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && (nomad.IsRefused(err) || ctx.Err() != nil):
			return fmt.Errorf("reading the checks of allocation %s: %w", allocs[i], err)
		case err != nil: // its client does not answer
			unread[allocs[i]] = err
		}
		for _, st := range statuses {
			checks[allocs[i]] = append(checks[allocs[i]], st)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	names := consul.Names(s.native)
	out := map[string][]consul.Instance{}
	err = parallel.Each(len(names), 8, func(i int) error {
		registrations, _, err := c.Nomad.Services().Get(names[i], s.query(ctx))
		if err != nil && !nomad.IsNotFound(err) {
			return fmt.Errorf("reading service %s in Nomad: %w", names[i], err)
		}
		var instances []consul.Instance
		for _, r := range registrations {
			in := consul.Instance{ServiceID: r.ID}
			for _, st := range checks[r.AllocID] {
				if st.Service == r.ServiceName {
					in.Checks = append(in.Checks, nativeCheck(r.ID, st))
				}
			}
			if err := unread[r.AllocID]; err != nil {
				in.Checks = s.unreadChecks(r, err)
			}
			instances = append(instances, in)
		}
		mu.Lock()
		defer mu.Unlock()
		out[names[i]] = instances
		return nil
	})
	return out, err
}

// nativeCheck is a check of Nomad's in the words of Consul.
func nativeCheck(id string, st api.AllocCheckStatus) *capi.HealthCheck {
	status := st.Status // "pending"
	switch st.Status {
	case "success":
		status = capi.HealthPassing
	case "failure":
		status = capi.HealthCritical
	}
	return &capi.HealthCheck{ServiceID: id, Name: st.Check, Status: status, Output: st.Output}
}

// unreadChecks are the declared checks of an instance whose client does not
// answer.
func (s spec) unreadChecks(r *api.ServiceRegistration, err error) capi.HealthChecks {
	var out capi.HealthChecks
	for _, service := range s.native {
		if service.Name != r.ServiceName {
			continue
		}
		for _, c := range service.Checks {
			same := func(h *capi.HealthCheck) bool { return h.Name == c.Name }
			if !slices.ContainsFunc(out, same) {
				out = append(out, &capi.HealthCheck{ServiceID: r.ID, Name: c.Name, Status: "unknown", Output: firstLine(nomad.Plain(err).Error())})
			}
		}
	}
	return out
}

// runningOf are the allocations among allocs that count and run, by ID, with
// their task groups.
func runningOf(allocs []*api.AllocationListStub) map[string]string {
	out := map[string]string{}
	for _, a := range current(allocs) {
		if a.ClientStatus == api.AllocClientStatusRunning {
			out[a.ID] = a.TaskGroup
		}
	}
	return out
}
