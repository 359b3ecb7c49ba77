package deploy

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/schedule"
)

// Move gives a stack or environment another name. Releases, secrets, schedules
// and the ownership of jobs and DNS records move; no job is changed.
//
// The new name must have no release and no secrets, and no release may be open.
// Both names are locked meanwhile. A Move that was interrupted is finished by the
// same Move; until then nothing else can change the stack.
type Move struct {
	Home Home
	// Stack is the name of a stack or the path of its source. Environment is given
	// as in Source.
	Stack, Environment string
	// ToStack and ToEnvironment are the new names; "" keeps the present one. One of
	// them must differ.
	ToStack, ToEnvironment string
	// NoPolicy does not write ACL policies for the jobs of schedules. Otherwise the
	// token must be allowed to write policies if Nomad has ACLs and there are
	// schedules; if not, Run returns a *schedule.NeedsPolicyError.
	NoPolicy bool
	LockWait time.Duration // how long to wait for another holder of a lock; 0 for not at all
}

// MoveResult is what moved.
type MoveResult struct {
	Stack         string   `json:"stack"` // the old name
	Environment   string   `json:"environment"`
	ToStack       string   `json:"to_stack"`
	ToEnvironment string   `json:"to_environment"`
	Releases      int      `json:"releases"`
	Secrets       bool     `json:"secrets"`
	Schedules     []string `json:"schedules"`
	DNS           bool     `json:"dns"`
}

// Run moves the stack.
func (v Move) Run(ctx context.Context) (MoveResult, error) {
	home, from, err := v.Home.openStore(ctx, v.Stack, v.Environment)
	if err != nil {
		return MoveResult{}, err
	}
	to := v.Home.store(home, cmp.Or(v.ToStack, from.Stack()), EnvironmentName(cmp.Or(v.ToEnvironment, from.Environment())))
	if to.Stack() == from.Stack() && to.Environment() == from.Environment() {
		return MoveResult{}, invalidf("stack %s (environment %s) has this name already", to.Stack(), to.Environment())
	}
	m := mover{Move: v, home: home, from: from, to: to}
	return m.move(ctx)
}

// mover is a Move whose records are open.
type mover struct {
	Move
	home     nomad.Clients
	from, to release.Store
}

// move makes the steps in an order in which it can be repeated after each; see
// release.Move. The jobs belong to the old name until Commit, and to the new one
// after it.
func (m mover) move(ctx context.Context) (MoveResult, error) {
	res := MoveResult{Stack: m.from.Stack(), Environment: m.from.Environment(), ToStack: m.to.Stack(), ToEnvironment: m.to.Environment(), Schedules: []string{}}
	unlock, err := m.lock(ctx)
	if err != nil {
		return res, err
	}
	defer unlock()
	steps, err := m.from.PlanMove(ctx, m.to)
	if err != nil {
		return res, err
	}
	plan := steps.Plan()
	res.Releases = plan.Releases
	if err := m.checkDNS(ctx, plan); err != nil {
		return res, err
	}
	d := &release.Deployer{Releases: m.from, Dial: m.Home.dialer(nil), Defaults: m.home.Defaults, Holder: m.Home.Holder, Drover: m.Home.Version}
	jobs, clusters, err := d.WithSecrets(ctx, plan.Heads, plan.Lines)
	if err != nil {
		return res, err
	}
	secrets := m.Home.secretStore(m.home, m.from.Stack(), m.from.Environment()).Reach(clusters)
	if res.Secrets, err = secrets.Any(ctx); err != nil {
		return res, err
	}
	if res.Releases == 0 && !res.Secrets {
		return res, NoRelease(ctx, m.home.Nomad, m.from)
	}
	newSecrets := m.Home.secretStore(m.home, m.to.Stack(), m.to.Environment())
	if err := secrets.CheckMove(ctx, newSecrets, jobs); err != nil {
		return res, err
	}
	schedules := m.schedules(plan.Lines)
	if err := schedules.Check(ctx); err != nil {
		return res, err
	}
	// All checks have passed; the next steps write.
	if err := steps.Copy(ctx); err != nil {
		return res, err
	}
	if err := secrets.Move(ctx, newSecrets, jobs); err != nil {
		return res, err
	}
	if err := steps.Commit(ctx); err != nil {
		return res, err
	}
	if res.DNS, err = dns.Move(ctx, m.home.Nomad, owner(m.from), owner(m.to)); err != nil {
		return res, err
	}
	if err := reown(ctx, m.home, owner(m.from), owner(m.to)); err != nil {
		return res, err
	}
	names, err := schedules.Run(ctx)
	if res.Schedules = append(res.Schedules, names...); err != nil {
		return res, err
	}
	return res, steps.Finish(ctx)
}

// reown changes the owner of certificates. It does nothing if the token may not read
// them: then it has not made any.
func reown(ctx context.Context, clients nomad.Clients, from, to string) error {
	err := acme.NewStore(acme.NomadVariables(clients.Nomad)).Reown(ctx, from, to)
	if nomad.IsForbidden(err) {
		return nil
	}
	return err
}

func owner(r named) string { return dns.Owner(r.Stack(), r.Environment()) }

// lock takes both locks, always in the same order, and returns a function that
// removes them.
func (m mover) lock(ctx context.Context) (func(), error) {
	first, second := m.from, m.to
	if owner(m.to) < owner(m.from) {
		first, second = second, first
	}
	a, err := first.LockToMove(ctx, m.Home.Holder, m.LockWait)
	if err != nil {
		return nil, err
	}
	b, err := second.LockToMove(ctx, m.Home.Holder, m.LockWait)
	if err != nil {
		_ = a.Remove(ctx)
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = a.Remove(ctx), b.Remove(ctx)
	}, nil
}

// checkDNS returns an error if the new name has DNS records, unless the move was
// interrupted.
func (m mover) checkDNS(ctx context.Context, plan record.MovePlan) error {
	if plan.Resumed {
		return nil
	}
	used, err := dns.InUse(ctx, m.home.Nomad, owner(m.to))
	if err == nil && used {
		err = fmt.Errorf("cannot move to stack %s (environment %s): it has DNS records; remove them with `drover dns`, or choose another name", m.to.Stack(), m.to.Environment())
	}
	return err
}

func (m mover) schedules(lines []record.Service) schedule.Move {
	home := cmp.Or(m.Home.Getenv("NOMAD_NAMESPACE"), api.DefaultNamespace)
	out := schedule.Move{
		Client: m.home.Nomad, Home: home, Policy: !m.NoPolicy,
		FromStack: m.from.Stack(), FromEnv: m.from.Environment(), ToStack: m.to.Stack(), ToEnv: m.to.Environment(),
	}
	for _, l := range lines {
		out.Jobs = append(out.Jobs, cmp.Or(l.Namespace, home))
	}
	return out
}
