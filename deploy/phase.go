package deploy

import "context"

// Phase is the name of a part of a verb. The phases of a verb run in order; the
// first that fails ends it.
type Phase string

// The phases of [Deploy], in their order. Those from edge to controller are for a
// stack with certificates, routes or DNS records.
const (
	PhaseResolve      Phase = "resolve"      // read and render the stack, or take the saved plan
	PhaseConnect      Phase = "connect"      // reach the clusters and find the namespaces
	PhaseSecrets      Phase = "secrets"      // read the credential of the DNS provider
	PhaseVolumes      Phase = "volumes"      // find volumes that are missing
	PhaseCheck        Phase = "check"        // plan the release, before anything is written
	PhaseEdge         Phase = "edge"         // placeholders for certificates, and an edge that reads them
	PhaseDNS          Phase = "dns"          // the records that the CA and the edge need
	PhaseCertificates Phase = "certificates" // issue what is due
	PhaseServed       Phase = "served"       // wait until the edge serves the certificates
	PhaseController   Phase = "controller"   // deploy the controller, which renews them
	PhaseRollout      Phase = "rollout"      // plan, ask, and make the release
	PhaseRecords      Phase = "records"      // the DNS records from now on
	PhaseDone         Phase = "done"
)

// phase is one step of a verb.
type phase struct {
	name Phase
	run  func(context.Context) error
}

// runPhases runs phases in order until one fails. It does not look at ctx, which is
// for the phases.
func runPhases(ctx context.Context, phases []phase, emit func(Event)) error {
	for _, p := range phases {
		if p.name != "" { // a group of phases has none
			emit(Event{Kind: KindPhase, Phase: p.name})
		}
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return nil
}
