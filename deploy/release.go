package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// maker makes releases of one stack for a verb, and reports what happens. It is the
// operator of its releases.
type maker struct {
	*stream
	home   *Home
	d      *release.Deployer
	person Person // may be nil

	replace bool            // recreate jobs that Nomad cannot update in place
	agreed  map[string]bool // running jobs whose stop was agreed to

	// keepsRoutes reports that no release of this maker changes the routes of the
	// stack, so that the controller needs to know nothing.
	keepsRoutes bool
}

// newMaker returns the maker of a stack whose record the clients reach.
func (s *stream) newMaker(home *Home, limits *Limits, person Person, clients nomad.Clients, name, env string) *maker {
	m := &maker{stream: s, home: home, person: person, agreed: map[string]bool{}}
	m.d = home.Deployer(limits, clients, name, env)
	m.d.Emit, m.d.Operator = s.release, m
	return m
}

// Deployer makes the releases of a stack whose record the clients reach.
func (h *Home) Deployer(limits *Limits, clients nomad.Clients, name, env string) *release.Deployer {
	return &release.Deployer{
		Releases: h.store(clients, name, env), Dial: h.dialer(nil), Defaults: clients.Defaults, Holder: h.Holder, Drover: h.Version,
		ApprovalWait: limits.ApprovalWait, LockWait: limits.LockWait, Timeout: limits.Timeout, Rollout: limits.rollout(),
		Secrets: h.secretStore(clients, name, env),
	}
}

// recordedMaker returns the maker of the stack that arg names, from its record
// alone. It hides the values of the stack's secrets.
func (s *stream) recordedMaker(ctx context.Context, home *Home, limits *Limits, person Person, arg, env string) (*maker, error) {
	clients, r, err := home.Releases(ctx, arg, env)
	if err != nil {
		return nil, err
	}
	m := s.newMaker(home, limits, person, clients, r.Stack(), r.Environment())
	s.resolved(&Resolved{Stack: r.Stack(), Environment: r.Environment()})
	return m, m.d.HideSecrets(ctx)
}

func (s *stream) resolved(r *Resolved) { s.emit(Event{Kind: KindResolved, Resolved: r}) }

// names completes an end with the stack.
func (m *maker) names(end *End) {
	end.Stack, end.Environment = m.d.Releases.Stack(), m.d.Releases.Environment()
}

// Agree implements release.Operator: it reports a plan, returns an error if the plan
// does what was not asked for, and asks whether running jobs may stop.
func (m *maker) Agree(ctx context.Context, p *release.Plan) error {
	m.planned(p)
	if err := m.allowed(p); err != nil {
		return err
	}
	return m.confirmPrune(ctx, p)
}

// Begin implements release.Operator.
func (m *maker) Begin(context.Context) error { return nil }

// Approve implements release.Operator: it asks the person.
func (m *maker) Approve(ctx context.Context, a release.Approval) (bool, error) {
	if m.person == nil {
		return false, release.ErrNoPerson
	}
	return m.person.Approve(ctx, a)
}

// planned reports a plan.
func (m *maker) planned(p *release.Plan) { m.emit(Event{Kind: KindPlan, Plan: p}) }

// allowed returns an error if the plan does what was not asked for.
func (m *maker) allowed(p *release.Plan) error {
	if err := p.CheckAttended(); err != nil {
		return err
	}
	for _, part := range p.Parts {
		if err := part.Plan.Allowed(); err != nil && !m.replace {
			return err
		}
	}
	if err := p.Placeable(); err != nil {
		return fmt.Errorf("%w; nothing was done: add a node, or wait for one with --placement-timeout 20m or --allow-unplaceable", err)
	}
	return nil
}

// confirmPrune asks whether the running jobs may stop that are not in the stack any
// more, unless that was agreed to in this run.
func (m *maker) confirmPrune(ctx context.Context, p *release.Plan) error {
	err := p.PruneAllowed()
	if err == nil {
		return nil
	}
	jobs := p.Prunes()
	id := func(c release.Change) string { return c.Target + "/" + c.Namespace + "/" + c.JobID }
	if slices.ContainsFunc(jobs, func(c release.Change) bool { return !m.agreed[id(c)] }) {
		if m.person == nil {
			return err
		}
		yes, err := m.person.Prune(ctx, jobs)
		if err != nil {
			return err
		}
		if !yes {
			return ErrDeclined
		}
	}
	for _, c := range jobs {
		m.agreed[id(c)] = true
	}
	p.AllowPrune()
	return nil
}

// settle ends a verb with a release. When it is not left open, the controller gets
// the hosts of what runs now: a verb that works from the record has neither the
// stack's files nor its credential, and a deploy that was reverted has given it those
// of what did not stay. A deploy that was refused meanwhile may also have given it
// those of another release.
func (m *maker) settle(ctx context.Context, res Result, end *End) error {
	err := end.outcome(res)
	if res.Release == nil || res.Release.State.Open() || m.keepsRoutes {
		return err
	}
	changed, failed := m.followRoutes(ctx)
	switch {
	case failed != nil && err == nil:
		return &SettleError{Release: res.Release, Err: failed}
	case failed != nil:
		m.warn("the controller does not know which DNS records the stack needs now: " + clusterText(failed))
		return err
	}
	end.RoutesChanged = changed
	return err
}

// followRoutes tells the controller the hosts of what runs after a release, and
// reports whether they are others than it knew.
func (m *maker) followRoutes(ctx context.Context) (changed bool, err error) {
	owner := dns.Owner(m.d.Releases.Stack(), m.d.Releases.Environment())
	err = rollout.Persist(ctx, m.d.Rollout.Silence, func(ctx context.Context) error {
		clients, err := m.home.Connect(ctx, false)
		if err != nil {
			return err
		}
		wants := dns.DesiredRecords{Client: clients.Nomad}
		more, err := wants.Follow(ctx, owner, func(ctx context.Context) (dns.Runs, error) {
			runs, err := m.d.LastGood(ctx)
			return dns.Runs{Jobs: nomadJobs(runs.Jobs), Deployed: runs.DNS}, err
		})
		changed = changed || more
		if is[*release.DestroyedError](err) {
			return wants.Delete(ctx, owner)
		}
		return err
	})
	if errors.Is(err, record.ErrNoRelease) {
		return false, nil // the first one was given up; destroy removes its records
	}
	return changed, err
}

// SettleError reports that a release is finished and that its DNS records could
// not be updated.
type SettleError struct {
	Release *record.Release
	Err     error
}

func (e *SettleError) Error() string {
	return fmt.Sprintf("release %d is %s, but its DNS records could not be updated: %s", e.Release.Number, e.Release.State, clusterText(e.Err))
}

func (e *SettleError) Unwrap() error { return e.Err }

// clusterText is the text of an error, for a person: what is wrong with the cluster
// where that is the cause.
func clusterText(err error) string {
	if e, ok := nomad.AsClusterError(err, api.DefaultConfig().Address); ok {
		return e.Error()
	}
	return err.Error()
}
