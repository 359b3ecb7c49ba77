package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/hashicorp/cronexpr"
	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
	"github.com/drover-nomad/drover/stack"
)

func newSchedule(streams *IO, f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedule",
		Short: "Run drover in the cluster at given times",
		Long: `Run drover in the cluster at given times. Each schedule block of an environment
becomes a periodic Nomad job. The job runs drover inside the cluster, which works
from the record of the last release and does not need the source of the stack.`,
		Example: "  drover schedule apply ocis -e prod\n  drover schedule list ocis -e prod\n  drover schedule history ocis nightly -e prod",
	}
	cmd.AddCommand(newScheduleApply(streams, f), newScheduleList(streams, f), newScheduleRun(streams, f), newScheduleHistory(streams, f), newScheduleFire(streams, f))
	cmd.AddCommand(newSchedulePause(streams, f, true), newSchedulePause(streams, f, false))
	return cmd
}

func newScheduleApply(streams *IO, f *factory) *cobra.Command {
	var (
		flags    stackFlags
		noPolicy bool
	)
	cmd := &cobra.Command{
		Use:   "apply STACK",
		Short: "Create and update the periodic jobs of an environment",
		Long: `Create and update the periodic jobs of the schedule blocks of an environment, and
remove the jobs of schedules that were deleted. If Nomad has ACLs, the workload
identity of each job gets a policy that allows only what the schedule needs.`,
		Example: "  drover schedule apply ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			s, jobs, err := flags.load(ctx, args[0])
			if err != nil {
				return err
			}
			clients, err := f.connect(ctx, false)
			if err != nil {
				return err
			}
			home := cmp.Or(os.Getenv("NOMAD_NAMESPACE"), api.DefaultNamespace)
			done, err := schedule.Apply(ctx, clients.Nomad, home, s, jobs, !noPolicy)
			var (
				refused *schedule.NeedsPolicyError
				foreign *schedule.ForeignJobError
			)
			switch {
			case errors.As(err, &refused):
				err = errRefused{err, exitCluster}
			case errors.As(err, &foreign):
				err = errRefused{err, exitUsage}
			}
			for _, part := range []struct {
				names []string
				what  string
			}{{done.Policies, "ACL policy written"}, {done.Registered, "registered"}, {done.Unchanged, "unchanged"}, {done.Removed, "removed"},
				{done.Left, "ACL policy not removed, because the token may not: run `nomad acl policy delete` with a token that may"}} {
				for _, name := range part.names {
					fmt.Fprintf(streams.Out, "%s: %s\n", name, part.what)
				}
			}
			return err
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&noPolicy, "no-policy", false, "do not write ACL policies")
	return cmd
}

// schedules opens those of a recorded stack.
func (f *factory) schedules(ctx context.Context, arg, env string) (nomad.Clients, *record.Schedules, error) {
	clients, r, err := f.recorded(ctx, arg, env)
	if err != nil {
		return clients, nil, err
	}
	return clients, record.OpenSchedules(clients.Nomad, r.Stack(), r.Environment()), nil
}

// schedule reads one schedule of a recorded stack.
func (f *factory) schedule(ctx context.Context, arg, env, name string) (nomad.Clients, *record.Schedules, *record.Schedule, error) {
	clients, store, err := f.schedules(ctx, arg, env)
	if err != nil {
		return clients, nil, nil, err
	}
	s, err := store.Read(ctx, name)
	if err != nil {
		return clients, nil, nil, deploy.ScheduleError(ctx, store, err)
	}
	return clients, store, s, nil
}

func newScheduleList(streams *IO, f *factory) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:     "list STACK",
		Short:   "List schedules with their next run and last outcome",
		Example: "  drover schedule list ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			_, store, err := f.schedules(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			all, err := store.List(cmd.Context())
			if err != nil {
				return err
			}
			type row struct {
				Name     string      `json:"name"`
				Action   string      `json:"action"`
				Crons    []string    `json:"crons"`
				TimeZone string      `json:"time_zone"`
				Window   string      `json:"window,omitempty"`
				Services []string    `json:"services,omitempty"`
				JobID    string      `json:"job_id"`
				Paused   string      `json:"paused,omitempty"`
				Next     time.Time   `json:"next,omitzero"`
				Last     *record.Run `json:"last,omitempty"`
			}
			rows := []row{}
			for _, s := range all {
				r := row{s.Name, s.Action, s.Crons, s.TimeZone, schedule.Window(&s.Schedule), s.Services, s.JobID, s.Paused, next(&s.Schedule, time.Now()), nil}
				if n := len(s.Runs); n > 0 {
					r.Last = &s.Runs[n-1]
				}
				rows = append(rows, r)
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			}
			w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tACTION\tCRONS\tTIME ZONE\tWINDOW\tNEXT\tLAST")
			for _, r := range rows {
				when, last := r.Next.Format("2006-01-02 15:04:05 MST"), "never"
				if r.Next.IsZero() {
					when = "never"
				}
				if r.Paused != "" {
					when = "paused " + r.Paused
				}
				if r.Last != nil {
					last = r.Last.Outcome + " at " + r.Last.At.Format(time.RFC3339)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Action, strings.Join(r.Crons, "; "), r.TimeZone, cmp.Or(r.Window, "any"), when, last)
			}
			return w.Flush()
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// next is when a schedule fires after now, by the clock that Nomad uses.
func next(s *stack.Schedule, now time.Time) time.Time {
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil {
		return time.Time{}
	}
	var first time.Time
	for _, text := range s.Crons {
		expr, err := cronexpr.Parse(text)
		if err != nil {
			continue
		}
		if at := expr.Next(now.In(zone)); !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

func newScheduleRun(streams *IO, f *factory) *cobra.Command {
	var (
		env     string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "run STACK NAME",
		Short: "Fire a schedule now, and wait for what comes of it",
		Long: `Fire a schedule now, in the cluster as its clock does, and wait for what comes of
it. Pause, window and the memory of failures hold as ever.`,
		Example: "  drover schedule run ocis nightly -e prod",
		Args:    exactArgs(2, "STACK and NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), timeout, fmt.Errorf("the run has not ended within %s; see drover schedule history", timeout))
			defer cancel()
			clients, store, s, err := f.schedule(ctx, args[0], env, args[1])
			if err != nil {
				return err
			}
			evalID, _, err := clients.Nomad.Jobs().PeriodicForce(s.JobID, (&api.WriteOptions{}).WithContext(ctx))
			if err != nil {
				return fmt.Errorf("forcing job %q: %w", s.JobID, err)
			}
			run, err := schedule.Await(ctx, clients.Nomad, store, s, evalID)
			if err != nil {
				return err
			}
			view.PrintRuns(streams.Out, []record.Run{run})
			if code := runCode(run); code != exitOK {
				return errSilent{code}
			}
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "how long to wait")
	return cmd
}

// runCode is the exit code of a run.
func runCode(r record.Run) int {
	switch {
	case r.OK:
		return exitOK
	case r.Outcome == "error", r.Outcome == schedule.Drifted:
		return exitError
	}
	return outcomeCode(rollout.Outcome(r.Outcome))
}

func newScheduleHistory(streams *IO, f *factory) *cobra.Command {
	var env, format string
	cmd := &cobra.Command{
		Use:     "history STACK NAME",
		Short:   "List the runs of a schedule, and why runs were skipped",
		Example: "  drover schedule history ocis nightly -e prod -o json",
		Args:    exactArgs(2, "STACK and NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			_, _, s, err := f.schedule(cmd.Context(), args[0], env, args[1])
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				for _, r := range s.Runs {
					if err := enc.Encode(r); err != nil {
						return err
					}
				}
				return nil
			}
			view.PrintRuns(streams.Out, s.Runs)
			return nil
		},
	}
	envFlag(cmd, &env)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, or json: one run per line")
	return cmd
}

func newSchedulePause(streams *IO, f *factory, pause bool) *cobra.Command {
	var env string
	cmd := &cobra.Command{
		Use: "resume STACK NAME", Short: "Let a schedule run again, also after a failure",
		Example: "  drover schedule resume ocis nightly -e prod",
		Args:    exactArgs(2, "STACK and NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			_, store, _, err := f.schedule(ctx, args[0], env, args[1])
			if err != nil {
				return err
			}
			self := record.Self(commandLine(cmd), os.Getenv)
			_, err = store.Change(ctx, args[1], func(s *record.Schedule) {
				if pause {
					s.Paused = fmt.Sprintf("by %s@%s since %s", self.User, self.Host, time.Now().UTC().Format(time.RFC3339))
					return
				}
				s.Paused = ""
				s.Runs = append(s.Runs, record.Run{At: time.Now().UTC(), OK: true, Outcome: "resumed", Detail: "by " + self.User + "@" + self.Host})
			})
			if err == nil {
				fmt.Fprintf(streams.Out, "%s: %sd\n", args[1], cmd.Name())
			}
			return err
		},
	}
	if pause {
		cmd.Use, cmd.Short, cmd.Example = "pause STACK NAME", "Pause a schedule until it is resumed", "  drover schedule pause ocis nightly -e prod"
	}
	envFlag(cmd, &env)
	return cmd
}

// newScheduleFire returns the command that the periodic job runs.
func newScheduleFire(streams *IO, f *factory) *cobra.Command {
	var (
		flags releaseFlags
		env   string
	)
	cmd := &cobra.Command{
		Use: "fire STACK NAME", Short: "Run a schedule (called by its job in Nomad)", Hidden: true,
		Example: "  drover schedule fire ocis nightly -e prod",
		Args:    exactArgs(2, "STACK and NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			address, token, err := schedule.Inside(ctx, api.DefaultConfig(), os.Getenv)
			var unable *schedule.LoginError // reported as a run
			if err != nil && !errors.As(err, &unable) {
				return err
			}
			loginErr := err
			home := func() *api.Config {
				cfg := api.DefaultConfig()
				cfg.Address, cfg.SecretID = address, token
				return cfg
			}
			r := flags.recorded(cmd, streams, args[0], env)
			r.Home.Dial = (&nomad.Dialer{Home: home}).Dial
			run, err := (&deploy.Fire{Recorded: r, Name: args[1], JobID: os.Getenv("NOMAD_JOB_ID"), Unable: loginErr}).Run(ctx)
			if err != nil {
				return verbEnd(err)
			}
			if code := runCode(run); code != exitOK {
				return errSilent{code}
			}
			return nil
		},
	}
	envFlag(cmd, &env)
	flags.register(cmd, f, time.Minute)
	return cmd
}
