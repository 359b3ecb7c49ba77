package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

const (
	// observePause is between two answers to a blocking query for a list.
	observePause = 5 * time.Second
	// observeEach is added to observePause for each entry of the list. Decoding an
	// entry takes a hundredth of it, so that a list that changes all the time costs
	// at most 1 % of a core.
	observeEach = 10 * time.Millisecond
)

// The lists that are observed. Each is one blocking query, however many entries it has.
const (
	listRecords     = "records"
	listJobs        = "jobs"
	listAllocations = "allocations"
	listDeployments = "deployments"
)

// observed is what the leader knows of stacks, of the jobs of their newest releases, and
// of the schedules.
type observed struct {
	home nomad.Defaults

	mu          sync.Mutex
	read        map[string]bool // lists that were read at least once
	old         bool            // the list of jobs could not be read again
	stacks      map[string]*observedStack
	jobs        map[nomad.JobID]jobEntry
	namespaces  map[string]bool // that have jobs
	allocations map[nomad.JobID]*allocationCounts
	deployments map[nomad.JobID]deploymentEntry
	restarts    map[nomad.JobID]uint64 // since the first list
	restarted   map[string]uint64      // by ID of the allocation, as in the last list
}

func newObserved(home nomad.Defaults) *observed {
	return &observed{home: home, read: map[string]bool{}, stacks: map[string]*observedStack{}, restarts: map[nomad.JobID]uint64{}, restarted: map[string]uint64{}}
}

// observedStack is the record of a stack in an environment.
type observedStack struct {
	index     record.Index
	head      *record.Release // nil without a release
	lines     []observedLine
	schedules map[string]*record.Schedule
}

// observedLine is what is needed of a line of the journal.
type observedLine struct {
	service, target string
	job             nomad.JobID
	elsewhere       bool // in a cluster of its own
	runs            bool // expected to be registered
	wave            int
	change          record.Change
	step            record.Step
	outcome         string
	started, ended  time.Time
}

// The fields of Nomad's lists that are needed. Decoding the others would take most of
// the time.
type (
	jobEntry struct {
		ID, Namespace, Type, Status string
		Stop                        bool
		JobModifyIndex              uint64
		JobSummary                  *struct {
			Summary map[string]struct{ Queued, Running int }
		}
	}
	allocationEntry struct {
		ID, Namespace, JobID, TaskGroup, DesiredStatus, ClientStatus, NextAllocation string
		JobVersion                                                                   uint64
		TaskStates                                                                   map[string]*struct{ Restarts uint64 }
		DeploymentStatus                                                             *struct{ Healthy *bool }
	}
	deploymentEntry struct {
		Namespace, JobID, Status, StatusDescription string
		JobVersion, CreateIndex                     uint64
		TaskGroups                                  map[string]*struct{ DesiredTotal, HealthyAllocs int }
	}
)

// allocationCounts counts the allocations of one job that have no successor.
type allocationCounts struct {
	states   map[string]int // by client status
	healthy  int
	versions map[uint64]int // of those that are not terminal
	newest   uint64
	running  map[string][]string // IDs of those that run, by group
}

// currentAllocations leaves out allocations that are over and have been replaced.
const currentAllocations = `DesiredStatus == "run" or ClientStatus == "running" or ClientStatus == "pending" or ClientStatus == "unknown"`

// observe keeps what /metrics has about stacks and their jobs.
func (c *controller) observe(ctx context.Context) {
	if c.c.Nomad == nil {
		return
	}
	o := newObserved(nomad.Defaults{Region: c.c.Region, Namespace: c.c.namespace()})
	c.metrics.observe(o)
	var wg sync.WaitGroup
	defer wg.Wait()
	for list, look := range map[string]func(context.Context, *observed, *api.QueryOptions) (entries int, next uint64, err error){
		listRecords:     c.observeRecords,
		listJobs:        c.observeJobs,
		listAllocations: c.observeAllocations,
		listDeployments: c.observeDeployments,
	} {
		wg.Go(func() {
			var (
				index    uint64
				last     string
				failures int
			)
			for ctx.Err() == nil {
				n, next, err := look(ctx, o, &api.QueryOptions{WaitIndex: index, WaitTime: c.c.LookEvery})
				if ctx.Err() != nil {
					return
				}
				if list == listJobs {
					o.jobsAreOld(err != nil)
				}
				if c.warn("observe", &last, err); err != nil {
					index = 0
					_ = nomad.StreamBackoff().Wait(ctx, failures)
					failures++
					continue
				}
				failures = 0
				o.mu.Lock()
				o.read[list] = true
				o.mu.Unlock()
				c.metrics.done("observe")
				if next < index { // the servers were restored
					next = 0
				}
				index = max(next, 1) // 0 would not block
				if !wait(ctx, min(observePause, c.c.LookEvery)+time.Duration(n)*observeEach) {
					return
				}
			}
		})
	}
}

// observeRecords reads the records that have changed. It returns the number of stacks.
func (c *controller) observeRecords(ctx context.Context, o *observed, q *api.QueryOptions) (int, uint64, error) {
	indexes, next, err := record.Indexes(ctx, c.c.Nomad, q)
	if err != nil {
		return 0, 0, err
	}
	o.mu.Lock()
	before := o.stacks
	o.mu.Unlock()
	now := make(map[string]*observedStack, len(indexes))
	var errs []error
	for _, x := range indexes {
		full := x.Stack + "/" + x.Environment
		s, err := c.observeStack(ctx, o.home, before[full], x)
		if err != nil {
			errs = append(errs, err)
			s = before[full]
		}
		if s != nil {
			now[full] = s
		}
	}
	o.mu.Lock()
	o.stacks = now
	o.mu.Unlock()
	return len(indexes), next, errors.Join(errs...)
}

// observeStack reads what has changed since before, which may be nil.
func (c *controller) observeStack(ctx context.Context, home nomad.Defaults, before *observedStack, x record.Index) (*observedStack, error) {
	out := &observedStack{index: x, schedules: map[string]*record.Schedule{}}
	if before == nil {
		before = &observedStack{}
	}
	if out.head, out.lines = before.head, before.lines; x.Release != before.index.Release || x.Modified != before.index.Modified {
		out.head, out.lines = nil, nil
		if x.Release > 0 {
			releases := record.OpenReleases(c.c.Nomad, x.Stack, x.Environment)
			head, err := releases.Read(ctx, x.Release)
			var lines []record.Service
			if err == nil {
				lines, err = releases.Services(ctx, head)
			}
			var broken *record.UnreadableError
			if errors.As(err, &broken) {
				head, err = &record.Release{Number: x.Release, State: record.Unreadable}, nil
			}
			if err != nil {
				return nil, err
			}
			out.head, out.lines = head, linesOf(home, head, lines)
		}
	}
	schedules := record.OpenSchedules(c.c.Nomad, x.Stack, x.Environment)
	for name, modified := range x.Schedules {
		if s := before.schedules[name]; s != nil && before.index.Schedules[name] == modified {
			out.schedules[name] = s
			continue
		}
		s, err := schedules.Read(ctx, name)
		var broken *record.UnreadableError
		switch {
		case errors.Is(err, record.ErrNoSchedule), errors.As(err, &broken):
		case err != nil:
			return nil, err
		default:
			out.schedules[name] = s
		}
	}
	return out, nil
}

func linesOf(home nomad.Defaults, head *record.Release, lines []record.Service) []observedLine {
	var targets []*stack.Target
	_ = json.Unmarshal(head.Targets, &targets) // without targets all jobs are where the record is
	out := make([]observedLine, 0, len(lines))
	for _, l := range lines {
		line := observedLine{
			service: l.Name, target: l.Target, runs: l.Leftover().Runs && head.State != record.Destroyed, wave: l.Wave,
			change: l.Change, step: l.Step, outcome: l.Outcome, started: l.Started, ended: l.Ended,
		}
		region := l.Region
		for _, t := range targets {
			if t.Name == l.Target {
				region, line.elsewhere = cmp.Or(region, t.Region), t.Cluster != nil
			}
		}
		line.job = home.JobID(region, l.Namespace, l.JobID)
		line.elsewhere = line.elsewhere || line.job.Region != home.JobID("", "", "").Region
		out = append(out, line)
	}
	return out
}

// everywhere is a query of all namespaces that the token may read.
func everywhere(q *api.QueryOptions, filter string) *api.QueryOptions {
	q.Namespace, q.Filter = api.AllNamespacesNamespace, filter
	return q
}

// observeJobs reads the jobs (GET /v1/jobs).
func (c *controller) observeJobs(ctx context.Context, o *observed, q *api.QueryOptions) (int, uint64, error) {
	var list []jobEntry
	meta, err := c.c.Nomad.Raw().Query("/v1/jobs", &list, everywhere(q, "").WithContext(ctx))
	if err != nil {
		return 0, 0, err
	}
	o.setJobs(list)
	return len(list), meta.LastIndex, nil
}

func (o *observed) setJobs(list []jobEntry) {
	now := make(map[nomad.JobID]jobEntry, len(list))
	namespaces := map[string]bool{}
	for _, j := range list {
		now[o.home.JobID("", j.Namespace, j.ID)] = j
		namespaces[j.Namespace] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.jobs, o.namespaces = now, namespaces
}

// jobsAreOld notes whether the list of jobs says nothing about now.
func (o *observed) jobsAreOld(old bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.old = old
}

// isUnchanged reports whether the list of jobs has the job of a line as its release left
// it.
func (o *observed) isUnchanged(l record.Service) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.old {
		return false
	}
	job, known := o.jobs[o.home.JobID(l.Region, l.Namespace, l.JobID)]
	return known && !job.Stop && l.Index != 0 && job.JobModifyIndex == l.Index
}

// observeAllocations reads the allocations (GET /v1/allocations).
func (c *controller) observeAllocations(ctx context.Context, o *observed, q *api.QueryOptions) (int, uint64, error) {
	var list []allocationEntry
	meta, err := c.c.Nomad.Raw().Query("/v1/allocations", &list, everywhere(q, currentAllocations).WithContext(ctx))
	if err != nil {
		return 0, 0, err
	}
	o.setAllocations(list)
	return len(list), meta.LastIndex, nil
}

func (o *observed) setAllocations(list []allocationEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := map[nomad.JobID]*allocationCounts{}
	restarted := make(map[string]uint64, len(list))
	for _, a := range list {
		id := o.home.JobID("", a.Namespace, parentOf(a.JobID))
		var restarts uint64
		for _, t := range a.TaskStates {
			if t != nil {
				restarts += t.Restarts
			}
		}
		// Restarts before the first list are of the time before this leader.
		if before := o.restarted[a.ID]; o.read[listAllocations] && restarts > before {
			o.restarts[id] += restarts - before
		}
		restarted[a.ID] = restarts
		if a.NextAllocation != "" && isTerminal(a.ClientStatus) {
			continue
		}
		n := now[id]
		if n == nil {
			n = &allocationCounts{states: map[string]int{}, versions: map[uint64]int{}, running: map[string][]string{}}
			now[id] = n
		}
		n.states[a.ClientStatus]++
		if a.ClientStatus == api.AllocClientStatusRunning {
			n.running[a.TaskGroup] = append(n.running[a.TaskGroup], a.ID)
		}
		n.newest = max(n.newest, a.JobVersion)
		if isTerminal(a.ClientStatus) {
			continue
		}
		n.versions[a.JobVersion]++
		if a.DeploymentStatus != nil && nomad.Deref(a.DeploymentStatus.Healthy) {
			n.healthy++
		}
	}
	o.allocations, o.restarted = now, restarted
}

func isTerminal(clientStatus string) bool {
	switch clientStatus {
	case api.AllocClientStatusComplete, api.AllocClientStatusFailed, api.AllocClientStatusLost:
		return true
	}
	return false
}

// parentOf returns the periodic or parameterized job of a run, and jobID for another
// job.
func parentOf(jobID string) string {
	for _, suffix := range []string{"/periodic-", "/dispatch-"} {
		if at := strings.LastIndex(jobID, suffix); at > 0 {
			return jobID[:at]
		}
	}
	return jobID
}

// observeDeployments reads the deployments (GET /v1/deployments).
func (c *controller) observeDeployments(ctx context.Context, o *observed, q *api.QueryOptions) (int, uint64, error) {
	var list []deploymentEntry
	meta, err := c.c.Nomad.Raw().Query("/v1/deployments", &list, everywhere(q, "").WithContext(ctx))
	if err != nil {
		return 0, 0, err
	}
	o.setDeployments(list)
	return len(list), meta.LastIndex, nil
}

func (o *observed) setDeployments(list []deploymentEntry) {
	now := map[nomad.JobID]deploymentEntry{}
	for _, d := range list {
		id := o.home.JobID("", d.Namespace, d.JobID)
		if before, known := now[id]; !known || d.CreateIndex > before.CreateIndex {
			now[id] = d
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deployments = now
}

// gateWait is a gate of a release that waits.
type gateWait struct {
	wave, gate string
	since      time.Time
}

// The gates that can wait.
const (
	gateApproval  = "approval"
	gatePromotion = "promotion"
	gateHealth    = "health" // bake time, probe or command
)

// gates returns the gates of the newest release that wait. The record has no time of an
// approval that is asked for: it is asked for when the wave before has ended.
func (s *observedStack) gates() []gateWait {
	if s.head == nil || !s.head.State.Open() {
		return nil
	}
	var out []gateWait
	previous := s.head.Started
	for i, w := range s.head.Waves {
		var promotion, last time.Time
		changed, done := 0, 0
		for _, l := range s.lines {
			if l.wave != i || l.change == record.ChangeNone || l.change == record.ChangeStop {
				continue
			}
			changed++
			if l.step == record.StepDone {
				done++
			}
			if l.ended.After(last) {
				last = l.ended
			}
			if l.outcome == string(record.NeedsPromotion) {
				promotion = later(promotion, later(l.started, l.ended))
			}
		}
		switch {
		case w.State == record.NeedsApproval && w.Inconclusive:
			out = append(out, gateWait{w.Name, gateApproval, last})
		case w.State == record.NeedsApproval:
			out = append(out, gateWait{w.Name, gateApproval, previous})
		case s.head.State == record.NeedsPromotion && !promotion.IsZero():
			out = append(out, gateWait{w.Name, gatePromotion, promotion})
		case w.State == record.Running && changed > 0 && done == changed:
			out = append(out, gateWait{w.Name, gateHealth, last})
		}
		previous = later(previous, w.Ended)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// steps counts the services of the newest release by target and step.
func (s *observedStack) steps() map[[2]string]int {
	out := map[[2]string]int{}
	for _, l := range s.lines {
		out[[2]string{l.target, string(l.step)}]++
	}
	return out
}

// sorted returns the keys of m in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
