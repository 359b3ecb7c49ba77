package rollout

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// MaxInstances is the number of allocations that Instances returns.
const MaxInstances = 30

// Instance is one allocation of a job with what a person needs to judge it.
type Instance struct {
	AllocID string
	JobID   string // of a run, for a periodic or parameterized job
	Group   string
	Node    string
	Version uint64 // of the job
	Status  string // of the client: pending, running, complete, failed, lost, unknown
	Desired string // run or stop
	Healthy *bool  // by its deployment; nil if it has none, or it is not known yet
	Created time.Time
	Tasks   []InstanceTask
	Checks  []InstanceCheck
	Usage   *Usage // nil if it does not run, or its node does not answer
}

// InstanceTask is a task of an allocation.
type InstanceTask struct {
	Name     string
	State    string // pending, running or dead
	Failed   bool
	Restarts uint64
	Event    string // that says most about why it is not well; "" for none
	EventAt  time.Time
}

// InstanceCheck is a health check of an allocation, in Consul or Nomad.
type InstanceCheck struct {
	Service, Name string
	Status        string // passing, warning, critical, pending or unknown
	Output        string
}

// Usage is what the tasks of an allocation use now, and what their job spec asks for.
type Usage struct {
	CPU         float64 // MHz
	Memory      uint64  // bytes
	AskedCPU    int     // MHz
	AskedMemory uint64  // bytes
}

// Instances reads the newest MaxInstances allocations of a job, the newest first: one
// request for the list, two for each that runs, and those for the checks of its
// services. A node that does not answer costs only the usage of its allocations.
func Instances(ctx context.Context, c nomad.Clients, job render.Job) ([]Instance, error) {
	s := specOf(job.Job)
	allocs, _, err := s.allocations(c, s.query(ctx))
	if err != nil {
		return nil, c.Explain(fmt.Errorf("reading the allocations of job %q: %w", s.id, err))
	}
	slices.SortFunc(allocs, func(a, b *api.AllocationListStub) int { return cmp.Compare(b.CreateIndex, a.CreateIndex) })
	allocs = allocs[:min(len(allocs), MaxInstances)]
	checks, err := s.checks(ctx, c, runningOf(allocs))
	if err != nil {
		return nil, c.Explain(err)
	}
	out := make([]Instance, len(allocs))
	err = parallel.Each(len(allocs), 8, func(i int) error {
		out[i] = instanceOf(allocs[i])
		out[i].Checks = checks[allocs[i].ID]
		if out[i].Status == api.AllocClientStatusRunning {
			out[i].Usage = s.usage(ctx, c, allocs[i])
		}
		return nil
	})
	return out, err
}

func instanceOf(a *api.AllocationListStub) Instance {
	in := Instance{AllocID: a.ID, JobID: a.JobID, Group: a.TaskGroup, Node: a.NodeName, Version: a.JobVersion, Status: a.ClientStatus, Desired: a.DesiredStatus, Created: time.Unix(0, a.CreateTime)}
	if a.DeploymentStatus != nil {
		in.Healthy = a.DeploymentStatus.Healthy
	}
	for _, name := range slices.Sorted(maps.Keys(a.TaskStates)) {
		st := a.TaskStates[name]
		t := InstanceTask{Name: name, State: st.State, Failed: st.Failed, Restarts: st.Restarts}
		if e := decisive(st); e != nil {
			t.Event, t.EventAt = message(st, e), time.Unix(0, e.Time)
		}
		in.Tasks = append(in.Tasks, t)
	}
	return in
}

// checks reads the checks of running allocations, by allocation ID.
func (s spec) checks(ctx context.Context, c nomad.Clients, running map[string]string) (map[string][]InstanceCheck, error) {
	found, err := s.nativeInstances(ctx, c, running)
	if err != nil {
		return nil, err
	}
	all := []map[string][]consul.Instance{found}
	if c.Consul != nil {
		if found, err = readConsul(ctx, c, []spec{s}); err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	out := map[string][]InstanceCheck{}
	for _, found := range all {
		for _, service := range slices.Sorted(maps.Keys(found)) {
			for _, in := range found[service] {
				for id := range running {
					if !strings.Contains(in.ServiceID, id) {
						continue
					}
					for _, h := range in.Checks {
						out[id] = append(out[id], InstanceCheck{Service: service, Name: h.Name, Status: h.Status, Output: strings.TrimSpace(h.Output)})
					}
				}
			}
		}
	}
	return out, nil
}

// usage reads what an allocation uses (GET /v1/client/allocation/:id/stats), nil if
// that cannot be read.
func (s spec) usage(ctx context.Context, c nomad.Clients, a *api.AllocationListStub) *Usage {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var (
		wg    sync.WaitGroup
		full  *api.Allocation
		stats *api.AllocResourceUsage
	)
	wg.Go(func() { full, _, _ = c.Nomad.Allocations().Info(a.ID, s.query(ctx)) })
	wg.Go(func() {
		stats, _ = c.Nomad.Allocations().Stats(&api.Allocation{ID: a.ID, NodeID: a.NodeID}, s.query(ctx))
	})
	wg.Wait()
	if full == nil || stats == nil || stats.ResourceUsage == nil {
		return nil
	}
	u := &Usage{}
	if st := stats.ResourceUsage.CpuStats; st != nil {
		u.CPU = st.TotalTicks
	}
	if st := stats.ResourceUsage.MemoryStats; st != nil {
		u.Memory = max(st.RSS, st.Usage)
	}
	if r := full.AllocatedResources; r != nil {
		for _, t := range r.Tasks {
			u.AskedCPU += int(t.Cpu.CpuShares)
			u.AskedMemory += uint64(max(t.Memory.MemoryMB, 0)) << 20
		}
	}
	return u
}
