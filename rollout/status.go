package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/render"
)

// ServiceStatus is how a service is now.
type ServiceStatus struct {
	Target        string    `json:"target,omitempty"`
	Service       string    `json:"service"`
	JobID         string    `json:"job_id"`
	Type          string    `json:"type,omitempty"`
	Status        string    `json:"status"` // Nomad's, or "missing"
	Version       uint64    `json:"version"`
	Healthy       int       `json:"healthy"`
	Desired       int       `json:"desired"`
	ChecksPassing int       `json:"checks_passing"` // instances in Consul
	ChecksTotal   int       `json:"checks_total"`
	Submitted     time.Time `json:"submitted,omitzero"`
	OK            bool      `json:"ok"`
	Detail        string    `json:"detail,omitempty"` // why not

	index    uint64 // JobModifyIndex
	troubles int    // see trouble
}

// Status reads how the jobs are now (GET /v1/job/:id and its allocations,
// one request to Consul). Only names, namespaces and regions of the given
// jobs are used: counts and services are those of the job that is registered.
func Status(ctx context.Context, c Clients, jobs []render.Job) ([]ServiceStatus, error) {
	out := make([]ServiceStatus, len(jobs))
	specs := make([]spec, len(jobs))
	running := make([]map[string]string, len(jobs))
	err := each(len(jobs), 8, func(i int) error {
		given := specOf(jobs[i].Job)
		out[i] = ServiceStatus{Target: jobs[i].Target, Service: jobs[i].Service, JobID: given.id}
		job, _, err := c.Nomad.Jobs().Info(given.id, given.query(ctx))
		switch {
		case notFound(err):
			out[i].Status, out[i].Detail = "missing", "not deployed"
			return nil
		case err != nil:
			return fmt.Errorf("reading job %q: %w", given.id, err)
		}
		specs[i] = specOf(job)
		specs[i].namespace, specs[i].region = given.namespace, given.region
		allocs, _, err := c.Nomad.Jobs().Allocations(given.id, false, given.query(ctx))
		if err != nil {
			return fmt.Errorf("reading the allocations of job %q: %w", given.id, err)
		}
		running[i] = out[i].fill(specs[i], job, allocs)
		return nil
	})
	if err == nil && c.Consul != nil {
		err = consulStatus(ctx, c, out, specs, running)
	}
	return out, c.explain(err)
}

// fill judges the job without Consul and returns what runs.
func (st *ServiceStatus) fill(s spec, job *api.Job, allocs []*api.AllocationListStub) map[string]string {
	st.Type, st.Status, st.Version = s.kind, deref(job.Status, ""), deref(job.Version, 0)
	if job.SubmitTime != nil {
		st.Submitted = time.Unix(0, *job.SubmitTime)
	}
	st.Desired = s.total()
	st.index, st.troubles = deref(job.JobModifyIndex, 0), trouble(allocs)
	running := map[string]string{}
	live := current(allocs)
	for _, a := range live {
		unhealthy := a.DeploymentStatus != nil && a.DeploymentStatus.Healthy != nil && !*a.DeploymentStatus.Healthy
		switch {
		case a.ClientStatus == api.AllocClientStatusRunning:
			running[a.ID] = a.TaskGroup
			if !s.finite() && !unhealthy {
				st.Healthy++
			}
		case a.ClientStatus == api.AllocClientStatusComplete && s.finite():
			st.Healthy++
		}
	}
	if s.perNode() {
		st.Desired = len(live)
	}
	stopped := deref(job.Stop, false)
	switch {
	case stopped:
		st.Status, st.Detail = "stopped", "stopped by somebody"
	case s.registeredIsDeployed():
		st.OK = true
	case st.Healthy < st.Desired || (s.perNode() && st.Desired == 0):
		st.Detail = snapshot{allocs: allocs}.waiting(st.Healthy, st.Desired)
		if st.Detail == "" {
			st.Detail = fmt.Sprintf("%d of %d allocations healthy", st.Healthy, st.Desired)
		}
	default:
		st.OK = true
	}
	return running
}

func consulStatus(ctx context.Context, c Clients, out []ServiceStatus, specs []spec, running []map[string]string) error {
	var names []string
	for _, s := range specs {
		names = append(names, consul.Names(s.consul)...)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	instances, err := consul.Read(ctx, c.Consul, slices.Compact(names))
	if err != nil {
		return consulError(&ClusterError{System: "Consul", Address: consulAddress(), Err: err})
	}
	for i := range out {
		checked := slices.DeleteFunc(slices.Clone(specs[i].consul), func(s consul.Service) bool { return s.Checks == 0 })
		h := consul.Judge(checked, running[i], instances)
		out[i].ChecksPassing, out[i].ChecksTotal = h.Passing, h.Total
		if !h.Healthy() && out[i].OK {
			out[i].OK, out[i].Detail = false, describe(h.Failing)
		}
	}
	return nil
}
