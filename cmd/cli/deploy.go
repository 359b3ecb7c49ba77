package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func newDeploy(streams *IO) *cobra.Command {
	var (
		flags         stackFlags
		opts          rollout.Options
		createVolumes bool
		format        string
		certs         deployCerts
	)
	cmd := &cobra.Command{
		Use:   "deploy STACK",
		Short: "Bring a stack to the cluster and wait until it is healthy",
		Long: `Bring a stack to the cluster and wait until it is healthy.

Each service is submitted when everything it depends on is healthy in Nomad and
passing in Consul; independent services go in parallel. What has not changed is
left alone. The exit code tells the outcome: see 'drover help exit-codes'.

A stack with certificates and routes also gets what these need, first: stand-ins
so that the edge can start, the certificates from their CA when the edge
answers, and a look whether they are served.

A file that 'drover plan -out' wrote is deployed exactly as it was shown, or not
at all when anything in the cluster has moved since.`,
		Example: `  drover deploy ocis -e prod --create-volumes
  drover deploy mycloud -e prod --service gateway -o json
  drover plan ocis -e prod -out ocis.plan && drover deploy ocis.plan`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if opts.Parallel < 1 || opts.Timeout <= 0 {
				return usagef("--parallel and --timeout are greater than 0")
			}
			saved, err := flags.savedPlan(cmd, args[0])
			if err != nil {
				return err
			}
			s, jobs, err := flags.loadOrThaw(cmd.Context(), args[0], saved)
			if err != nil {
				return err
			}
			run := func(s *stack.Stack, jobs []render.Job, saved *rollout.Saved) error {
				return deploy(cmd.Context(), streams, s, jobs, saved, opts, createVolumes, format == "json")
			}
			err = certs.before(cmd.Context(), streams, s, jobs, format == "json", run)
			if err != nil {
				return err
			}
			return certs.after(run(s, jobs, saved))
		},
	}
	flags.register(cmd)
	certs.register(cmd)
	fl := cmd.Flags()
	fl.IntVar(&opts.Parallel, "parallel", 16, "how many services may be on their way at once")
	fl.DurationVar(&opts.Timeout, "timeout", 15*time.Minute, "how long one service may take to become healthy")
	fl.BoolVar(&opts.Replace, "replace", false, "stop and create again jobs whose change Nomad refuses, such as one of type")
	fl.BoolVar(&createVolumes, "create-volumes", false, "create the host volumes that are missing")
	fl.StringVarP(&format, "output", "o", "text", "text, or json: one event per line")
	return cmd
}

func deploy(ctx context.Context, streams *IO, s *stack.Stack, jobs []render.Job, saved *rollout.Saved, opts rollout.Options, createVolumes, asJSON bool) error {
	for _, j := range jobs {
		if j.Target != jobs[0].Target {
			return usagef("environment %s has several targets; deploy one after the other with --target NAME", s.Environment)
		}
	}
	targets, err := connectTargets(ctx, s, jobs, true)
	if err != nil {
		return err
	}
	home, ok := targets[""]
	if !ok {
		if home, err = connect(ctx, false); err != nil {
			return err
		}
	}
	clients := home
	if len(jobs) > 0 {
		clients = targets[jobs[0].Target]
	}
	if err := rollout.CheckRequired(ctx, clients, s.RequiresJobs); err != nil {
		return err
	}
	missing, err := rollout.MissingVolumes(ctx, clients, jobs)
	if err != nil {
		return err
	}
	if len(missing) > 0 && !createVolumes {
		return errVolumes(missing)
	}

	// Everything is asked before anything is written.
	secrets := record.OpenSecrets(home.Nomad, s.Name, s.Environment, nil).At(nomads(targets))
	hide := func(text string) string { return text }
	opts.Redact = func(text string) string { return hide(text) }
	plan, err := rollout.Prepare(ctx, clients, jobs, opts)
	if err != nil {
		return err
	}
	if saved != nil {
		// A recreation that the plan showed is agreed to.
		if err := saved.Check(plan); err != nil {
			return err
		}
	} else if err := plan.Allowed(); err != nil {
		return usageOf(err)
	}

	view := newDeployView(streams, s, jobs, asJSON)
	if err := rollout.CreateVolumes(ctx, clients, missing, s.Volumes, view.volume); err != nil {
		return err
	}
	if len(s.Secrets) > 0 {
		made, err := secrets.Ensure(ctx, s.Secrets, jobs)
		if err != nil {
			return err
		}
		hide = made.Redact
		view.secrets(made)
	}
	result := plan.Apply(ctx, view.event)
	view.end(result)
	return resultError(result)
}

type errVolumes []rollout.MissingVolume

func (e errVolumes) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n       ")
}

// resultError maps a rollout's outcome to an exit code.
func resultError(r rollout.Result) error {
	if code := outcomeCode(r.Outcome()); code != exitOK {
		return errSilent{code}
	}
	return nil
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
	case rollout.Cancelled:
		return exitCancelled
	}
	return exitError
}

// deployView shows a rollout: NDJSON on Out, or lines or a live tree on Err
// and a summary on Out.
type deployView struct {
	io     *IO
	stack  *stack.Stack
	asJSON bool
	jobs   []render.Job
	live   *liveTree // on a terminal, from the first event on
	plain  *plainLog // in a pipe, likewise
}

func newDeployView(streams *IO, s *stack.Stack, jobs []render.Job, asJSON bool) *deployView {
	return &deployView{io: streams, stack: s, asJSON: asJSON, jobs: jobs}
}

func (v *deployView) line(format string, args ...any) {
	if !v.asJSON {
		fmt.Fprintf(v.io.Err, format+"\n", args...)
	}
}

func (v *deployView) json(value any) {
	_ = json.NewEncoder(v.io.Out).Encode(value)
}

func (v *deployView) volume(name string) {
	if v.asJSON {
		v.json(map[string]any{"time": time.Now(), "event": "volume-created", "volume": name})
	}
	v.line("volume %s: created", name)
}

func (v *deployView) secrets(r record.Report) {
	if v.asJSON && len(r.Generated)+len(r.Renewed)+len(r.Jobs) > 0 {
		v.json(map[string]any{"time": time.Now(), "event": "secrets", "generated": r.Generated, "renewed": r.Renewed, "jobs": r.Jobs})
	}
	if len(r.Generated) > 0 {
		v.line("secrets: %d generated", len(r.Generated))
	}
	for _, name := range r.Renewed {
		v.line("secrets: certificate %s renewed", name)
	}
}

func (v *deployView) event(e rollout.Event) {
	switch {
	case v.asJSON:
		v.json(e)
	case v.io.TTY:
		if v.live == nil {
			v.live = newLiveTree(v.io, v.jobs)
		}
		v.live.event(e)
	default:
		if v.plain == nil {
			v.plain = newPlainLog(v.line, 15*time.Second)
		}
		v.plain.event(e)
	}
}

func resultLine(r rollout.ServiceResult) string {
	line := fmt.Sprintf("%s: %s", r.Name(), r.Outcome)
	if r.Submitted {
		line += fmt.Sprintf(" (%s)", round(r.Elapsed))
	}
	if r.Detail != "" && !r.Outcome.OK() {
		line += ": " + r.Detail
	}
	return line
}

// round shortens a duration to what a person reads.
func round(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// end writes why services failed, what to do next, and the summary.
func (v *deployView) end(r rollout.Result) {
	if v.plain != nil {
		v.plain.close()
	}
	if v.live != nil {
		v.live.close()
	}
	if v.asJSON {
		v.json(map[string]any{
			"time": time.Now(), "event": "end", "stack": v.stack.Name, "environment": v.stack.Environment,
			"outcome": r.Outcome(), "exit_code": outcomeCode(r.Outcome()), "elapsed_ns": r.Elapsed, "services": r.Services,
		})
		return
	}
	for _, s := range r.Services {
		if s.Failure != nil {
			printFailure(v.io.Err, s)
		}
	}
	if r.Outcome() == rollout.Cancelled {
		var left []string
		for _, s := range r.Services {
			if s.Outcome == rollout.Cancelled && s.Submitted {
				left = append(left, s.JobID)
			}
		}
		if len(left) > 0 {
			v.line("Interrupted. Submitted and left running in Nomad: %s", strings.Join(left, ", "))
		} else {
			v.line("Interrupted. Nothing was left half-way.")
		}
	}
	fmt.Fprintln(v.io.Out, summary(v.stack.Name, r))
	if next := nextCommand(r); next != "" {
		v.line("Next: %s", next)
	}
}

func summary(name string, r rollout.Result) string {
	var parts []string
	for _, o := range []rollout.Outcome{
		rollout.Deployed, rollout.Unchanged, rollout.Failed, rollout.FailedReverted, rollout.AwaitPromotion,
		rollout.Superseded, rollout.PlacementFailed, rollout.TimedOut, rollout.Cancelled, rollout.Skipped,
	} {
		if n := r.Count(o); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return fmt.Sprintf("%s: %s: %s in %s", name, r.Outcome(), strings.Join(parts, ", "), round(r.Elapsed))
}

// nextCommand is the one command that helps most after an outcome.
func nextCommand(r rollout.Result) string {
	for _, s := range r.Services {
		if s.Outcome != r.Outcome() {
			continue
		}
		switch s.Outcome {
		case rollout.Failed, rollout.FailedReverted, rollout.TimedOut, rollout.Superseded:
			return "nomad job status " + s.JobID
		case rollout.AwaitPromotion:
			return "nomad deployment promote " + s.DeploymentID
		case rollout.PlacementFailed:
			return "nomad node status"
		}
	}
	return ""
}

// printFailure writes the decisive facts, indented below the service.
func printFailure(w io.Writer, r rollout.ServiceResult) {
	fmt.Fprintf(w, "\n%s (job %s) %s: %s\n", r.Name(), r.JobID, r.Outcome, r.Detail)
	f := r.Failure
	for _, t := range f.Tasks {
		fmt.Fprintf(w, "  task %s, allocation %s", t.Task, t.AllocID[:8])
		if t.Node != "" {
			fmt.Fprintf(w, " on %s", t.Node)
		}
		if t.Count > 1 {
			fmt.Fprintf(w, " (and %d more alike)", t.Count-1)
		}
		fmt.Fprintf(w, "\n    %s: %s\n", t.Event, indent(t.Message, "      "))
		if len(t.Logs) > 0 {
			fmt.Fprintf(w, "    last lines of %s:\n", t.LogType)
			for _, l := range t.Logs {
				fmt.Fprintf(w, "      %s\n", l)
			}
		}
	}
	for _, c := range f.Checks {
		if c.Check == "" {
			fmt.Fprintf(w, "  service %s of allocation %.8s is not in Consul\n", c.Service, c.AllocID)
			continue
		}
		fmt.Fprintf(w, "  check %q of %s is %s\n", c.Check, c.Service, c.Status)
		if c.Output != "" {
			fmt.Fprintf(w, "    %s\n", indent(c.Output, "    "))
		}
	}
	for _, p := range f.Placement {
		fmt.Fprintf(w, "  %s\n", p)
	}
	fmt.Fprintln(w)
}

func indent(text, by string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}
