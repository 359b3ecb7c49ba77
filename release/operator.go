package release

import (
	"context"
	"errors"

	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/rollout"
)

// Operator decides for the person or the program that makes a release. Methods are
// called one at a time.
type Operator interface {
	// Agree is called with each plan before anything is written, also with a plan
	// that replaces an outdated one. Its error ends the release before it begins.
	Agree(ctx context.Context, p *Plan) error
	// Begin is called under the lock of the stack, before the release writes
	// anything; without the lock if the release has nothing to write. Its error ends
	// the release before it begins.
	Begin(ctx context.Context) error
	// Approve reports whether a wave may begin. It returns ErrNoPerson if there is no person to
	// ask, and the error of ctx if ctx ends first, which it does if the approval is
	// recorded by another process.
	Approve(ctx context.Context, a Approval) (bool, error)
}

// ErrNoPerson is returned by Operator.Approve if there is no person to ask.
var ErrNoPerson = errors.New("there is no person to ask for an approval")

// Consent is the Operator that agrees to every plan and approves no wave.
type Consent struct{}

// Agree implements Operator.
func (Consent) Agree(context.Context, *Plan) error { return nil }

// Begin implements Operator.
func (Consent) Begin(context.Context) error { return nil }

// Approve implements Operator.
func (Consent) Approve(context.Context, Approval) (bool, error) { return false, ErrNoPerson }

func (d *Deployer) operator() Operator {
	if d.Operator == nil {
		return Consent{}
	}
	return d.Operator
}

// Make plans a release, asks the operator and makes it.
func (d *Deployer) Make(ctx context.Context, req Request) (Result, error) {
	p, err := d.Plan(ctx, req)
	if err != nil {
		return Result{}, err
	}
	if err := d.operator().Agree(ctx, p); err != nil {
		return Result{}, err
	}
	return d.Deploy(ctx, p)
}

// prepareToBegin does what comes before the first write of a release: the operator
// begins, and volumes are created.
func (d *Deployer) prepareToBegin(ctx context.Context, p *Plan) error {
	if err := d.operator().Begin(ctx); err != nil {
		return err
	}
	return d.createVolumes(ctx, p)
}

// createVolumes creates the volumes of the request. The targets are done at the same
// time, because a node takes seconds to report a volume.
func (d *Deployer) createVolumes(ctx context.Context, p *Plan) error {
	var targets []string
	for _, name := range p.targetNames() {
		if len(p.req.Volumes[name]) > 0 {
			targets = append(targets, name)
		}
	}
	return parallel.Each(len(targets), 8, func(i int) error {
		name := targets[i]
		return p.clusters[name].CreateVolumes(ctx, p.req.Volumes[name], p.req.VolumeSpecs, func(volume string) {
			d.emit(Event{Event: rollout.Event{Kind: EventVolume, Target: name}, Volume: volume})
		})
	})
}
