package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Deploy brings a stack to the cluster and waits until it is healthy, with the edge,
// the certificates and the DNS records that it needs.
type Deploy struct {
	Home   Home
	Source Source
	Saved  *release.Saved // a plan to carry out instead of Source; see ReadSavedPlan
	Limits Limits
	New    NewRelease

	Replace        bool     // recreate jobs that Nomad cannot update in place
	CreateVolumes  bool     // create host volumes that are missing
	Forget         []string // targets that the environment does not have any more and whose jobs are left alone
	NoCertificates bool     // look after neither certificates nor DNS records nor the edge
	NoCheck        bool     // ask the CA without looking first whether the names can be proven
	AcceptTerms    []string // terms of service of CAs; see AcceptedTerms

	Person Person // nil without a terminal or another way to ask
	Events func(Event)
}

// Run deploys. The error is an *OutcomeError if the release was made, or one that has
// to come first, and did not succeed; a *SettleError or a *CertificatesError if it is
// deployed and something around it is not as it should be. Any other error means that
// nothing of the stack was begun.
func (v *Deploy) Run(ctx context.Context) (Result, error) {
	return run(ctx, v.Events, v.Limits.Unreachable, v.run)
}

func (v *Deploy) run(ctx context.Context, s *stream, end *End) error {
	main := &stackDeploy{verb: v, saved: v.Saved, partial: v.Source.Partial()}
	var certs *certificates // nil when they are not looked after
	agreed := map[string]bool{}
	only := func(when func() bool, f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if !when() {
				return nil
			}
			return f(ctx)
		}
	}
	needed := func() bool { return certs.needed() }

	return runPhases(ctx, []phase{
		{PhaseResolve, func(ctx context.Context) (err error) {
			if err = main.resolve(ctx); err != nil {
				return err
			}
			end.Stack, end.Environment = main.stack.Name, main.stack.Environment
			s.resolved(&Resolved{Stack: main.stack.Name, Environment: main.stack.Environment, ProcessValues: main.stack.ProcessValues})
			if v.NoCertificates {
				return nil
			}
			certs, err = s.newCertificates(&v.Home, main.stack, main.jobs, main.partial, v.NoCheck)
			if err == nil {
				certs.issuing.AcceptTerms = v.AcceptTerms
				if p, ok := v.Person.(TermsPerson); ok {
					certs.issuing.AskTerms = p.AcceptTerms
				}
				certs.another = func(ctx context.Context, st *stack.Stack, jobs []render.Job) error {
					defer s.resolved(&Resolved{Stack: main.stack.Name, Environment: main.stack.Environment})
					return v.prerequisite(ctx, s, st, jobs, agreed)
				}
			}
			return err
		}},
		{PhaseConnect, func(ctx context.Context) error {
			if err := main.connect(ctx, s, agreed); err != nil || !certs.needed() {
				return err
			}
			return certs.connect(ctx)
		}},
		{PhaseSecrets, only(needed, func(ctx context.Context) error { return certs.credential(ctx) })},
		{PhaseVolumes, func(ctx context.Context) error { return main.needs(ctx, certs.needed()) }},
		{PhaseCheck, only(needed, main.check)},
		{"", only(needed, func(ctx context.Context) error { return certs.before(ctx) })},
		{PhaseRollout, func(ctx context.Context) error {
			if certs.needed() { // what was found may be long ago
				if err := main.needs(ctx, false); err != nil {
					return err
				}
				main.dns = certs.told
			}
			return main.rollout(ctx, end)
		}},
		{PhaseRecords, func(ctx context.Context) error {
			if certs == nil {
				return nil
			}
			if !certs.part {
				err := certs.after(ctx, end.Result.Release, v.Limits.Unreachable)
				if r := end.Result.Release; err != nil && r != nil {
					err = &SettleError{Release: r, Err: err}
				}
				certs.failed = errors.Join(certs.failed, err)
			}
			if certs.failed == nil {
				return nil
			}
			end.Outcome = CertificateFailed
			return &CertificatesError{CertError(certs.failed)}
		}},
		{PhaseDone, func(context.Context) error { return nil }},
	}, s.emit)
}

// resolve reads and renders the stack, or takes it from the saved plan.
func (d *stackDeploy) resolve(ctx context.Context) (err error) {
	source := d.verb.Home.source(d.verb.Source)
	if d.saved == nil {
		d.stack, d.jobs, err = source.Render(ctx)
		return err
	}
	if d.stack, err = stack.Thaw(d.saved.Stack); err != nil {
		return fmt.Errorf("%s: %w", source.Path, err)
	}
	if source.Environment != "" && source.Environment != d.stack.Environment {
		return invalidf("%s is a plan of stack %s in environment %s, not %s", source.Path, d.stack.Name, d.stack.Environment, source.Environment)
	}
	d.jobs, d.partial = d.saved.Jobs(), d.saved.Partial
	return nil
}

// prerequisite deploys another stack, which has to run before that of the verb.
func (v *Deploy) prerequisite(ctx context.Context, s *stream, st *stack.Stack, jobs []render.Job, agreed map[string]bool) error {
	d := &stackDeploy{verb: v, stack: st, jobs: jobs}
	s.resolved(&Resolved{Stack: st.Name, Environment: st.Environment})
	if err := d.connect(ctx, s, agreed); err != nil {
		return err
	}
	if err := d.needs(ctx, false); err != nil {
		return err
	}
	end := &End{}
	err := d.rollout(ctx, end)
	if end.Result != nil {
		if !is[*OutcomeError](err) {
			end.Err = err
		}
		s.emit(Event{Kind: KindPrerequisite, End: end})
	}
	if is[*OutcomeError](err) {
		return &PrerequisiteError{Stack: st.Name, Err: err}
	}
	return err
}

// PrerequisiteError reports that a stack that has to run first was not deployed. It
// wraps an *OutcomeError.
type PrerequisiteError struct {
	Stack string
	Err   error
}

func (e *PrerequisiteError) Error() string {
	return fmt.Sprintf("cannot deploy stack %s, which has to run first: %s", e.Stack, e.Err)
}

func (e *PrerequisiteError) Unwrap() error { return e.Err }

// CertificatesError reports that the stack is deployed, and that a certificate is not
// served or a DNS record not made.
type CertificatesError struct{ Err error }

func (e *CertificatesError) Error() string { return e.Err.Error() }
func (e *CertificatesError) Unwrap() error { return e.Err }
