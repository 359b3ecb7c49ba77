package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/analysis"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// gate waits until the gate of a wave passes or fails.
func (r *run) gate(ctx context.Context, i int, parts []*Part) *Halt {
	w := r.plan.req.Waves[i]
	if r.head.Waves[i].Passed != "" {
		return nil // a person has approved the wave, and drover was interrupted after it
	}
	var parties []rollout.Party
	for _, p := range parts {
		if len(p.Jobs) > 0 { // not a target that is left
			parties = append(parties, rollout.Party{Target: p.Target, Clients: r.plan.clusters[p.Target].Clients(), Jobs: p.Plan.Watched()})
		}
	}
	o := r.gateOptions(i, parties)
	if o.Bake == 0 && o.HTTP == nil && len(o.Command) == 0 && len(o.Metrics) == 0 && len(r.renewed(i)) == 0 {
		return nil // they are healthy: that was waited for
	}
	if err := r.credentials(ctx, &o); err != nil {
		return &Halt{Wave: w.Name, Outcome: unwritten(err), Detail: err.Error()}
	}
	res, err := r.hold(ctx, parties, o, Event{Wave: w.Name}, func(rollout.GateProgress) {})
	switch {
	case err != nil:
		h := &Halt{Wave: w.Name, Outcome: rollout.Cancelled, Detail: "its gate was being looked at"}
		if errors.Is(err, errTimeout) {
			h.Outcome, h.Detail = rollout.TimedOut, err.Error()+"; its gate was being looked at"
		}
		return h
	case res.Away: // which is no failure of the services
		return &Halt{Wave: w.Name, Outcome: rollout.Unreachable, Detail: "its gate: " + res.Detail}
	case res.Unknown:
		return r.awaitApproval(ctx, i, parts, "its gate is inconclusive: "+res.Detail)
	case !res.OK:
		return &Halt{Wave: w.Name, Outcome: rollout.Failed, Detail: res.Detail}
	}
	return nil
}

// gateOptions returns what the gate of wave i asks of parties, without credentials. A
// rollback has no bake time and no metrics: the release is known to be good, and the
// rollback is urgent.
func (r *run) gateOptions(i int, parties []rollout.Party) rollout.GateOptions {
	w := r.plan.req.Waves[i]
	o := rollout.GateOptions{Gate: w.Gate, Bake: w.Bake, Silence: r.d.Rollout.Silence, Redact: r.d.options().Redact}
	if r.plan.req.Kind == KindRollback {
		o.Bake, o.Metrics = 0, nil
	}
	if r.head.Waves[i].NoCommand {
		o.Command = nil
	}
	var targets []string
	for _, p := range parties {
		targets = append(targets, p.Target)
	}
	o.Env = []string{
		"DROVER_STACK=" + r.head.Stack, "DROVER_ENVIRONMENT=" + r.head.Environment, fmt.Sprintf("DROVER_RELEASE=%d", r.head.Number),
		"DROVER_WAVE=" + w.Name, "DROVER_TARGETS=" + strings.Join(targets, ","),
	}
	return o
}

// hold evaluates a gate and reports how it stands, in events that are otherwise as e.
func (r *run) hold(ctx context.Context, parties []rollout.Party, o rollout.GateOptions, e Event, tell func(rollout.GateProgress)) (rollout.GateResult, error) {
	hold := r.d.Hold
	if hold == nil {
		hold = rollout.Hold
	}
	e.Number = r.head.Number
	o.Measured = func(m analysis.Measurement) {
		measured := e
		measured.Kind, measured.Metric = EventMetric, &m
		r.d.emit(measured)
	}
	return hold(ctx, parties, o, func(p rollout.GateProgress) {
		stands := e
		stands.Kind, stands.Waiting, stands.Until = EventGate, p.Waiting, p.Until
		r.d.emit(stands)
		tell(p)
	})
}

// credentials reads the passwords of the probe and of the sources of metrics.
func (r *run) credentials(ctx context.Context, o *rollout.GateOptions) error {
	if o.HTTP != nil && o.Secret != "" {
		password, err := r.password(ctx, o.Secret)
		if err != nil {
			return fmt.Errorf("the password of its gate's probe cannot be read: %w", err)
		}
		probe := *o.HTTP
		probe.Password = password
		o.HTTP = &probe
	}
	for _, m := range o.Metrics {
		c := analysis.Credentials{Username: m.Username}
		if m.Secret != "" {
			var err error
			if c.Secret, err = r.password(ctx, m.Secret); err != nil {
				return fmt.Errorf("the credential of metric %s cannot be read: %w", m.Name, err)
			}
		}
		o.Credentials = append(o.Credentials, c)
	}
	return nil
}

// password returns an item of the stack's secrets, for the gate.
func (r *run) password(ctx context.Context, item string) (string, error) {
	if r.d.Secrets == nil {
		return "", errors.New("the stack has no secrets")
	}
	v, err := r.d.Secrets.Item(ctx, item)
	return v.Reveal(), err
}

// judge evaluates the gate of a wave with promote for the canaries of one service, and
// records its verdict before they are promoted. An interrupted release evaluates it
// again.
func (r *run) judge(ctx context.Context, part *Part, s rollout.Submission, tell func(string)) rollout.CanaryVerdict {
	const waits = "the canaries are healthy and wait for a promotion"
	if j, _ := r.begun(); j == nil {
		return rollout.CanaryVerdict{Outcome: rollout.AwaitPromotion, Detail: waits + "; no open release has them"}
	}
	parties := []rollout.Party{{
		Target: part.Target, Clients: r.plan.clusters[part.Target].Clients(), Jobs: []render.Job{{Target: part.Target, Service: s.Service, Job: s.Job}},
	}}
	o := r.gateOptions(part.Wave, parties)
	o.Canaries = true
	if err := r.credentials(ctx, &o); err != nil {
		return rollout.CanaryVerdict{Outcome: awaitUnlessAway(err), Detail: waits + ": " + err.Error()}
	}
	e := Event{Event: rollout.Event{Target: part.Target, Service: s.Service, JobID: *s.Job.ID}, Wave: r.plan.req.Waves[part.Wave].Name}
	res, err := r.hold(ctx, parties, o, e, func(p rollout.GateProgress) {
		if p.Waiting != "" {
			tell("the gate of its canaries: " + p.Waiting)
		} else if !p.Until.IsZero() {
			tell("the gate of its canaries, until " + p.Until.Local().Format("15:04:05"))
		}
	})
	switch {
	case err != nil: // ctx has ended
		return rollout.CanaryVerdict{Outcome: rollout.Cancelled}
	case res.Away:
		return rollout.CanaryVerdict{Outcome: rollout.Unreachable, Detail: "the gate of its canaries: " + res.Detail}
	case res.Unknown:
		return rollout.CanaryVerdict{Outcome: rollout.AwaitPromotion, Detail: waits + ": their gate is inconclusive: " + res.Detail}
	case !res.OK:
		return rollout.CanaryVerdict{Outcome: rollout.Failed, Detail: "the gate of its canaries: " + res.Detail}
	}
	err = r.lock.held(ctx)
	if err == nil {
		err = r.journal.Update(ctx, r.index[r.plan.jobKey(part.Target, s.Job)], func(l *record.Service) { l.Judged = true })
	}
	switch {
	case errors.Is(err, record.ErrTakenOver):
		return rollout.CanaryVerdict{Outcome: rollout.Superseded, Detail: err.Error()}
	case err != nil: // not promoted, and evaluated again when the release is resumed
		return rollout.CanaryVerdict{Outcome: rollout.Unreachable, Detail: "its canaries are not promoted: " + err.Error()}
	}
	return rollout.CanaryVerdict{Outcome: rollout.Deployed}
}

// awaitUnlessAway is the outcome of canaries whose gate cannot be evaluated because of err.
func awaitUnlessAway(err error) rollout.Outcome {
	if rollout.Unanswered(err) {
		return rollout.Unreachable
	}
	return rollout.AwaitPromotion
}

// judged reports whether the gate of wave i has held for the canaries of all services that
// the wave changes, so that it is not evaluated again.
func (r *run) judged(i int) bool {
	if !r.plan.req.Waves[i].Promote || len(r.renewed(i)) > 0 {
		return false
	}
	return !slices.ContainsFunc(r.journal.Services(), func(l record.Service) bool {
		return l.Wave == i && (l.Change == record.ChangeCreate || l.Change == record.ChangeUpdate) && !l.Judged
	})
}
