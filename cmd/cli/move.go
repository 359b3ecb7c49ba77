package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/schedule"
)

func newMove(streams *IO, f *factory) *cobra.Command {
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
jobs, their IDs and their tasks are not changed. Certificates have names of their own
and do not move. The periodic jobs of schedules are registered under the new name. A
move that was interrupted is finished by the same command; until then nothing else
can change the stack.

It needs neither the source of the stack nor a terminal. The new name must have no
release and no secrets, and no release may be open. It needs a token that may write
the record and the secrets of both names and, where Nomad has ACLs and the stack has
schedules, one that may write policies, or --no-policy. Both names are locked while
it runs.

It exits with 0 if everything moved, with 1 if the new name is in use and with 11 if
a release is open or a name is locked.`,
		Example: "  drover move shop -e prod --to-env production\n  drover move shop -e prod --to-name store",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			if toEnv == "" && toName == "" {
				return usagef("give the new name with --to-env or --to-name")
			}
			res, err := deploy.Move{
				Home: f.home(cmd), Stack: args[0], Environment: env, ToStack: toName, ToEnvironment: toEnv, NoPolicy: noPolicy, LockWait: wait,
			}.Run(cmd.Context())
			if err != nil {
				return moveError(err)
			}
			if format == "json" {
				return json.NewEncoder(streams.Out).Encode(res)
			}
			fmt.Fprintf(streams.Out, "%s: moved from %s: %s; no job was changed\n", release.StackArgs(res.ToStack, res.ToEnvironment), release.StackArgs(res.Stack, res.Environment), movedParts(res))
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

// movedParts lists what moved.
func movedParts(r deploy.MoveResult) string {
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

// moveError gives an error of a move its exit code.
func moveError(err error) error {
	var policy *schedule.NeedsPolicyError
	if errors.As(err, &policy) {
		return errRefused{err, exitCluster}
	}
	return releaseError(err)
}
