package doctor

import (
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

func ports(f *Facts, n Needs) []Finding {
	wanted := map[int]string{}
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for _, net := range g.Networks {
				for _, p := range net.ReservedPorts {
					wanted[p.Value] = j.Service
				}
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if f.Probes == nil {
		return []Finding{{Severity: Unknown, Reason: fmt.Sprintf("who listens on the %d static ports is seen on the nodes only", len(wanted)), Mend: "drover doctor " + n.Stack + " --probe"}}
	}
	var found []Finding
	for _, p := range f.Probes {
		i := slices.IndexFunc(f.Nodes, func(n Node) bool { return n.Name == p.Node })
		for _, port := range slices.Sorted(maps.Keys(wanted)) {
			if slices.Contains(p.Listening, port) && (i < 0 || !slices.Contains(f.Nodes[i].Ports, port)) {
				found = append(found, Finding{
					Severity: Error, Subject: p.Node,
					Reason: fmt.Sprintf("something that is not of Nomad listens on port %d, which %s needs", port, wanted[port]),
					Mend:   fmt.Sprintf("ss -ltnp 'sport = :%d' there, and stop what it names", port),
				})
			}
		}
	}
	return good(found, fmt.Sprintf("%d static ports are free or Nomad's", len(wanted)))
}

// meshBind is where a listener of HAProxy says its address.
var meshBind = regexp.MustCompile(`(?m)^\s*bind\s+(\d+\.\d+\.\d+\.\d+):\d+`)

// meshJob is a system job that listens on addresses of names that other jobs of the stack
// have in their extra_hosts.
type meshJob struct {
	service   string
	job       *api.Job
	addresses []netip.Addr
}

// meshJobs returns the meshes of the stack, except those that make their addresses local
// themselves.
func meshJobs(n Needs) []meshJob {
	named := map[string]bool{}
	for _, j := range n.Jobs {
		for _, t := range tasksOf(j.Job) {
			for _, entry := range texts(t.Config["extra_hosts"]) {
				if _, address, ok := strings.Cut(entry, ":"); ok {
					named[address] = true
				}
			}
		}
	}
	var all []meshJob
	for _, j := range n.Jobs {
		if j.Job.Type == nil || *j.Job.Type != api.JobTypeSystem {
			continue
		}
		found, prepares := map[string]bool{}, false
		for _, t := range tasksOf(j.Job) {
			prepares = prepares || strings.Contains(strings.Join(texts(t.Config["args"]), " "), "ip route replace local ")
			for _, tmpl := range t.Templates {
				if tmpl.EmbeddedTmpl == nil {
					continue
				}
				for _, m := range meshBind.FindAllStringSubmatch(*tmpl.EmbeddedTmpl, -1) {
					found[m[1]] = named[m[1]]
				}
			}
		}
		mesh := meshJob{service: j.Service, job: j.Job}
		for _, address := range slices.Sorted(maps.Keys(found)) {
			if a, err := netip.ParseAddr(address); err == nil && found[address] {
				mesh.addresses = append(mesh.addresses, a)
			}
		}
		if len(mesh.addresses) > 0 && !prepares {
			all = append(all, mesh)
		}
	}
	return all
}

func tasksOf(job *api.Job) []*api.Task {
	var all []*api.Task
	for _, g := range job.TaskGroups {
		all = append(all, g.Tasks...)
	}
	return all
}

// texts are the texts of a list in the configuration of a driver.
func texts(v any) []string {
	var all []string
	switch list := v.(type) {
	case []string:
		return list
	case []any:
		for _, x := range list {
			if s, ok := x.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// runsIn reports whether a job may run in a datacenter.
func runsIn(job *api.Job, datacenter string) bool {
	return len(job.Datacenters) == 0 || slices.ContainsFunc(job.Datacenters, func(pattern string) bool {
		ok, err := path.Match(pattern, datacenter)
		return ok && err == nil
	})
}

func mesh(f *Facts, n Needs) []Finding {
	all := meshJobs(n)
	if len(all) == 0 {
		return nil
	}
	if f.Probes == nil {
		return []Finding{{Severity: Unknown, Reason: "which addresses are local is seen on the nodes only", Mend: "drover doctor " + n.Stack + " --probe"}}
	}
	var found []Finding
	addresses := 0
	for _, m := range all {
		addresses += len(m.addresses)
		for _, p := range f.Probes {
			if i := slices.IndexFunc(f.Nodes, func(n Node) bool { return n.Name == p.Node }); i >= 0 && !runsIn(m.job, f.Nodes[i].Datacenter) {
				continue
			}
			if p.Local == nil {
				found = append(found, Finding{Severity: Unknown, Subject: p.Node, Reason: "the probe could not read /proc/net/fib_trie there", Mend: "drover doctor " + n.Stack + " --probe --probe-driver raw_exec"})
				continue
			}
			var without []string
			for _, a := range m.addresses {
				if !slices.ContainsFunc(p.Local, func(r netip.Prefix) bool { return r.Contains(a) }) {
					without = append(without, a.String())
				}
			}
			if len(without) > 0 {
				found = append(found, Finding{
					Severity: Error, Subject: p.Node,
					Reason: fmt.Sprintf("%s listens on %s, which is not local there: containers on this node do not reach the services by their names", m.service, some(without)),
					Mend:   "ip route replace local 198.18.0.0/16 dev lo, now and at each boot; or deploy with -var mesh_prepare=true",
				})
			}
		}
	}
	return good(found, fmt.Sprintf("%d addresses are local on each node", addresses))
}

func reach(f *Facts, n Needs) []Finding {
	if len(n.Names) == 0 {
		return nil
	}
	var found []Finding
	tried := 0
	look := func(r Reach, where string) {
		tried += len(r.Ports)
		for _, port := range slices.Sorted(maps.Keys(r.Ports)) {
			err := r.Ports[port]
			if err == nil || r.Err != nil {
				continue
			}
			why := "users reach nothing"
			if port == 80 {
				why = "HTTP-01, if it is used, cannot prove the name"
			}
			found = append(found, Finding{
				Severity: Warning, Subject: r.Name,
				Reason: fmt.Sprintf("port %d cannot be reached %s (%v): before the edge runs that is as it should be, afterwards %s", port, where, err, why),
				Mend:   "drover deploy edge; look at firewall and routes",
			})
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
		found = append(found, Finding{Severity: Unknown, Reason: "whether allocations reach the domain is seen on the nodes only", Mend: "drover doctor " + n.Stack + " --probe"})
	}
	if tried == 0 {
		return found // dns says why
	}
	return good(found, "they answer")
}
