package deploy

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// EventVersion is the version of the JSON of events, in the field version of the
// end. It changes when a field or kind is removed or gets another meaning. A new
// one does not change it: a reader ignores kinds and fields that it does not know.
const EventVersion = 1

// Kind is the kind of an event, the field event of its JSON. Those of packages
// rollout and release are kinds, too; see [Event.Release].
type Kind string

// Kinds of events beside those of packages rollout and release.
const (
	KindPhase        Kind = "phase"          // a phase begins: Phase
	KindResolved     Kind = "resolved"       // the stack is known: Resolved
	KindPlan         Kind = "plan"           // what will be done: Plan; may come again, of another plan
	KindRetry        Kind = "retry"          // Nomad does not answer and is asked again: Text, Limit
	KindVolume       Kind = "volume-created" // Volume
	KindSecrets      Kind = "secrets"        // Secrets
	KindCertificate  Kind = "certificate"    // Certificate
	KindRecord       Kind = "record"         // Record
	KindPrerequisite Kind = "prerequisite"   // another stack was deployed first: End
	KindEnd          Kind = "end"            // the last event: End
)

// Event is one step of a verb. Kind says which of the fields are set.
type Event struct {
	Time time.Time
	Kind Kind

	Phase       Phase // in which phase the verb is; "" of one without phases
	Resolved    *Resolved
	Release     *release.Event // of the kinds of packages rollout and release
	Plan        *release.Plan
	Text        string
	Limit       time.Duration // how long it is asked again
	Volume      *Volume
	Secrets     *Secrets
	Certificate *acme.Event
	Record      *dns.Change
	Object      *Object // of KindRemoved and KindKept
	End         *End
}

// Resolved is the stack that a verb works on.
type Resolved struct {
	Stack, Environment string
	// ProcessValues are the variables whose values come from Home.Environ.
	ProcessValues []stack.ProcessValue
}

// Volume is a host volume that was created.
type Volume struct {
	Name   string
	Target string // of the environment, "" where it has none
}

// Secrets are the secrets that were made before the jobs that read them.
type Secrets struct {
	Made    record.Generated
	Jobs    []string              // IDs of the jobs that get them
	Changes *record.SecretChanges // what the plan said of them, nil for nothing
}

// End is how a verb ended.
type End struct {
	Stack       string // "" when it is not known
	Environment string
	// Outcome is that of a rollout or one of the constants here, "" of an error that
	// has none.
	Outcome rollout.Outcome
	Result  *release.Result // nil when nothing was begun
	Err     error           // what Run returns, unless Outcome says all of it

	// RoutesChanged reports that the release has other hosts than the one before,
	// whose DNS records the controller makes.
	RoutesChanged bool

	Wave     string         // that was approved for Holder
	Holder   *record.Holder // who makes the release
	Schedule string         // that fired
	Run      *record.Run    // of Schedule

	// ExitCode and ErrorText are for a process that ends with the verb: the JSON has
	// them where they are set. ErrorText is that of Err by default.
	ExitCode  *int
	ErrorText string
}

// Outcomes of a verb beside those of a rollout.
const (
	CertificateFailed rollout.Outcome = "certificate-failed" // deployed, but a certificate is not served or a DNS record not made
	Approved          rollout.Outcome = "approved"           // a wave; the process that waits for that continues
)

// endJSON is End as JSON. The order of its fields is that of the alphabet, which
// readers have come to rely on.
type endJSON struct {
	Back        *[]rollout.ServiceResult `json:"back,omitempty"`
	Cause       *string                  `json:"cause,omitempty"`
	Elapsed     *time.Duration           `json:"elapsed_ns,omitempty"`
	Environment string                   `json:"environment,omitempty"`
	Error       string                   `json:"error,omitempty"`
	Event       Kind                     `json:"event"`
	ExitCode    *int                     `json:"exit_code,omitempty"`
	Halt        *release.Halt            `json:"halt,omitempty"`
	Holder      *record.Holder           `json:"holder,omitempty"`
	Outcome     rollout.Outcome          `json:"outcome,omitempty"`
	Pruned      *[]string                `json:"pruned,omitempty"`
	Release     int                      `json:"release,omitempty"`
	Run         *record.Run              `json:"run,omitempty"`
	Schedule    string                   `json:"schedule,omitempty"`
	Services    *[]rollout.ServiceResult `json:"services,omitempty"`
	Stack       string                   `json:"stack,omitempty"`
	State       record.State             `json:"state,omitempty"`
	Time        time.Time                `json:"time"`
	Version     int                      `json:"version"`
	Wave        string                   `json:"wave,omitempty"`
}

func (e *End) json(kind Kind, at time.Time) endJSON {
	out := endJSON{
		Time: at, Event: kind, Version: EventVersion, Stack: e.Stack, Environment: e.Environment, Outcome: e.Outcome,
		ExitCode: e.ExitCode, Error: e.ErrorText, Wave: e.Wave, Holder: e.Holder, Schedule: e.Schedule, Run: e.Run,
	}
	if e.Err != nil && out.Error == "" {
		out.Error = e.Err.Error()
	}
	r := e.Result
	if r == nil {
		return out
	}
	out.Elapsed, out.Services, out.Halt = &r.Elapsed, &r.Services, r.Halt
	if h := r.Release; h != nil {
		out.Release, out.State, out.Cause, out.Pruned = h.Number, h.State, &h.Cause, &r.Pruned
	}
	if r.Back != nil {
		out.Back = &r.Back.Services
	}
	return out
}

// eventHead has the fields that every event begins with.
type eventHead struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"event"`
}

func (e Event) head() eventHead { return eventHead{e.Time, e.Kind} }

// MarshalJSON returns the event as -o json prints it, one object of one level with
// the fields time and event. docs/reference/events.md has the kinds and fields.
func (e Event) MarshalJSON() ([]byte, error) {
	switch e.Kind {
	case KindEnd, KindPrerequisite:
		return json.Marshal(e.End.json(e.Kind, e.Time))
	case KindVolume:
		return json.Marshal(struct {
			Kind   Kind      `json:"event"`
			Target string    `json:"target,omitempty"`
			Time   time.Time `json:"time"`
			Volume string    `json:"volume"`
		}{e.Kind, e.Volume.Target, e.Time, e.Volume.Name})
	case KindSecrets:
		s := e.Secrets
		return json.Marshal(struct {
			Changes   *record.SecretChanges `json:"changes"`
			Kind      Kind                  `json:"event"`
			Generated []string              `json:"generated"`
			Jobs      []string              `json:"jobs"`
			Renewed   []string              `json:"renewed"`
			Time      time.Time             `json:"time"`
		}{s.Changes, e.Kind, s.Made.Secrets, s.Jobs, s.Made.Renewed, e.Time})
	case KindCertificate:
		return json.Marshal(struct {
			Kind Kind `json:"event"`
			acme.Event
		}{e.Kind, *e.Certificate})
	case KindRecord:
		return json.Marshal(struct {
			eventHead
			dns.Change
		}{e.head(), *e.Record})
	case KindRemoved, KindKept:
		return json.Marshal(struct {
			eventHead
			Object
		}{e.head(), *e.Object})
	case KindPhase:
		return json.Marshal(struct {
			eventHead
			Phase Phase `json:"phase"`
		}{e.head(), e.Phase})
	case KindResolved:
		return json.Marshal(struct {
			eventHead
			Stack       string               `json:"stack"`
			Environment string               `json:"environment"`
			Values      []stack.ProcessValue `json:"process_values,omitempty"`
		}{e.head(), e.Resolved.Stack, e.Resolved.Environment, e.Resolved.ProcessValues})
	case KindRetry:
		return json.Marshal(struct {
			eventHead
			Text string `json:"text"`
		}{e.head(), e.Text})
	case KindPlan:
		return json.Marshal(struct {
			eventHead
			Changes []release.Change `json:"changes"`
		}{e.head(), e.Plan.Changes()})
	}
	if e.Release == nil {
		return nil, fmt.Errorf("event of unknown kind %q", e.Kind)
	}
	return json.Marshal(*e.Release)
}
