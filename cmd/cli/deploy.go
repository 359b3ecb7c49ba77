package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func newDeploy(streams *IO) *cobra.Command {
	var (
		flags         stackFlags
		rel           releaseFlags
		createVolumes bool
		takeOver      bool
		forget        []string
		certs         deployCerts
	)
	cmd := &cobra.Command{
		Use:   "deploy STACK",
		Short: "Bring a stack to the cluster and wait until it is healthy",
		Long: `Bring a stack to the cluster and wait until it is healthy.

Each service is submitted when everything it depends on is healthy in Nomad and
passing in Consul; independent services go in parallel. What has not changed is
left alone. Services that the last release had and the stack has no more are
stopped when all others are healthy. If one of them runs, this asks on a terminal,
and needs --prune elsewhere; a saved plan has been looked at. The exit code tells the outcome: see 'drover
help exit-codes'.

What is done is recorded as a release: see 'drover history'. One deploy at a time
changes a stack; one that was interrupted is in the way until 'drover resume' or
'drover abort'. When a service does not come out well, everything that the
release changed goes back to what was there before, unless --on-failure says
otherwise; with nothing good to go back to, it is left as it is.

A stack with certificates and routes also gets what these need, first: stand-ins
so that the edge can start, the certificates from their CA when the edge
answers, and a look whether they are served.

A file that 'drover plan -out' wrote is deployed exactly as it was shown, or not
at all when anything in the cluster has moved since.`,
		Example: `  drover deploy ocis -e prod --create-volumes
  drover deploy mycloud -e prod --service gateway -m 'more memory' -o json
  drover plan ocis -e prod -out ocis.plan && drover deploy ocis.plan`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := rel.check(); err != nil {
				return err
			}
			saved, err := flags.savedPlan(cmd, args[0])
			if err != nil {
				return err
			}
			s, jobs, err := flags.loadOrThaw(cmd.Context(), args[0], saved)
			if err != nil {
				return err
			}
			if rel.format != "json" {
				sayProcessValues(streams.Err, s.ProcessValues)
			}
			main, seen := s, map[string]bool{}
			do := func(s *stack.Stack, jobs []render.Job, saved *release.Saved, checkOnly bool) (int, error) {
				values, err := valuesOf(s)
				if err != nil {
					return 0, err
				}
				req := release.RequestFor(s, jobs, values)
				req.Partial = s == main && flags.partial() || saved != nil && saved.Partial
				if s == main {
					req.DNS = certs.done.left
				}
				req.AllowUnplaceable = rel.allowUnplaceable
				req.Message, req.OnFailure, req.TakeOver, req.Forget = rel.message, rel.onFailure, takeOver, forget
				req.Prune = rel.prune || saved != nil // which was looked at
				return deployStackAs(cmd, streams, s, req, saved, rel, createVolumes, checkOnly, seen)
			}
			run := func(s *stack.Stack, jobs []render.Job, saved *release.Saved) (int, error) {
				return do(s, jobs, saved, false)
			}
			check := func() error {
				_, err := do(s, jobs, saved, true)
				return err
			}
			err = certs.before(cmd.Context(), streams, s, jobs, flags.partial() || saved != nil && saved.Partial, rel.format == "json", check, run)
			if err != nil {
				return err
			}
			made, err := run(s, jobs, saved)
			return certs.after(cmd.Context(), made, rel.rollout.Silence, err)
		},
	}
	flags.register(cmd)
	certs.register(cmd)
	rel.register(cmd, 0)
	rel.registerNew(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&rel.rollout.Replace, "replace", false, "stop and create again jobs whose change Nomad refuses, such as one of type")
	fl.BoolVar(&takeOver, "take-over", false, "leave a release that was interrupted as it is, and go on from there")
	pruneFlags(cmd, &rel.prune)
	forgetFlag(cmd, &forget)
	fl.BoolVar(&createVolumes, "create-volumes", false, "create the host volumes that are missing")
	return cmd
}

// valuesOf are the values of a stack's variables as JSON, for the record, which
// holds no secrets.
func valuesOf(s *stack.Stack) (json.RawMessage, error) {
	values := map[string]ctyjson.SimpleJSONValue{}
	for name, v := range s.PublicValues() {
		values[name] = ctyjson.SimpleJSONValue{Value: v}
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encoding the values of the variables: %w", err)
	}
	return text, nil
}

// deployStackAs returns the number of the release, 0 when none was needed. With
// checkOnly it does everything up to the first write, and prints nothing.
func deployStackAs(cmd *cobra.Command, streams *IO, s *stack.Stack, req release.Request, saved *release.Saved, rel releaseFlags, createVolumes, checkOnly bool, seen map[string]bool) (int, error) {
	ctx, jobs := cmd.Context(), req.Jobs
	targets, err := connectTargets(ctx, s, jobs, true)
	if err != nil {
		return 0, err
	}
	home, ok := targets[""]
	if !ok {
		if home, err = connect(ctx, false); err != nil {
			return 0, err
		}
	}
	if err := checkNamespaces(ctx, home, targets, jobs); err != nil {
		return 0, err
	}
	required := s.RequiresJobs
	if checkOnly { // what is deployed with certificates and routes comes later
		required = slices.DeleteFunc(slices.Clone(required), func(id string) bool { return id == edge.ServiceName || id == edge.Controller })
	}
	var volumes errVolumes
	missing := map[string][]rollout.MissingVolume{}
	for _, name := range deploy.TargetNames(jobs) {
		if err := rollout.CheckRequired(ctx, targets[name], required); err != nil {
			return 0, err
		}
		if err := rollout.CheckCSIVolumes(ctx, targets[name], deploy.JobsIn(jobs, name)); err != nil {
			return 0, err
		}
		if missing[name], err = rollout.MissingVolumes(ctx, targets[name], deploy.JobsIn(jobs, name), s.Volumes); err != nil {
			return 0, err
		}
		volumes = append(volumes, missing[name]...)
	}
	if createVolumes {
		req.Volumes = slices.Clone(volumes)
		volumes = slices.DeleteFunc(volumes, rollout.MissingVolume.Creatable)
	}
	if len(volumes) > 0 {
		return 0, volumes
	}

	// Everything is asked before anything is written.
	d := rel.deployer(cmd, home, s.Name, s.Environment)
	d.Dial = release.DialNomad(func(ctx context.Context, t *stack.Target, needConsul bool) (rollout.Clients, error) {
		if c, ok := targets[t.Name]; ok {
			return c, nil
		}
		return rollout.Dial(ctx, t, needConsul)
	})
	d.Approve = asker(streams, rel.format)
	hide := func(text string) string { return text }
	d.Rollout.Redact = func(text string) string { return hide(text) }
	view := newDeployView(streams, s.Name, s.Environment, rel.format == "json")
	req.Begin = func(ctx context.Context) error {
		return createVolumesIn(ctx, targets, missing, s.Volumes, view)
	}
	req.SecretsMade = func(made record.Generated) {
		hide = made.Redact
		view.secrets(made)
	}
	agree := func(p *release.Plan) error {
		if redact := p.Redact(); redact != nil {
			hide = redact
		}
		if saved == nil {
			return nil
		}
		// A recreation that the plan showed is agreed to.
		return cmp.Or(saved.Check(p), checkSecrets(saved.Secrets, p.Secrets()))
	}
	if checkOnly {
		p, err := d.Plan(ctx, req)
		if err == nil {
			err = allowed(p, agree, d.Rollout.Replace || saved != nil)
		}
		if err == nil && p.PruneAllowed() != nil {
			view.planned(p)
			err = confirmPrune(view, p, seen)
		}
		return 0, releaseError(err)
	}
	return makeRelease(ctx, d, req, view, agree, saved != nil, seen)
}

// createVolumesIn makes those of all targets side by side, for a node takes a
// while to say that one is there.
func createVolumesIn(ctx context.Context, targets map[string]rollout.Clients, missing map[string][]rollout.MissingVolume, specs []*stack.Volume, view *deployView) error {
	names := slices.Sorted(maps.Keys(missing))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	var mu sync.Mutex // of view
	for i, name := range names {
		wg.Go(func() {
			errs[i] = rollout.CreateVolumes(ctx, targets[name], missing[name], specs, func(volume string) {
				mu.Lock()
				defer mu.Unlock()
				view.volume(name, volume)
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// makeRelease plans and makes a release, and returns its number, 0 when none was
// needed. agree says whether the plan is what was asked for; seen has the running
// jobs whose stop was agreed to, and gets those that are now.
func makeRelease(ctx context.Context, d *release.Deployer, req release.Request, view *deployView, agree func(*release.Plan) error, replace bool, seen map[string]bool) (int, error) {
	d.Emit = view.event
	d.Rollout.Replace = d.Rollout.Replace || replace
	allowed := func(p *release.Plan) error {
		if err := allowed(p, agree, replace); err != nil {
			return err
		}
		return confirmPrune(view, p, seen)
	}
	p, err := d.Plan(ctx, req)
	var res release.Result
	if err == nil {
		view.planned(p)
		err = allowed(p)
	}
	if err == nil {
		res, err = d.Deploy(ctx, p, func(p *release.Plan) error {
			view.planned(p)
			return allowed(p)
		})
	}
	if err != nil {
		view.close()
		return 0, releaseError(err)
	}
	if res.Release == nil {
		return 0, view.end(res)
	}
	if r := res.Release; r.State == record.Done && req.Kind == release.KindDeploy && !req.Partial {
		return r.Number, view.end(res) // DNS is seen to with the stack's files
	}
	return res.Release.Number, settled(ctx, d, res, view)
}

// allowed returns an error if the plan does what was not asked for. agree may be
// nil; replace allows jobs to be recreated.
func allowed(p *release.Plan, agree func(*release.Plan) error, replace bool) error {
	for _, part := range p.Parts {
		if err := part.Plan.Allowed(); err != nil && !replace {
			return usageOf(err)
		}
	}
	if err := p.Placeable(); err != nil {
		return fmt.Errorf("%w; nothing was done: add a node, or wait for one with --placement-timeout 20m or --allow-unplaceable", err)
	}
	if agree != nil {
		return agree(p)
	}
	return nil
}

// checkNamespaces looks for the namespaces of all jobs and for that of the
// record.
func checkNamespaces(ctx context.Context, home rollout.Clients, targets map[string]rollout.Clients, jobs []render.Job) error {
	errs := []error{rollout.CheckNamespaces(ctx, home, nil)}
	for _, name := range deploy.TargetNames(jobs) {
		errs = append(errs, rollout.CheckNamespaces(ctx, targets[name], deploy.JobsIn(jobs, name)))
	}
	err := errors.Join(errs...)
	var missing *rollout.NoNamespaceError
	if errors.As(err, &missing) {
		return errRefused{err, exitUsage}
	}
	return err
}

// confirmPrune asks on a terminal whether the running jobs that are not in the
// stack any more may stop, unless they are among seen, to which it adds them.
func confirmPrune(view *deployView, p *release.Plan, seen map[string]bool) error {
	err := p.PruneAllowed()
	if err == nil {
		return nil
	}
	jobs := p.Prunes()
	id := func(c release.Change) string { return c.Target + "/" + c.Namespace + "/" + c.JobID }
	if slices.ContainsFunc(jobs, func(c release.Change) bool { return !seen[id(c)] }) {
		if !view.io.Ask || view.asJSON {
			return err
		}
		if err := confirm(view.io, false, "Stop "+count(len(jobs), "running job")+"?"); err != nil {
			return err
		}
	}
	for _, c := range jobs {
		seen[id(c)] = true
	}
	p.AllowPrune()
	return nil
}

type errVolumes []rollout.MissingVolume

func (e errVolumes) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n       ")
}

func outcomeCode(o rollout.Outcome) int {
	switch o {
	case rollout.Unchanged, rollout.Deployed:
		return exitOK
	case rollout.Failed:
		return exitFailed
	case rollout.FailedReverted:
		return exitReverted
	case rollout.AwaitPromotion:
		return exitPromotion
	case rollout.Superseded:
		return exitSuperseded
	case rollout.PlacementFailed:
		return exitPlacement
	case rollout.TimedOut:
		return exitTimeout
	case rollout.AwaitApproval:
		return exitPromotion
	case rollout.Unreachable:
		return exitCluster
	case rollout.Cancelled:
		return exitCancelled
	}
	return exitError
}
