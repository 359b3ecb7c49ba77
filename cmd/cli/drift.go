package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

func newDrift(streams *IO, f *factory) *cobra.Command {
	var (
		env, format string
		detailed    bool
	)
	cmd := &cobra.Command{
		Use:   "drift STACK",
		Short: "Show how the jobs differ from the last good release",
		Long: `Show how the jobs in the cluster differ from what the last good release left. A job
is changed, stopped, missing (purged), dead (not changed, but nothing of it is
healthy), or extra (of an earlier release, and running again). The count of a group
that was scaled is not drift.

STACK is a directory, or the name of a stack whose source need not be here. It needs
a token that may read the record and the jobs of the stack; if it may not read the
secrets, every value is hidden. It changes nothing.

It exits with 0. With --detailed-exitcode it exits with 0 if there is no drift, with 2
if there is, and with 1 on any error.`,
		Example: "  drover drift ocis -e prod\n  drover drift ocis -e prod --detailed-exitcode -o json",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			res, err := deploy.Drift{Home: f.home(cmd), Stack: args[0], Environment: env}.Run(cmd.Context())
			if err != nil {
				return releaseError(err)
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				err = enc.Encode(res)
			} else {
				err = printDrift(streams, res)
			}
			if err == nil && detailed && res.Drifted {
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

func printDrift(streams *IO, res deploy.DriftResult) error {
	var b bytes.Buffer
	v := planView{w: &b, color: streams.Color}
	for _, d := range res.Services {
		if d.Kind != release.DriftNone {
			line := fmt.Sprintf("%s  %s", render.Job{Service: d.Service, Target: d.Target}.Name(), d.Kind)
			if d.JobID != d.Service {
				line += " (job " + d.JobID + ")"
			}
			v.line(0, "%s", line)
		}
		for _, f := range d.Diff {
			v.field(f)
		}
	}
	if !res.Drifted {
		fmt.Fprintf(&b, "%s: no drift from release %d\n", res.Stack, res.Release)
	} else {
		fmt.Fprintf(&b, "%s: %d of %d services differ from release %d\n", res.Stack, res.Differing(), len(res.Services), res.Release)
	}
	if _, err := streams.Out.Write(b.Bytes()); err != nil {
		return err
	}
	if res.Drifted {
		fmt.Fprintf(streams.Err, "Next: drover rollback %s, or drover deploy %s\n", release.StackArgs(fmt.Sprint(res.Stack, " ", res.Release), res.Environment), release.StackArgs(res.Stack, res.Environment))
	}
	return nil
}
