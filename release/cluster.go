package release

import (
	"context"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Cluster is what a release needs of the cluster of a target. OnNomad returns that
// of clients; package releasetest has one that follows a script.
//
// A record.Service names a job by its ID, namespace and region; the others are those
// of the clients.
type Cluster interface {
	// Clients returns the clients of the cluster. Defaults are always set.
	Clients() nomad.Clients

	// Prepare plans jobs: see rollout.Prepare.
	Prepare(ctx context.Context, jobs []render.Job, o rollout.Options) (Rollout, error)
	// Destroy stops and purges jobs: see rollout.Destroy.
	Destroy(ctx context.Context, jobs []render.Job, o rollout.Options, done func(rollout.Destroyed)) error
	// RegisterStopped registers the job as a stopped one and purges its children.
	RegisterStopped(ctx context.Context, l record.Service, job *api.Job, o rollout.Options) error

	// CreateVolumes creates host volumes: see rollout.CreateVolumes.
	CreateVolumes(ctx context.Context, missing []rollout.MissingVolume, specs []*stack.Volume, done func(name string)) error

	// Job returns a registered job, nil if there is none.
	Job(ctx context.Context, l record.Service) (*api.Job, error)
	// Same reports whether the job is registered like this: see rollout.Same.
	Same(ctx context.Context, job *api.Job) (same bool, index uint64, err error)
	// Rescaled reports whether only counts have changed since an index: see
	// rollout.Rescaled.
	Rescaled(ctx context.Context, job *api.Job, index uint64) (bool, error)
	// Source returns the HCL of a version of a job, "" if Nomad does not have it.
	Source(ctx context.Context, l record.Service, version uint64) (string, error)
	// Allocations returns the allocations of a job and their index once that is not
	// index any more; with index 0 at once.
	Allocations(ctx context.Context, l record.Service, index uint64) ([]*api.AllocationListStub, uint64, error)
	// Owners is Store.Owners by the records in this cluster.
	Owners(ctx context.Context, stackName, env string, jobs []record.LiveJob) ([]*record.Owner, error)

	// Deployments returns the deployments of a job.
	Deployments(ctx context.Context, l record.Service) ([]*api.Deployment, error)
	// Promote promotes the canaries of a deployment.
	Promote(ctx context.Context, l record.Service, deployment string) error
	// Pause pauses a deployment, or resumes it.
	Pause(ctx context.Context, l record.Service, deployment string, pause bool) error

	// Tag names a version of a job.
	Tag(ctx context.Context, l record.Service, version uint64, name, description string) error
	// Untag removes the name from the version that has it.
	Untag(ctx context.Context, l record.Service, name string) error
}

// Rollout is what Cluster.Prepare planned: see rollout.Plan, which is one.
type Rollout interface {
	Jobs() []render.Job
	Changes() []rollout.Change
	Unchanged() bool
	Watched() []render.Job
	Placeable(volumes []rollout.MissingVolume) error
	Allowed() error
	Spare(spared func(rollout.Change) bool)
	Reverse()
	Apply(ctx context.Context, emit func(rollout.Event)) rollout.Result
}

// Dialer returns the cluster of a target.
type Dialer func(ctx context.Context, t *stack.Target, needConsul bool) (Cluster, error)

// Gate waits until the gate of a wave holds: see rollout.Hold, which is one.
type Gate func(ctx context.Context, parties []rollout.Party, o rollout.GateOptions, progress func(rollout.GateProgress)) (rollout.GateResult, error)
