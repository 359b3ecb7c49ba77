package cli

import (
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/rollout"
)

func newDeploy(streams *IO) *cobra.Command {
	var (
		flags stackFlags
		rel   releaseFlags
		v     deploy.Deploy
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
			v.Home, v.Source, v.Saved = homeOf(cmd), flags.source(args[0]), saved
			v.Limits, v.New = rel.limits, rel.new
			v.Person, v.Events = rel.person(streams), rel.view(streams).Event
			_, err = v.Run(cmd.Context())
			return verbEnd(err)
		},
	}
	flags.register(cmd)
	rel.register(cmd, 0)
	rel.registerNew(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&v.NoCertificates, "no-certificates", false, "look after neither certificates nor DNS records nor the edge")
	fl.BoolVar(&v.NoCheck, "no-check", false, "ask the CA without looking first whether the names can be proven")
	fl.BoolVar(&v.Replace, "replace", false, "stop and create again jobs whose change Nomad refuses, such as one of type")
	fl.BoolVar(&rel.new.TakeOver, "take-over", false, "leave a release that was interrupted as it is, and go on from there")
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
