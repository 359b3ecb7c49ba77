package controller

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
)

// releaseStates are the states that a stored release may have, and unreadable.
var releaseStates = []record.State{
	record.Running, record.Interrupted, record.Paused, record.NeedsPromotion, record.NeedsApproval, record.Reverting, record.RevertFailed,
	record.Done, record.FailedState, record.Reverted, record.Aborted, record.Abandoned, record.Destroyed, record.Unreadable,
}

// allocationStates are Nomad's client statuses. queued are allocations that Nomad cannot
// place.
var allocationStates = []string{
	"queued", api.AllocClientStatusPending, api.AllocClientStatusRunning, api.AllocClientStatusComplete, api.AllocClientStatusFailed,
	api.AllocClientStatusLost, api.AllocClientStatusUnknown,
}

// waveWaiting is the state of a wave that has not begun.
const waveWaiting = "waiting"

// skippedRun is the outcome of a run of a schedule that did nothing.
const skippedRun = "skipped"

// serviceRow is one service of the newest release, whose job is in the cluster of the
// controller.
type serviceRow struct {
	labels []string
	line   observedLine
}

// write writes what is known of stacks. Values of services are left out until each list
// was read: a service without allocations must not be a service that is not known yet.
func (o *observed) write(e *exposition) {
	o.mu.Lock()
	defer o.mu.Unlock()
	names := sorted(o.stacks)
	ready := o.read[listRecords] && o.read[listJobs] && o.read[listAllocations] && o.read[listDeployments]
	var services []serviceRow
	for _, name := range names {
		s := o.stacks[name]
		if s.head == nil || !ready {
			continue
		}
		for _, l := range s.lines {
			if l.elsewhere || !l.runs || !o.isVisible(l.job.Namespace) {
				continue
			}
			services = append(services, serviceRow{
				[]string{"stack", s.index.Stack, "environment", s.index.Environment, "target", l.target, "release", strconv.Itoa(s.head.Number), "service", l.service}, l,
			})
		}
	}
	o.writeReleases(e, names)
	o.writeSchedules(e, names)
	o.writeServices(e, services)
}

// isVisible reports whether the token may read jobs of a namespace. It may read those of
// its own; from other namespaces, Nomad lists nothing instead of an error.
func (o *observed) isVisible(namespace string) bool {
	return namespace == o.home.JobID("", "", "").Namespace || o.namespaces[namespace]
}

func (o *observed) writeReleases(e *exposition, names []string) {
	each := func(name, help string, f func(s *observedStack, sample func(value float64, more ...string))) {
		e.family(name, "gauge", help)
		for _, full := range names {
			if s := o.stacks[full]; s.head != nil {
				labels := []string{"stack", s.index.Stack, "environment", s.index.Environment, "release", strconv.Itoa(s.head.Number)}
				f(s, func(value float64, more ...string) { e.sample(name, value, slices.Concat(labels, more)...) })
			}
		}
	}
	each("drover_release_info", "1; the newest release of a stack; the leader looks.", func(s *observedStack, sample func(float64, ...string)) {
		sample(1, "kind", s.head.Kind, "version", s.head.Version, "app_version", s.head.AppVersion)
	})
	each("drover_release_state", "1 for the state of the newest release.", func(s *observedStack, sample func(float64, ...string)) {
		for _, state := range releaseStates {
			sample(number(s.head.State == state), "state", string(state))
		}
	})
	each("drover_release_started_timestamp_seconds", "When the newest release began.", func(s *observedStack, sample func(float64, ...string)) {
		sample(unix(s.head.Started))
	})
	each("drover_release_ended_timestamp_seconds", "When the newest release ended; 0 while it is open.", func(s *observedStack, sample func(float64, ...string)) {
		sample(unix(s.head.Ended))
	})
	each("drover_release_wave_state", "1; the state of each wave of the newest release.", func(s *observedStack, sample func(float64, ...string)) {
		for _, w := range s.head.Waves {
			sample(1, "wave", w.Name, "state", cmp.Or(string(w.State), waveWaiting))
		}
	})
	each("drover_release_gate_waiting_since_timestamp_seconds", "Since when a gate of the newest release waits; only while it does.", func(s *observedStack, sample func(float64, ...string)) {
		for _, g := range s.gates() {
			sample(unix(g.since), "wave", g.wave, "gate", g.gate)
		}
	})
	each("drover_release_services", "Services of the newest release by how far they are in it.", func(s *observedStack, sample func(float64, ...string)) {
		steps := s.steps()
		for _, k := range slices.SortedFunc(maps.Keys(steps), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
			sample(float64(steps[k]), "target", k[0], "step", k[1])
		}
	})
}

func (o *observed) writeSchedules(e *exposition, names []string) {
	each := func(name, help string, f func(s *record.Schedule, sample func(value float64, more ...string))) {
		e.family(name, "gauge", help)
		for _, full := range names {
			s := o.stacks[full]
			for _, schedule := range sorted(s.schedules) {
				labels := []string{"stack", s.index.Stack, "environment", s.index.Environment, "schedule", schedule}
				f(s.schedules[schedule], func(value float64, more ...string) { e.sample(name, value, slices.Concat(labels, more)...) })
			}
		}
	}
	// last calls f with the last run, if there is one.
	last := func(f func(r record.Run, sample func(value float64, more ...string))) func(*record.Schedule, func(float64, ...string)) {
		return func(s *record.Schedule, sample func(float64, ...string)) {
			if n := len(s.Runs); n > 0 {
				f(s.Runs[n-1], sample)
			}
		}
	}
	each("drover_schedule_paused", "Whether a schedule is paused.", func(s *record.Schedule, sample func(float64, ...string)) {
		sample(number(s.Paused != ""))
	})
	each("drover_schedule_last_run_timestamp_seconds", "When a schedule fired last, also when it was skipped.", last(func(r record.Run, sample func(float64, ...string)) {
		sample(unix(r.At))
	}))
	each("drover_schedule_last_run_outcome", "1; the outcome of the last run of a schedule.", last(func(r record.Run, sample func(float64, ...string)) {
		outcome := r.Outcome
		if r.Skipped {
			outcome = skippedRun
		}
		sample(1, "outcome", outcome)
	}))
	each("drover_schedule_last_run_ok", "Whether the last run of a schedule that was not skipped was good.", func(s *record.Schedule, sample func(float64, ...string)) {
		for _, r := range slices.Backward(s.Runs) {
			if !r.Skipped {
				sample(number(r.OK))
				return
			}
		}
	})
	each("drover_schedule_last_run_duration_seconds", "How long the last run of a schedule took.", last(func(r record.Run, sample func(float64, ...string)) {
		sample(r.Elapsed.Round(time.Millisecond).Seconds())
	}))
}

func (o *observed) writeServices(e *exposition, services []serviceRow) {
	each := func(name, kind, help string, f func(r serviceRow, sample func(value float64, more ...string))) {
		e.family(name, kind, help)
		for _, r := range services {
			f(r, func(value float64, more ...string) { e.sample(name, value, slices.Concat(r.labels, more)...) })
		}
	}
	each("drover_service_info", "gauge", "1; the job of a service of the newest release.", func(r serviceRow, sample func(float64, ...string)) {
		sample(1, "namespace", r.line.job.Namespace, "job", r.line.job.ID, "type", o.jobs[r.line.job].Type)
	})
	each("drover_service_registered", "gauge", "Whether the job is registered in Nomad and not stopped.", func(r serviceRow, sample func(float64, ...string)) {
		job, known := o.jobs[r.line.job]
		sample(number(known && !job.Stop))
	})
	each("drover_service_allocations", "gauge", "Allocations by state, without those that Nomad has replaced.", func(r serviceRow, sample func(float64, ...string)) {
		n := o.allocations[r.line.job]
		queued := 0
		if s := o.jobs[r.line.job].JobSummary; s != nil {
			for _, g := range s.Summary {
				queued += g.Queued
			}
		}
		for _, state := range allocationStates {
			value := queued
			if state != allocationStates[0] {
				if value = 0; n != nil {
					value = n.states[state]
				}
			}
			sample(float64(value), "state", state)
		}
	})
	each("drover_service_allocations_healthy", "gauge", "Allocations that Nomad has found healthy in a deployment and that run.", func(r serviceRow, sample func(float64, ...string)) {
		if n := o.allocations[r.line.job]; n != nil {
			sample(float64(n.healthy))
			return
		}
		sample(0)
	})
	each("drover_service_allocations_outdated", "gauge", "Allocations that run an older version of the job.", func(r serviceRow, sample func(float64, ...string)) {
		outdated := 0
		if n := o.allocations[r.line.job]; n != nil {
			newest := max(n.newest, o.deployments[r.line.job].JobVersion)
			for version, count := range n.versions {
				if version < newest {
					outdated += count
				}
			}
		}
		sample(float64(outdated))
	})
	each("drover_service_restarts_total", "counter", "Restarts of tasks since this replica became the leader.", func(r serviceRow, sample func(float64, ...string)) {
		sample(float64(o.restarts[r.line.job]))
	})
	each("drover_service_deployment_status", "gauge", "1; the status of the newest deployment of the job, if there is one.", func(r serviceRow, sample func(float64, ...string)) {
		if d, known := o.deployments[r.line.job]; known {
			sample(1, "status", deploymentStatus(d))
		}
	})
	deployed := func(f func(desired, healthy int) int) func(serviceRow, func(float64, ...string)) {
		return func(r serviceRow, sample func(float64, ...string)) {
			d, known := o.deployments[r.line.job]
			if !known {
				return
			}
			desired, healthy := 0, 0
			for _, g := range d.TaskGroups {
				if g != nil {
					desired, healthy = desired+g.DesiredTotal, healthy+g.HealthyAllocs
				}
			}
			sample(float64(f(desired, healthy)))
		}
	}
	each("drover_service_deployment_desired_allocations", "gauge", "Allocations that the newest deployment wants.", deployed(func(desired, _ int) int { return desired }))
	each("drover_service_deployment_healthy_allocations", "gauge", "Allocations of the newest deployment that were healthy.", deployed(func(_, healthy int) int { return healthy }))
}

// deploymentStatus returns Nomad's status, and awaiting-promotion for a deployment that
// runs until it is promoted.
func deploymentStatus(d deploymentEntry) string {
	if d.Status == api.DeploymentStatusRunning && strings.Contains(d.StatusDescription, "requires manual promotion") {
		return string(record.NeedsPromotion)
	}
	return d.Status
}
