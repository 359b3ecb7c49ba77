package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

func newDrift(streams *IO) *cobra.Command {
	var (
		env, format string
		detailed    bool
	)
	cmd := &cobra.Command{
		Use:   "drift STACK",
		Short: "Show what was changed behind drover's back",
		Long: `Show what was changed behind drover's back: how the jobs in the cluster differ
from what the last good release left. The source of the stack is not needed.

A job is changed, stopped, missing (purged), dead (as it was, but nothing of it
is healthy), or extra (of an earlier release, and running again). The count of a
group that is scaled is no drift. With --detailed-exitcode the command ends with
0 when there is none, 2 when there is, and 1 on any error.`,
		Example: "  drover drift ocis -e prod\n  drover drift ocis -e prod --detailed-exitcode -o json",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			ctx := cmd.Context()
			clients, r, err := recorded(ctx, args[0], env)
			if err != nil {
				return err
			}
			d := (&releaseFlags{}).deployer(cmd, clients, r.Stack(), r.Environment())
			if err := redacting(ctx, d, clients); nomad.IsForbidden(err) {
				d.Rollout.Redact = hideAll // nothing is written, and what is secret cannot be known
			} else if err != nil {
				return err
			}
			drift, of, err := d.Drift(ctx)
			if err != nil {
				return releaseError(err)
			}
			differs := 0
			for _, w := range drift {
				if w.Kind != release.DriftNone {
					differs++
				}
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				err = enc.Encode(map[string]any{
					"layout": 1, "stack": r.Stack(), "environment": r.Environment(), "release": of.Number,
					"drifted": differs > 0, "services": drift,
				})
			} else {
				err = printDrift(streams, r.Stack(), r.Environment(), of.Number, drift, differs)
			}
			if err == nil && detailed && differs > 0 {
				return errSilent{codeChanges}
			}
			return err
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&detailed, flagDetailed, false, "end with 0: no drift, 2: drift, 1: error")
	return cmd
}

func printDrift(streams *IO, name, env string, number int, drift []release.Drift, differs int) error {
	var b bytes.Buffer
	v := planView{w: &b, color: streams.Color}
	for _, w := range drift {
		service := render.Job{Service: w.Service, Target: w.Target}.Name()
		if w.Kind != release.DriftNone {
			line := fmt.Sprintf("%s  %s", service, w.Kind)
			if w.JobID != w.Service {
				line += " (job " + w.JobID + ")"
			}
			v.line(0, "%s", line)
		}
		for _, f := range w.Diff {
			v.field(f)
		}
	}
	if differs == 0 {
		fmt.Fprintf(&b, "%s: as release %d left it\n", name, number)
	} else {
		fmt.Fprintf(&b, "%s: %d of %d differ from what release %d left\n", name, differs, len(drift), number)
	}
	if _, err := streams.Out.Write(b.Bytes()); err != nil {
		return err
	}
	if differs > 0 {
		fmt.Fprintf(streams.Err, "Next: drover rollback %s, or drover deploy %s\n", stackArgs(fmt.Sprint(name, " ", number), env), stackArgs(name, env))
	}
	return nil
}

func newAdopt(streams *IO) *cobra.Command {
	var (
		flags stackFlags
		rel   releaseFlags
		yes   bool
	)
	cmd := &cobra.Command{
		Use:   "adopt STACK",
		Short: "Take over jobs that run already, without restarting them",
		Long: `Take over jobs that run already, without restarting them.

What runs under the job IDs of the stack is recorded as a release, as it is. From
then on the jobs are the stack's: a deploy changes them, and a rollback comes
back to what was adopted. Before that the differences are shown, which are what
the next deploy will change. Jobs that are not there are left to that deploy.

A job that the record of another stack or environment owns is refused: 'drover
move' gives all jobs of an environment to another one.`,
		Example: "  drover adopt mycloud -e prod\n  drover adopt mycloud -e prod -y && drover plan mycloud -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			s, jobs, err := flags.load(ctx, args[0])
			if err != nil {
				return err
			}
			p, err := preparePlan(cmd, s, jobs, flags.partial(), nil)
			if err != nil {
				return releaseError(err)
			}
			if last := p.plan.Last(); last != nil && last.State.Open() {
				return releaseError(&release.OpenError{Release: last})
			}
			var b bytes.Buffer
			v := planView{w: &b, color: streams.Color}
			v.changes(p.changes)
			fmt.Fprintf(&b, "%s: the next deploy: %s\n", s.Name, summarize(p.changes))
			if _, err := streams.Out.Write(b.Bytes()); err != nil {
				return err
			}
			if err := p.plan.Conflict(); err != nil {
				return releaseError(err)
			}
			if p.plan.Last() != nil && len(p.plan.Foreign()) == 0 {
				fmt.Fprintf(streams.Err, "There is nothing to adopt: these jobs are the stack's.\n")
				return nil
			}
			if err := confirm(streams, yes, "Record what runs now as a release of "+s.Name+"?"); err != nil {
				return err
			}
			clients, err := connect(ctx, false)
			if err != nil {
				return err
			}
			made, err := rel.deployer(cmd, clients, s.Name, s.Environment).Adopt(ctx, p.plan)
			switch {
			case err != nil:
				return releaseError(err)
			case made == nil:
				fmt.Fprintln(streams.Err, "There is nothing to adopt: none of these jobs runs.")
			default:
				fmt.Fprintf(streams.Out, "%s: release %d: adopted %s\n", s.Name, made.Number, count(made.Total, "job"))
			}
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVarP(&rel.message, "message", "m", "", "why, for the record")
	cmd.Flags().DurationVar(&rel.lockWait, "lock-wait", 0, "how long to wait for somebody else who changes the stack")
	return cmd
}
