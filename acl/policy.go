// Package acl knows what each use of drover may do in Nomad and Consul, and
// sets clusters up so that it may do that and nothing else.
package acl

import (
	"fmt"
	"slices"
	"strings"
)

// Use is what somebody, or some job, does with drover.
type Use string

// The uses. Deployer, CI and Reader are for tokens of people and pipelines;
// the others belong to jobs, which have no token: what they may do is bound to
// their job ID.
const (
	Deployer   Use = "deployer"   // everything with stacks: deploy, roll back, destroy, secrets, certificates
	CI         Use = "ci"         // plan, and what Reader may; no secrets, no deploy
	Reader     Use = "reader"     // status, history, logs
	Controller Use = "controller" // the job drover-controller
	Schedule   Use = "schedule"   // a job that redeploys by the clock: what Deployer may
	Edge       Use = "edge"       // the job edge: certificates and lists of users
)

// Uses are all of them.
func Uses() []Use { return []Use{Deployer, CI, Reader, Controller, Schedule, Edge} }

// Job is the ID of the job that has the use by itself; empty for those of
// people and pipelines. A schedule's job is named by its stack.
func (u Use) Job() string {
	switch u {
	case Controller:
		return "drover-controller"
	case Edge:
		return "edge"
	}
	return ""
}

// Scope is where a use is allowed.
type Scope struct {
	Namespace string   // Nomad's; "default" when empty
	Stacks    []string // names; all stacks when empty
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
	// Namespace and Job bind a policy of Nomad to the identity of a job; the
	// job has it then without a token.
	Namespace, Job string
}

// path is a rule about Nomad Variables.
type path struct {
	pattern      string
	capabilities []string
}

// Nomad is the policy that u needs in Nomad.
func (s Scope) Nomad(u Use) Policy {
	var (
		all          = []string{"read", "write", "list", "destroy"}
		look         = []string{"read", "list"}
		read         = []string{"list-jobs", "read-job", "read-logs", "host-volume-read"}
		capabilities []string
		paths        []path
		cluster      = true // sees nodes and agents
	)
	stacks := s.Stacks
	if len(stacks) == 0 {
		stacks = []string{"*"}
	}
	switch u {
	case Deployer, Schedule:
		capabilities = append(slices.Clone(read), "submit-job", "dispatch-job", "scale-job", "alloc-lifecycle", "host-volume-create")
		for _, name := range stacks {
			paths = append(paths, path{"drover/stacks/" + name + "/*", all})
		}
		paths = append(paths, path{"nomad/jobs/*", all}, path{"drover/certs/*", all}, path{"drover/acme/*", all}, path{"drover/dns/*", all})
	case CI:
		// Nomad has no capability for planning alone.
		capabilities = append(slices.Clone(read), "submit-job")
	case Reader:
		capabilities = read
	case Controller:
		capabilities = read[:2]
		paths = []path{{"drover/certs/*", all}, {"drover/acme/*", all}, {"drover/dns/*", all}, {"drover/controller/*", all}}
	case Edge:
		cluster = false
		paths = []path{{"drover/certs/*", look}, {"drover/acme/public", look}, {"drover/users/*", look}}
	}
	if u == CI || u == Reader {
		for _, name := range stacks {
			for _, below := range []string{"lock", "releases/*", "blobs/*"} {
				paths = append(paths, path{"drover/stacks/" + name + "/*/" + below, look})
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "namespace %q {\n", s.namespace())
	if len(capabilities) > 0 {
		fmt.Fprintf(&b, "  capabilities = %s\n", list(capabilities))
	}
	b.WriteString("  variables {\n")
	for _, p := range paths {
		fmt.Fprintf(&b, "    path %q {\n      capabilities = %s\n    }\n", p.pattern, list(p.capabilities))
	}
	b.WriteString("  }\n}\n")
	if cluster {
		b.WriteString("node {\n  policy = \"read\"\n}\nagent {\n  policy = \"read\"\n}\n")
	}
	p := s.policy(u, b.String())
	if p.Job = u.Job(); p.Job != "" {
		p.Namespace = s.namespace()
	}
	return p
}

// Consul is the policy that u needs in Consul. Jobs have it by the role of all
// tasks; see [Workload].
func (s Scope) Consul(u Use) Policy {
	rules := "node_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n"
	if u.Job() == "" && u != Schedule {
		rules = "agent_prefix \"\" {\n  policy = \"read\"\n}\n" + rules
	}
	return s.policy(u, rules)
}

func (s Scope) policy(u Use, rules string) Policy {
	name := "drover-" + string(u)
	if ns := s.namespace(); ns != "default" {
		name += "-" + ns
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
