// Package releasetest has what tests of releases need: a cluster that follows a
// script, and the contract of a store.
package releasetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Cluster holds jobs in memory. It registers what a release submits, and what
// becomes of it is what its script says.
type Cluster struct {
	defaults nomad.Defaults

	mu          sync.Mutex
	index       uint64
	jobs        map[nomad.JobID]*api.Job
	log         []string
	deployments map[string][]*api.Deployment // by job ID, the newest first
	allocs      map[string][]*api.AllocationListStub
	tags        map[string]uint64 // JOB/TAG → version
	canaries    map[string]bool   // job IDs whose canaries wait for a promotion

	// Follow decides how a job that was registered ends; Deployed when nil. The canaries of
	// one that ends as AwaitPromotion wait until they are promoted, failed or replaced.
	Follow func(ctx context.Context, job *api.Job) rollout.ServiceResult
	// Fail is called before each request with its name, as "Register web". Its error
	// is returned instead. It may be nil.
	Fail func(request string) error
	// OwnerOf is for Owners; it may be nil.
	OwnerOf func(record.LiveJob) *record.Owner
}

var _ release.Cluster = (*Cluster)(nil)

// NewCluster returns a cluster without jobs, in region "global" and namespace
// "default".
func NewCluster() *Cluster {
	return &Cluster{
		defaults: nomad.Defaults{Region: api.GlobalRegion, Namespace: api.DefaultNamespace}, index: 100, jobs: map[nomad.JobID]*api.Job{},
		deployments: map[string][]*api.Deployment{}, allocs: map[string][]*api.AllocationListStub{}, tags: map[string]uint64{}, canaries: map[string]bool{},
	}
}

// Log returns what the release wrote, in order, as "register web" or "purge web".
func (c *Cluster) Log() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

// ResetLog empties the log.
func (c *Cluster) ResetLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = nil
}

// Running returns an item of the meta of each job that runs, by job ID.
func (c *Cluster) Running(item string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]string{}
	for id, j := range c.jobs {
		if !nomad.Deref(j.Stop) {
			out[id.ID] = j.Meta[item]
		}
	}
	return out
}

// Register registers a job as another client does, and returns its index.
func (c *Cluster) Register(job *api.Job) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.register(job)
}

// Purge removes a job as another client does.
func (c *Cluster) Purge(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.jobs, c.defaults.JobID("", "", id))
}

// SetAllocations sets the allocations of a job.
func (c *Cluster) SetAllocations(id string, allocs ...*api.AllocationListStub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allocs[id] = allocs
}

// Tags returns the tags of versions, as "JOB/TAG".
func (c *Cluster) Tags() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.tags))
}

func ptr[T any](v T) *T { return &v }

// register writes a job. The caller holds mu.
func (c *Cluster) register(job *api.Job) uint64 {
	c.index++
	id := c.defaults.Of(job)
	out := *job
	out.Region, out.Namespace = ptr(id.Region), ptr(id.Namespace)
	version, created, status := uint64(0), c.index, "running"
	if old := c.jobs[id]; old != nil {
		version, created = *old.Version+1, *old.CreateIndex
	}
	if nomad.Deref(job.Stop) {
		status = "dead"
	}
	out.Version, out.CreateIndex, out.JobModifyIndex, out.Status = &version, &created, ptr(c.index), &status
	c.jobs[id] = &out
	d := &api.Deployment{ID: fmt.Sprintf("%s-%d", id.ID, c.index), JobID: id.ID, JobVersion: version, JobSpecModifyIndex: c.index, Status: "running"}
	c.deployments[id.ID] = append([]*api.Deployment{d}, c.deployments[id.ID]...)
	return c.index
}

func (c *Cluster) request(ctx context.Context, what, id string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.Fail != nil {
		return c.Fail(what + " " + id)
	}
	return nil
}

// spec is what of a job its operator writes.
func (c *Cluster) spec(job *api.Job) string {
	id := c.defaults.Of(job)
	out := *job
	out.Region, out.Namespace = &id.Region, &id.Namespace
	out.Stop, out.Status, out.Version, out.CreateIndex, out.JobModifyIndex = nil, nil, nil, nil, nil
	text, err := json.Marshal(out)
	if err != nil {
		panic(err) // a job is plain data
	}
	return string(text)
}

// Clients implements release.Cluster: only the defaults are set.
func (c *Cluster) Clients() nomad.Clients { return nomad.Clients{Defaults: c.defaults} }

// CreateVolumes implements release.Cluster. The log has "volume NAME".
func (c *Cluster) CreateVolumes(ctx context.Context, missing []rollout.MissingVolume, _ []*stack.Volume, done func(string)) error {
	for _, m := range missing {
		if err := c.request(ctx, "CreateVolume", m.Name); err != nil {
			return err
		}
		c.mu.Lock()
		c.log = append(c.log, "volume "+m.Name)
		c.mu.Unlock()
		done(m.Name)
	}
	return nil
}

// Job implements release.Cluster.
func (c *Cluster) Job(ctx context.Context, l record.Service) (*api.Job, error) {
	if err := c.request(ctx, "Job", l.JobID); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.jobs[c.defaults.JobID(l.Region, l.Namespace, l.JobID)]
	if j == nil {
		return nil, nil
	}
	out := *j
	return &out, nil
}

// Same implements release.Cluster.
func (c *Cluster) Same(ctx context.Context, job *api.Job) (bool, uint64, error) {
	if err := c.request(ctx, "Same", *job.ID); err != nil {
		return false, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	live := c.jobs[c.defaults.Of(job)]
	if live == nil {
		return false, 0, nil
	}
	return !nomad.Deref(live.Stop) && c.spec(live) == c.spec(job), *live.JobModifyIndex, nil
}

// Rescaled implements release.Cluster: nothing is scaled.
func (c *Cluster) Rescaled(context.Context, *api.Job, uint64) (bool, error) { return false, nil }

// Source implements release.Cluster: no source is kept.
func (c *Cluster) Source(context.Context, record.Service, uint64) (string, error) { return "", nil }

// Allocations implements release.Cluster.
func (c *Cluster) Allocations(ctx context.Context, l record.Service, index uint64) ([]*api.AllocationListStub, uint64, error) {
	if err := c.request(ctx, "Allocations", l.JobID); err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allocs[l.JobID], index + 1, nil
}

// Owners implements release.Cluster.
func (c *Cluster) Owners(_ context.Context, _, _ string, jobs []record.LiveJob) ([]*record.Owner, error) {
	out := make([]*record.Owner, len(jobs))
	for i, j := range jobs {
		if c.OwnerOf != nil {
			out[i] = c.OwnerOf(j)
		}
	}
	return out, nil
}

// Deployments implements release.Cluster.
func (c *Cluster) Deployments(ctx context.Context, l record.Service) ([]*api.Deployment, error) {
	if err := c.request(ctx, "Deployments", l.JobID); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*api.Deployment
	for _, d := range c.deployments[l.JobID] {
		out = append(out, ptr(*d))
	}
	return out, nil
}

func (c *Cluster) setStatus(ctx context.Context, what string, l record.Service, deployment, status string) error {
	if err := c.request(ctx, what, l.JobID); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.deployments[l.JobID] {
		if d.ID == deployment {
			d.Status = status
			c.log = append(c.log, strings.ToLower(what)+" "+l.JobID)
			return nil
		}
	}
	return fmt.Errorf("job %s has no deployment %s", l.JobID, deployment)
}

// Promote implements release.Cluster.
func (c *Cluster) Promote(ctx context.Context, l record.Service, deployment string) error {
	err := c.setStatus(ctx, "Promote", l, deployment, "running")
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.canaries, l.JobID)
	}
	return err
}

// Pause implements release.Cluster.
func (c *Cluster) Pause(ctx context.Context, l record.Service, deployment string, pause bool) error {
	if pause {
		return c.setStatus(ctx, "Pause", l, deployment, "paused")
	}
	return c.setStatus(ctx, "Resume", l, deployment, "running")
}

// Tag implements release.Cluster.
func (c *Cluster) Tag(ctx context.Context, l record.Service, version uint64, name, _ string) error {
	if err := c.request(ctx, "Tag", l.JobID); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tags[l.JobID+"/"+name] = version
	return nil
}

// Untag implements release.Cluster.
func (c *Cluster) Untag(ctx context.Context, l record.Service, name string) error {
	if err := c.request(ctx, "Untag", l.JobID); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tags, l.JobID+"/"+name)
	return nil
}

// RegisterStopped implements release.Cluster.
func (c *Cluster) RegisterStopped(ctx context.Context, l record.Service, job *api.Job, _ rollout.Options) error {
	if err := c.request(ctx, "RegisterStopped", l.JobID); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stopped := *job
	stopped.Stop = ptr(true)
	c.register(&stopped)
	c.log = append(c.log, "stop "+l.JobID)
	return nil
}

// Destroy implements release.Cluster.
func (c *Cluster) Destroy(ctx context.Context, jobs []render.Job, _ rollout.Options, done func(rollout.Destroyed)) error {
	var errs []error
	for i, j := range jobs {
		res := rollout.Destroyed{Index: i, Service: j.Service, JobID: *j.Job.ID}
		if res.Err = c.request(ctx, "Purge", res.JobID); res.Err == nil {
			c.mu.Lock()
			id := c.defaults.Of(j.Job)
			res.Missing = c.jobs[id] == nil
			delete(c.jobs, id)
			c.log = append(c.log, "purge "+res.JobID)
			c.mu.Unlock()
		}
		errs = append(errs, res.Err)
		if done != nil {
			done(res)
		}
	}
	return errors.Join(errs...)
}
