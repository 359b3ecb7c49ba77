package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

func consulNomad(f *Facts, n Needs) []Finding {
	need := len(n.Jobs) == 0
	for _, j := range n.Jobs {
		need = need || rollout.NeedsConsul([]render.Job{j})
	}
	if !need || f.Missing["nodes"] != nil || f.Missing["consul"] != nil {
		return nil // the check "version" reports it
	}
	var found []Finding
	if f.ConsulLeader == "" {
		found = append(found, Finding{Severity: Error, Reason: "Consul has no leader", Mend: "consul operator raft list-peers"})
	}
	agents := map[string][]string{}
	without := 0
	for _, node := range f.Nodes {
		switch {
		case !node.Ready():
		case node.Consul == "":
			without++
			found = append(found, Finding{
				Severity: Error, Subject: node.Name,
				Reason: "the node sees no Consul agent: jobs with services are not placed there",
				Mend:   "start a Consul agent there, or name it in consul { address = … } of the Nomad client",
			})
		case node.Agent != "":
			agents[node.Agent] = append(agents[node.Agent], node.Name)
		}
	}
	for _, a := range slices.Sorted(maps.Keys(agents)) {
		if len(agents[a]) > 1 {
			found = append(found, Finding{
				Severity: Error, Subject: a,
				Reason: fmt.Sprintf("the clients %s share one Consul agent and deregister each other's services after a minute", some(agents[a])),
				Mend:   "run one Consul agent per Nomad client",
			})
		}
	}
	if !f.ConsulNomad && without == 0 {
		found = append(found, Finding{
			Severity: Warning,
			Reason:   "Nomad's servers are not in Consul's catalog: they do not know Consul, or may not register there",
			Mend:     "consul { … } in the configuration of the Nomad servers, then consul catalog nodes -service nomad",
		})
	}
	return good(found, fmt.Sprintf("%d nodes, each with an agent of its own", len(agents)))
}

func names(f *Facts, n Needs) []Finding {
	if len(n.Names) == 0 {
		return nil
	}
	var found []Finding
	look := func(r Reach, where string) {
		if r.Err != nil {
			found = append(found, Finding{Severity: Error, Subject: r.Name, Reason: fmt.Sprintf("does not resolve %s: %v", where, r.Err), Mend: "make its A or AAAA record, or: drover dns plan " + n.Stack})
		}
	}
	for _, r := range f.Outside {
		look(r, "from here")
	}
	for _, p := range f.Probes {
		for _, r := range p.Names {
			look(r, "inside of an allocation on "+p.Node)
		}
	}
	if f.Probes == nil {
		found = append(found, Finding{Severity: Unknown, Reason: "DNS inside of an allocation is seen on the nodes only", Mend: "drover doctor " + n.Stack + " --probe"})
	}
	return good(found, strings.Join(n.Names, ", "))
}

func routes(f *Facts, _ Needs) []Finding {
	found := unknown(f, "routes", "allow it in the token's policy: read-job in the namespace of the edge, and to read the variable nomad/jobs/edge/edge")
	r := f.Routes
	if !r.Running {
		return found
	}
	const table = "write down what each namespace may claim, in the variable tenants of the stack of the edge"
	if r.Namespaces > 1 && !r.Tenants && !r.Decided {
		found = append(found, Finding{
			Severity: Warning,
			Reason:   fmt.Sprintf("there are %d namespaces, and each may claim every host at the edge: no table restricts them, and no controller has decided whose the hosts are", r.Namespaces),
			Mend:     table + "; or drover acl bootstrap and drover deploy drover, whose controller gives a host to the first that claims it",
		})
	}
	for _, line := range r.Shared {
		host, namespaces, _ := strings.Cut(line, " ")
		found = append(found, Finding{Severity: Warning, Subject: host, Reason: "several namespaces have routes on this host: " + strings.ReplaceAll(namespaces, " ", ", "), Mend: table})
	}
	for _, p := range r.Problems {
		reason := fmt.Sprintf("the edge ignores the tag %q: %s", p.Tag, p.Message)
		if p.Costs == edge.CostsService {
			reason = "none of its routes is served: " + p.Message
		}
		found = append(found, Finding{Severity: Warning, Subject: p.Service, Reason: reason, Mend: p.Mend})
	}
	return good(found, "each route has one owner")
}

func shutdownDelay(f *Facts, n Needs) []Finding {
	found := unknown(f, "jobs", `allow it in the token's policy: namespace "default" { policy = "read" }`)
	add := func(group string) {
		found = append(found, Finding{
			Severity: Warning, Subject: group,
			Reason: "the group has services and no shutdown_delay: when it stops it still gets requests",
			Mend:   `shutdown_delay = "2s" in the group`,
		})
	}
	ours := map[string]bool{}
	for _, j := range n.Jobs {
		ours[*j.Job.ID] = true
		for _, g := range withoutDelay(j.Job) {
			add(g)
		}
	}
	for _, g := range f.NoShutdownDelay {
		if job, _, _ := strings.Cut(g, "/"); !ours[job] {
			add(g)
		}
	}
	return good(found, "every group with services has one")
}

// withoutDelay are the groups of a job, as JOB/GROUP, that have services and
// no shutdown_delay.
func withoutDelay(job *api.Job) []string {
	if job.Type != nil && *job.Type != api.JobTypeService && *job.Type != api.JobTypeSystem {
		return nil
	}
	var groups []string
	for _, g := range job.TaskGroups {
		services, delay := len(g.Services), g.ShutdownDelay
		for _, t := range g.Tasks {
			services += len(t.Services)
			if delay == nil && t.ShutdownDelay > 0 {
				delay = &t.ShutdownDelay
			}
		}
		if services > 0 && delay == nil {
			groups = append(groups, *job.ID+"/"+*g.Name)
		}
	}
	return groups
}
