package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
)

// Destroy stops and removes the jobs that the newest release of a stack runs, and
// before them its schedules. It works from the record of the stack and makes a
// release, so that a rollback can restore the stack. A release that is open is
// abandoned.
//
// It runs in this order: plan, confirm, remove the schedules, stop the jobs, forget
// the DNS records, purge volumes, secrets and releases.
type Destroy struct {
	Home Home
	// Stack is the name of a stack or the path of its source. Environment is given
	// as in Source.
	Stack, Environment string
	// Only selects services and targets; zero for all. Schedules, DNS records,
	// secrets and releases are removed only with the whole stack.
	Only release.Only

	PurgeSecrets bool // delete the secrets of the stack
	PurgeData    bool // delete its dynamic host volumes
	PurgeHistory bool // delete its releases

	Message string // why, for the record
	Timeout time.Duration

	// Confirm reports whether the plan may be carried out. It is called again if the
	// plan has changed when the lock of the stack is held. If it reports false, Run
	// returns ErrDeclined. Nil means yes.
	Confirm func(context.Context, DestroyPlan) (bool, error)
	// Events is called by one goroutine at a time; it may be nil. The kinds are those
	// of package release, KindRemoved and KindKept, and at last KindEnd.
	Events func(Event)
}

// DestroyPlan is what a Destroy will do.
type DestroyPlan struct {
	Stack, Environment string
	Release            *record.Release      // the newest; nil if there is none
	Stops              []release.Change     // jobs, in the order in which they stop
	Absent             []string             // services (SERVICE or SERVICE@TARGET) whose jobs do not exist
	Spared             []release.ForeignJob // jobs that keep running, because they belong to another owner
	Schedules          []string
	Volumes            []rollout.OwnedVolume // with PurgeData; one with AlsoOf is kept
}

// DestroyResult is what was destroyed.
type DestroyResult struct {
	Stack, Environment string
	Release            int            // number of the newest release; 0 if there was none
	Result             release.Result // of the jobs; its Release is nil if no job had to stop
	Stopped            int            // jobs
	Total              int            // selected services that the newest release ran
}

// SparedError reports that no selected job can be stopped, because other stacks or
// clients own them. Nothing was done.
type SparedError struct{ Jobs []release.ForeignJob }

func (e *SparedError) Error() string {
	var parts []string
	for _, j := range e.Jobs {
		parts = append(parts, fmt.Sprintf("job %s: %s", j.JobID, j.Reason()))
	}
	return "cannot stop " + strings.Join(parts, "; ")
}

func (v *Destroy) isWhole() bool { return len(v.Only.Services)+len(v.Only.Targets) == 0 }

// Run destroys. It returns a *NoReleaseError if there is no release and nothing else
// to remove, and an *OutcomeError beside the result if not everything stopped.
func (v Destroy) Run(ctx context.Context) (DestroyResult, error) {
	d := destroyer{Destroy: v, stream: &stream{sink: v.Events}}
	res, err := d.run(ctx)
	end := &End{Stack: res.Stack, Environment: res.Environment}
	if res.Result.Release != nil {
		end.Result, end.Outcome = &res.Result, res.Result.Outcome()
	}
	if !is[*OutcomeError](err) {
		end.Err = err
	}
	d.emit(Event{Kind: KindEnd, End: end})
	return res, err
}

// destroyer is one run of a Destroy.
type destroyer struct {
	Destroy
	home      nomad.Clients
	releases  release.Store
	schedules *record.Schedules
	d         *release.Deployer
	*stream

	plan    DestroyPlan
	planned *release.Plan // of plan
	stopped int
}

// Agree implements release.Operator, for a plan that replaces the confirmed one.
func (d *destroyer) Agree(ctx context.Context, p *release.Plan) error {
	d.planned = p
	d.plan.set(p)
	return d.confirm(ctx, d.plan)
}

// Begin implements release.Operator.
func (d *destroyer) Begin(ctx context.Context) error { return d.removeSchedules(ctx) }

// Approve implements release.Operator.
func (d *destroyer) Approve(context.Context, release.Approval) (bool, error) {
	return false, release.ErrNoPerson
}

func (d *destroyer) run(ctx context.Context) (DestroyResult, error) {
	var out DestroyResult
	if (d.PurgeSecrets || d.PurgeHistory) && !d.isWhole() {
		return out, invalidf("secrets and history can be purged only with the whole stack, not with some services or targets")
	}
	var err error
	if d.home, d.releases, err = d.Home.openStore(ctx, d.Stack, d.Environment); err != nil {
		return out, err
	}
	out.Stack, out.Environment = d.releases.Stack(), d.releases.Environment()
	d.schedules = record.OpenSchedules(d.home.Nomad, out.Stack, out.Environment)
	// Without the secrets: what is destroyed gets none.
	d.d = &release.Deployer{
		Releases: d.releases, Dial: d.Home.dialer(nil), Defaults: d.home.Defaults, Holder: d.Home.Holder, Drover: d.Home.Version,
		Rollout: rollout.Options{Timeout: d.Timeout}, Operator: d,
		Emit: func(e release.Event) {
			if e.Kind == release.EventPruned {
				d.stopped++
			}
			d.stream.release(e)
		},
	}
	plan := DestroyPlan{Stack: out.Stack, Environment: out.Environment}
	if d.isWhole() {
		all, err := d.schedules.List(ctx)
		if err != nil {
			return out, err
		}
		for _, s := range all {
			plan.Schedules = append(plan.Schedules, s.Name)
		}
	}
	p, err := d.d.PlanDestroy(ctx, d.Only, d.Message)
	switch {
	case errors.Is(err, record.ErrNoRelease):
		// A stack whose first release never began can have secrets and schedules.
		if !d.isWhole() || len(plan.Schedules) == 0 && !d.PurgeSecrets {
			return out, NoRelease(ctx, d.home.Nomad, d.releases)
		}
		return out, d.destroyRest(ctx, plan)
	case err != nil:
		return out, asInvalid(err)
	}
	plan.set(p)
	if len(plan.Stops)+len(plan.Schedules)+len(plan.Absent) == 0 && len(plan.Spared) > 0 && !d.PurgeSecrets && !d.PurgeData && !d.PurgeHistory {
		return out, &SparedError{plan.Spared}
	}
	if d.PurgeData {
		if plan.Volumes, err = d.volumes(ctx, p); err != nil {
			return out, err
		}
	}
	out.Total = len(plan.Stops) + len(plan.Absent)
	if err := d.confirm(ctx, plan); err != nil {
		return out, err
	}
	d.plan, d.planned = plan, p
	out.Result, err = d.d.Deploy(ctx, p)
	p = d.planned
	out.Stopped, out.Release = d.stopped, p.Last().Number
	if err != nil {
		return out, err
	}
	if outcome := out.Result.Outcome(); !outcome.OK() {
		return out, &OutcomeError{outcome}
	}
	if out.Result.Release != nil {
		out.Release = out.Result.Release.Number
	}
	return out, d.cleanUp(ctx, p, out.Release)
}

func (p *DestroyPlan) set(now *release.Plan) {
	p.Release, p.Stops, p.Absent, p.Spared = now.Last(), now.Changes(), now.Absent(), now.Spared()
}

func (d *destroyer) confirm(ctx context.Context, p DestroyPlan) error {
	if d.Confirm == nil {
		return nil
	}
	yes, err := d.Confirm(ctx, p)
	if err == nil && !yes {
		err = ErrDeclined
	}
	return err
}

// destroyRest removes what a stack without a release has.
func (d *destroyer) destroyRest(ctx context.Context, plan DestroyPlan) error {
	if err := d.confirm(ctx, plan); err != nil {
		return err
	}
	lease, err := d.releases.Lock(ctx, d.Home.Holder, 0, nil)
	if err != nil {
		return err
	}
	defer func() { _ = lease.Remove(ctx) }()
	if err := d.removeSchedules(ctx); err != nil || !d.PurgeSecrets {
		return err
	}
	return d.purgeSecrets(ctx, map[string]nomad.Clients{})
}

// removeSchedules removes the schedules of a whole stack, and the ACL policies of
// their jobs as far as the token may.
func (d *destroyer) removeSchedules(ctx context.Context) error {
	if !d.isWhole() {
		return nil
	}
	var removed, policies []string
	err := rollout.Persist(ctx, 0, func(ctx context.Context) (err error) {
		var now []string
		now, policies, err = schedule.RemoveAll(ctx, d.home.Nomad, cmp.Or(d.Home.Getenv("NOMAD_NAMESPACE"), api.DefaultNamespace), d.schedules)
		removed = append(removed, now...)
		return err
	})
	for _, s := range removed {
		d.emit(Event{Kind: KindRemoved, Object: &Object{What: ObjectSchedule, Name: s}})
	}
	for _, p := range policies {
		d.emit(Event{Kind: KindKept, Object: &Object{What: ObjectPolicy, Name: p, Reason: "the token may not remove it"}})
	}
	return err
}

// cleanUp deletes what the jobs leave behind. It holds the lock of the stack, and
// returns an error if the release of that number is not the newest any more.
func (d *destroyer) cleanUp(ctx context.Context, p *release.Plan, number int) error {
	if !d.isWhole() && !d.PurgeData {
		return nil
	}
	lease, err := d.releases.Lock(ctx, d.Home.Holder, 0, nil)
	if err != nil {
		return err
	}
	defer func() { _ = lease.Remove(ctx) }()
	if last, err := lease.Last(); err != nil {
		return err
	} else if last == nil || last.Number != number {
		return errors.New("cannot remove anything but the jobs: another release has begun meanwhile")
	}
	if d.isWhole() {
		err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
			if err := (dns.DesiredRecords{Client: d.home.Nomad}).Delete(ctx, owner(d.releases)); err != nil {
				return err
			}
			// The certificates stay, for another stack that asks for them.
			return reown(ctx, d.home, owner(d.releases), "")
		})
		if err != nil {
			return err
		}
	}
	if d.PurgeData {
		if err := d.purgeVolumes(ctx, p); err != nil {
			return err
		}
	}
	if d.PurgeSecrets {
		if err := d.purgeSecrets(ctx, p.Clients()); err != nil {
			return err
		}
	}
	if d.PurgeHistory {
		if err := rollout.Persist(ctx, 0, d.releases.Purge); err != nil {
			return err
		}
		// Of a stack without history, the records in the zones are not drover's.
		if err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
			return dns.EndClaims(ctx, d.home.Nomad, dns.Owner(d.releases.Stack(), d.releases.Environment()))
		}); err != nil {
			return err
		}
		d.emit(Event{Kind: KindRemoved, Object: &Object{What: ObjectReleases}})
	}
	return nil
}

func (d *destroyer) purgeSecrets(ctx context.Context, clients map[string]nomad.Clients) error {
	clusters := map[string]release.Cluster{}
	for name, c := range clients {
		clusters[name] = release.OnNomad(c)
	}
	secrets := d.Home.secretStore(d.home, d.releases.Stack(), d.releases.Environment()).Reach(clusters)
	err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
		made, err := d.d.Made(ctx, clients)
		if err != nil {
			return err
		}
		return secrets.Purge(ctx, made)
	})
	if err == nil {
		d.emit(Event{Kind: KindRemoved, Object: &Object{What: ObjectSecrets}})
	}
	return err
}

// volumes returns the volumes that a purge of the data deletes, and those that it
// keeps for the jobs of others.
func (d *destroyer) volumes(ctx context.Context, p *release.Plan) ([]rollout.OwnedVolume, error) {
	jobs, err := p.WithData(ctx, d.d)
	if err != nil {
		return nil, err
	}
	var out []rollout.OwnedVolume
	for _, t := range TargetNames(jobs) {
		var stopping []rollout.Change
		for _, c := range p.Changes() {
			if c.Target == t {
				stopping = append(stopping, c.Change)
			}
		}
		volumes, _, err := rollout.Volumes(ctx, p.Clients()[t], JobsIn(jobs, t), stopping)
		if err != nil {
			return nil, err
		}
		out = append(out, volumes...)
	}
	return out, nil
}

// purgeVolumes deletes the dynamic host volumes that the jobs, which are gone, asked
// for.
func (d *destroyer) purgeVolumes(ctx context.Context, p *release.Plan) error {
	jobs, err := p.WithData(ctx, d.d)
	if err != nil {
		return err
	}
	clients := p.Clients()
	for _, t := range TargetNames(jobs) {
		volumes, missing, err := rollout.Volumes(ctx, clients[t], JobsIn(jobs, t), nil)
		if err != nil {
			return err
		}
		for _, v := range volumes {
			if v.AlsoOf != "" {
				d.emit(Event{Kind: KindKept, Object: &Object{What: ObjectVolume, Name: v.String(), ID: v.ID, Reason: KeptVolume(v)}})
			}
		}
		for _, name := range missing {
			d.emit(Event{Kind: KindKept, Object: &Object{
				What: ObjectVolume, Name: name, Reason: "no dynamic host volume has this name, and drover does not delete what the configuration of a node defines",
			}})
		}
		err = rollout.PurgeVolumes(ctx, clients[t], volumes, func(v rollout.OwnedVolume) {
			d.emit(Event{Kind: KindRemoved, Object: &Object{What: ObjectVolume, Name: v.String(), ID: v.ID}})
		})
		if err != nil {
			return err
		}
	}
	if names := rawExec(jobs); len(names) > 0 {
		d.emit(Event{Kind: KindKept, Object: &Object{What: ObjectFiles, Name: strings.Join(names, ", "), Reason: "raw_exec tasks can write outside of volumes, on their nodes"}})
	}
	return nil
}

// KeptVolume returns why a purge keeps a volume with AlsoOf.
func KeptVolume(v rollout.OwnedVolume) string {
	return fmt.Sprintf("job %s also asks for a volume of this name; delete it with 'nomad volume delete -type host %s'", v.AlsoOf, v.ID)
}

// rawExec returns the services that have a task of the driver raw_exec.
func rawExec(jobs []render.Job) []string {
	var names []string
	for _, j := range jobs {
		if usesDriver(j.Job, "raw_exec") {
			names = append(names, j.Service)
		}
	}
	return names
}

func usesDriver(job *api.Job, driver string) bool {
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			if t.Driver == driver {
				return true
			}
		}
	}
	return false
}

// Kinds of events of Destroy beside those of package release.
const (
	KindRemoved Kind = "removed" // Object was removed
	KindKept    Kind = "kept"    // Object was not removed: its Reason
)

// Kinds of objects.
const (
	ObjectSchedule = "schedule"
	ObjectPolicy   = "acl-policy"
	ObjectVolume   = "volume"
	ObjectSecrets  = "secrets"  // all of a stack
	ObjectReleases = "releases" // all of a stack
	ObjectFiles    = "files"    // of the services Name, outside of volumes
)

// Object is something of a stack beside its jobs.
type Object struct {
	What   string `json:"what"`           // one of the constants
	Name   string `json:"name,omitempty"` // "" if a stack has only one
	ID     string `json:"id,omitempty"`   // of a volume
	Reason string `json:"reason,omitempty"`
}
