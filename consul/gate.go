// Package consul answers one question about services that Nomad registers in
// Consul: is every instance of exactly these allocations there and passing?
package consul

import (
	"slices"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// Service is a Consul service that each allocation of one task group of a
// job registers.
type Service struct {
	Name  string
	Group string
	// Checks is how many health checks the instance has.
	Checks int
	// Tolerated is the worst status that still counts as good:
	// passing, or less when a check says on_update = "ignore_warnings" or "ignore".
	Tolerated string
}

// Services lists the services that job registers in Consul, at group and at
// task level. Left out are services of tasks that end before or start after
// the main tasks, and names that only a client can fill in (${node.…}).
func Services(job *api.Job) []Service {
	var out []Service
	for _, tg := range job.TaskGroups {
		group := deref(tg.Name)
		for _, s := range tg.Services {
			out = appendService(out, job, group, "group", s)
		}
		for _, t := range tg.Tasks {
			if l := t.Lifecycle; l != nil && (!l.Sidecar || l.Hook == api.TaskLifecycleHookPoststop) {
				continue
			}
			for _, s := range t.Services {
				out = appendService(out, job, group, t.Name, s)
			}
		}
	}
	return out
}

func appendService(out []Service, job *api.Job, group, task string, s *api.Service) []Service {
	if s.Provider != "" && s.Provider != api.ServiceProviderConsul {
		return out
	}
	name := s.Name
	if name == "" {
		name = "${JOB}-${TASKGROUP}-${TASK}"
	}
	id := deref(job.ID)
	jobName := deref(job.Name)
	if jobName == "" {
		jobName = id
	}
	name = strings.NewReplacer(
		"${JOB}", jobName, "${TASKGROUP}", group, "${TASK}", task,
		"${BASE}", jobName+"-"+group+"-"+task,
		"${NOMAD_JOB_ID}", id, "${NOMAD_JOB_NAME}", jobName,
		"${NOMAD_GROUP_NAME}", group, "${NOMAD_TASK_NAME}", task,
		"${NOMAD_NAMESPACE}", deref(job.Namespace), "${NOMAD_REGION}", deref(job.Region),
	).Replace(name)
	if strings.Contains(name, "${") {
		return out
	}
	w := Service{Name: name, Group: group, Checks: len(s.Checks), Tolerated: capi.HealthPassing}
	for _, c := range s.Checks {
		mode := c.OnUpdate
		if mode == "" {
			mode = s.OnUpdate
		}
		switch mode {
		case "ignore":
			w.Tolerated = capi.HealthCritical
		case "ignore_warnings":
			if w.Tolerated == capi.HealthPassing {
				w.Tolerated = capi.HealthWarning
			}
		}
	}
	return append(out, w)
}

// Names returns the service names, each once, sorted.
func Names(services []Service) []string {
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Failing is a check that is not passing, or an instance that Consul does
// not know (yet), with an empty Check.
type Failing struct {
	Service string `json:"service"`
	AllocID string `json:"alloc_id,omitempty"`
	Check   string `json:"check,omitempty"`
	Status  string `json:"status"` // warning, critical or missing
	Output  string `json:"output,omitempty"`
}

// Missing is the Status of an instance that is not in Consul.
const Missing = "missing"

// Health is how far the services of a set of allocations are.
type Health struct {
	Total   int // instances that should be there
	Passing int
	Failing []Failing
}

// Healthy says that nothing is missing and nothing fails.
func (h Health) Healthy() bool { return h.Passing == h.Total }

// Instance is what Consul knows of one registered service instance.
type Instance struct {
	ServiceID string // _nomad-task-<alloc>-…
	Checks    capi.HealthChecks
}

// Judge compares what should be registered with what is. allocs maps
// allocation IDs to their task groups; instances are found by service name
// and recognised by the allocation ID in their service ID.
func Judge(services []Service, allocs map[string]string, instances map[string][]Instance) Health {
	var h Health
	for _, s := range services {
		for id, group := range allocs {
			if group != s.Group {
				continue
			}
			h.Total++
			found, failing := judgeInstance(s, id, instances[s.Name])
			switch {
			case !found:
				h.Failing = append(h.Failing, Failing{Service: s.Name, AllocID: id, Status: Missing})
			case len(failing) == 0:
				h.Passing++
			default:
				h.Failing = append(h.Failing, failing...)
			}
		}
	}
	slices.SortFunc(h.Failing, func(a, b Failing) int {
		return strings.Compare(a.Service+a.AllocID+a.Check, b.Service+b.AllocID+b.Check)
	})
	return h
}

func judgeInstance(s Service, alloc string, instances []Instance) (found bool, failing []Failing) {
	for _, in := range instances {
		if !strings.Contains(in.ServiceID, alloc) {
			continue
		}
		found = true
		for _, c := range in.Checks {
			if severity(c.Status) > severity(s.Tolerated) {
				failing = append(failing, Failing{Service: s.Name, AllocID: alloc, Check: c.Name, Status: c.Status, Output: strings.TrimSpace(c.Output)})
			}
		}
	}
	return found, failing
}

func severity(status string) int {
	switch status {
	case capi.HealthPassing:
		return 0
	case capi.HealthWarning:
		return 1
	}
	return 2
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
