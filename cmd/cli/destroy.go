package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

func newDestroy(streams *IO) *cobra.Command {
	var (
		flags   stackFlags
		purge   []string
		yes     bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "destroy STACK",
		Short: "Stop and remove the jobs of a stack",
		Long: `Stop and remove the jobs of a stack, each when everything that depends on it
is gone; also services that the stack does not have any more and that the last
release left running. Secrets, volumes and releases stay, unless --purge names them: "secrets"
deletes the stack's secrets, "data" its dynamic host volumes with everything in
them, "history" its releases, from which 'drover rollback' could bring it back.
Directories that a task writes outside of volumes cannot be deleted by drover.`,
		Example: `  drover destroy ocis -e staging
  drover destroy ocis -e staging --yes --purge secrets`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, p := range purge {
				if err := oneOf("--purge", p, "secrets", "data", "history"); err != nil {
					return err
				}
			}
			if (slices.Contains(purge, "secrets") || slices.Contains(purge, "history")) && len(flags.services)+len(flags.targets) > 0 {
				return usagef("--purge secrets and history are for the whole stack, not with --service or --target")
			}
			ctx := cmd.Context()
			s, jobs, err := flags.load(ctx, args[0])
			if err != nil {
				return err
			}
			if err := confirmable(streams, yes); err != nil {
				return err
			}
			home, err := connect(ctx, false)
			if err != nil {
				return err
			}
			clients, err := connectTargets(ctx, s, jobs, false)
			if err != nil {
				return err
			}
			releases := record.OpenReleases(home.Nomad, s.Name, s.Environment)
			var gone []render.Job
			if len(flags.services)+len(flags.targets) == 0 {
				var running []render.Job
				if running, gone, err = release.Former(ctx, releases, clients, jobs); err != nil {
					return err
				}
				jobs = append(jobs, running...)
			}
			if err := confirm(streams, yes, destroyQuestion(s.Name, s.Environment, len(jobs), purge)); err != nil {
				return err
			}
			lease, err := releases.Lock(ctx, record.Self(commandLine(cmd), os.Getenv), 0, nil)
			if err != nil {
				return releaseError(err)
			}
			unlock := lease.Release
			defer func() { _ = unlock(ctx) }()
			stopped := 0
			targets := targetsOf(jobs)
			slices.Reverse(targets)
			for _, t := range targets {
				err := rollout.Destroy(ctx, clients[t], jobsIn(jobs, t), rollout.Options{Timeout: timeout}, func(d rollout.Destroyed) {
					name := render.Job{Service: d.Service, Target: t}.Name()
					switch {
					case d.Missing:
						fmt.Fprintf(streams.Err, "%s: not there\n", name)
					case d.Err == nil:
						stopped++
						fmt.Fprintf(streams.Err, "%s: stopped\n", name)
					}
				})
				if err != nil {
					return err
				}
			}
			if !flags.partial() {
				err := rollout.Persist(ctx, 0, func(ctx context.Context) error {
					return dns.Wants{Client: home.Nomad}.Delete(ctx, dns.Owner(s.Name, s.Environment))
				})
				if err != nil {
					return err
				}
			}
			if slices.Contains(purge, "data") {
				for _, t := range targets {
					if err := purgeVolumes(ctx, streams, clients[t], jobsIn(jobs, t)); err != nil {
						return err
					}
				}
				if names := rawExec(jobs); len(names) > 0 {
					fmt.Fprintf(streams.Err, "Note: %s ran with raw_exec; what they wrote outside of volumes is still on the nodes.\n", strings.Join(names, ", "))
				}
			}
			if slices.Contains(purge, "secrets") {
				secrets := record.OpenSecrets(home.Nomad, s.Name, s.Environment, nil).At(nomads(clients))
				err := rollout.Persist(ctx, 0, func(ctx context.Context) error { return secrets.Purge(ctx, append(jobs, gone...)) })
				if err != nil {
					return err
				}
				fmt.Fprintln(streams.Err, "secrets: deleted")
			}
			if slices.Contains(purge, "history") {
				if err := rollout.Persist(ctx, 0, releases.Purge); err != nil {
					return err
				}
				unlock = lease.Remove // nothing of the stack is left, nor is its lock
				fmt.Fprintln(streams.Err, "releases: deleted")
			}
			fmt.Fprintf(streams.Out, "%s: destroyed: %d of %d services were running\n", s.Name, stopped, len(jobs))
			return nil
		},
	}
	flags.register(cmd)
	fl := cmd.Flags()
	fl.StringSliceVar(&purge, "purge", nil, "also delete: secrets, data, history (comma separated)")
	fl.BoolVarP(&yes, "yes", "y", false, "do not ask")
	fl.DurationVar(&timeout, "timeout", 10*time.Minute, "how long the tasks may take to stop")
	return cmd
}

func purgeVolumes(ctx context.Context, streams *IO, c rollout.Clients, jobs []render.Job) error {
	deleted, kept, err := rollout.PurgeVolumes(ctx, c, jobs)
	for _, v := range deleted {
		fmt.Fprintf(streams.Err, "volume %s: deleted\n", v)
	}
	for _, v := range kept {
		fmt.Fprintf(streams.Err, "volume %s: not a dynamic host volume; its data stays on the node\n", v)
	}
	return err
}

func destroyQuestion(name, env string, n int, purge []string) string {
	q := fmt.Sprintf("Stop and remove %d services of stack %s (environment %s)", n, name, env)
	if slices.Contains(purge, "secrets") {
		q += ", delete its SECRETS"
	}
	if slices.Contains(purge, "history") {
		q += ", delete its RELEASES"
	}
	if slices.Contains(purge, "data") {
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
