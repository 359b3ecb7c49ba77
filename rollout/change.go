package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render/lint"
)

// Action is what a deploy would do with a service.
type Action string

// Actions.
const (
	ActionNone     Action = "unchanged" // the registered job is exactly this; nothing is written
	ActionCreate   Action = "create"    // the job is not there, or stopped
	ActionInPlace  Action = "in-place"  // a new version; what runs goes on running
	ActionReplace  Action = "replace"   // a new version; allocations are stopped and started, step by step
	ActionRecreate Action = "recreate"  // the job is purged, then created: see Change.Reason
	ActionStop     Action = "stop"      // the job is not in the stack any more
)

// Change is what a deploy would do with one service and why.
type Change struct {
	Service   string `json:"service"`
	Target    string `json:"target,omitempty"` // of the environment
	JobID     string `json:"job_id"`
	Namespace string `json:"namespace,omitempty"`
	Region    string `json:"region,omitempty"`
	Action    Action `json:"action"`
	Reason    string `json:"reason,omitempty"` // of a recreation, a retry or a stop

	// Retry: the spec is the registered one, whose deployment has failed.
	Retry bool `json:"retry,omitempty"`
	// Running reports whether a job that stops runs now: it has running
	// allocations, or it starts others by itself.
	Running bool `json:"running,omitempty"`
	// RenamedTo is the job that is created for the same service while this one
	// stops; "" when there is none.
	RenamedTo string `json:"renamed_to,omitempty"`

	// Completed is why a job that Nomad does not have any more stays away.
	Completed *Completion `json:"completed,omitempty"`

	Groups []GroupChange `json:"groups,omitempty"` // by name; none for periodic and parameterized jobs
	Diff   []FieldChange `json:"diff,omitempty"`   // none for a new job

	Placement []Placement     `json:"placement,omitempty"` // groups for which no node has room
	Preempted []Preempted     `json:"preempted,omitempty"`
	Kept      []KeptCount     `json:"kept_counts,omitempty"`
	Replaced  []ReplacedCount `json:"replaced_counts,omitempty"`
	Images    []string        `json:"mutable_images,omitempty"` // that may change without the job
	Warnings  []string        `json:"warnings,omitempty"`       // Nomad's, and what drover says of a lower count
	NextRun   time.Time       `json:"next_run,omitzero"`        // of a periodic job
	Index     uint64          `json:"job_modify_index"`         // that the registration enforces; 0: must not be there
}

// GroupChange counts the allocations of a task group that a deploy touches.
type GroupChange struct {
	Group   string `json:"group"`
	Create  int    `json:"create,omitempty"`   // started where there were none
	Stop    int    `json:"stop,omitempty"`     // stopped for good
	InPlace int    `json:"in_place,omitempty"` // told the new version without a restart
	// Replace is how many are stopped and started in all, FirstStep how many
	// of them, or how many canaries, before the first must be healthy.
	Replace   int `json:"replace,omitempty"`
	FirstStep int `json:"first_step,omitempty"`
	Canaries  int `json:"canaries,omitempty"`
}

// String is the change in a few words: "2 create, 3 replace (1 at first)".
func (g GroupChange) String() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(g.Create, "create")
	if g.stopsEarly() {
		add(g.Stop, "stop at once")
	} else {
		add(g.Stop, "stop")
	}
	add(g.InPlace, "in-place")
	switch {
	case g.Canaries > 0 && g.Replace > 0:
		parts = append(parts, fmt.Sprintf("%d replace (%s first)", g.Replace, plural(g.Canaries, "canary", "canaries")))
	case g.FirstStep > 0 && g.FirstStep < g.Replace:
		parts = append(parts, fmt.Sprintf("%d replace (%d at first)", g.Replace, g.FirstStep))
	default:
		add(g.Replace, "replace")
	}
	return strings.Join(parts, ", ")
}

// stopsEarly reports whether the group gets a lower count and a new version:
// Nomad stops the surplus at once, before any instance of the new version is
// healthy.
func (g GroupChange) stopsEarly() bool { return g.Stop > 0 && g.Replace > 0 }

// EarlyStop is a warning that says so, "" when nothing stops early.
func (g GroupChange) EarlyStop() string {
	if !g.stopsEarly() {
		return ""
	}
	return fmt.Sprintf("group %s: Nomad stops %d of %d allocations at once, before the new version is healthy; to keep them until then, deploy the new version first and the lower count after it",
		g.Group, g.Stop, g.Stop+g.Replace)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Preempted is what Nomad would stop of other jobs to make room.
type Preempted struct {
	JobID string `json:"job_id"`
	Count int    `json:"count"`
}

// Changes are what Apply would do, in the order of the services, and after
// them the jobs that the stack does not have any more.
func (p *Plan) Changes() []Change {
	out := make([]Change, 0, len(p.steps)+len(p.former))
	for _, s := range p.steps {
		out = append(out, s.describe(p.opts.Redact))
	}
	for _, f := range p.former {
		out = append(out, f.change())
	}
	return out
}

func (f Former) change() Change {
	return Change{
		Service: f.Service, Target: f.Target, JobID: f.JobID, Namespace: f.Namespace, Region: f.Region, Index: f.index,
		Action: ActionStop, Reason: "not in the stack any more", Running: f.running,
	}
}

func (s *step) action() Action {
	switch {
	case s.recreate != "":
		return ActionRecreate
	case s.start != "":
		return ActionCreate
	case s.unchanged():
		return ActionNone
	case s.plan.JobModifyIndex == 0 || s.restarted():
		return ActionCreate
	}
	for _, g := range s.groups() {
		if g.Replace > 0 {
			return ActionReplace
		}
	}
	return ActionInPlace
}

// restarted reports whether the job exists and is stopped.
func (s *step) restarted() bool {
	return s.plan.Diff != nil && slices.ContainsFunc(s.plan.Diff.Fields, func(f *api.FieldDiff) bool {
		return f.Name == "Stop" && f.Old == "true" && f.New == "false"
	})
}

func (s *step) describe(redact func(string) string) Change {
	if s.completed != nil {
		return Change{
			Service: s.Service, Target: s.Target, JobID: s.spec.id, Namespace: s.spec.namespace, Region: s.spec.region,
			Action: ActionNone, Completed: s.completed, Index: s.plan.JobModifyIndex,
		}
	}
	c := Change{
		Service: s.Service, Target: s.Target, JobID: s.spec.id, Namespace: s.spec.namespace, Region: s.spec.region,
		Action: s.action(), Reason: cmp.Or(s.recreate, s.retry, s.start), Retry: s.retry != "", Groups: s.groups(), Kept: s.kept, Replaced: s.replaced,
		Index: s.plan.JobModifyIndex, NextRun: s.plan.NextPeriodicLaunch,
		Placement: s.spec.placementsOf(s.plan.FailedTGAllocs),
	}
	if c.Action != ActionCreate && !s.unchanged() {
		c.Diff = fieldChanges(s.plan.Diff, redact)
	}
	if a := s.plan.Annotations; a != nil {
		count := map[string]int{}
		for _, al := range a.PreemptedAllocs {
			if count[al.JobID]++; count[al.JobID] == 1 {
				c.Preempted = append(c.Preempted, Preempted{JobID: al.JobID})
			}
		}
		for i := range c.Preempted {
			c.Preempted[i].Count = count[c.Preempted[i].JobID]
		}
	}
	if w := strings.TrimSpace(s.plan.Warnings); w != "" {
		c.Warnings = strings.Split(redact(w), "\n")
	}
	for _, g := range c.Groups {
		if w := g.EarlyStop(); w != "" {
			c.Warnings = append(c.Warnings, w)
		}
	}
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			if image, fixed := lint.Image(t); !fixed && !slices.Contains(c.Images, image) {
				c.Images = append(c.Images, image)
			}
		}
	}
	return c
}

// groups reads the scheduler's annotations. They tell the first step of a
// rolling update and count what comes later as ignored; here it is counted
// in full.
func (s *step) groups() []GroupChange {
	if s.plan.Annotations == nil || s.spec.parent || (s.unchanged() && s.recreate == "" && s.start == "") {
		return nil
	}
	var out []GroupChange
	for name, u := range s.plan.Annotations.DesiredTGUpdates {
		g := GroupChange{Group: name, Create: int(u.Place), Stop: int(u.Stop), InPlace: int(u.InPlaceUpdate), Replace: int(u.DestructiveUpdate), Canaries: int(u.Canary)}
		g.FirstStep = g.Replace
		switch {
		case s.recreate != "":
			// Everything that runs is stopped, all that is asked for is started.
			g = GroupChange{Group: name, Create: s.spec.counts[name]}
			if s.spec.perNode() {
				g.Create = int(u.Place + u.DestructiveUpdate + u.InPlaceUpdate + u.Ignore)
			}
		case s.spec.perNode():
			// Nomad 1.11 counts each updated allocation of a system job as
			// placed too, and all of them though it goes step by step.
			if updated := g.Replace + g.InPlace; g.Create >= updated && s.plan.JobModifyIndex != 0 && s.spec.kind == api.JobTypeSystem {
				g.Create -= updated
			}
			if n := s.spec.parallel[name]; n > 0 {
				g.FirstStep = min(g.Replace, n)
			}
		case s.spec.kind == api.JobTypeBatch:
			// Ignored allocations have ended; their replacements are counted as placed.
			if u.Ignore > 0 && !s.restarted() {
				again := min(g.Create, int(u.Ignore))
				g.Create, g.Replace, g.FirstStep = g.Create-again, g.Replace+again, g.FirstStep+again
			}
		default:
			// A changed job leaves nothing as it is: what is ignored now comes
			// in a later step.
			g.Replace += int(u.Ignore)
		}
		if g != (GroupChange{Group: name}) {
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b GroupChange) int { return strings.Compare(a.Group, b.Group) })
	return out
}
