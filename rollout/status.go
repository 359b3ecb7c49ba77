package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// StatusMissing is the status of a job that Nomad does not have.
const StatusMissing = "missing"

// ServiceStatus is how a service is now.
type ServiceStatus struct {
	Target        string    `json:"target,omitempty"`
	Service       string    `json:"service"`
	JobID         string    `json:"job_id"`
	Type          string    `json:"type,omitempty"`
	Status        string    `json:"status"` // Nomad's, or StatusMissing
	Version       uint64    `json:"version"`
	Healthy       int       `json:"healthy"`
	Desired       int       `json:"desired"`
	ChecksPassing int       `json:"checks_passing"` // instances of services in Consul or Nomad
	ChecksTotal   int       `json:"checks_total"`
	Submitted     time.Time `json:"submitted,omitzero"`
	OK            bool      `json:"ok"`
	Detail        string    `json:"detail,omitempty"` // why not
	Note          string    `json:"note,omitempty"`   // worth knowing although it is OK
	// Children are the runs of a periodic or parameterized job, of which Healthy
	// counts those that run and Desired those that are not over.
	Children *Children `json:"children,omitempty"`
	// Lost are host volumes on lost nodes that keep instances from running.
	Lost []LostVolume `json:"lost_volumes,omitempty"`

	// Completed is set where Nomad collected a job that ran to its end.
	Completed *Completion `json:"completed,omitempty"`

	index    uint64         // JobModifyIndex
	empty    bool           // no allocation is listed
	troubles map[string]int // by allocation, see trouble
	failing  []consul.Failing
}

// Status reads how the jobs are now: three requests for each region and
// namespace, one more where there are periodic or parameterized jobs, and one to
// Consul, however many jobs there are (see list). The expected services in Consul are
// those of the given jobs; if they are not registered, those of the registered job,
// which may be an older version.
func Status(ctx context.Context, c nomad.Clients, jobs []render.Job) ([]ServiceStatus, error) {
	out, err := status(ctx, c, jobs)
	if err == nil {
		lostVolumes(ctx, c, jobs, out)
	}
	return out, c.Explain(err)
}

func status(ctx context.Context, c nomad.Clients, jobs []render.Job) ([]ServiceStatus, error) {
	specs := specsOf(jobs)
	is, err := list(ctx, c, placesOf(specs))
	if err != nil {
		return nil, err
	}
	out := make([]ServiceStatus, len(jobs))
	running := make([]map[string]string, len(jobs))
	for i, s := range specs {
		l, desired := is[s.at()], s.total()
		if l != nil {
			desired = l.GroupCountSum
		}
		out[i], running[i] = s.status(jobs[i], l, desired)
	}
	if err := childStatuses(ctx, c, specs, is, out); err != nil {
		return nil, err
	}
	return out, serviceStatus(ctx, c, out, specs, running)
}

// childStatuses counts the runs of periodic and parameterized jobs.
func childStatuses(ctx context.Context, c nomad.Clients, specs []spec, is map[jobAt]*listed, out []ServiceStatus) error {
	var parents []spec
	for _, s := range specs {
		if l := is[s.at()]; l != nil && (l.stub.Periodic || l.stub.ParameterizedJob) {
			parents = append(parents, s)
		}
	}
	if len(parents) == 0 {
		return nil
	}
	of, err := children(ctx, c, parents)
	if err != nil {
		return err
	}
	for i, s := range specs {
		if ch := of[s.at()]; ch != nil {
			st := &out[i]
			st.Children, st.Healthy, st.Desired = ch, ch.Running, ch.Running+ch.Pending
			st.Note = cmp.Or(st.Note, ch.note())
		}
	}
	return nil
}

func specsOf(jobs []render.Job) []spec {
	out := make([]spec, len(jobs))
	for i, j := range jobs {
		out[i] = specOf(j.Job)
	}
	return out
}

// status judges a job without Consul, nil when it is not there. It returns
// also what runs, by allocation ID.
func (s spec) status(j render.Job, l *listed, desired int) (ServiceStatus, map[string]string) {
	st := ServiceStatus{Target: j.Target, Service: j.Service, JobID: s.id}
	if l == nil {
		st.Status, st.Detail = StatusMissing, "not deployed"
		return st, nil
	}
	s.kind, s.parent = l.stub.Type, l.stub.Periodic || l.stub.ParameterizedJob // of the registered one
	st.Type, st.Status, st.Submitted = l.stub.Type, l.stub.Status, time.Unix(0, l.stub.SubmitTime)
	st.empty = len(l.allocs) == 0
	st.Version, st.index, st.troubles = l.Version, l.stub.JobModifyIndex, trouble(l.allocs)
	running := map[string]string{}
	live, others := l.live(s)
	for _, a := range live {
		if a.ClientStatus == api.AllocClientStatusRunning {
			running[a.ID] = a.TaskGroup
		}
		if s.isHealthy(a, l.deploying()) {
			st.Healthy++
		}
	}
	if st.Desired = desired; s.perNode() {
		st.Desired = len(live)
	}
	short := fmt.Sprintf("%d of %d allocations healthy", st.Healthy, st.Desired)
	switch d := l.LatestDeployment; {
	case l.stub.Stop:
		st.Status, st.Detail = "stopped", "the job was stopped"
	case s.parent, !s.perNode() && desired == 0:
		st.OK = true
	case l.deploying() && d.RequiresPromotion:
		st.Detail = fmt.Sprintf("version %d waits for a promotion; %s", l.Version, short)
	case others > 0 && l.failed():
		st.Detail = fmt.Sprintf("the deployment of version %d failed, and an older version runs (%s)", l.Version, plural(others, "allocation", "allocations"))
	case others > 0:
		st.Detail = fmt.Sprintf("%s; an older version runs (%s)", short, plural(others, "allocation", "allocations"))
	case s.perNode() && st.Desired == 0 && l.stub.Status == "pending":
		st.Detail = "the scheduler has not placed it yet"
	case s.perNode() && st.Desired == 0:
		st.OK, st.Note = true, noNode
	case st.Healthy < st.Desired && slices.ContainsFunc(live, func(a *api.AllocationListStub) bool {
		return failedForGood(a) && time.Since(time.Unix(0, a.ModifyTime)) > schedulerPatience
	}):
		st.Detail = short + ": one failed, and Nomad starts no other: redeploy it"
	case st.Healthy < st.Desired:
		st.Detail = cmp.Or(snapshot{allocs: live}.waiting(st.Healthy, st.Desired), short)
	default:
		st.OK = true
	}
	return st, running
}

// Collected reports whether the job is not healthy and has no allocation.
func (st ServiceStatus) Collected() bool {
	return !st.OK && (st.Status == StatusMissing || st.Status == "stopped" || st.empty)
}

// Complete makes st the status of a job that ran to its end.
func (st *ServiceStatus) Complete(c Completion) {
	st.Status, st.OK, st.Detail, st.Note, st.Completed = "completed", true, "", c.String(), &c
}

// schedulerPatience is how long the scheduler may take to plan a replacement of
// a failed allocation.
const schedulerPatience = 10 * time.Second

// noNode is the note of a system job that has no allocation. It has as many as
// there are nodes that fit, and that may be none.
const noNode = "no node takes it"

// isHealthy reports whether an allocation of the current version is as it is
// meant to be. deploying is whether its deployment is in progress.
func (s spec) isHealthy(a *api.AllocationListStub, deploying bool) bool {
	if s.finite() {
		return a.ClientStatus == api.AllocClientStatusComplete
	}
	if a.ClientStatus != api.AllocClientStatusRunning {
		return false
	}
	if d := a.DeploymentStatus; d != nil && d.Healthy != nil {
		return *d.Healthy
	}
	return !deploying // one that was started after the deployment has no health
}

// serviceStatus adds what Consul and Nomad say of the registered services.
func serviceStatus(ctx context.Context, c nomad.Clients, out []ServiceStatus, specs []spec, running []map[string]string) error {
	instances, err := readServices(ctx, c, specs, running)
	if err != nil {
		return err
	}
	var doubtful []int
	for i := range out {
		if !out[i].count(instances[i]) {
			doubtful = append(doubtful, i)
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	// The stack may have been changed since it was deployed.
	registered, there := make([]spec, len(doubtful)), make([]map[string]string, len(doubtful))
	err = parallel.Each(len(doubtful), 8, func(n int) error {
		s := specs[doubtful[n]]
		job, _, err := c.Nomad.Jobs().Info(s.id, s.query(ctx))
		if err != nil {
			return fmt.Errorf("reading job %q: %w", s.id, err)
		}
		registered[n], there[n] = specOf(job), running[doubtful[n]]
		return nil
	})
	if err == nil {
		instances, err = readServices(ctx, c, registered, there)
	}
	if err != nil {
		return err
	}
	for n, i := range doubtful {
		if !out[i].count(instances[n]) && out[i].OK {
			out[i].OK, out[i].Detail = false, describe(out[i].failing)
		}
	}
	return nil
}

// readServices judges the services of jobs: those in Consul together, those in
// Nomad one by one.
func readServices(ctx context.Context, c nomad.Clients, specs []spec, running []map[string]string) ([]consul.Health, error) {
	var instances map[string][]consul.Instance
	if c.Consul != nil {
		var err error
		if instances, err = readConsul(ctx, c, specs); err != nil {
			return nil, err
		}
	}
	out, err := readNative(ctx, c, specs, running)
	if c.Consul != nil {
		for i, s := range specs {
			out[i] = out[i].Add(consul.Judge(s.consul, running[i], instances))
		}
	}
	return out, err
}

// readConsul reads the instances of all services of the jobs in Consul at once,
// nil when there are none.
func readConsul(ctx context.Context, c nomad.Clients, specs []spec) (map[string][]consul.Instance, error) {
	var services []consul.Service
	for _, s := range specs {
		services = append(services, s.consul...)
	}
	if len(services) == 0 {
		return nil, nil
	}
	instances, err := consul.Read(ctx, c.Consul, c.ConsulDatacenters, services)
	if err != nil {
		return nil, nomad.ConsulError(err)
	}
	return instances, nil
}

// count takes over how many instances there are, and reports whether all pass.
func (st *ServiceStatus) count(h consul.Health) bool {
	st.ChecksPassing, st.ChecksTotal, st.failing = h.Passing, h.Total, h.Failing
	return h.Healthy()
}
