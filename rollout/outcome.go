package rollout

import (
	"slices"
	"time"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/render"
)

// Outcome is what became of a service.
type Outcome string

// Outcomes. Only the first two are good.
const (
	Unchanged       Outcome = "unchanged"          // the cluster runs exactly this, healthy; nothing was written
	Deployed        Outcome = "deployed"           // submitted, and healthy in Nomad and Consul
	Failed          Outcome = "failed"             // the deployment failed and was not rolled back
	FailedReverted  Outcome = "failed-reverted"    // the deployment failed and Nomad reverted it
	AwaitPromotion  Outcome = "awaiting-promotion" // canaries are healthy and wait for a promotion
	AwaitApproval   Outcome = "awaiting-approval"  // of a release: a wave waits for an approval
	Unreachable     Outcome = "unreachable"        // Nomad does not answer; it continues submitted jobs
	Superseded      Outcome = "superseded"         // another client changed the job meanwhile
	PlacementFailed Outcome = "placement-blocked"  // no node can take the missing allocations
	TimedOut        Outcome = "timed-out"          // not healthy within the timeout
	Cancelled       Outcome = "cancelled"          // interrupted; Nomad continues submitted jobs
	Skipped         Outcome = "skipped"            // not submitted, because another service failed
)

// OK reports whether dependants may be submitted.
func (o Outcome) OK() bool { return o == Unchanged || o == Deployed }

// ServiceResult is the end of one service.
type ServiceResult struct {
	Target    string   `json:"target,omitempty"`
	Service   string   `json:"service"`
	JobID     string   `json:"job_id"`
	Outcome   Outcome  `json:"outcome"`
	Submitted bool     `json:"submitted"` // the job was registered by this rollout
	Healthy   int      `json:"healthy"`
	Desired   int      `json:"desired"`
	Detail    string   `json:"detail,omitempty"`    // one line more, often Nomad's own words
	Note      string   `json:"note,omitempty"`      // worth telling though the outcome is good
	Completed bool     `json:"completed,omitempty"` // a batch or sysbatch job that ran to its end
	Failure   *Failure `json:"failure,omitempty"`
	// Undecided is set if canaries wait because their gate is inconclusive: only a person
	// may promote them.
	Undecided bool `json:"undecided,omitempty"`

	Elapsed time.Duration `json:"elapsed_ns"`

	JobModifyIndex uint64 `json:"job_modify_index,omitempty"`
	DeploymentID   string `json:"deployment_id,omitempty"`

	// Version is the number of the version with JobModifyIndex, nil if it is not
	// known: Nomad tells it with the deployment only.
	Version *uint64 `json:"-"`
}

// Name is the service, and where there are several the target, for a person.
func (r ServiceResult) Name() string {
	return render.Job{Service: r.Service, Target: r.Target}.Name()
}

// Failure is why a service failed: the decisive events, outputs of checks and log lines,
// without secret values.
type Failure struct {
	Tasks     []TaskFailure    `json:"tasks,omitempty"`
	Checks    []consul.Failing `json:"checks,omitempty"`
	Placement []Placement      `json:"placement,omitempty"`
}

// TaskFailure is the decisive event of one task.
type TaskFailure struct {
	AllocID string   `json:"alloc_id"`
	Node    string   `json:"node,omitempty"`
	Group   string   `json:"group"`
	Task    string   `json:"task"`
	Event   string   `json:"event"` // Nomad's type, as "Driver Failure"
	Message string   `json:"message"`
	Logs    []string `json:"logs,omitempty"` // the last lines, of stderr unless that is empty
	LogType string   `json:"log_type,omitempty"`
	Count   int      `json:"count,omitempty"` // how many allocations ended in the same way
}

// Result is the end of a rollout.
type Result struct {
	Services []ServiceResult `json:"services"`
	Elapsed  time.Duration   `json:"elapsed_ns"`
}

// worst orders outcomes for Result.Outcome: the first that occurs names the
// whole rollout.
var worst = [...]Outcome{Cancelled, Failed, FailedReverted, TimedOut, PlacementFailed, Superseded, Unreachable, AwaitPromotion, AwaitApproval, Skipped, Deployed}

// WorstFirst returns the outcomes that are not good, in the order in which one
// names a whole rollout. Skipped never does: another service has caused it.
func WorstFirst() []Outcome {
	return slices.DeleteFunc(slices.Clone(worst[:]), func(o Outcome) bool { return o.OK() || o == Skipped })
}

// Outcome of the whole: the worst of its services.
func (r Result) Outcome() Outcome {
	for _, o := range worst {
		for _, s := range r.Services {
			if s.Outcome == o {
				return o
			}
		}
	}
	return Unchanged
}

// Count is how many services ended with o.
func (r Result) Count(o Outcome) int {
	n := 0
	for _, s := range r.Services {
		if s.Outcome == o {
			n++
		}
	}
	return n
}
