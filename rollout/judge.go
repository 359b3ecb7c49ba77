package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// snapshot is everything that decides about one job at one moment.
type snapshot struct {
	target  uint64 // JobModifyIndex of the version that is followed
	version uint64 // its number

	jobGone  bool   // the job is not there any more
	jobIndex uint64 // JobModifyIndex of the job as it is now
	// settling: the job was not changed by us, so that an ended deployment
	// says nothing about how it is today.
	settling bool

	deployment *api.Deployment // whose JobSpecModifyIndex is target
	allocs     []*api.AllocationListStub
	evals      []*api.Evaluation
	// unsettled: evaluations came or ended while the allocations were read,
	// which may not show their results.
	unsettled bool
}

// verdict is what a snapshot means.
type verdict struct {
	outcome   Outcome // "" while it goes on
	reverting bool    // failed, and Nomad registers the version before
	blocked   bool    // nothing makes progress until there is a place
	undone    bool    // Nomad has put the version before back
	collected bool    // Nomad has nothing of the version, and is not about to
	healthy   int
	desired   int
	waiting   string
	detail    string
	note      string // worth telling though the outcome is good
}

// aNode is what is waited for while an allocation finds no place.
const aNode = "a node with room"

// judge is the state machine of every job type. It looks at nothing but its
// arguments.
func judge(s spec, n snapshot) verdict {
	v := n.judge(s)
	if why := reasons(s.placements(n.evals)); v.waiting == aNode && why != "" {
		v.waiting += ": " + why
	}
	if d := n.deployment; v.outcome == Failed && d != nil && d.Status == api.DeploymentStatusFailed && n.hasBlocked() {
		v.detail += "; " + noPlace(s, n.evals)
	}
	if v.outcome == Deployed && s.perNode() && !s.parent && len(current(n.allocs)) == 0 {
		if n.pending() {
			return verdict{waiting: "the scheduler"}
		}
		v.note = noNode
		for _, p := range s.placements(n.evals) {
			v.note += "; " + p.String()
		}
	}
	return v
}

func (n snapshot) judge(s spec) verdict {
	// Nomad 1.11.3 loses a registration that comes while the scheduler finds
	// the deployment before it successful: to mark that version as stable, the
	// plan writes it as the job again, with its own JobModifyIndex. Nothing else
	// makes the index of a job smaller.
	if n.jobIndex != 0 && n.jobIndex < n.target {
		return verdict{undone: true, desired: s.total(), waiting: "Nomad, which has put the version before back: registering again"}
	}
	if s.registeredIsDeployed() && !n.pending() {
		return verdict{outcome: Deployed}
	}
	if n.jobGone {
		detail := "another client stopped and purged the job"
		if s.finite() {
			detail = "another client purged the job, or Nomad collected it after it had ended"
		}
		return verdict{outcome: Superseded, detail: detail}
	}
	d := n.deployment
	if d != nil && n.settling && !inProgress(d.Status) {
		return n.settledAfter(s, d)
	}
	if d != nil {
		return n.deploying(s, d)
	}
	if n.jobIndex != 0 && n.jobIndex != n.target {
		return verdict{outcome: Superseded, detail: "another client changed the job"}
	}
	return n.withoutDeployment(s)
}

func inProgress(status string) bool {
	switch status {
	case api.DeploymentStatusSuccessful, api.DeploymentStatusFailed, api.DeploymentStatusCancelled:
		return false
	}
	return true
}

func (n snapshot) deploying(s spec, d *api.Deployment) verdict {
	v := verdict{detail: d.StatusDescription}
	for _, g := range d.TaskGroups {
		v.healthy += min(g.HealthyAllocs, g.DesiredTotal)
		v.desired += g.DesiredTotal
	}
	switch d.Status {
	case api.DeploymentStatusSuccessful:
		v.outcome = Deployed
	case api.DeploymentStatusFailed:
		v.outcome = Failed
		// "… - rolling back to job version 3"; the other endings are "no stable
		// job version to auto revert to" and "not rolling back to …".
		v.reverting = strings.Contains(d.StatusDescription, " - rolling back to job version ")
	case api.DeploymentStatusCancelled:
		v.outcome = Superseded
	case api.DeploymentStatusPaused:
		v.waiting = "deployment is paused: nomad deployment resume " + d.ID[:min(8, len(d.ID))]
	default:
		if s.manual && awaitsPromotion(d) {
			v.outcome = AwaitPromotion
			v.detail = "the canaries are healthy and wait for a promotion"
			return v
		}
		v.waiting = n.waiting(v.healthy, v.desired)
		v.blocked = n.blocked()
	}
	return v
}

// awaitsPromotion reports whether every canary is healthy and only a promotion is
// missing.
func awaitsPromotion(d *api.Deployment) bool {
	canaries := false
	for _, g := range d.TaskGroups {
		if g.DesiredCanaries > 0 && !g.Promoted {
			canaries = true
			if g.HealthyAllocs < g.DesiredCanaries {
				return false
			}
		} else if g.HealthyAllocs < g.DesiredTotal {
			return false
		}
	}
	return canaries
}

// settledAfter judges an unchanged job whose deployment has ended before we
// came.
func (n snapshot) settledAfter(s spec, d *api.Deployment) verdict {
	v := n.withoutDeployment(s)
	if d.Status != api.DeploymentStatusFailed || v.outcome == Superseded {
		return v
	}
	live := current(n.allocs)
	unhealthy := slices.ContainsFunc(live, func(a *api.AllocationListStub) bool {
		return a.DeploymentStatus != nil && a.DeploymentStatus.Healthy != nil && !*a.DeploymentStatus.Healthy
	})
	// Nomad runs an older version, or some allocations of each.
	stuck := v.outcome == "" && !n.pending() && !n.starts() &&
		!slices.ContainsFunc(live, func(a *api.AllocationListStub) bool { return a.FollowupEvalID != "" })
	if unhealthy || stuck {
		v.outcome, v.collected = Failed, false
		v.detail = "the deployment of this same version has failed before: " + d.StatusDescription
	}
	return v
}

// withoutDeployment judges by the allocations alone.
func (n snapshot) withoutDeployment(s spec) verdict {
	var v verdict
	v.desired = s.total()
	var dead []string
	perGroup := map[string]int{}
	live := current(n.allocs)
	for _, a := range live {
		good := a.ClientStatus == api.AllocClientStatusRunning && !s.finite() ||
			a.ClientStatus == api.AllocClientStatusComplete && s.finite()
		switch {
		case good:
			perGroup[a.TaskGroup]++
		case isDead(a):
			dead = append(dead, a.Name)
		}
	}
	complete := true
	for group, count := range s.counts {
		if s.perNode() {
			v.healthy += perGroup[group]
			continue
		}
		v.healthy += min(perGroup[group], count)
		complete = complete && perGroup[group] >= count
	}
	if s.perNode() {
		v.desired = len(live)
		complete = v.healthy == len(live)
	}
	switch {
	case n.pending():
		v.waiting = "the scheduler"
	case len(dead) > 0:
		v.outcome = Failed
		v.detail = fmt.Sprintf("%s ended and is not started again", strings.Join(dead, ", "))
	case complete && !n.hasBlocked():
		v.outcome = Deployed
	case len(live) == 0 && !n.hasBlocked() && !s.perNode() && !s.finite():
		// A failure that ended just before `nomad system gc`. The scheduler would do
		// the same again, if it were asked.
		v.collected = true
		v.waiting = "Nomad, which has collected the allocations before they were seen: evaluating the job again"
	default:
		v.waiting = n.waiting(v.healthy, v.desired)
		v.blocked = n.blocked()
	}
	return v
}

// isDead reports whether an allocation, which is not a finished one of a batch
// job, has come to an end and Nomad has not planned another one for it.
func isDead(a *api.AllocationListStub) bool {
	return failedForGood(a) || a.ClientStatus == api.AllocClientStatusComplete
}

// pending reports whether the scheduler has yet to look at the job, or its
// results may not be in the snapshot. An evaluation that waits for its time (a
// delayed reschedule) does not count.
func (n snapshot) pending() bool {
	if n.unsettled {
		return true
	}
	for _, e := range n.evals {
		if e.Status == api.EvalStatusPending && e.WaitUntil.IsZero() && e.Wait == 0 {
			return true
		}
	}
	return false
}

func (n snapshot) hasBlocked() bool {
	for _, e := range n.evals {
		if e.Status == api.EvalStatusBlocked {
			return true
		}
	}
	return false
}

// underWay reports whether the outcome of a deployment needs no evaluation: it was
// successful, one of its allocations starts, or it is about to be successful.
func (n snapshot) underWay() bool {
	d := n.deployment.Status
	return d == api.DeploymentStatusSuccessful && len(n.allocs) > 0 || inProgress(d) && (n.starts() || n.allHealthy())
}

// allHealthy reports whether a deployment has all the healthy allocations that it needs,
// and does not wait for a promotion.
func (n snapshot) allHealthy() bool {
	for _, g := range n.deployment.TaskGroups {
		if g.DesiredTotal == 0 || g.HealthyAllocs < g.DesiredTotal || g.DesiredCanaries > 0 && !g.Promoted {
			return false
		}
	}
	return len(n.deployment.TaskGroups) > 0
}

// starts reports whether an allocation may still become healthy.
func (n snapshot) starts() bool {
	return slices.ContainsFunc(current(n.allocs), func(a *api.AllocationListStub) bool {
		undecided := a.DeploymentStatus == nil || a.DeploymentStatus.Healthy == nil
		return a.ClientStatus == api.AllocClientStatusPending ||
			n.deployment != nil && a.ClientStatus == api.AllocClientStatusRunning && undecided
	})
}

// blocked reports whether an allocation finds no node and no other one may still become
// healthy.
func (n snapshot) blocked() bool {
	return n.hasBlocked() && !n.pending() && !n.starts()
}

// waiting says in a few words what is missing.
func (n snapshot) waiting(healthy, desired int) string {
	for _, a := range current(n.allocs) {
		if a.ClientStatus == api.AllocClientStatusFailed {
			return "a new allocation after a failed one"
		}
		for _, task := range slices.Sorted(maps.Keys(a.TaskStates)) {
			st := a.TaskStates[task]
			if st.State == "running" || st.State == "dead" && !st.Failed || len(st.Events) == 0 {
				continue
			}
			ev := st.Events[len(st.Events)-1]
			if ev.DisplayMessage != "" {
				return task + ": " + firstLine(ev.DisplayMessage)
			}
			return task + ": " + ev.Type
		}
	}
	if n.hasBlocked() {
		return aNode
	}
	if desired > 0 && healthy >= desired {
		return "the deployment to end"
	}
	return ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
