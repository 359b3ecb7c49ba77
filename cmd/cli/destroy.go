package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
)

func newDestroy(streams *IO) *cobra.Command {
	var (
		o       destroyOptions
		flags   stackFlags
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "destroy STACK",
		Short: "Stop and remove the jobs of a stack",
		Long: `Stop and remove the jobs that the newest release of a stack runs, each after
everything that depends on it, and before them its schedules. It works from the
record alone: STACK is a name, or leads to a stack, whose values are not needed.

A job that another stack or environment owns by now, or that was created by
another client since, keeps running and is named. An open release is ended. What
is done is a release of its own, so that 'drover rollback' brings the stack back.

Secrets, volumes and releases stay, unless --purge names them: "secrets" deletes
the stack's secrets, "data" its dynamic host volumes with everything in them,
"history" its releases. Directories that a task writes outside of volumes cannot
be deleted by drover.`,
		Example: `  drover destroy ocis -e staging
  drover destroy ocis -e staging --yes --purge secrets
  drover destroy ocis -e staging --service search`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range o.purge {
				if err := oneOf("--purge", p, "secrets", "data", "history"); err != nil {
					return err
				}
			}
			o.only = release.Only{Services: flags.services, Targets: flags.targets}
			if (o.purges("secrets") || o.purges("history")) && flags.partial() {
				return usagef("--purge secrets and history are for the whole stack, not with --service or --target")
			}
			if err := confirmable(streams, o.yes); err != nil {
				return err
			}
			clients, releases, err := recorded(cmd.Context(), args[0], flags.environment)
			if err != nil {
				return err
			}
			d := &release.Deployer{
				Releases: release.InNomad(releases), Dial: release.DialNomad(rollout.Dial), Holder: record.Self(commandLine(cmd), os.Getenv), Drover: Version,
				Rollout: rollout.Options{Timeout: timeout},
			}
			return o.destroy(cmd.Context(), streams, clients, d)
		},
	}
	flags.register(cmd)
	hideFlags(cmd, "var", "var-file", "values") // the record has what they gave
	fl := cmd.Flags()
	fl.StringSliceVar(&o.purge, "purge", nil, "also delete: secrets, data, history (comma separated)")
	fl.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	fl.StringVarP(&o.message, "message", "m", "", "why, for the record")
	fl.DurationVar(&timeout, "timeout", 10*time.Minute, "how long the tasks may take to stop")
	return cmd
}

// destroyOptions say what destroy takes away.
type destroyOptions struct {
	only    release.Only
	purge   []string
	yes     bool
	message string
}

func (o *destroyOptions) purges(what string) bool { return slices.Contains(o.purge, what) }

func (o *destroyOptions) whole() bool { return len(o.only.Services)+len(o.only.Targets) == 0 }

func (o *destroyOptions) destroy(ctx context.Context, streams *IO, home rollout.Clients, d *release.Deployer) error {
	name, env := d.Releases.Stack(), d.Releases.Environment()
	schedules := record.OpenSchedules(home.Nomad, name, env)
	var names []string
	if o.whole() {
		all, err := schedules.List(ctx)
		if err != nil {
			return err
		}
		for _, s := range all {
			names = append(names, s.Name)
		}
	}
	begin := func(ctx context.Context) error { return o.removeSchedules(ctx, streams, home, schedules) }
	p, err := d.PlanDestroy(ctx, o.only, o.message, begin)
	var unknown *release.NotRecordedError
	switch {
	case errors.As(err, &unknown):
		return usagef("%s", err)
	case errors.Is(err, record.ErrNoRelease):
		// A stack whose first release never began can have secrets and schedules.
		if !o.whole() || len(names) == 0 && !o.purges("secrets") {
			return deploy.NoRelease(ctx, home.Nomad, record.OpenReleases(home.Nomad, name, env))
		}
		return o.destroyRest(ctx, streams, home, d, names)
	case err != nil:
		return releaseError(err)
	}
	stops, spared := p.Changes(), p.Spared()
	if len(stops) == 0 && len(spared) > 0 && len(names)+len(o.purge) == 0 && len(p.Absent()) == 0 {
		return errRefused{sparedError(spared), exitUsage}
	}
	printTeardown(streams, p, names)
	if o.purges("data") {
		if err := printVolumes(ctx, streams, d, p); err != nil {
			return err
		}
	}
	if err := confirm(streams, o.yes, o.question(name, env, len(stops), len(names))); err != nil {
		return err
	}
	stopped := 0
	d.Emit = func(e release.Event) {
		switch e.Kind {
		case release.EventPruned:
			stopped++
			fmt.Fprintf(streams.Err, "%s: stopped\n", e.Name())
		case release.EventWarning:
			fmt.Fprintf(streams.Err, "Warning: %s\n", e.Text)
		}
	}
	res, err := d.Deploy(ctx, p, func(now *release.Plan) error {
		p = now
		return confirm(streams, o.yes, o.question(name, env, len(now.Changes()), len(names)))
	})
	if err != nil {
		return releaseError(err)
	}
	if outcome := res.Outcome(); !outcome.OK() {
		return o.unfinished(ctx, streams, res, name, env)
	}
	number := p.Last().Number
	if res.Release != nil {
		number = res.Release.Number
	}
	if err := o.cleanUp(ctx, streams, home, d, p, number); err != nil {
		return err
	}
	by := ""
	if res.Release != nil && !o.purges("history") {
		by = fmt.Sprintf(" (release %d)", number)
	}
	fmt.Fprintf(streams.Out, "%s: destroyed: %d of %d services were running%s\n", name, stopped, len(stops)+len(p.Absent()), by)
	return nil
}

// printTeardown names what stops and what does not.
func printTeardown(streams *IO, p *release.Plan, schedules []string) {
	if last := p.Last(); last.State.Open() {
		fmt.Fprintf(streams.Err, "release %d is %s: it is abandoned\n", last.Number, release.Describe(last))
	}
	for _, s := range schedules {
		fmt.Fprintf(streams.Err, "- schedule %s\n", s)
	}
	for _, c := range p.Changes() {
		fmt.Fprintf(streams.Err, "- %s (job %s)\n", render.Job{Service: c.Service, Target: c.Target}.Name(), c.JobID)
	}
	for _, s := range p.Absent() {
		fmt.Fprintf(streams.Err, "%s: not there\n", s)
	}
	for _, j := range p.Spared() {
		fmt.Fprintf(streams.Err, "%s: job %s keeps running: %s\n", render.Job{Service: j.Service, Target: j.Target}.Name(), j.JobID, j.Reason())
	}
}

func sparedError(spared []release.ForeignJob) error {
	var parts []string
	for _, j := range spared {
		parts = append(parts, fmt.Sprintf("job %s: %s", j.JobID, j.Reason()))
	}
	return fmt.Errorf("cannot stop %s", strings.Join(parts, "; "))
}

// unfinished reports a destroy that has not stopped everything.
func (o *destroyOptions) unfinished(ctx context.Context, streams *IO, res release.Result, name, env string) error {
	outcome := res.Outcome()
	for _, s := range res.Services {
		if !s.Outcome.OK() {
			fmt.Fprintf(streams.Err, "%s: %s: %s\n", s.Name(), s.Outcome, s.Detail)
		}
	}
	next := "drover destroy " + stackArgs(name, env)
	if res.Release.State.Open() {
		next = "drover resume " + stackArgs(name, env) + ", or drover abort " + stackArgs(name, env)
	}
	fmt.Fprintf(streams.Err, "Next: %s\n", next)
	fmt.Fprintf(streams.Out, "%s: %s: release %d is %s\n", name, outcome, res.Release.Number, res.Release.State)
	if ctx.Err() != nil {
		return errSilent{exitCancelled}
	}
	return errSilent{outcomeCode(outcome)}
}

// destroyRest takes away what a stack without a release has.
func (o *destroyOptions) destroyRest(ctx context.Context, streams *IO, home rollout.Clients, d *release.Deployer, schedules []string) error {
	name, env := d.Releases.Stack(), d.Releases.Environment()
	if err := confirm(streams, o.yes, o.question(name, env, 0, len(schedules))); err != nil {
		return err
	}
	lease, err := d.Releases.Lock(ctx, d.Holder, 0, nil)
	if err != nil {
		return releaseError(err)
	}
	defer func() { _ = lease.Remove(ctx) }()
	if err := o.removeSchedules(ctx, streams, home, record.OpenSchedules(home.Nomad, name, env)); err != nil {
		return err
	}
	if o.purges("secrets") {
		if err := purgeSecrets(ctx, streams, home, d, map[string]rollout.Clients{}); err != nil {
			return err
		}
	}
	fmt.Fprintf(streams.Out, "%s: destroyed: it has no release\n", name)
	return nil
}

func (o *destroyOptions) removeSchedules(ctx context.Context, streams *IO, home rollout.Clients, schedules *record.Schedules) error {
	if !o.whole() {
		return nil
	}
	var removed, left []string
	err := rollout.Persist(ctx, 0, func(ctx context.Context) (err error) {
		var now []string
		now, left, err = schedule.RemoveAll(ctx, home.Nomad, cmp.Or(os.Getenv("NOMAD_NAMESPACE"), api.DefaultNamespace), schedules)
		removed = append(removed, now...)
		return err
	})
	for _, s := range removed {
		fmt.Fprintf(streams.Err, "schedule %s: removed\n", s)
	}
	for _, p := range left {
		fmt.Fprintf(streams.Err, "ACL policy %s is left, since the token may not remove it: nomad acl policy delete %s\n", p, p)
	}
	return err
}

// cleanUp deletes what the jobs leave, as far as it is wanted: under the lock,
// and while release number is still the newest.
func (o *destroyOptions) cleanUp(ctx context.Context, streams *IO, home rollout.Clients, d *release.Deployer, p *release.Plan, number int) error {
	if !o.whole() && len(o.purge) == 0 {
		return nil
	}
	lease, err := d.Releases.Lock(ctx, d.Holder, 0, nil)
	if err != nil {
		return releaseError(err)
	}
	defer func() { _ = lease.Remove(ctx) }()
	if last, err := d.Releases.Last(ctx); err != nil {
		return err
	} else if last == nil || last.Number != number {
		return errors.New("another release has begun since: nothing but the jobs is removed")
	}
	clients := p.Clients()
	if o.whole() {
		err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
			return dns.Wants{Client: home.Nomad}.Delete(ctx, dns.Owner(d.Releases.Stack(), d.Releases.Environment()))
		})
		if err != nil {
			return err
		}
	}
	if o.purges("data") {
		jobs, err := p.WithData(ctx, d)
		if err != nil {
			return err
		}
		for _, t := range deploy.TargetNames(jobs) {
			if err := purgeVolumes(ctx, streams, clients[t], deploy.JobsIn(jobs, t)); err != nil {
				return err
			}
		}
		if names := rawExec(jobs); len(names) > 0 {
			fmt.Fprintf(streams.Err, "Note: %s ran with raw_exec; what they wrote outside of volumes is still on the nodes.\n", strings.Join(names, ", "))
		}
	}
	if o.purges("secrets") {
		if err := purgeSecrets(ctx, streams, home, d, clients); err != nil {
			return err
		}
	}
	if o.purges("history") {
		if err := rollout.Persist(ctx, 0, d.Releases.Purge); err != nil {
			return err
		}
		fmt.Fprintln(streams.Err, "releases: deleted")
	}
	return nil
}

func purgeSecrets(ctx context.Context, streams *IO, home rollout.Clients, d *release.Deployer, clients map[string]rollout.Clients) error {
	secrets := record.OpenSecrets(home.Nomad, d.Releases.Stack(), d.Releases.Environment(), nil).At(nomads(clients))
	err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
		made, err := d.Made(ctx, clients)
		if err != nil {
			return err
		}
		return secrets.Purge(ctx, made)
	})
	if err == nil {
		fmt.Fprintln(streams.Err, "secrets: deleted")
	}
	return err
}

func (o *destroyOptions) question(name, env string, services, schedules int) string {
	q := fmt.Sprintf("Stop and remove %s", count(services, "service"))
	if schedules > 0 {
		q += " and " + count(schedules, "schedule")
	}
	q += fmt.Sprintf(" of stack %s (environment %s)", name, env)
	if o.purges("secrets") {
		q += ", delete its SECRETS"
	}
	if o.purges("history") {
		q += ", delete its RELEASES"
	}
	if o.purges("data") {
		q += ", delete its volumes with all DATA"
	}
	return q + "?"
}

// confirmable insists on -y where there is no terminal.
func confirmable(streams *IO, yes bool) error {
	if !yes && !streams.Ask {
		return usagef("this needs a confirmation and there is no terminal: add -y")
	}
	return nil
}

// confirm asks on a terminal.
func confirm(streams *IO, yes bool, question string) error {
	if err := confirmable(streams, yes); yes || err != nil {
		return err
	}
	fmt.Fprintf(streams.Err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(streams.In).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	fmt.Fprintln(streams.Err, "Nothing was done.")
	return errSilent{exitCancelled}
}

func rawExec(jobs []render.Job) []string {
	var names []string
	for _, j := range jobs {
		if slices.ContainsFunc(j.Job.TaskGroups, func(g *api.TaskGroup) bool {
			return slices.ContainsFunc(g.Tasks, func(t *api.Task) bool { return t.Driver == "raw_exec" })
		}) {
			names = append(names, j.Service)
		}
	}
	return names
}
