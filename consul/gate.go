// Package consul answers one question about services that Nomad registers in
// Consul: is every instance of exactly these allocations there and passing?
//
// It uses Consul's own rule for routing. An instance counts as passing when it
// is registered under the ID that its job spec gives it, when every check of
// the spec is registered and within the check's own on_update, and when no
// other check of the instance or of its node is critical: such a check takes the
// instance out of DNS and of ?passing. A warning of a check that the spec does
// not declare, such as one of the node, takes nothing out and is ignored.
package consul

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Providers of services, as in a job spec.
const (
	ProviderConsul = api.ServiceProviderConsul
	ProviderNomad  = "nomad"
)

// Service is a service that each allocation of one task group of a job
// registers.
type Service struct {
	Name     string
	Provider string // ProviderConsul or ProviderNomad
	Group    string
	// ID is what follows the allocation's ID in the ID of an instance, such as
	// "-group-web-api-http" (MakeAllocServiceID in Nomad's
	// client/serviceregistration/id.go). It may hold ${…} that a Nomad client
	// fills in.
	ID     string
	Checks []Check
	Proxy  bool // the sidecar of a service in the mesh; it has checks of Consul's own
}

// Check is a health check that a job spec declares.
type Check struct {
	Name string // may hold ${…} that a Nomad client fills in
	// Tolerated is the worst status that still counts as good: passing, or less
	// when on_update is "ignore_warnings" or "ignore".
	Tolerated string
}

// Services lists the services that job registers in Consul or in Nomad, at
// group and at task level, and the sidecar proxies of those in the mesh. Left
// out are services of tasks that end before or start after the main tasks, and
// names that only a client can fill in (${node.…}).
func Services(job *api.Job) []Service {
	var out []Service
	for _, tg := range job.TaskGroups {
		group := nomad.Deref(tg.Name)
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

// Of returns those of services that provider registers.
func Of(provider string, services []Service) []Service {
	return slices.DeleteFunc(slices.Clone(services), func(s Service) bool { return s.Provider != provider })
}

// sidecarProxy is what Consul appends to the name and the ID of a service for
// its sidecar.
const sidecarProxy = "-sidecar-proxy"

func appendService(out []Service, job *api.Job, group, task string, s *api.Service) []Service {
	w := Service{Provider: s.Provider, Group: group}
	if w.Provider == "" {
		w.Provider = ProviderConsul
	}
	if w.Name = s.Name; w.Name == "" {
		w.Name = "${JOB}-${TASKGROUP}-${TASK}"
	}
	id := nomad.Deref(job.ID)
	jobName := nomad.Deref(job.Name)
	if jobName == "" {
		jobName = id
	}
	fill := strings.NewReplacer(
		"${JOB}", jobName, "${TASKGROUP}", group, "${TASK}", task,
		"${BASE}", jobName+"-"+group+"-"+task,
		"${NOMAD_JOB_ID}", id, "${NOMAD_JOB_NAME}", jobName,
		"${NOMAD_GROUP_NAME}", group, "${NOMAD_TASK_NAME}", task,
		"${NOMAD_NAMESPACE}", nomad.Deref(job.Namespace), "${NOMAD_REGION}", nomad.Deref(job.Region),
	)
	w.Name = fill.Replace(w.Name)
	if strings.Contains(w.Name, "${") {
		return out
	}
	workload := task
	if task == "group" {
		workload = "group-" + group
	}
	w.ID = "-" + workload + "-" + w.Name + "-" + fill.Replace(s.PortLabel)
	for _, c := range s.Checks {
		check := Check{Name: fill.Replace(c.Name), Tolerated: capi.HealthPassing}
		if c.Name == "" { // as Nomad names it (ServiceCheck.Canonicalize)
			check.Name = fmt.Sprintf("service: %q check", w.Name)
		}
		mode := c.OnUpdate
		if mode == "" {
			mode = s.OnUpdate
		}
		switch mode {
		case "ignore":
			check.Tolerated = capi.HealthCritical
		case "ignore_warnings":
			check.Tolerated = capi.HealthWarning
		}
		w.Checks = append(w.Checks, check)
	}
	out = append(out, w)
	if s.Connect != nil && s.Connect.SidecarService != nil {
		out = append(out, Service{Name: w.Name + sidecarProxy, Provider: w.Provider, Group: group, ID: w.ID + sidecarProxy, Proxy: true})
	}
	return out
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

// Failing is a check that is not passing, or an instance that is not
// registered (yet), with an empty Check.
type Failing struct {
	Service  string `json:"service"`
	Provider string `json:"provider,omitempty"` // "nomad", or "" for Consul
	AllocID  string `json:"alloc_id,omitempty"`
	Check    string `json:"check,omitempty"`
	Node     string `json:"node,omitempty"` // of a check of a node
	Status   string `json:"status"`         // warning, critical, pending or missing
	Output   string `json:"output,omitempty"`
}

// Missing is the Status of an instance, or of a check of it, that is not
// registered.
const Missing = "missing"

// String describes the failure, such as `check "up" of web is critical in
// Consul`.
func (f Failing) String() string {
	system := "Consul"
	if f.Provider != "" {
		system = "Nomad"
	}
	switch {
	case f.Check == "":
		return fmt.Sprintf("%s is %s in %s", f.Service, f.Status, system)
	case f.Node != "":
		return fmt.Sprintf("check %q of node %s, where %s runs, is %s", f.Check, f.Node, f.Service, f.Status)
	case f.Status == Missing:
		return fmt.Sprintf("check %q of %s is missing in %s", f.Check, f.Service, system)
	}
	return fmt.Sprintf("check %q of %s is %s", f.Check, f.Service, f.Status)
}

// Health is how far the services of a set of allocations are.
type Health struct {
	Total   int // instances that should be there
	Passing int
	Failing []Failing
}

// Healthy reports whether nothing is missing and nothing fails.
func (h Health) Healthy() bool { return h.Passing == h.Total }

// Add returns both together.
func (h Health) Add(other Health) Health {
	return Health{h.Total + other.Total, h.Passing + other.Passing, slices.Concat(h.Failing, other.Failing)}
}

// Instance is what Consul, or Nomad, knows of one registered service instance.
type Instance struct {
	ServiceID string // _nomad-task-<alloc>-…
	// Checks are those of the instance, and with an empty ServiceID those of its
	// node, of which only critical ones need to be there.
	Checks capi.HealthChecks
}

// Judge compares what should be registered with what is. allocs maps
// allocation IDs to their task groups; instances are found by service name and
// recognised by their service ID.
func Judge(services []Service, allocs map[string]string, instances map[string][]Instance) Health {
	var h Health
	for _, s := range services {
		matches := matcher("_nomad-task-", s.ID)
		for id, group := range allocs {
			if group != s.Group {
				continue
			}
			h.Total++
			i := slices.IndexFunc(instances[s.Name], func(in Instance) bool { return matches(in.ServiceID, id) })
			var failing []Failing
			if i < 0 {
				failing = []Failing{{Status: Missing}}
			} else {
				failing = s.failing(instances[s.Name][i].Checks)
			}
			if len(failing) == 0 {
				h.Passing++
			}
			for _, f := range failing {
				f.Service, f.AllocID = s.Name, id
				if s.Provider == ProviderNomad {
					f.Provider = s.Provider
				}
				h.Failing = append(h.Failing, f)
			}
		}
	}
	slices.SortFunc(h.Failing, func(a, b Failing) int {
		return strings.Compare(a.Service+a.AllocID+a.Check, b.Service+b.AllocID+b.Check)
	})
	return h
}

// failing lists which of the registered checks fail, and which of the declared
// ones are not registered.
func (s Service) failing(registered capi.HealthChecks) []Failing {
	// The strictest of those that have one name, of which Consul does not say
	// which is which.
	tolerated := make([]string, len(registered))
	for _, c := range s.Checks {
		named := matcher("", c.Name)
		for i, r := range registered {
			if r.ServiceID != "" && named(r.Name, "") && (tolerated[i] == "" || severity(c.Tolerated) < severity(tolerated[i])) {
				tolerated[i] = c.Tolerated
			}
		}
	}
	var failing []Failing
	for i, r := range registered {
		worst := tolerated[i]
		switch {
		case worst != "":
		case r.Type == "alias": // of a sidecar: what it repeats is judged itself
			continue
		default:
			worst = capi.HealthWarning
		}
		if severity(r.Status) > severity(worst) {
			f := Failing{Check: r.Name, Status: r.Status, Output: strings.TrimSpace(r.Output)}
			if r.ServiceID == "" {
				f.Node = r.Node
			}
			failing = append(failing, f)
		}
	}
	declared := map[string]int{}
	for _, c := range s.Checks {
		declared[c.Name]++
		named, there := matcher("", c.Name), 0
		for _, r := range registered {
			if r.ServiceID != "" && named(r.Name, "") {
				there++
			}
		}
		if there < declared[c.Name] {
			failing = append(failing, Failing{Check: c.Name, Status: Missing})
		}
	}
	return failing
}

// unknown is what only a Nomad client can fill in.
var unknown = regexp.MustCompile(`\$\{[^}]*\}`)

// matcher compares a text with prefix + middle + suffix, where suffix may hold
// ${…}, which matches anything.
func matcher(prefix, suffix string) func(text, middle string) bool {
	if !strings.Contains(suffix, "${") {
		return func(text, middle string) bool { return text == prefix+middle+suffix }
	}
	var parts []string
	for _, p := range unknown.Split(suffix, -1) {
		parts = append(parts, regexp.QuoteMeta(p))
	}
	pattern := regexp.MustCompile("(?s)^" + strings.Join(parts, ".*") + "$")
	return func(text, middle string) bool {
		rest, ok := strings.CutPrefix(text, prefix+middle)
		return ok && pattern.MatchString(rest)
	}
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
