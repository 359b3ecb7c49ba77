package release

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// InNomad returns the store in Nomad Variables.
func InNomad(r *record.Releases) Store { return nomadStore{r} }

type nomadStore struct{ *record.Releases }

func (s nomadStore) OtherEnvironments(ctx context.Context) ([]Reader, error) {
	others, err := s.Releases.OtherEnvironments(ctx)
	out := make([]Reader, len(others))
	for i, r := range others {
		out[i] = r
	}
	return out, err
}

func (s nomadStore) Create(ctx context.Context, head *record.Release, services []record.Service) (Journal, error) {
	j, err := s.Releases.Create(ctx, head, services)
	if err != nil {
		return nil, err
	}
	return j, nil
}

func (s nomadStore) TakeOver(ctx context.Context, head *record.Release, owner string) (Journal, error) {
	j, err := s.Releases.TakeOver(ctx, head, owner)
	if err != nil {
		return nil, err
	}
	return j, nil
}

func (s nomadStore) Lock(ctx context.Context, h record.Holder, wait time.Duration, waits func(record.Holder)) (Lease, error) {
	l, err := s.Releases.Lock(ctx, h, wait, waits)
	if err != nil {
		return nil, err
	}
	return nomadLease{l}, nil
}

func (s nomadStore) LockToMove(ctx context.Context, h record.Holder, wait time.Duration) (Lease, error) {
	l, err := s.Releases.LockToMove(ctx, h, wait, nil)
	if err != nil {
		return nil, err
	}
	return nomadLease{&record.Lock{Lease: l}}, nil
}

func (s nomadStore) PlanMove(ctx context.Context, to Store) (Move, error) {
	other, ok := to.(nomadStore)
	if !ok {
		return nil, ErrOtherStore
	}
	m, err := s.Releases.PlanMove(ctx, other.Releases)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// ErrOtherStore is the error of a move to a store of another kind.
var ErrOtherStore = errors.New("cannot move a record to a store of another kind")

type nomadLease struct{ *record.Lock }

func (l nomadLease) Renew(ctx context.Context) (Lease, error) {
	renewed, err := l.Recover(ctx)
	if err != nil {
		return nil, err
	}
	held := *l.Lock
	held.Lease = renewed
	return nomadLease{&held}, nil
}

// SecretsInNomad returns the secrets in Nomad Variables.
func SecretsInNomad(s *record.Secrets) SecretStore { return nomadSecrets{s} }

type nomadSecrets struct{ *record.Secrets }

func (s nomadSecrets) Reach(clusters map[string]Cluster) SecretStore {
	return nomadSecrets{s.At(func(target string) *api.Client {
		if c, ok := clusters[target]; ok {
			return c.Clients().Nomad
		}
		return nil
	})}
}

func (s nomadSecrets) CheckMove(ctx context.Context, to SecretStore, jobs []render.Job) error {
	other, ok := to.(nomadSecrets)
	if !ok {
		return ErrOtherStore
	}
	return s.Secrets.CheckMove(ctx, other.Secrets, jobs)
}

func (s nomadSecrets) Move(ctx context.Context, to SecretStore, jobs []render.Job) error {
	other, ok := to.(nomadSecrets)
	if !ok {
		return ErrOtherStore
	}
	return s.Secrets.Move(ctx, other.Secrets, jobs)
}

// DialNomad returns the clusters that clients of dial lead to.
func DialNomad(dial func(context.Context, *stack.Target, bool) (nomad.Clients, error)) Dialer {
	return func(ctx context.Context, t *stack.Target, needConsul bool) (Cluster, error) {
		c, err := dial(ctx, t, needConsul)
		return OnNomad(c), err
	}
}

// OnNomad returns the cluster that clients lead to.
func OnNomad(c nomad.Clients) Cluster { return nomadCluster{c} }

type nomadCluster struct{ clients nomad.Clients }

func (c nomadCluster) Clients() nomad.Clients { return c.clients }

func (c nomadCluster) Prepare(ctx context.Context, jobs []render.Job, o rollout.Options) (Rollout, error) {
	p, err := rollout.Prepare(ctx, c.clients, jobs, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (c nomadCluster) Destroy(ctx context.Context, jobs []render.Job, o rollout.Options, done func(rollout.Destroyed)) error {
	return rollout.Destroy(ctx, c.clients, jobs, o, done)
}

func (c nomadCluster) CreateVolumes(ctx context.Context, missing []rollout.MissingVolume, specs []*stack.Volume, done func(name string)) error {
	return rollout.CreateVolumes(ctx, c.clients, missing, specs, done)
}

func (c nomadCluster) RegisterStopped(ctx context.Context, l record.Service, job *api.Job, o rollout.Options) error {
	stopped, stop := *job, true
	stopped.Stop = &stop
	if _, _, err := c.clients.Nomad.Jobs().Register(&stopped, write(ctx, l)); err != nil {
		return fmt.Errorf("registering the stopped job %q: %w", l.JobID, err)
	}
	return rollout.PurgeChildren(ctx, c.clients, &stopped, o)
}

func (c nomadCluster) Job(ctx context.Context, l record.Service) (*api.Job, error) {
	job, _, err := c.clients.Nomad.Jobs().Info(l.JobID, query(ctx, l))
	switch {
	case nomad.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading job %q: %w", l.JobID, err)
	}
	return job, nil
}

func (c nomadCluster) Same(ctx context.Context, job *api.Job) (bool, uint64, error) {
	return rollout.Same(ctx, c.clients, job)
}

func (c nomadCluster) Rescaled(ctx context.Context, job *api.Job, index uint64) (bool, error) {
	return rollout.Rescaled(ctx, c.clients, job, index)
}

// Source reads GET /v1/job/:id/submission.
func (c nomadCluster) Source(ctx context.Context, l record.Service, version uint64) (string, error) {
	s, _, err := c.clients.Nomad.Jobs().Submission(l.JobID, int(version), query(ctx, l))
	switch {
	case nomad.IsNotFound(err) || err == nil && (s == nil || s.Format != "hcl2" || s.Variables != "" || len(s.VariableFlags) > 0):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading the source of job %q: %w", l.JobID, err)
	}
	return s.Source, nil
}

func (c nomadCluster) Allocations(ctx context.Context, l record.Service, index uint64) ([]*api.AllocationListStub, uint64, error) {
	q := query(ctx, l)
	q.WaitIndex = index
	allocs, meta, err := c.clients.Nomad.Jobs().Allocations(l.JobID, false, q)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the allocations of job %q: %w", l.JobID, err)
	}
	return allocs, meta.LastIndex, nil
}

func (c nomadCluster) Owners(ctx context.Context, stackName, env string, jobs []record.LiveJob) ([]*record.Owner, error) {
	return record.OpenReleases(c.clients.Nomad, stackName, env).Owners(ctx, jobs)
}

func (c nomadCluster) Deployments(ctx context.Context, l record.Service) ([]*api.Deployment, error) {
	list, _, err := c.clients.Nomad.Jobs().Deployments(l.JobID, false, query(ctx, l))
	if err != nil {
		return nil, fmt.Errorf("reading the deployments of job %q: %w", l.JobID, err)
	}
	return list, nil
}

// Promote calls PUT /v1/deployment/promote/:id.
func (c nomadCluster) Promote(ctx context.Context, l record.Service, deployment string) error {
	if _, _, err := c.clients.Nomad.Deployments().PromoteAll(deployment, write(ctx, l)); err != nil {
		return fmt.Errorf("promoting job %q: %w", l.JobID, err)
	}
	return nil
}

// Pause calls PUT /v1/deployment/pause/:id.
func (c nomadCluster) Pause(ctx context.Context, l record.Service, deployment string, pause bool) error {
	if _, _, err := c.clients.Nomad.Deployments().Pause(deployment, pause, write(ctx, l)); err != nil {
		return fmt.Errorf("pausing job %q: %w", l.JobID, err)
	}
	return nil
}

// Tag calls PUT /v1/job/:id/versions/:tag/tag.
func (c nomadCluster) Tag(ctx context.Context, l record.Service, version uint64, name, description string) error {
	_, err := c.clients.Nomad.Jobs().TagVersion(l.JobID, version, name, description, write(ctx, l))
	return err
}

func (c nomadCluster) Untag(ctx context.Context, l record.Service, name string) error {
	_, err := c.clients.Nomad.Jobs().UntagVersion(l.JobID, name, write(ctx, l))
	return err
}

func query(ctx context.Context, s record.Service) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}

func write(ctx context.Context, s record.Service) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: s.Namespace, Region: s.Region}).WithContext(ctx)
}
