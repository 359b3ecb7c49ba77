package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// EventGate is an event with the state of the gate of a wave: Waiting is the condition
// that does not hold. If all hold, Until is the end of the bake time.
const EventGate = "gate"

// Halt is why a release stopped although no service failed.
type Halt struct {
	Wave    string          `json:"wave"`
	Outcome rollout.Outcome `json:"outcome"` // failed, awaiting-approval, cancelled, …
	Detail  string          `json:"detail,omitempty"`
}

func (h *Halt) String() string {
	if h.Wave == "" {
		return h.Detail
	}
	return fmt.Sprintf("wave %s: %s", h.Wave, h.Detail)
}

// Approval asks a person whether a wave may begin.
type Approval struct {
	Number   int // of the release
	Wave     string
	Services []string // as SERVICE or SERVICE@TARGET
	// Inconclusive is why the gate of the wave cannot be judged: it asks whether the
	// release goes on after the wave. "" asks whether the wave may begin.
	Inconclusive string
}

// outcome is that of what has been done so far.
func (r *Result) outcome() rollout.Outcome {
	if r.Halt != nil {
		return r.Halt.Outcome
	}
	return r.Result.Outcome()
}

// reason is what decided, in one line.
func (r *Result) reason(outcome rollout.Outcome) string {
	if r.Halt != nil {
		return r.Halt.String()
	}
	for _, s := range r.Services {
		if s.Outcome == outcome {
			return fmt.Sprintf("%s: %s", s.Name(), s.Detail)
		}
	}
	return ""
}

// inWave rolls out one wave: it waits for the approval if needed, and for the gate.
func (r *run) inWave(ctx context.Context, res *Result, parts []*Part) {
	i := parts[0].Wave
	w := r.plan.req.Waves[i]
	changes := r.changesWave(i)
	if changes {
		if needsApproval(w, r.plan.req.Kind) {
			if res.Halt = r.approved(ctx, i, parts); res.Halt != nil {
				return
			}
		}
		r.noteWave(ctx, i, record.Running, "")
		if err := r.publishWave(ctx, i); err != nil {
			res.Halt = &Halt{Wave: w.Name, Outcome: unwritten(err), Detail: "cannot publish its secrets: " + err.Error()}
			if ctx.Err() != nil {
				res.Halt.Outcome = ended(ctx)
			}
			r.noteWave(ctx, i, waveStateAfter(res.Halt.Outcome), res.Halt.Detail)
			return
		}
	}
	services := r.wave(ctx, parts)
	res.Services = append(res.Services, services...)
	if !changes {
		return
	}
	wave := rollout.Result{Services: services}
	if outcome := wave.Outcome(); !outcome.OK() {
		r.noteWave(ctx, i, waveStateAfter(outcome), (&Result{Result: wave}).reason(outcome))
		return
	}
	if r.judged(i) {
		r.noteWave(ctx, i, record.Done, "")
		return
	}
	if res.Halt = r.gate(ctx, i, parts); res.Halt != nil {
		if r.head.Waves[i].State == record.NeedsApproval {
			return // and it stays so, for `drover approve`
		}
		r.noteWave(ctx, i, waveStateAfter(res.Halt.Outcome), res.Halt.Detail)
		return
	}
	r.noteWave(ctx, i, record.Done, "")
}

// waveStateAfter returns the state of a wave that ended with an outcome that is not
// OK: Interrupted if the release can be resumed in it.
func waveStateAfter(outcome rollout.Outcome) record.State {
	switch outcome {
	case rollout.AwaitPromotion, rollout.Cancelled, rollout.Unreachable:
		return record.Interrupted
	}
	return record.FailedState
}

// changesWave reports whether the release still has to change something in wave i.
func (r *run) changesWave(i int) bool {
	return r.journal != nil && r.head.Waves[i].State != record.Done && changesWave(r.journal.Services(), i)
}

// changesWave reports whether any of the lines creates, updates or renews a job in
// wave i.
func changesWave(lines []record.Service, i int) bool {
	return slices.ContainsFunc(lines, func(l record.Service) bool {
		return l.Wave == i && (l.Change != record.ChangeNone || len(l.Renewed) > 0) && l.Change != record.ChangeStop
	})
}

// needsApproval reports whether a wave of a release of that kind has to be approved
// before it begins. A rollback needs no approval.
func needsApproval(w *stack.Wave, kind string) bool { return w.Approve && kind != KindRollback }

// waitingWave returns the index of the wave that waits for an approval, -1 if there
// is none or the release has ended.
func waitingWave(h *record.Release) int {
	if !h.State.Open() {
		return -1
	}
	return slices.IndexFunc(h.Waves, func(w record.Wave) bool { return w.State == record.NeedsApproval })
}

// noteWave records and reports the state of a wave. It ignores an error: the next
// submission fails then.
func (r *run) noteWave(ctx context.Context, i int, state record.State, detail string) {
	limit := waveLimit
	if state == record.Interrupted { // by Ctrl-C, or because Nomad has not answered for long
		limit = 5 * time.Second
	}
	note := func(w *record.Wave) {
		now := time.Now().UTC()
		if w.Started.IsZero() {
			w.Started = now
		}
		if state == record.Done || state == record.FailedState {
			w.Ended = now
		}
		w.State, w.Detail = state, detail
		if w.Passed == "" {
			w.Inconclusive = false // it is measured again
		}
	}
	switch stored := r.head.Waves[i]; {
	case stored.State == state && stored.Detail == detail: // see begin
	case state == record.Done && r.isLast(i):
		r.withNext = func(h *record.Release) { note(&h.Waves[i]) }
	default:
		_ = r.saveWave(ctx, i, limit, note)
	}
	if len(r.plan.req.Waves) > 1 {
		r.tellWave(EventWave, i, state, detail)
	}
}

// isLast reports whether nothing is left to do after wave i but to end the release:
// the next write of the head, which follows at once, has the state of the wave too.
func (r *run) isLast(i int) bool {
	return !slices.ContainsFunc(r.journal.Services(), func(l record.Service) bool {
		return l.Change == record.ChangeStop && l.Step != record.StepPruned || l.Wave > i && (l.Change != record.ChangeNone || len(l.Renewed) > 0)
	})
}

// beginFirstWave notes in a new head that its first wave has begun, unless that has
// to be approved: so it is written with the head.
func beginFirstWave(head *record.Release, p *Plan, lines []record.Service) {
	for i, w := range p.req.Waves {
		if !changesWave(lines, i) {
			continue
		}
		if !needsApproval(w, p.req.Kind) {
			head.Waves[i].State, head.Waves[i].Started = record.Running, time.Now().UTC()
		}
		return
	}
}

// waveLimit is the time limit for recording the state of a wave.
const waveLimit = 30 * time.Second

func (r *run) saveWave(ctx context.Context, i int, limit time.Duration, f func(*record.Wave)) error {
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return r.save(wctx, func(h *record.Release) { f(&h.Waves[i]) })
}

func (r *run) tellWave(kind string, i int, state record.State, text string) {
	r.d.emit(Event{Event: rollout.Event{Kind: kind}, Wave: r.plan.req.Waves[i].Name, Number: number(r.head), State: state, Text: text})
}

// unwritten is the outcome of a wave for which the record cannot be read or
// written: what cannot be reached has not failed.
func unwritten(err error) rollout.Outcome {
	if rollout.Unanswered(err) {
		return rollout.Unreachable
	}
	return rollout.Failed
}

// ended is the outcome of a wave when its context is at its end.
func ended(ctx context.Context) rollout.Outcome {
	if errors.Is(context.Cause(ctx), errTimeout) {
		return rollout.TimedOut
	}
	return rollout.Cancelled
}

// approved waits until a wave may begin.
func (r *run) approved(ctx context.Context, i int, parts []*Part) *Halt {
	if r.head.Waves[i].Approved != "" {
		return nil
	}
	return r.awaitApproval(ctx, i, parts, "")
}

// awaitApproval waits until a wave is approved: by the operator, or by another process in the
// record. If no person can be asked and ApprovalWait is 0, the release stays open.
// inconclusive is as in Approval.
func (r *run) awaitApproval(ctx context.Context, i int, parts []*Part, inconclusive string) *Halt {
	w := r.plan.req.Waves[i]
	halt := &Halt{Wave: w.Name, Outcome: rollout.AwaitApproval, Detail: cmp.Or(inconclusive, "it waits for an approval")}
	err := r.saveWave(ctx, i, waveLimit, func(rw *record.Wave) {
		rw.State, rw.Inconclusive, rw.Detail = record.NeedsApproval, inconclusive != "", inconclusive
	})
	if err != nil {
		halt.Outcome, halt.Detail = unwritten(err), err.Error()
		return halt
	}
	r.tellWave(EventWave, i, record.NeedsApproval, inconclusive)
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	elsewhere := make(chan string, 1)
	go r.d.watchApproval(asking, r.head.Number, i, elsewhere)
	here, noPerson, asked := make(chan bool, 1), make(chan struct{}), make(chan struct{})
	a := Approval{Number: r.head.Number, Wave: w.Name, Inconclusive: inconclusive}
	for _, p := range parts {
		for _, j := range p.Jobs {
			a.Services = append(a.Services, j.Name())
		}
	}
	go func() {
		defer close(asked)
		yes, err := r.d.operator().Approve(asking, a)
		switch {
		case err == nil:
			here <- yes
		case errors.Is(err, ErrNoPerson) && r.d.ApprovalWait <= 0:
			close(noPerson)
		}
	}()
	var late <-chan time.Time
	if r.d.ApprovalWait > 0 {
		timer := time.NewTimer(r.d.ApprovalWait)
		defer timer.Stop()
		late = timer.C
	}
	by := r.d.Holder.User + "@" + r.d.Holder.Host
	select {
	case yes := <-here:
		if !yes {
			halt.Detail = "not approved"
			return halt
		}
		err := r.saveWave(ctx, i, waveLimit, func(rw *record.Wave) { approve(rw, by) })
		if err != nil {
			halt.Outcome, halt.Detail = unwritten(err), err.Error()
			return halt
		}
	case by = <-elsewhere:
		cancel()
		<-asked // the question is off the screen
		if head, err := r.d.Releases.Read(ctx, r.head.Number); err == nil && head.Owner == r.head.Owner {
			r.head = head
		}
	case <-noPerson:
		return halt
	case <-late:
		return halt
	case <-ctx.Done():
		halt.Outcome, halt.Detail = rollout.Cancelled, "it was not approved"
		if errors.Is(context.Cause(ctx), errTimeout) {
			halt.Outcome = rollout.AwaitApproval
		}
		return halt
	}
	r.tellWave(EventWave, i, "approved", "by "+by)
	return nil
}

// watchApproval sends the name of the approver of a wave when the record has it.
func (d *Deployer) watchApproval(ctx context.Context, number, i int, to chan<- string) {
	d.watchHead(ctx, number, 0, func(head *record.Release) bool {
		by, _ := head.Waves[i].Approval()
		if *by != "" {
			to <- *by
		}
		return *by != ""
	})
}

// approve records the approval that a wave waits for, unless it has it.
func approve(w *record.Wave, by string) {
	if approver, at := w.Approval(); *approver == "" {
		*approver, *at = by, time.Now().UTC()
	}
}

// NoApprovalError is the error of an approval that no wave waits for.
type NoApprovalError struct{ Release *record.Release }

func (e *NoApprovalError) Error() string {
	if e.Release == nil {
		return "there is no release"
	}
	return fmt.Sprintf("release %d is %s: no wave of it waits for an approval", e.Release.Number, e.Release.State)
}

// ApproveWave records the approval of the wave that waits. holder is the process that
// waits for it and continues the release; nil if there is none and the release has to
// be resumed.
func (d *Deployer) ApproveWave(ctx context.Context, by string) (wave string, holder *record.Holder, err error) {
	last, err := d.Releases.Last(ctx)
	if err != nil {
		return "", nil, err
	}
	if last == nil {
		return "", nil, &NoApprovalError{}
	}
	_, err = d.Releases.Change(ctx, last.Number, func(h *record.Release) error {
		i := waitingWave(h)
		if i < 0 {
			return &NoApprovalError{h}
		}
		w := &h.Waves[i]
		approve(w, by)
		wave, last = w.Name, h
		return nil
	})
	if err != nil || last.State != record.Running {
		return wave, nil, err
	}
	holder, err = d.Releases.Holder(ctx)
	return wave, holder, err
}
