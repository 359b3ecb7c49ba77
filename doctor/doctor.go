// Package doctor finds problems of a cluster that would make a deployment fail or cause
// trouble later. Collect reads from the cluster and changes nothing; Probe runs a short
// job on every node for facts that are visible only there; Examine turns these facts into
// findings, without a request.
package doctor

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Severity is how much a finding matters.
type Severity string

// Severities, the gravest first.
const (
	Error   Severity = "error"   // the deployment, or the deployed stack, fails
	Warning Severity = "warning" // works now and may fail later
	Unknown Severity = "unknown" // could not be examined; the reason says why
	Note    Severity = "note"    // not a mistake, but worth knowing
	OK      Severity = "ok"
)

var severities = []Severity{Error, Warning, Unknown, Note, OK}

// Finding is the result of one check for one subject.
type Finding struct {
	Check    string   `json:"check"` // one of Checks
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject,omitempty"` // node, volume, job or name it is about
	Reason   string   `json:"reason"`
	Mend     string   `json:"mend,omitempty"` // the command, or what to write where
}

// Needs are the requirements of a stack. With the zero value, only the cluster itself is
// examined.
type Needs struct {
	Stack string
	Jobs  []render.Job
	Names []string // domains that clients will use
	// Variables is the folder of Nomad Variables that is the stack's; that of
	// any stack when empty.
	Variables string
	Volumes   []*stack.Volume // how the stack makes host volumes; may be nil
}

// Facts are the facts that were read of a cluster. Missing has the errors of those that
// could not be read, by the key of the collector.
type Facts struct {
	At      time.Time
	Missing map[string]error

	Servers   []Server
	Health    *api.OperatorHealthReply
	Scheduler *api.SchedulerConfiguration
	ACLs      bool // Nomad's are on
	// Rights are the operations that drover needs, and whether the token allows them.
	Rights []Right
	Keys   []*api.RootKeyMeta
	// ExternalKEK is true if a KMS outside of Nomad wraps the keys.
	ExternalKEK bool

	Nodes []Node

	ConsulVersions map[string]string // agent → version
	ConsulLeader   string
	ConsulNomad    bool // Nomad's servers are in the catalog

	// Placements are the reasons why a group of a job of the stack finds no
	// node, by service.
	Placements map[string]string
	// Volumes are the host volumes that the stack asks for.
	Lost    []rollout.LostVolume  // host volumes of the stack on lost nodes
	CSI     []*rollout.CSIProblem // volumes that a job of the stack cannot mount
	Volumes []Volume
	// NoShutdownDelay are groups that run now, as JOB/GROUP, with services
	// and without shutdown_delay.
	NoShutdownDelay []string

	// Routes are what is to be known about the routes of the edge.
	Routes edge.Review

	// Outside has the results for Needs.Names from the machine where drover runs.
	Outside []Reach
	// Probes are the facts of the nodes, nil without a probe.
	Probes []NodeProbe
}

// Server is a Nomad server.
type Server struct {
	Name, Version, Status string
}

// Right is an operation that drover needs, and whether the token allows it.
type Right struct {
	What       string // "submit jobs"
	Capability string // of an ACL policy
	Err        error  // nil: allowed
}

// Node is a Nomad client.
type Node struct {
	ID, Name, Version, Datacenter string
	Status, Eligibility           string
	Drivers                       map[string]*api.DriverInfo
	// Consul is the version of its agent, "" for none; Agent tells agents
	// apart.
	Consul, Agent string
	// Skew is its clock less ours; SkewKnown within Fuzz.
	Skew, Fuzz time.Duration
	SkewKnown  bool
	Disks      []*api.HostDiskStats
	AllocDir   *api.HostDiskStats
	Volumes    map[string]*api.HostVolumeInfo
	// Ports are those that allocations of Nomad have reserved.
	Ports []int
}

// Ready reports whether Nomad places allocations on the node.
func (n *Node) Ready() bool {
	return n.Status == api.NodeStatusReady && n.Eligibility == api.NodeSchedulingEligible
}

// Volume is a host volume that a job of the stack asks for.
type Volume struct {
	Name, JobID string
	Source      string // of the request: Name without the index of per_alloc
	Missing     string // why it cannot be used, "" when it can
}

// Reach is the result of resolving a name and connecting to it, from one place.
type Reach struct {
	Name      string
	Addresses []string
	Err       error         // of the look-up
	Ports     map[int]error // of the connections, by TCP port
}

// Report is all findings, the gravest first.
type Report struct {
	Stack    string    `json:"stack,omitempty"`
	OK       bool      `json:"ok"` // no error among them
	Findings []Finding `json:"findings"`
}

// Examine turns facts into findings.
func Examine(f *Facts, n Needs) Report {
	r := Report{Stack: n.Stack, OK: true, Findings: []Finding{}}
	for _, c := range Checks() {
		found := c.look(f, n)
		for i := range found {
			found[i].Check = c.Name
			r.OK = r.OK && found[i].Severity != Error
		}
		r.Findings = append(r.Findings, found...)
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity))
	})
	return r
}
