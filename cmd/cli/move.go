package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
)

// moveResult is what a move did, for JSON.
type moveResult struct {
	Stack       string   `json:"stack"`
	Environment string   `json:"environment"`
	ToStack     string   `json:"to_stack"`
	ToEnv       string   `json:"to_environment"`
	Releases    int      `json:"releases"`
	Secrets     bool     `json:"secrets"`
	Schedules   []string `json:"schedules"`
	DNS         bool     `json:"dns"`
}

func newMove(streams *IO) *cobra.Command {
	var (
		env, toEnv, toName, format string
		noPolicy                   bool
		wait                       time.Duration
	)
	cmd := &cobra.Command{
		Use:   "move STACK",
		Short: "Give a stack or environment another name",
		Long: `Give a stack or environment another name, without restarting anything. The
releases, secrets, schedules and the ownership of jobs and DNS records move; the
jobs, their IDs and their tasks stay as they are. Certificates have names of their
own and stay too.

It needs neither the source of the stack nor a terminal. The new name must have no
release and no secrets, and no release may be open. Both names are locked
meanwhile. A move that was interrupted is finished by the same command; until then
nothing else changes the stack.

The periodic jobs of schedules are registered under the new name. Where Nomad has
ACLs, that needs a token that may write policies, or --no-policy.`,
		Example: "  drover move shop -e prod --to-env production\n  drover move shop -e prod --to-name store",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if toEnv == "" && toName == "" {
				return usagef("give the new name with --to-env or --to-name")
			}
			clients, from, err := recorded(cmd.Context(), args[0], env)
			if err != nil {
				return err
			}
			to := record.OpenReleases(clients.Nomad, cmp.Or(toName, from.Stack()), deploy.EnvironmentName(cmp.Or(toEnv, from.Environment())))
			if to.Stack() == from.Stack() && to.Environment() == from.Environment() {
				return usagef("stack %s (environment %s) has this name already", to.Stack(), to.Environment())
			}
			m := mover{
				clients: clients, from: from, to: to, policy: !noPolicy, wait: wait, holder: record.Self(commandLine(cmd), os.Getenv),
				deployer: (&releaseFlags{}).deployer(cmd, clients, from.Stack(), from.Environment()),
			}
			res, err := m.move(cmd.Context())
			if err != nil {
				return moveError(err)
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(res)
			}
			fmt.Fprintf(streams.Out, "%s: moved from %s: %s; no job was changed\n", stackArgs(res.ToStack, res.ToEnv), stackArgs(res.Stack, res.Environment), res)
			return nil
		},
	}
	envFlag(cmd, &env)
	fl := cmd.Flags()
	fl.StringVar(&toEnv, "to-env", "", "the new environment (default: the present one)")
	fl.StringVar(&toName, "to-name", "", "the new name of the stack (default: the present one)")
	fl.BoolVar(&noPolicy, "no-policy", false, "do not write ACL policies for the jobs of schedules")
	fl.DurationVar(&wait, "lock-wait", 0, "how long to wait for another deployer")
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func (r moveResult) String() string {
	parts := []string{count(r.Releases, "release")}
	if r.Secrets {
		parts = append(parts, "the secrets")
	}
	if len(r.Schedules) > 0 {
		parts = append(parts, count(len(r.Schedules), "schedule"))
	}
	if r.DNS {
		parts = append(parts, "the DNS records")
	}
	return strings.Join(parts, ", ")
}

// moveError gives what refuses to begin its exit code.
func moveError(err error) error {
	var policy *schedule.NeedsPolicyError
	if errors.As(err, &policy) {
		return errRefused{err, exitCluster}
	}
	return releaseError(err)
}

// mover moves a stack and environment to another name.
type mover struct {
	clients  rollout.Clients
	from, to *record.Releases
	deployer *release.Deployer
	holder   record.Holder
	wait     time.Duration
	policy   bool
}

// move does the steps in an order in which it can be repeated after each: see
// package record. Until Commit the jobs belong to the old name, from then on to
// the new one.
func (m mover) move(ctx context.Context) (moveResult, error) {
	res := moveResult{Stack: m.from.Stack(), Environment: m.from.Environment(), ToStack: m.to.Stack(), ToEnv: m.to.Environment(), Schedules: []string{}}
	unlock, err := m.lock(ctx)
	if err != nil {
		return res, err
	}
	defer unlock()
	plan, err := m.from.PlanMove(ctx, m.to)
	if err != nil {
		return res, err
	}
	res.Releases = plan.Releases
	if err := m.checkDNS(ctx, plan); err != nil {
		return res, err
	}
	jobs, targets, err := m.deployer.WithSecrets(ctx, plan.Heads, plan.Lines)
	if err != nil {
		return res, err
	}
	secrets := record.OpenSecrets(m.clients.Nomad, m.from.Stack(), m.from.Environment(), nil).At(nomads(targets))
	if listed, err := secrets.List(ctx, nil); err != nil {
		return res, err
	} else if res.Secrets = len(listed) > 0; res.Releases == 0 && !res.Secrets {
		return res, noReleases(ctx, m.clients, m.from)
	}
	if err := secrets.CheckMove(ctx, m.to.Stack(), m.to.Environment(), jobs); err != nil {
		return res, err
	}
	schedules := m.schedules(plan.Lines)
	if err := schedules.Check(ctx); err != nil {
		return res, err
	}
	// Everything is checked: from here on it writes.
	if err := plan.Copy(ctx); err != nil {
		return res, err
	}
	if err := secrets.Move(ctx, m.to.Stack(), m.to.Environment(), jobs); err != nil {
		return res, err
	}
	if err := plan.Commit(ctx); err != nil {
		return res, err
	}
	if res.DNS, err = dns.Move(ctx, m.clients.Nomad, m.owner(m.from), m.owner(m.to)); err != nil {
		return res, err
	}
	names, err := schedules.Run(ctx)
	if res.Schedules = append(res.Schedules, names...); err != nil {
		return res, err
	}
	return res, plan.Finish(ctx)
}

func (m mover) owner(r *record.Releases) string { return dns.Owner(r.Stack(), r.Environment()) }

// lock takes both locks, always in the same order. They are removed afterwards:
// the one of the old name has nothing to guard any more.
func (m mover) lock(ctx context.Context) (func(), error) {
	first, second := m.from, m.to
	if m.owner(m.to) < m.owner(m.from) {
		first, second = second, first
	}
	a, err := first.LockToMove(ctx, m.holder, m.wait, nil)
	if err != nil {
		return nil, err
	}
	b, err := second.LockToMove(ctx, m.holder, m.wait, nil)
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

// checkDNS refuses a new name that wants or owns something of DNS, unless the
// move was interrupted.
func (m mover) checkDNS(ctx context.Context, plan *record.Move) error {
	if plan.Resumed {
		return nil
	}
	used, err := dns.InUse(ctx, m.clients.Nomad, m.owner(m.to))
	if err == nil && used {
		err = fmt.Errorf("cannot move to stack %s (environment %s): it has DNS records; remove them with `drover dns`, or choose another name", m.to.Stack(), m.to.Environment())
	}
	return err
}

func (m mover) schedules(lines []record.Service) schedule.Move {
	home := cmp.Or(os.Getenv("NOMAD_NAMESPACE"), api.DefaultNamespace)
	out := schedule.Move{
		Client: m.clients.Nomad, Home: home, Policy: m.policy,
		FromStack: m.from.Stack(), FromEnv: m.from.Environment(), ToStack: m.to.Stack(), ToEnv: m.to.Environment(),
	}
	for _, l := range lines {
		out.Jobs = append(out.Jobs, cmp.Or(l.Namespace, home))
	}
	return out
}
