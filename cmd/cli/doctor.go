package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

func newDoctor(streams *IO, f *factory) *cobra.Command {
	var (
		flags  stackFlags
		format string
		probe  bool
		quiet  bool
		o      doctor.ProbeOptions
	)
	cmd := &cobra.Command{
		Use:   "doctor [STACK]",
		Short: "Find problems that would make a deployment fail",
		Long: `Find problems of the cluster that would make a deployment fail or cause trouble
later, and show how to solve them. With a STACK, also check what that stack needs:
drivers, volumes, ports, domains. The checks are described in
docs/how-to/doctor.md.

It changes nothing. With --probe it runs a short job on every node, for checks that
are only possible there, and removes the job afterwards.

It exits with 0 if there is no error (warnings are allowed), otherwise with 1.`,
		Example: `  drover doctor
  drover doctor ocis -e prod --probe
  drover doctor ocis -e prod -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s: give one STACK or none", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if o.Driver != "" {
				if err := oneOf("--probe-driver", o.Driver, "raw_exec", "exec", "docker"); err != nil {
					return err
				}
			}
			var needs doctor.Needs
			if len(args) == 1 {
				s, jobs, err := flags.load(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				needs = doctor.Needs{Stack: args[0], Jobs: jobs, Names: namesOf(s), Variables: record.Folder(s.Name, s.Environment), Volumes: s.Volumes}
			}
			report, err := examine(cmd.Context(), f, needs, probe, o)
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				err = enc.Encode(report)
			} else {
				printReport(streams, report, quiet)
			}
			if err == nil && !report.OK {
				err = errSilent{exitError}
			}
			return err
		},
	}
	flags.register(cmd)
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	fl.BoolVarP(&quiet, "quiet", "q", false, "leave out what is as it should be")
	fl.BoolVar(&probe, "probe", false, "run a short job on every node to look from there")
	fl.StringVar(&o.Driver, "probe-driver", "", "driver of that job: raw_exec, exec or docker (default the first that there is)")
	fl.StringVar(&o.Image, "probe-image", "busybox:1.37", "image of that job with docker; must have a shell")
	fl.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "how long that job may take")
	return cmd
}

func examine(ctx context.Context, f *factory, needs doctor.Needs, probe bool, o doctor.ProbeOptions) (doctor.Report, error) {
	clients, err := f.connect(ctx, true)
	if err != nil {
		return doctor.Report{}, err
	}
	facts, err := doctor.Collect(ctx, clients, needs)
	if err != nil {
		return doctor.Report{}, err
	}
	if probe {
		if err := doctor.Probe(ctx, clients, facts, needs, o); err != nil {
			return doctor.Report{}, err
		}
	}
	return doctor.Examine(facts, needs), nil
}

// namesOf are the domains and addresses under which users reach a stack: of
// its certificates and its checks.
func namesOf(s *stack.Stack) []string {
	var names []string
	add := func(name string) {
		if name != "" && !strings.HasPrefix(name, "*.") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	ported := map[string]bool{} // hosts that a check reaches on a port of its own
	for _, c := range s.Checks {
		u, err := url.Parse(c.URL)
		if err != nil {
			continue // the check itself says so
		}
		if u.Port() != "" {
			ported[u.Hostname()] = true
			add(net.JoinHostPort(u.Hostname(), u.Port()))
		} else {
			add(u.Hostname())
		}
	}
	for _, c := range s.Certificates {
		for _, name := range c.Names {
			if !ported[name] {
				add(name)
			}
		}
	}
	return names
}

func printReport(streams *IO, r doctor.Report, quiet bool) {
	count := map[doctor.Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
		if quiet && f.Severity == doctor.OK {
			continue
		}
		subject := ""
		if f.Subject != "" {
			subject = f.Subject + ": "
		}
		fmt.Fprintf(streams.Out, "%-8s %-14s %s%s\n", f.Severity, f.Check, subject, f.Reason)
		if f.Mend != "" {
			fmt.Fprintf(streams.Out, "%-8s %-14s → %s\n", "", "", f.Mend)
		}
	}
	fmt.Fprintf(streams.Err, "%d errors, %d warnings, %d not looked at\n", count[doctor.Error], count[doctor.Warning], count[doctor.Unknown])
}
