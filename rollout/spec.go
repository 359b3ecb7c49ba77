package rollout

import (
	"context"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
)

// spec is what following a job needs to know of it.
type spec struct {
	id        string
	namespace string // "" for the client's own
	region    string
	kind      string // service, batch, system, sysbatch
	parent    bool   // periodic or parameterized: runs nothing by itself
	counts    map[string]int
	parallel  map[string]int // max_parallel of each group; 0: all at once
	manual    bool           // a canary group without auto_promote
	first     int            // allocations of a new version before its promotion
	noDeploy  bool           // Nomad makes no deployment for it
	consul    []consul.Service
	native    []consul.Service // those that Nomad itself registers
	groups    []*api.TaskGroup // of the job
}

func specOf(job *api.Job) spec {
	s := spec{
		id: *job.ID, kind: api.JobTypeService, counts: map[string]int{}, parallel: map[string]int{},
		// Nomad makes no evaluation for a periodic job, enabled or not.
		parent: job.ParameterizedJob != nil || job.Periodic != nil,
	}
	services := consul.Services(job)
	s.consul, s.native = consul.Of(consul.ProviderConsul, services), consul.Of(consul.ProviderNomad, services)
	s.namespace = nomad.Deref(job.Namespace)
	s.region = nomad.Deref(job.Region)
	s.kind = nomad.DerefOr(job.Type, api.JobTypeService)
	s.groups = job.TaskGroups
	rolling := false
	for _, tg := range job.TaskGroups {
		s.counts[nomad.Deref(tg.Name)] = nomad.DerefOr(tg.Count, 1)
		canary, promote, parallel := 0, false, 1
		for _, u := range []*api.UpdateStrategy{job.Update, tg.Update} {
			if u != nil {
				canary, promote, parallel = nomad.DerefOr(u.Canary, canary), nomad.DerefOr(u.AutoPromote, promote), nomad.DerefOr(u.MaxParallel, parallel)
			}
		}
		s.parallel[nomad.Deref(tg.Name)] = parallel
		s.first += s.counts[nomad.Deref(tg.Name)]
		if canary > 0 {
			s.first += canary - s.counts[nomad.Deref(tg.Name)]
		}
		s.manual = s.manual || (canary > 0 && !promote)
		rolling = rolling || parallel > 0
	}
	if s.finite() {
		clear(s.parallel)
	}
	s.noDeploy = !rolling || s.kind == api.JobTypeBatch || s.kind == api.JobTypeSysbatch
	return s
}

// drivers returns those of the tasks of a group, each once.
func (s spec) drivers(group string) []string {
	var out []string
	for _, g := range s.groups {
		for _, t := range g.Tasks {
			if nomad.Deref(g.Name) == group && !slices.Contains(out, t.Driver) {
				out = append(out, t.Driver)
			}
		}
	}
	return out
}

// perNode reports whether Nomad decides the number of allocations.
func (s spec) perNode() bool {
	return s.kind == api.JobTypeSystem || s.kind == api.JobTypeSysbatch
}

// finite reports whether the job is meant to end.
func (s spec) finite() bool {
	return s.kind == api.JobTypeBatch || s.kind == api.JobTypeSysbatch
}

// runsToCompletion reports whether allocations of the job itself run, and end.
func (s spec) runsToCompletion() bool { return s.finite() && !s.registeredIsDeployed() }

// RunsToCompletion reports whether a job runs once and ends: a batch or sysbatch
// job that is neither periodic nor parameterized.
func RunsToCompletion(job *api.Job) bool { return specOf(job).runsToCompletion() }

// total is the number of allocations that the spec asks for, 0 when Nomad decides.
func (s spec) total() int {
	n := 0
	if !s.perNode() {
		for _, c := range s.counts {
			n += c
		}
	}
	return n
}

// registeredIsDeployed reports whether there is nothing to wait for after the job is
// registered.
func (s spec) registeredIsDeployed() bool {
	return s.parent || (!s.perNode() && s.total() == 0)
}

func (s spec) query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: s.namespace, Region: s.region}).WithContext(ctx)
}

func (s spec) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: s.namespace, Region: s.region}).WithContext(ctx)
}

// settled reports whether an unchanged job is healthy and nothing about it is
// under way, judged by one reading. In doubt it reports false, and the job is
// followed as if it had been deployed. l may be nil.
func (s spec) settled(l *listed, a *api.PlanAnnotations, instances, native map[string][]consul.Instance) bool {
	if s.registeredIsDeployed() {
		return true
	}
	if a != nil {
		for _, u := range a.DesiredTGUpdates {
			quiet := api.DesiredUpdates{Ignore: u.Ignore}
			if s.perNode() {
				// Nomad 1.11 announces these for each node that has the system
				// job already; that one lacks it is seen in its evaluation.
				quiet.Place, quiet.InPlaceUpdate = u.Place, u.InPlaceUpdate
			}
			if *u != quiet {
				return false
			}
		}
	}
	if l == nil || l.deploying() || !s.noDeploy && l.failed() {
		return false
	}
	running := map[string]string{}
	perGroup := map[string]int{}
	live, others := l.live(s)
	if others > 0 {
		return false
	}
	for _, al := range live {
		switch {
		case s.finite() && al.ClientStatus == api.AllocClientStatusComplete:
			perGroup[al.TaskGroup]++
			continue
		case s.finite(), al.ClientStatus != api.AllocClientStatusRunning:
			return false
		}
		d := al.DeploymentStatus
		if !s.noDeploy && (d == nil || d.Healthy == nil || !*d.Healthy || d.Canary) && al.RescheduleTracker == nil {
			return false // a deployment may be running, or has failed
		}
		perGroup[al.TaskGroup]++
		running[al.ID] = al.TaskGroup
	}
	for group, count := range s.counts {
		if (s.perNode() && perGroup[group] == 0) || (!s.perNode() && perGroup[group] != count) {
			return false
		}
	}
	return consul.Judge(s.consul, running, instances).Healthy() && consul.Judge(s.native, running, native).Healthy()
}

// current keeps the allocations that count: not stopped on purpose, and not
// replaced by another one.
//
// NextAllocation alone does not mean that an allocation is replaced. Nomad
// leaves it set when the client of the allocation reconnects and the
// replacement is stopped instead.
func current(allocs []*api.AllocationListStub) []*api.AllocationListStub {
	byID := make(map[string]*api.AllocationListStub, len(allocs))
	for _, a := range allocs {
		byID[a.ID] = a
	}
	var out []*api.AllocationListStub
	for _, a := range allocs {
		if a.DesiredStatus == api.AllocDesiredStatusRun && !replaced(a, byID) {
			out = append(out, a)
		}
	}
	return out
}

// replaced reports whether another allocation has the place of a.
func replaced(a *api.AllocationListStub, byID map[string]*api.AllocationListStub) bool {
	next := a.NextAllocation
	for range byID { // no further than there are allocations
		successor := byID[next]
		if successor == nil {
			break
		}
		if successor.DesiredStatus == api.AllocDesiredStatusRun {
			return true
		}
		next = successor.NextAllocation
	}
	return a.NextAllocation != "" && a.ClientStatus != api.AllocClientStatusRunning && a.ClientStatus != api.AllocClientStatusPending
}
