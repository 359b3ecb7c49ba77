package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Unattended has the options of a release that a schedule makes, without an operator and
// without the files of the stack.
type Unattended struct {
	Schedule     string // name, for the record
	SkipApproval bool   // waves begin without an approval, and canaries are promoted
	GateCommand  string // one of the constants of package stack, or ""
}

// AttendedError is the error of a release of a schedule that needs an operator or a
// file.
type AttendedError struct {
	Schedule string
	Needs    []string
}

func (e *AttendedError) Error() string {
	return fmt.Sprintf("schedule %s cannot make this release: %s; set approve or gate_command in the schedule, and run `drover schedule apply`", e.Schedule, strings.Join(e.Needs, "; "))
}

// CheckAttended returns an *AttendedError when the plan is of a schedule and
// needs what a schedule does not have.
func (p *Plan) CheckAttended() error {
	u := p.req.Unattended
	if u == nil {
		return nil
	}
	var needs []string
	need := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(needs, text) {
			needs = append(needs, text)
		}
	}
	for _, part := range p.Parts {
		changes := false
		for i, j := range part.Jobs {
			c := part.changes[i]
			if c.Action == rollout.ActionNone {
				continue
			}
			changes = true
			if c.Action != rollout.ActionCreate && rollout.WaitsForPromotion(j.Job) && !u.SkipApproval && !p.req.Waves[part.Wave].Promote {
				need("canaries of %s wait for a promotion", j.Service)
			}
		}
		if !changes {
			continue
		}
		w := p.req.Waves[part.Wave]
		if w.Approve && !u.SkipApproval {
			need("wave %s waits for an approval", w.Name)
		}
		if len(w.Gate.Command) > 0 && u.GateCommand == "" {
			need("the gate of wave %s runs the command %s", w.Name, w.Gate.Command[0])
		}
	}
	if needs == nil {
		return nil
	}
	return &AttendedError{u.Schedule, needs}
}

// mark notes in a new head that a schedule makes the release, and what
// its waves leave out.
func (u *Unattended) mark(head *record.Release, waves []*stack.Wave) {
	if u == nil {
		return
	}
	head.Schedule = u.Schedule
	for i, w := range waves {
		if w.Approve && u.SkipApproval {
			head.Waves[i].Approved, head.Waves[i].ApprovedAt = "schedule "+u.Schedule, time.Now().UTC()
		}
		head.Waves[i].NoCommand = len(w.Gate.Command) > 0 && u.GateCommand == stack.GateCommandSkip
	}
}

// Interrupted reports whether a release is open, was made by the named schedule
// and waits for no person: its drover was stopped, or Nomad did not answer.
func Interrupted(h *record.Release, schedule string) bool {
	return h.Schedule != "" && h.Schedule == schedule && (h.State == record.Running || h.State == record.Interrupted || h.State == record.Reverting)
}

// ResumeOwn resumes the newest release if it is an interrupted one of the named
// schedule; else it returns a *NotOpenError.
func (d *Deployer) ResumeOwn(ctx context.Context, schedule string) (Result, error) {
	return d.resume(ctx, false, func(h *record.Release) error {
		if !Interrupted(h, schedule) {
			return &NotOpenError{h}
		}
		return nil
	})
}
