package rollout

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// WaitsForPromotion reports whether an update of the job starts canaries that
// Nomad does not promote by itself.
func WaitsForPromotion(job *api.Job) bool {
	s := specOf(job)
	return s.manual && !s.noDeploy
}

// promote promotes the canaries of a deployment (PUT /v1/deployment/promote/:id).
func (f *follower) promote(ctx context.Context, id string) error {
	err := f.change(ctx, id, func(w *api.WriteOptions) error {
		_, _, err := f.clients.Nomad.Deployments().PromoteAll(id, w)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot promote job %q: %w", f.step.spec.id, nomad.Plain(err))
	}
	return nil
}

// fail marks a deployment as failed: Nomad stops its canaries, and rolls the job back
// where it has auto_revert (PUT /v1/deployment/fail/:id).
func (f *follower) fail(ctx context.Context, id string) error {
	err := f.change(ctx, id, func(w *api.WriteOptions) error {
		_, _, err := f.clients.Nomad.Deployments().Fail(id, w)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot fail the deployment of job %q: %w", f.step.spec.id, nomad.Plain(err))
	}
	return nil
}

// change writes to a deployment whose canaries wait. It returns nil too if another client
// has promoted or ended it: Nomad answers 500 then, as it does to much else.
func (f *follower) change(ctx context.Context, id string, write func(*api.WriteOptions) error) error {
	err := Persist(ctx, f.opts.Silence, func(ctx context.Context) error {
		err := write(f.step.spec.write(ctx))
		if !nomad.IsInternal(err) || nomad.IsUnavailable(err) {
			return err
		}
		d, _, derr := f.clients.Nomad.Deployments().Info(id, f.step.spec.query(ctx))
		if derr == nil && (!inProgress(d.Status) || !hasCanaries(d)) {
			return nil
		}
		return err
	})
	if err == nil {
		f.decidedOn = id
	}
	return err
}

// hasCanaries reports whether a group of the deployment has canaries that are not
// promoted.
func hasCanaries(d *api.Deployment) bool {
	for _, g := range d.TaskGroups {
		if g.DesiredCanaries > 0 && !g.Promoted {
			return true
		}
	}
	return false
}

// decide promotes canaries or marks their deployment as failed, and follows the job to its
// outcome.
func (f *follower) decide(ctx context.Context, v CanaryVerdict) (snapshot, error) {
	id := f.result.DeploymentID
	act := f.promote
	if v.Outcome == Failed {
		act = f.fail
	}
	aerr := act(ctx, id)
	n, err := f.until(ctx)
	switch {
	case err != nil:
		return n, err
	case f.result.Outcome == AwaitPromotion && aerr != nil: // else another client has decided
		return n, aerr
	case v.Outcome == Failed && !f.result.Outcome.OK():
		f.result.Detail = f.opts.Redact(v.Detail) + "; " + f.result.Detail
	}
	return n, nil
}
