package record

import (
	"encoding/json"
	"slices"
	"time"
)

// State is how far a release has come.
type State string

// States of a release. An open release can be resumed or aborted; no other release
// begins before that.
const (
	Running        State = "running"            // a process makes it, or was killed while doing so
	Interrupted    State = "interrupted"        // stopped by its deployer
	Paused         State = "paused"             // stopped by `drover pause`
	NeedsPromotion State = "awaiting-promotion" // canaries wait
	NeedsApproval  State = "awaiting-approval"  // a wave waits
	Reverting      State = "reverting"          // as Running, while its changes are reverted
	RevertFailed   State = "revert-failed"      // failed and reverted, and not all services are healthy
	Done           State = "deployed"           // good
	FailedState    State = "failed"             // failed and not reverted
	Reverted       State = "reverted"           // failed and reverted
	Aborted        State = "aborted"            // aborted and reverted
	Abandoned      State = "abandoned"          // a later release has taken over
	Unreadable     State = "unreadable"         // its head cannot be read: Detail says why; never stored
	Destroyed      State = "destroyed"          // drover destroy has stopped all jobs
)

// Open reports whether the release is not finished.
func (s State) Open() bool {
	switch s { //exhaustive:enforce
	case Running, Interrupted, Paused, NeedsPromotion, NeedsApproval, Reverting:
		return true
	case RevertFailed, Done, FailedState, Reverted, Aborted, Abandoned, Unreadable, Destroyed:
	}
	return false
}

// Release is the head of a record: what does not depend on the number of
// services. It never holds a secret.
type Release struct {
	Number      int    `json:"number"`
	Stack       string `json:"stack"`
	Environment string `json:"environment"`
	Version     string `json:"version,omitempty"`     // of the stack
	AppVersion  string `json:"app_version,omitempty"` // of what it runs
	// UpgradeFrom are patterns of the versions of the application that this one may
	// replace; empty for all, as in older records.
	UpgradeFrom []string `json:"upgrade_from,omitempty"`
	// Exclusive is what it runs that must not run beside what a release with another
	// name runs; "" for nothing, and in older records.
	Exclusive string `json:"exclusive,omitempty"`
	Kind      string `json:"kind"`             // deploy, rollback, redeploy, …
	Of        int    `json:"of,omitempty"`     // a rollback: the release that it goes back to
	Inputs    string `json:"inputs"`           // digest of all job specs
	Values    string `json:"values,omitempty"` // digest of the blob with the variables' values
	Checks    string `json:"checks,omitempty"` // digest of the blob with the checks of the stack; "" in older records
	DNS       string `json:"dns,omitempty"`    // digest of what it left to be kept in DNS; a part of a stack leaves nothing

	By      Holder `json:"by"`                // who began it
	Message string `json:"message,omitempty"` // why
	Drover  string `json:"drover,omitempty"`  // version

	State   State     `json:"state"`
	Cause   string    `json:"cause,omitempty"`  // the outcome that decided, when it is not good
	Detail  string    `json:"detail,omitempty"` // one line more
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Schedule is the name of the schedule that made it, "" for a person or a
	// pipeline.
	Schedule string `json:"schedule,omitempty"`
	// Aborting is set if the release is being reverted because it was aborted, not
	// because it failed.
	Aborting bool `json:"aborting,omitempty"`

	// Scrubbed are the variables whose values neither the release nor an older one
	// holds, and then no gate of theirs holds a credential either: see
	// [Releases.Scrub]. It is nil where that is not known, as in older records.
	Scrubbed []string `json:"scrubbed,omitzero"`

	// MovedTo is the STACK/ENVIRONMENT to which a move of the record has begun.
	MovedTo string `json:"moved_to,omitempty"`

	OnFailure string `json:"on_failure"`
	Keep      int    `json:"keep,omitempty"` // how many releases are kept; 0 if it was never set, as in older records
	Waves     []Wave `json:"waves,omitempty"`
	// Targets are what is needed to reach them, as package release wrote it.
	Targets json.RawMessage `json:"targets,omitempty"`

	// Changed, Pruned and Total count services.
	Changed int `json:"changed"`
	Pruned  int `json:"pruned,omitempty"`
	Total   int `json:"total"`

	// Owner is the process that may write the record. A process that lost its lease
	// finds another owner here.
	Owner string `json:"owner"`
	Pages int    `json:"pages"` // variables with services

	index   uint64
	plan    []string          // digests of its plan's parts; none for a head of layout 1
	items   map[string]string // of its variable that this drover does not know
	unknown unknown
}

// IsScrubbed reports whether the release and the older ones are known to hold
// neither values of these variables nor credentials of gates.
func (r *Release) IsScrubbed(variables []string) bool {
	return r.Scrubbed != nil && !slices.ContainsFunc(variables, func(name string) bool { return !slices.Contains(r.Scrubbed, name) })
}

// Revision returns the revision of the head that was read, 0 for one that was never
// stored. A store compares it when the head is written.
func (r *Release) Revision() uint64 { return r.index }

// SetRevision is for a store that has read or written the head.
func (r *Release) SetRevision(n uint64) { r.index = n }

// Wave is a part of a release; the next one begins when its gate has held.
type Wave struct {
	Name    string    `json:"name"`
	State   State     `json:"state,omitempty"` // Running, Done, NeedsApproval, FailedState; "" before
	Detail  string    `json:"detail,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	Gate json.RawMessage `json:"gate,omitempty"` // as package release wrote it

	// NoCommand is set if the command of the gate is not run.
	NoCommand bool `json:"no_command,omitempty"`

	Approved   string    `json:"approved,omitempty"` // by whom
	ApprovedAt time.Time `json:"approved_at,omitzero"`

	// Inconclusive is set if a metric of the gate could not be judged: the wave waits for
	// an approval at its end, or was approved so. Passed is by whom.
	Inconclusive bool      `json:"inconclusive,omitempty"`
	Passed       string    `json:"passed,omitempty"`
	PassedAt     time.Time `json:"passed_at,omitzero"`

	unknown unknown
}

// Approval returns the approval that the wave waits for or got last: the one at its end if
// its gate is inconclusive, else the one before it begins.
func (w *Wave) Approval() (by *string, at *time.Time) {
	if w.Inconclusive {
		return &w.Passed, &w.PassedAt
	}
	return &w.Approved, &w.ApprovedAt
}

// Step is how far a service has come within a release.
type Step string

// Steps of a service. Each is written before what it announces.
const (
	StepPending    Step = "pending"
	StepUnchanged  Step = "unchanged"  // nothing to do, or not part of this release
	StepSubmitting Step = "submitting" // the register may or may not have arrived
	StepSubmitted  Step = "submitted"  // Index is what Nomad answered
	StepDone       Step = "done"       // healthy
	StepFailed     Step = "failed"     // see Outcome
	StepPruning    Step = "pruning"
	StepPruned     Step = "pruned"
	StepReverting  Step = "reverting"
	StepReverted   Step = "reverted"
)

// Change is what a release does with a job, as a revert needs to know it. It is coarser
// than rollout.Action, which also says how Nomad brings the change about.
type Change string

// Changes that a release makes to a job.
const (
	ChangeNone   Change = "none"
	ChangeCreate Change = "create" // there was no job
	ChangeUpdate Change = "update" // there was one, which may have been stopped
	ChangeStop   Change = "stop"   // pruned
)

// Service is one job of a release: a line of its journal.
type Service struct {
	Target    string   `json:"t,omitempty"`
	Name      string   `json:"s"`
	JobID     string   `json:"id"`
	Namespace string   `json:"ns,omitempty"`
	Region    string   `json:"r,omitempty"`
	DependsOn []string `json:"dep,omitempty"`
	Secrets   []string `json:"sec,omitempty"` // items of its variable that Spec reads
	Wave      int      `json:"w,omitempty"`

	// Of the stack: how long the service, and its placement, may take. 0 where
	// nothing is said, and in records of older versions.
	Timeout          time.Duration `json:"to,omitempty"`
	PlacementTimeout time.Duration `json:"pto,omitempty"`

	Change Change `json:"c"`
	Spec   string `json:"spec,omitempty"` // digest of what is (to be) deployed; "" when it is to go

	// The job before the release: digest of its spec ("" for none), whether it was
	// stopped, and the JobModifyIndex that the plan saw (0 for no job).
	Before        string `json:"b,omitempty"`
	BeforeStopped bool   `json:"bs,omitempty"`
	Planned       uint64 `json:"p,omitempty"`
	// BeforeSecrets are the items that Before reads, nil where that is not known:
	// older drovers wrote none.
	BeforeSecrets []string `json:"bsec,omitzero"`

	// Judged is set if the gate of the wave held for the canaries, or a person has promoted
	// them. It is written before their promotion.
	Judged bool `json:"j,omitempty"`

	// Renewed are items of Secrets that get another value by the release.
	Renewed []string `json:"ren,omitempty"`

	// Counts are the counts that the stack asks for in groups with a scaling
	// block, by group: Spec may have others, to which they were scaled.
	// BeforeCounts are the same of Before. A record of an older drover has none.
	Counts       map[string]int `json:"n,omitempty"`
	BeforeCounts map[string]int `json:"bn,omitempty"`

	// Completed is the last run to completion of a batch or sysbatch job, nil
	// where none is known. A later release keeps it until the job is registered
	// again: Nomad collects a job that has ended.
	Completed *Completion `json:"done,omitempty"`

	Index   uint64    `json:"i,omitempty"` // JobModifyIndex of Spec in Nomad, once it is known
	Step    Step      `json:"st"`
	Outcome string    `json:"o,omitempty"` // of the rollout
	Detail  string    `json:"d,omitempty"`
	Started time.Time `json:"at,omitzero"`
	Ended   time.Time `json:"end,omitzero"`

	// Outline and BeforeOutline are what is needed of Spec and Before to tell the
	// status of the job, as package release wrote it; nil where the record does not
	// have it, as in older ones. A store keeps them from Create on and returns them
	// with Services; a Journal does not.
	Outline       json.RawMessage `json:"-"`
	BeforeOutline json.RawMessage `json:"-"`

	unknown unknown
}

// Completion is a job that ran to its end: every allocation with exit code 0.
type Completion struct {
	Spec    string    `json:"spec"` // digest of what ran
	Release int       `json:"release"`
	At      time.Time `json:"at"` // when drover saw it
}

// Runs reports whether the job is in the cluster after the release.
func (s Service) Runs() bool { return s.Spec != "" && s.Change != ChangeStop }

// Expects reports whether the release may write the job if index is its
// JobModifyIndex.
func (s Service) Expects(index uint64) bool {
	switch s.Step {
	case StepPending:
		return index == s.Planned
	case StepSubmitting: // or purged, to be created again
		return index == s.Planned || index == 0
	}
	return index == s.Index
}
