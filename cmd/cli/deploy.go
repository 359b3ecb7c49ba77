package cli

import (
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/rollout"
)

func newDeploy(streams *IO, f *factory) *cobra.Command {
	var (
		flags stackFlags
		rel   releaseFlags
		v     deploy.Deploy
	)
	cmd := &cobra.Command{
		Use:   "deploy STACK",
		Short: "Deploy a stack and wait until it is healthy",
		Long: `Deploy a stack and wait until it is healthy.

Each service is submitted when all services that it depends on are healthy in
Nomad and passing in Consul. Independent services are deployed in parallel.
Unchanged services are not touched. When all services are healthy, the services
that are no longer in the stack are stopped. If one of them runs, the command
asks for a confirmation on a terminal, and needs --prune elsewhere. A saved plan
needs no confirmation.

Each deploy is recorded as a release: see 'drover history'. Only one deploy at a
time can change a stack. After an interrupted deploy, run 'drover resume' or
'drover abort' first. If a service fails, all changes of the release are
reverted, unless --on-failure says otherwise. If there is no good release to
revert to, the jobs stay as they are.

For a stack with certificates and routes, the command first creates temporary
certificates so that the edge can start. It then issues the certificates and
checks that the edge serves them.

STACK can be a file that 'drover plan -out' wrote. The command deploys exactly what
the plan shows. If the cluster has changed since, it changes nothing and fails.

The exit code tells the outcome: see 'drover help exit-codes'.`,
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
			v.Home, v.Source, v.Saved = f.home(cmd), flags.source(args[0]), saved
			v.Limits, v.New = rel.limits, rel.new
			v.Person, v.Events = rel.person(streams), rel.view(streams).Event
			_, err = v.Run(cmd.Context())
			return verbEnd(err)
		},
	}
	flags.register(cmd)
	rel.register(cmd, f, 0)
	rel.registerNew(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&v.NoCertificates, "no-certificates", false, "do not change certificates, DNS records or the edge")
	fl.BoolVar(&v.NoCheck, "no-check", false, "do not check first whether the challenges of the names can succeed")
	fl.StringArrayVar(&v.AcceptTerms, "accept-terms", nil, acceptTermsHelp)
	fl.BoolVar(&v.Replace, "replace", false, "recreate jobs that Nomad cannot update in place, such as a change of type")
	fl.BoolVar(&rel.new.TakeOver, "take-over", false, "abandon an interrupted release, and start from what runs now")
	pruneFlags(cmd, &rel.new.Prune)
	forgetFlag(cmd, &v.Forget)
	fl.BoolVar(&v.CreateVolumes, "create-volumes", false, "create the host volumes that are missing")
	return cmd
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
