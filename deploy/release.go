package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// maker makes releases of one stack for a verb, and reports what happens.
type maker struct {
	*stream
	home   *Home
	d      *release.Deployer
	person Person

	secrets *record.Secrets
	hide    func(string) string // the values of secrets; see redact
	changes *record.SecretChanges
	agreed  map[string]bool // running jobs whose stop was agreed to
}

// newMaker returns the maker of a stack whose record the clients reach.
func (s *stream) newMaker(home *Home, limits *Limits, person Person, clients rollout.Clients, name, env string) *maker {
	m := &maker{stream: s, home: home, person: person, secrets: record.OpenSecrets(clients.Nomad, name, env, nil), hide: func(text string) string { return text }, agreed: map[string]bool{}}
	m.d = home.Deployer(limits, clients, name, env)
	m.d.Emit = s.release
	m.d.Rollout.Redact = func(text string) string { return m.hide(text) }
	if person != nil {
		m.d.Approve = person.Approve
	}
	return m
}

// Deployer makes the releases of a stack whose record the clients reach.
func (h *Home) Deployer(limits *Limits, clients rollout.Clients, name, env string) *release.Deployer {
	secrets := record.OpenSecrets(clients.Nomad, name, env, nil)
	return &release.Deployer{
		Releases: h.store(clients, name, env), Dial: h.dialer(nil), Holder: h.Holder, Drover: h.Version,
		ApprovalWait: limits.ApprovalWait, LockWait: limits.LockWait, Timeout: limits.Timeout, Rollout: limits.rollout(),
		Secrets: h.secretStore(secrets, name, env),
		Secret: func(ctx context.Context, item string) (string, error) {
			v, err := secrets.Item(ctx, item)
			return v.Reveal(), err
		},
	}
}

// recordedMaker returns the maker of the stack that arg names, from its record
// alone.
func (s *stream) recordedMaker(ctx context.Context, home *Home, limits *Limits, person Person, arg, env string) (*maker, error) {
	clients, r, err := home.Releases(ctx, arg, env)
	if err != nil {
		return nil, err
	}
	m := s.newMaker(home, limits, person, clients, r.Stack(), r.Environment())
	s.resolved(&Resolved{Stack: r.Stack(), Environment: r.Environment()})
	return m, m.hideSecrets(ctx)
}

// hideSecrets hides the values of the stack's secrets in what is reported.
func (m *maker) hideSecrets(ctx context.Context) error {
	hide, err := m.secrets.Redactor(ctx)
	if hide != nil {
		m.hide = hide
	}
	return err
}

func (s *stream) resolved(r *Resolved) { s.emit(Event{Kind: KindResolved, Resolved: r}) }

// names completes an end with the stack.
func (m *maker) names(end *End) {
	end.Stack, end.Environment = m.d.Releases.Stack(), m.d.Releases.Environment()
}

// planned reports a plan.
func (m *maker) planned(p *release.Plan) {
	m.changes = p.Secrets()
	m.emit(Event{Kind: KindPlan, Plan: p})
}

// secretsMade reports secrets that were made, and hides them from here on.
func (m *maker) secretsMade(made record.Generated) {
	m.hide = made.Redact
	var jobs []string
	if m.changes != nil {
		for _, j := range m.changes.Jobs {
			jobs = append(jobs, j.JobID)
		}
		slices.Sort(jobs)
	}
	if len(made.Secrets)+len(made.Renewed)+len(jobs) > 0 {
		m.emit(Event{Kind: KindSecrets, Secrets: &Secrets{Made: made, Jobs: slices.Compact(jobs), Changes: m.changes}})
	}
}

// permission is what a plan may do beside what every plan may.
type permission struct {
	replace bool                      // recreate jobs that Nomad cannot update in place
	agree   func(*release.Plan) error // whether it is the plan that was asked for; may be nil
}

// allowed returns an error if the plan does what was not asked for.
func (m *maker) allowed(p *release.Plan, may permission) error {
	for _, part := range p.Parts {
		if err := part.Plan.Allowed(); err != nil && !may.replace {
			return err
		}
	}
	if err := p.Placeable(); err != nil {
		return fmt.Errorf("%w; nothing was done: add a node, or wait for one with --placement-timeout 20m or --allow-unplaceable", err)
	}
	if may.agree != nil {
		return may.agree(p)
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

// make plans and makes a release.
func (m *maker) make(ctx context.Context, req release.Request, may permission) (Result, error) {
	m.d.Rollout.Replace = m.d.Rollout.Replace || may.replace
	agree := func(p *release.Plan) error {
		m.planned(p)
		if err := m.allowed(p, may); err != nil {
			return err
		}
		return m.confirmPrune(ctx, p)
	}
	p, err := m.d.Plan(ctx, req)
	if err != nil {
		return Result{}, err
	}
	if err := agree(p); err != nil {
		return Result{}, err
	}
	return m.d.Deploy(ctx, p, agree)
}

// settle ends a verb with a release. When it is not left open, the controller gets
// the hosts of what runs now: a verb that works from the record has neither the
// stack's files nor its credential, and a deploy that was reverted has given it those
// of what did not stay. A deploy that was refused meanwhile may also have given it
// those of another release.
func (m *maker) settle(ctx context.Context, res Result, end *End) error {
	err := end.outcome(res)
	if res.Release == nil || res.Release.State.Open() {
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
	if e, ok := rollout.AsClusterError(err, api.DefaultConfig().Address); ok {
		return e.Error()
	}
	return err.Error()
}
