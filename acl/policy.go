// Package acl has the least policies in Nomad and Consul for each use of drover, and
// sets them up in a cluster.
package acl

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/jobs"
)

// Use is what a person or a job does with drover.
type Use string

// The uses. Deployer, CI and Reader are for tokens of people and pipelines. The others
// are for jobs, which have no token: their policies are attached to the job ID.
const (
	Deployer   Use = "deployer"   // everything with stacks: deploy, roll back, destroy, secrets, certificates
	CI         Use = "ci"         // plan, and what Reader may; no secrets, no deploy
	Reader     Use = "reader"     // status, history, logs
	Controller Use = "controller" // the job drover-controller
	Schedule   Use = "schedule"   // a job that works by the clock: redeploys from the record of its stack
	Edge       Use = "edge"       // the job edge: certificates and lists of users
)

// Uses returns all uses.
func Uses() []Use { return []Use{Deployer, CI, Reader, Controller, Schedule, Edge} }

// Job returns the ID of the job of a use, "" for uses of people and pipelines, and for
// schedules, whose job IDs depend on the stack.
func (u Use) Job() string {
	switch u {
	case Controller:
		return jobs.Controller
	case Edge:
		return "edge"
	}
	return ""
}

// Scope is the part of the cluster in which a use is allowed.
type Scope struct {
	Namespace string   // Nomad's, where the records are; "default" when empty
	Stacks    []string // STACK or STACK/ENVIRONMENT, as record.PathName writes each; all when empty
	Jobs      []string // Nomad's namespaces of the stacks' jobs; Namespace when empty
	// Tenants are the other namespaces in the controller's table, whose stored DNS
	// records it makes.
	Tenants []string
	// Edges are the IDs of the jobs of other edges than the job edge.
	Edges []string
	// Autoscale lets the controller change the counts of jobs.
	Autoscale bool
	// PlanBySubmit is for Nomad 1.10, which has no capability plan-job: there, a plan
	// needs submit-job.
	PlanBySubmit bool
}

func (s Scope) namespace() string {
	if s.Namespace == "" {
		return "default"
	}
	return s.Namespace
}

// Policy is an ACL policy of Nomad or Consul.
type Policy struct {
	Name        string
	Description string
	Rules       string // HCL
	// Namespace and Job attach a policy of Nomad to the workload identity of a job,
	// which then needs no token.
	Namespace, Job string
}

// path is a rule about Nomad Variables.
type path struct {
	pattern      string
	capabilities []string
}

// Nomad returns the policy that u needs in Nomad.
func (s Scope) Nomad(u Use) Policy {
	var (
		all   = []string{"read", "write", "list", "destroy"}
		look  = []string{"read", "list"}
		read  = []string{"list-jobs", "read-job", "read-logs", "host-volume-read"}
		jobs  []string // what may be done with jobs
		own   []path   // of variables, where the jobs are
		paths []path   // where the records are
		more  = "node {\n  policy = \"read\"\n}\n"
		// The configuration and the log of an agent, of which doctor reads the former.
		agent = "agent {\n  policy = \"read\"\n}\n"
		// The decisions about routes, for drover edge status.
		decisions = []path{{"nomad/jobs/edge/edge", look}, {"nomad/jobs/edge-*/edge", look}}
		// Submitting a job that mounts a volume takes the right to mount it.
		mount = "host_volume \"*\" {\n  policy = \"write\"\n}\nplugin {\n  policy = \"read\"\n}\n"
	)
	switch u {
	case Deployer:
		jobs = append(slices.Clone(read), "submit-job", "dispatch-job", "scale-job", "alloc-lifecycle", "csi-mount-volume", "host-volume-create", "host-volume-delete")
		own, more = []path{{"nomad/jobs/*", all}}, more+agent+mount
		paths = append(s.paths(all, "*"), path{"drover/certs/*", all}, path{"drover/acme/*", all}, path{"drover/trust/*", all}, path{"drover/dns/*", all})
		paths = slices.Concat(paths, s.below("drover/dns-wanted/", all, "*"), s.below("drover/dns-credentials/", all, "*"))
	case Schedule:
		jobs, more = []string{"list-jobs", "read-job", "read-logs", "submit-job", "csi-mount-volume"}, more+mount
		paths = s.paths(all, "*")
	case CI:
		jobs, paths = append(slices.Clone(read), "plan-job"), s.paths(look, "lock", "releases/*", "blobs/*", "schedules/*")
		if s.PlanBySubmit {
			jobs[len(jobs)-1] = "submit-job"
		}
		paths = append(paths, decisions...)
	case Reader:
		jobs, paths = read, append(s.paths(look, "lock", "releases/*", "blobs/*", "schedules/*"), decisions...)
	case Controller:
		jobs = read[:2]
		paths = append(s.paths(look, "releases/*", "schedules/*"), path{"drover/certs/*", all}, path{"drover/acme/*", all}, path{"drover/trust/*", all}, path{"drover/dns/*", all}, path{"drover/controller/*", all},
			path{"drover/dns-wanted/*", look}, path{"drover/dns-credentials/*", look},
			// Decisions about routes, which the job edge may read as it is.
			path{"nomad/jobs/edge/edge", all}, path{"nomad/jobs/edge-*/edge", all})
	case Edge:
		more = ""
		paths = []path{{"drover/certs/*", look}, {"drover/acme/public", look}, {"drover/users/*", look}, {"drover/ca/*", look}, {"drover/client-ca/*", look}}
	}
	var tenants []string
	tenant := []path{{"drover/dns/*", all}, {"drover/dns-wanted/*", look}, {"drover/dns-credentials/*", look}}
	if u == Controller {
		tenants = s.Tenants
	}
	homes := s.Jobs
	if len(homes) == 0 {
		homes = []string{s.namespace()}
	}
	var b strings.Builder
	for _, ns := range slices.Compact(slices.Sorted(slices.Values(slices.Concat([]string{s.namespace()}, homes, tenants)))) {
		fmt.Fprintf(&b, "namespace %q {\n", ns)
		var here []path
		// The controller has to know of which namespace a service is.
		if slices.Contains(homes, ns) || slices.Contains(tenants, ns) {
			can := jobs
			if u == Controller && s.Autoscale && slices.Contains(homes, ns) {
				can = append(slices.Clone(jobs), "scale-job")
			}
			if len(can) > 0 {
				fmt.Fprintf(&b, "  capabilities = %s\n", list(can))
			}
		}
		if slices.Contains(homes, ns) {
			here = own
		}
		if ns == s.namespace() {
			here = append(slices.Clone(here), paths...)
		}
		if slices.Contains(tenants, ns) && ns != s.namespace() {
			here = append(slices.Clone(here), tenant...)
		}
		if len(here) > 0 {
			b.WriteString("  variables {\n")
			for _, p := range here {
				fmt.Fprintf(&b, "    path %q {\n      capabilities = %s\n    }\n", p.pattern, list(p.capabilities))
			}
			b.WriteString("  }\n")
		}
		b.WriteString("}\n")
	}
	b.WriteString(more)
	p := s.policy(u, b.String())
	if p.Job = u.Job(); p.Job != "" {
		p.Namespace = s.namespace()
	}
	return p
}

// paths are rules about what is below the stacks' folders.
func (s Scope) paths(capabilities []string, below ...string) []path {
	return s.below("drover/stacks/", capabilities, below...)
}

// below are rules about the stacks' folders in root.
func (s Scope) below(root string, capabilities []string, below ...string) []path {
	stacks := s.Stacks
	if len(stacks) == 0 {
		stacks = []string{"*"}
	}
	var out []path
	for _, name := range stacks {
		for _, b := range below {
			if b != "*" && !strings.Contains(name, "/") {
				b = "*/" + b // in each environment
			}
			out = append(out, path{root + name + "/" + b, capabilities})
		}
	}
	return out
}

// OfSchedule returns the policy of the job of one schedule, attached to that job.
func (s Scope) OfSchedule(jobID string) Policy {
	p := s.Nomad(Schedule)
	p.Namespace, p.Job = s.namespace(), jobID
	p.Name = policyName(jobID, s.namespace())
	p.Description = "drover schedule, of job " + jobID
	return p
}

// OfEdge returns the policy of the job of one more edge, attached to that job.
func (s Scope) OfEdge(jobID string) Policy {
	p := s.Nomad(Edge)
	p.Job = jobID
	p.Name = hashed("drover-edge", s.namespace()+"/"+jobID)
	p.Description += ", of job " + jobID
	return p
}

// OfCertificate returns the policy with which one job reads one certificate, attached to
// that job, and nothing else but what clients trust. The certificate is at path in the
// namespace of s; the job may be in another one.
func (s Scope) OfCertificate(path, jobID, jobNamespace string) Policy {
	rules := fmt.Sprintf("namespace %q {\n  variables {\n    path %q {\n      capabilities = [\"read\"]\n    }\n    path \"drover/trust/*\" {\n      capabilities = [\"read\"]\n    }\n  }\n}\n",
		s.namespace(), path)
	return Policy{
		Name:        policyName("drover-cert "+s.namespace()+" "+path+" "+jobID, jobNamespace),
		Description: "drover cert grant: job " + jobID + " reads " + path, Rules: rules,
		Namespace: jobNamespace, Job: jobID,
	}
}

// policyName names the policy of a job. Policies are the same in all
// namespaces and have no dots: where that matters, the name ends with a digest.
func policyName(jobID, namespace string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, jobID)
	if name == jobID && namespace == "default" && len(name) <= longestName && !isUse(name) {
		return name
	}
	return hashed(name, namespace+"/"+jobID)
}

// longestName is that of a policy, in bytes.
const longestName = 128

// hashed is a name with a digest of what it stands for.
func hashed(name, of string) string {
	sum := sha256.Sum256([]byte(of))
	end := "-" + hex.EncodeToString(sum[:8])
	return name[:min(len(name), longestName-len(end))] + end
}

// isUse reports whether a name is that of the policy of a use in a namespace, as
// drover-deployer-evil is in the namespace evil.
func isUse(name string) bool {
	return slices.ContainsFunc(Uses(), func(u Use) bool {
		own := "drover-" + string(u)
		return name == own || strings.HasPrefix(name, own+"-")
	})
}

// Consul returns the policy that u needs in Consul. Jobs get it by the role of all
// tasks; see [Workload].
func (s Scope) Consul(u Use) Policy {
	rules := "node_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n"
	if u == Deployer {
		rules = "agent_prefix \"\" {\n  policy = \"read\"\n}\n" + rules
	}
	return s.policy(u, rules)
}

func (s Scope) policy(u Use, rules string) Policy {
	name := "drover-" + string(u)
	if ns := s.namespace(); ns != "default" {
		name += "-" + ns
		if len(name) > longestName {
			name = hashed(name, ns)
		}
	}
	return Policy{Name: name, Description: fmt.Sprintf("drover %s in namespace %s", u, s.namespace()), Rules: rules}
}

func list(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
