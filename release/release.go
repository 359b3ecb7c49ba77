// Package release makes releases: numbered, recorded and locked deployments of a stack
// in waves. It also resumes, reverts, rolls back and lists them. Every verb works on the
// same journal.
package release

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/analysis"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Policies for a release with a failed service.
const (
	OnFailureStop          = "stop"           // submit nothing more and keep the changes
	OnFailureRevertService = "revert-service" // revert the failed services
	OnFailureRevertRelease = "revert-release" // revert all changes of the release
)

// Kinds of releases.
const (
	KindDeploy   = "deploy"
	KindRollback = "rollback"
)

// Deployer makes releases of one stack in one environment.
type Deployer struct {
	Releases Store
	Dial     Dialer
	Hold     Gate // rollout.Hold when nil
	// Defaults are the region and namespace of the home cluster for jobs that name none.
	// Those of a cluster that is dialled count for its target.
	Defaults nomad.Defaults

	Holder   record.Holder // of the lock
	LockWait time.Duration // how long to wait for the lock; not at all when 0
	Timeout  time.Duration // of a release, without going back; none when 0
	Keep     int           // how many releases are kept; as many as the last one when 0
	Drover   string        // version, for the record

	// Secrets are those of the stack; nil where jobs get none.
	Secrets SecretStore

	Rollout rollout.Options
	Emit    func(Event) // called from one goroutine at a time; may be nil

	// Operator agrees to plans and approves waves; nil means Consent. ApprovalWait is
	// how long to wait until another process records the approval of a wave. If no
	// person can be asked and ApprovalWait is 0, the release is left open.
	Operator     Operator
	ApprovalWait time.Duration

	emitting sync.Mutex
	hidden   redactor
}

// DefaultKeep is how many releases are kept if no number was ever set.
const DefaultKeep = 10

// Kinds of events beside those of package rollout.
const (
	EventLock    = "lock"           // drover waits for the lock; Text has its holder
	EventRelease = "release"        // a release begins, ends, or is being reverted: Number, State
	EventWave    = "wave"           // a wave begins or ends: Wave, State
	EventPruned  = "pruned"         // a job that is no longer in the stack was stopped
	EventWarning = "warning"        // Text
	EventVolume  = "volume-created" // a host volume is created: Target, Volume
	EventMetric  = "metric"         // a metric of a gate has another verdict: Wave, Metric
	EventSecrets = "secrets"        // secrets are generated and about to be published: Secrets
)

// Event is one step of a release.
type Event struct {
	rollout.Event
	Wave   string       `json:"wave,omitempty"`
	Number int          `json:"release,omitempty"`
	State  record.State `json:"state,omitempty"`
	Text   string       `json:"text,omitempty"`
	Until  time.Time    `json:"until,omitzero"` // of a gate that holds
	// Metric is a measurement that changed the verdict of a metric of a gate.
	Metric *analysis.Measurement `json:"metric,omitempty"`
	// Back is set if the step reverts a change.
	Back bool `json:"back,omitempty"`

	Volume  string       `json:"volume,omitempty"` // name
	Secrets *SecretsMade `json:"-"`
}

// SecretsMade has the secrets that a release generated before the jobs that read them.
type SecretsMade struct {
	Made    record.Generated
	Changes *record.SecretChanges // that the plan announced; nil if none
}

func (d *Deployer) emit(e Event) {
	if d.Emit == nil {
		return
	}
	d.emitting.Lock()
	defer d.emitting.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	d.Emit(e)
}

func (d *Deployer) warn(format string, args ...any) {
	d.emit(Event{Event: rollout.Event{Kind: EventWarning}, Text: fmt.Sprintf(format, args...)})
}

func (d *Deployer) emitRelease(kind string, head *record.Release) {
	d.emit(Event{Event: rollout.Event{Kind: kind}, Number: head.Number, State: head.State, Text: head.Detail})
}

// OpenError is the error of a verb that needs a finished release, if the newest is open.
type OpenError struct {
	Release *record.Release
	Holder  *record.Holder // of the lock, nil if the lock is free
}

func (e *OpenError) Error() string {
	r := e.Release
	if e.Holder != nil {
		return fmt.Sprintf("release %d of stack %s (environment %s) is being made by %s", r.Number, r.Stack, r.Environment, e.Holder)
	}
	of := StackArgs(r.Stack, r.Environment)
	return fmt.Sprintf("release %d of stack %s (environment %s) is %s; finish it with `drover %s %s`, revert it with `drover abort %s`, or abandon it with `drover deploy --take-over`",
		r.Number, r.Stack, r.Environment, Describe(r), Finisher(r.State), of, of)
}

// Finisher is the drover command that finishes a release in that open state:
// approve, promote or resume.
func Finisher(s record.State) string {
	switch s {
	case record.NeedsApproval:
		return "approve"
	case record.NeedsPromotion:
		return "promote"
	}
	return "resume"
}

// StackArgs names a stack and its environment on a command line.
func StackArgs(name, env string) string {
	if env == "" || env == stack.DefaultEnvironment {
		return name
	}
	return name + " -e " + env
}

// Describe returns the state of a release whose lock is free, in a few words.
func Describe(r *record.Release) string {
	switch r.State {
	case record.Running:
		return "interrupted: its process has ended"
	case record.Reverting:
		if r.Detail != "" {
			return "not reverted yet: " + r.Detail
		}
		return "interrupted while reverting: its process has ended"
	}
	return string(r.State)
}

// NotOpenError is the error of a verb that needs an open release. Release is the
// newest, nil if there is none.
type NotOpenError struct{ Release *record.Release }

func (e *NotOpenError) Error() string {
	if e.Release == nil {
		return "there is no release"
	}
	return fmt.Sprintf("release %d is already finished (%s)", e.Release.Number, e.Release.State)
}

// TooLargeError is the error of a job that does not fit into the record.
type TooLargeError struct {
	JobID string
	Err   error
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("job %q is too large for the release record: %s; move what is large in it to an artifact or a Nomad Variable", e.JobID, e.Err)
}

func (e *TooLargeError) Unwrap() error { return e.Err }

// Result is the end of a release.
type Result struct {
	rollout.Result
	Release *record.Release // nil when nothing had to change
	Halt    *Halt           // nil unless a wave stopped the release
	Back    *rollout.Result // of the revert, nil without one
	Pruned  []string        // IDs of jobs
}

// Outcome returns the outcome of the release: that of its services, or of its revert.
func (r Result) Outcome() rollout.Outcome {
	if r.Release == nil {
		return r.Result.Outcome()
	}
	switch r.Release.State {
	case record.Done, record.Destroyed:
		return rollout.Deployed
	case record.Interrupted, record.Paused, record.Running, record.Reverting:
		if r.Release.Cause == "" {
			return rollout.Cancelled
		}
	case record.Reverted:
		if o := rollout.Outcome(r.Release.Cause); o != rollout.Superseded {
			return rollout.FailedReverted
		}
	case record.Aborted:
		if o := rollout.Outcome(r.Release.Cause); o == rollout.Superseded {
			return o // another client changed a job
		}
		return rollout.Deployed
	case record.RevertFailed:
		return rollout.Failed
	}
	if r.Release.Cause != "" {
		return rollout.Outcome(r.Release.Cause)
	}
	return r.Result.Outcome()
}

// key tells services of several targets apart.
type key struct{ target, service string }

// newOwner is a name that no other process has.
func newOwner() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// lock takes the lock of the stack. It reports in waited whether another process held
// it.
func (d *Deployer) lock(ctx context.Context, wait time.Duration) (l *lock, waited bool, err error) {
	var lease Lease
	err = rollout.Retry(ctx, d.Rollout.Silence, func(ctx context.Context) (err error) {
		lease, err = d.Releases.Lock(ctx, d.Holder, wait, func(h record.Holder) {
			waited = true
			d.emit(Event{Event: rollout.Event{Kind: EventLock}, Text: h.String()})
		})
		return err
	})
	if err != nil {
		return nil, waited, err
	}
	return &lock{d: d, lease: lease}, waited, nil
}

// lock is the lock of the stack. It is taken again if it was lost and is free: a Nomad
// that has no leader for a while must not end a release.
type lock struct {
	d     *Deployer
	mu    sync.Mutex
	lease Lease
}

// held returns nil if this process holds the lock. It is called directly before each
// submission. It returns a *rollout.Refusal if another process holds the lock, or if
// Nomad has not answered for too long.
func (l *lock) held(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.lease.Lost():
	default:
		return nil
	}
	end := time.Now().Add(cmp.Or(l.d.Rollout.Silence, rollout.DefaultSilence))
	for n := 0; ; n++ {
		lease, err := l.lease.Renew(ctx)
		if err != nil {
			lease, err = l.d.Releases.Lock(ctx, l.d.Holder, 3*time.Second, nil)
		}
		var locked *record.LockedError
		switch {
		case err == nil:
			l.lease = lease
			return nil
		case ctx.Err() != nil:
			return err
		case errors.As(err, &locked) && !locked.Holder.Is(l.d.Holder) && locked.Holder.PID != 0: // 0: just lost
			return &rollout.Refusal{Outcome: rollout.Superseded, Err: fmt.Errorf("the lock of the stack is lost: %w", err)}
		case time.Now().After(end):
			return &rollout.Refusal{Outcome: rollout.Unreachable, Err: fmt.Errorf("the lock of the stack is lost, and cannot be taken again: %w", err)}
		}
		_ = nomad.RequestBackoff().Wait(ctx, n)
	}
}

// last returns the newest release when the lock was taken.
func (l *lock) last() (*record.Release, error) { return l.lease.Last() }

// blobs returns the digests of the blobs that are stored, nil if that is not known.
func (l *lock) blobs() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease.Blobs()
}

func (l *lock) release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease.Remove(ctx)
}

// clean is a job as Nomad has it without what only the server writes:
// registered again, it changes nothing.
func clean(job *api.Job) *api.Job {
	out := *job
	out.Stop, out.ParentID, out.DispatchIdempotencyToken, out.Payload = nil, nil, nil, nil
	out.Dispatched = false
	out.NomadTokenID, out.Status, out.StatusDescription, out.Stable, out.Version, out.SubmitTime = nil, nil, nil, nil, nil, nil
	out.CreateIndex, out.ModifyIndex, out.JobModifyIndex, out.VersionTag = nil, nil, nil, nil
	return &out
}

// line begins the journal's line of a job.
func line(j render.Job) record.Service {
	return record.Service{
		Target: j.Target, Name: j.Service, JobID: nomad.Deref(j.Job.ID), Namespace: nomad.Deref(j.Job.Namespace), Region: nomad.Deref(j.Job.Region),
		DependsOn: j.DependsOn, Secrets: j.Secrets, Timeout: j.Timeout, PlacementTimeout: j.PlacementTimeout, Step: record.StepPending,
		Counts: rollout.AskedCounts(j),
	}
}
