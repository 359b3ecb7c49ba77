package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Check examines one aspect of the facts.
type Check struct {
	Name string
	Asks string // what it looks at, as in docs/how-to/doctor.md
	look func(*Facts, Needs) []Finding
}

// Checks are all checks, in the order of docs/how-to/doctor.md.
func Checks() []Check {
	return []Check{
		{"version", "Nomad and Consul are new enough, and all of one version", versions},
		{"servers", "a server can fail without an outage", servers},
		{"acl", "ACLs are on, and the token may do what drover does", acl},
		{"scheduler", "jobs may be registered and are scheduled", scheduler},
		{"nodes", "nodes are there and take allocations", nodes},
		{"driver", "the task drivers that the stack uses are healthy somewhere", drivers},
		{"placement", "each job of the stack finds a node: constraints, resources, ports", placement},
		{"volume", "the host volumes are there, writable for their task, and keep extended attributes; CSI volumes can be mounted", volumes},
		{"disk", "there is space where allocations and volumes are", disks},
		{"port", "no process outside of Nomad listens on a static port of the stack", ports},
		{"mesh", "the addresses on which a mesh of the stack listens are local on each node", mesh},
		{"clock", "the clocks agree", clocks},
		{"consul", "each node has a Consul agent of its own, and Nomad's servers know Consul", consulNomad},
		{"dns", "the domains resolve, from here and inside of an allocation", names},
		{"reach", "the domains can be reached on 443 and 80, or the port that a check names, from here and inside of an allocation", reach},
		{"routes", "an edge takes each service with routes; no two services, and no two namespaces without a table, claim one route or host of it", routes},
		{"keyring", "what a lost or stolen snapshot would mean for the secrets", keyring},
		{"shutdown-delay", "stopping instances are deregistered before they stop", shutdownDelay},
	}
}

// unknown returns the finding for facts that could not be collected, nil if they were.
func unknown(f *Facts, key, remedy string) []Finding {
	if err := f.Missing[key]; err != nil {
		return []Finding{{Severity: Unknown, Reason: err.Error(), Mend: remedy}}
	}
	return nil
}

// good returns the finding of a check that found no problem.
func good(found []Finding, reason string) []Finding {
	if len(found) == 0 {
		return []Finding{{Severity: OK, Reason: reason}}
	}
	return found
}

const readNodes = `allow it in the token's policy: node { policy = "read" }`

func versions(f *Facts, _ Needs) []Finding {
	found := unknown(f, "consul", "look at CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN")
	check := func(system string, of map[string]string, supported func(string) bool) {
		seen := map[string][]string{}
		for _, name := range slices.Sorted(maps.Keys(of)) {
			v := of[name]
			if v == "" {
				continue
			}
			seen[v] = append(seen[v], name)
			if !supported(v) {
				found = append(found, Finding{Severity: Error, Subject: name, Reason: fmt.Sprintf("runs %s %s, which drover does not know", system, v), Mend: "update it"})
			}
		}
		if len(seen) > 1 {
			var parts []string
			for _, v := range slices.Sorted(maps.Keys(seen)) {
				parts = append(parts, fmt.Sprintf("%s on %s", v, some(seen[v])))
			}
			found = append(found, Finding{Severity: Warning, Reason: fmt.Sprintf("%s runs in several versions: %s", system, strings.Join(parts, "; ")), Mend: "finish the update: servers first, then clients"})
		}
	}
	agents := map[string]string{}
	for _, s := range f.Servers {
		agents["server "+s.Name] = s.Version
	}
	for _, n := range f.Nodes {
		agents["node "+n.Name] = n.Version
	}
	check("Nomad", agents, nomad.SupportedNomad)
	check("Consul", f.ConsulVersions, nomad.SupportedConsul)
	return good(found, fmt.Sprintf("%d Nomad agents, %d Consul agents", len(agents), len(f.ConsulVersions)))
}

// some lists the first few of many names.
func some(names []string) string {
	const n = 3
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}

func servers(f *Facts, _ Needs) []Finding {
	found := unknown(f, "servers", `allow it in the token's policy: agent { policy = "read" }`)
	alive := 0
	for _, s := range f.Servers {
		if s.Status == "alive" {
			alive++
			continue
		}
		found = append(found, Finding{Severity: Warning, Subject: s.Name, Reason: "the server is " + s.Status, Mend: "start it, or nomad server force-leave " + s.Name})
	}
	switch {
	case alive == 0:
	case alive == 1:
		found = append(found, Finding{
			Severity: Warning,
			Reason:   "there is one server: when its disk goes, so do the state, the secrets and the certificates",
			Mend:     "run three; until then: nomad operator snapshot save FILE, every day, to another machine",
		})
	case alive%2 == 0:
		found = append(found, Finding{Severity: Warning, Reason: fmt.Sprintf("%d servers outlive the loss of no more than %d would", alive, alive-1), Mend: "add or remove one"})
	}
	if f.Health != nil && !f.Health.Healthy {
		for _, s := range f.Health.Servers {
			if !s.Healthy {
				found = append(found, Finding{
					Severity: Error, Subject: s.Name,
					Reason: fmt.Sprintf("autopilot calls the server unhealthy (serf %s, last contact %s)", s.SerfStatus, s.LastContact),
					Mend:   "nomad operator autopilot health",
				})
			}
		}
	}
	return good(found, fmt.Sprintf("%d servers", alive))
}

func acl(f *Facts, _ Needs) []Finding {
	found := unknown(f, "acl", "")
	for _, r := range f.Rights {
		if r.Err != nil {
			found = append(found, Finding{Severity: Error, Subject: r.What, Reason: fmt.Sprintf("the token may not %s: %v", r.What, r.Err), Mend: "allow it in the token's policy: " + r.Capability})
		}
	}
	if !f.ACLs && f.Missing["acl"] == nil {
		found = append(found, Finding{
			Severity: Warning,
			Reason:   "Nomad ACLs are disabled: anyone who can reach the API can read every secret and run code as root",
			Mend:     "acl { enabled = true } on every agent, then nomad acl bootstrap",
		})
	}
	return good(found, "the token may do what a deployment needs")
}

func scheduler(f *Facts, _ Needs) []Finding {
	found := unknown(f, "scheduler", `allow it in the token's policy: operator { policy = "read" }`)
	if s := f.Scheduler; s != nil {
		if s.RejectJobRegistration {
			found = append(found, Finding{Severity: Error, Reason: "the cluster takes no jobs but with a management token", Mend: "nomad operator scheduler set-config -reject-job-registration=false"})
		}
		if s.PauseEvalBroker {
			found = append(found, Finding{Severity: Error, Reason: "the scheduler is paused: nothing that is registered is started", Mend: "nomad operator scheduler set-config -pause-eval-broker=false"})
		}
	}
	return good(found, "it takes jobs and schedules them")
}

func nodes(f *Facts, _ Needs) []Finding {
	if found := unknown(f, "nodes", readNodes); found != nil {
		return found
	}
	var found []Finding
	ready := 0
	for _, n := range f.Nodes {
		switch {
		case n.Ready():
			ready++
		case n.Status != api.NodeStatusReady:
			found = append(found, Finding{Severity: Warning, Subject: n.Name, Reason: "the node is " + n.Status, Mend: "start its agent; if it is gone for good: nomad system gc"})
		default:
			found = append(found, Finding{Severity: Warning, Subject: n.Name, Reason: "the node takes no allocations", Mend: "nomad node eligibility -enable " + n.ID})
		}
	}
	if ready == 0 {
		found = append(found, Finding{Severity: Error, Reason: "no node takes allocations", Mend: "nomad node status"})
	}
	return good(found, fmt.Sprintf("%d nodes take allocations", ready))
}

func drivers(f *Facts, n Needs) []Finding {
	if f.Missing["nodes"] != nil {
		return nil // nodes says so
	}
	users := map[string][]string{} // driver → services
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for _, t := range g.Tasks {
				if !slices.Contains(users[t.Driver], j.Service) {
					users[t.Driver] = append(users[t.Driver], j.Service)
				}
			}
		}
	}
	var found []Finding
	healthy := map[string]int{}
	for _, node := range f.Nodes {
		if !node.Ready() {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(node.Drivers)) {
			d := node.Drivers[name]
			switch {
			case d.Healthy:
				healthy[name]++
			case d.Detected && (len(n.Jobs) == 0 || users[name] != nil):
				found = append(found, Finding{
					Severity: Warning, Subject: node.Name,
					Reason: fmt.Sprintf("driver %s is there but not healthy: %s", name, d.HealthDescription),
					Mend:   "nomad node status -verbose " + node.ID,
				})
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(users)) {
		if healthy[d] > 0 {
			continue
		}
		remedy := fmt.Sprintf("install what driver %s needs on the nodes; nomad node status -verbose NODE says what is missing", d)
		if d == "raw_exec" {
			remedy = `plugin "raw_exec" { config { enabled = true } } in the configuration of the clients`
		}
		found = append(found, Finding{Severity: Error, Subject: d, Reason: fmt.Sprintf("no node has a healthy driver %s, which %s needs", d, some(users[d])), Mend: remedy})
	}
	var names []string
	for _, d := range slices.Sorted(maps.Keys(healthy)) {
		names = append(names, fmt.Sprintf("%s on %d", d, healthy[d]))
	}
	return good(found, strings.Join(names, ", "))
}

func placement(f *Facts, n Needs) []Finding {
	if len(n.Jobs) == 0 {
		return nil
	}
	found := unknown(f, "placement", "")
	for _, s := range slices.Sorted(maps.Keys(f.Placements)) {
		found = append(found, Finding{Severity: Error, Subject: s, Reason: "no node takes it: " + f.Placements[s], Mend: "nomad node status -verbose; drover render " + n.Stack + " --service " + s})
	}
	return good(found, fmt.Sprintf("all %d jobs find a node", len(n.Jobs)))
}

func volumes(f *Facts, n Needs) []Finding {
	found := unknown(f, "volumes", "")
	for _, l := range f.Lost {
		found = append(found, Finding{Severity: Error, Subject: l.Volume, Reason: "job " + l.JobID + ": " + l.String(), Mend: l.Recreate()})
	}
	for _, p := range f.CSI {
		found = append(found, Finding{Severity: Error, Subject: p.Volume, Reason: p.Error(), Mend: "nomad volume status -type csi"})
	}
	for _, v := range f.Volumes {
		if v.Missing != "" {
			found = append(found, Finding{Severity: Error, Subject: v.Name, Reason: v.Missing, Mend: "drover deploy " + n.Stack + " --create-volumes, or nomad volume create"})
		}
	}
	for _, p := range f.Probes {
		for _, name := range slices.Sorted(maps.Keys(p.Volumes)) {
			v, subject := p.Volumes[name], name+" on "+p.Node
			switch {
			case v.Err != "":
				remedy := "ls -ld " + v.Path + " there, and nomad volume status -type host " + name
				if v.Err == noDirectory {
					remedy = "mkdir -p " + v.Path + " there"
				}
				found = append(found, Finding{Severity: Error, Subject: subject, Reason: fmt.Sprintf("its directory %s cannot be used: %s", v.Path, v.Err), Mend: remedy})
				continue
			case v.XAttr == "no":
				found = append(found, Finding{
					Severity: Warning, Subject: subject,
					Reason: "the file system keeps no user.* extended attributes, in which oCIS keeps what it knows of files",
					Mend:   "put the volume on ext4, xfs or zfs with xattr=sa",
				})
			case v.XAttr == "unknown":
				found = append(found, Finding{
					Severity: Unknown, Subject: subject,
					Reason: "whether the file system keeps extended attributes could not be tried: there is neither setfattr nor python3",
					Mend:   "apt-get install attr there, or --probe-image with setfattr for the driver docker",
				})
			case v.XAttr == "untried":
				found = append(found, Finding{
					Severity: Unknown, Subject: subject,
					Reason: "whether the file system keeps extended attributes could not be tried: the probe may not write there",
					Mend:   "drover doctor " + n.Stack + " --probe --probe-driver raw_exec, or docker",
				})
			}
			for _, user := range volumeUsers(n, sourceOf(f, name)) {
				if uid, err := strconv.Atoi(user); err == nil && uid != v.UID && v.Mode&0o002 == 0 {
					found = append(found, Finding{
						Severity: Error, Subject: subject,
						Reason: fmt.Sprintf("its directory %s belongs to user %d (mode %o), the task runs as %d", v.Path, v.UID, v.Mode, uid),
						Mend:   fmt.Sprintf("chown %d %s there", uid, v.Path),
					})
				}
			}
		}
	}
	seen := slices.ContainsFunc(f.Probes, func(p NodeProbe) bool { return len(p.Volumes) > 0 })
	if slices.ContainsFunc(f.Volumes, func(v Volume) bool { return v.Missing == "" }) && !seen {
		found = append(found, Finding{Severity: Unknown, Reason: "owner and extended attributes of volumes are seen on the nodes only", Mend: "drover doctor " + n.Stack + " --probe"})
	}
	if len(f.Volumes) == 0 {
		return found
	}
	return good(found, fmt.Sprintf("%d host volumes", len(f.Volumes)))
}

// sourceOf is the name that the stack gives a volume.
func sourceOf(f *Facts, volume string) string {
	for _, v := range f.Volumes {
		if v.Name == volume {
			return cmp.Or(v.Source, volume)
		}
	}
	return volume
}

// volumeUsers are the users of the tasks that mount a volume for writing.
func volumeUsers(n Needs, source string) []string {
	var users []string
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for name, v := range g.Volumes {
				if v.Source != source || v.ReadOnly {
					continue
				}
				for _, t := range g.Tasks {
					for _, m := range t.VolumeMounts {
						if m.Volume != nil && *m.Volume == name && t.User != "" && !slices.Contains(users, t.User) {
							users = append(users, t.User)
						}
					}
				}
			}
		}
	}
	return users
}

func disks(f *Facts, _ Needs) []Finding {
	found := unknown(f, "stats", readNodes)
	for _, n := range f.Nodes {
		seen := map[string]bool{}
		look := func(what string, d *api.HostDiskStats) {
			if d == nil || d.Size == 0 || seen[d.Mountpoint] {
				return
			}
			seen[d.Mountpoint] = true
			left := 100 * float64(d.Available) / float64(d.Size)
			severity := Warning
			switch {
			case d.Available < 256<<20 || left < 1:
				severity = Error
			case left < 10 && d.Available < 20<<30:
			case d.InodesUsedPercent > 95:
				found = append(found, Finding{
					Severity: Warning, Subject: n.Name,
					Reason: fmt.Sprintf("%.0f%% of the inodes of %s are used (%s)", d.InodesUsedPercent, d.Mountpoint, what),
					Mend:   "nomad system gc, or a larger disk",
				})
				return
			default:
				return
			}
			found = append(found, Finding{
				Severity: severity, Subject: n.Name,
				Reason: fmt.Sprintf("%s has %d MiB left of %d (%s)", d.Mountpoint, d.Available>>20, d.Size>>20, what),
				Mend:   "nomad system gc, or a larger disk",
			})
		}
		look("allocations", n.AllocDir)
		for _, name := range slices.Sorted(maps.Keys(n.Volumes)) {
			look("volume "+name, diskOf(n.Disks, n.Volumes[name].Path))
		}
	}
	return good(found, "there is space")
}

// diskOf is the file system that a path is on.
func diskOf(disks []*api.HostDiskStats, path string) *api.HostDiskStats {
	var best *api.HostDiskStats
	for _, d := range disks {
		m := strings.TrimSuffix(d.Mountpoint, "/") + "/"
		if strings.HasPrefix(path+"/", m) && (best == nil || len(d.Mountpoint) > len(best.Mountpoint)) {
			best = d
		}
	}
	return best
}

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

func clocks(f *Facts, _ Needs) []Finding {
	found := unknown(f, "stats", readNodes)
	worst := time.Duration(0)
	for _, n := range f.Nodes {
		if !n.SkewKnown {
			continue
		}
		off := max(n.Skew.Abs()-n.Fuzz, 0)
		worst = max(worst, off)
		severity := Warning
		switch {
		case off > time.Minute:
			severity = Error
		case off <= 5*time.Second:
			continue
		}
		side := "ahead of"
		if n.Skew < 0 {
			side = "behind"
		}
		found = append(found, Finding{
			Severity: severity, Subject: n.Name,
			Reason: fmt.Sprintf("its clock is %s %s ours; tokens, certificates and leases go by clocks", n.Skew.Abs().Round(time.Second), side),
			Mend:   "timedatectl set-ntp true, there or here",
		})
	}
	return good(found, fmt.Sprintf("within %s, as far as can be seen", max(worst, time.Second).Round(time.Second)))
}

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

func keyring(f *Facts, _ Needs) []Finding {
	found := unknown(f, "keyring", "it takes a management token")
	if len(f.Keys) == 0 {
		return found
	}
	if !f.ExternalKEK && f.Missing["servers"] == nil {
		found = append(found, Finding{
			Severity: Note,
			Reason:   "a snapshot of Nomad holds the key of all Variables in clear, and with it every secret and certificate",
			Mend:     "keep snapshots as secret as the secrets; for one that others see: nomad operator snapshot save -redact",
		})
	}
	active := false
	for _, k := range f.Keys {
		active = active || k.State == api.RootKeyStateActive
		if age := f.At.Sub(time.Unix(0, k.CreateTime)); k.State == api.RootKeyStateActive && age > 366*24*time.Hour {
			found = append(found, Finding{Severity: Warning, Subject: k.KeyID, Reason: fmt.Sprintf("the active key is %d days old", int(age.Hours())/24), Mend: "nomad operator root keyring rotate"})
		}
	}
	if !active {
		found = append(found, Finding{Severity: Error, Reason: "no key is active: Variables can be neither read nor written", Mend: "nomad operator root keyring rotate -full"})
	}
	return good(found, fmt.Sprintf("%d keys", len(f.Keys)))
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
