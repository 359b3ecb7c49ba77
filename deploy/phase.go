package deploy

import (
	"context"
	"time"
)

// Phase is the name of a part of a verb. The phases of a verb run in order; the
// first that fails ends it.
type Phase string

// The phases of [Deploy], in their order.
const (
	PhaseResolve      Phase = "resolve"      // read and render the stack, or the saved plan
	PhaseConnect      Phase = "connect"      // reach the clusters; find what is missing there
	PhaseSecrets      Phase = "secrets"      // find the credential of the DNS provider
	PhaseVolumes      Phase = "volumes"      // find host volumes that are missing
	PhaseEdge         Phase = "edge"         // stand-ins for certificates, and an edge that reads them
	PhaseCertificates Phase = "certificates" // issue what is due, and wait until it is served
	PhaseDNS          Phase = "dns"          // the records that the certificates and the edge need
	PhaseRollout      Phase = "rollout"      // plan, ask, and make the release
	PhaseServed       Phase = "served"       // the edge serves what is stored
	PhaseRecords      Phase = "records"      // what is to be in DNS from now on
	PhaseDone         Phase = "done"
)

// phase is one step of a verb.
type phase struct {
	name Phase
	run  func(context.Context) error
}

// runPhases runs phases in order until one fails or ctx ends.
func runPhases(ctx context.Context, phases []phase, emit func(Event)) error {
	for _, p := range phases {
		if err := ctx.Err(); err != nil {
			return err
		}
		emit(Event{Time: time.Now(), Kind: KindPhase, Phase: p.name})
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return nil
}
