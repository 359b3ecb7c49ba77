package rollout

import (
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

func alloc(status string, healthy *bool) *api.AllocationListStub {
	a := &api.AllocationListStub{ID: "id", Name: "j.g[0]", TaskGroup: "g", DesiredStatus: "run", ClientStatus: status}
	if healthy != nil {
		a.DeploymentStatus = &api.AllocDeploymentStatus{Healthy: healthy}
	}
	return a
}

func deployment(status, description string, groups ...*api.DeploymentState) *api.Deployment {
	d := &api.Deployment{ID: "0123456789", Status: status, StatusDescription: description, TaskGroups: map[string]*api.DeploymentState{}}
	for i, g := range groups {
		d.TaskGroups[string(rune('a'+i))] = g
	}
	return d
}

func TestJudge(t *testing.T) {
	t.Parallel()
	var (
		one      = spec{id: "j", kind: "service", counts: map[string]int{"g": 1}}
		two      = spec{id: "j", kind: "service", counts: map[string]int{"g": 2}}
		manual   = spec{id: "j", kind: "service", counts: map[string]int{"g": 1}, manual: true}
		zero     = spec{id: "j", kind: "service", counts: map[string]int{"g": 0}}
		parent   = spec{id: "j", kind: "batch", parent: true, counts: map[string]int{"g": 1}}
		sysbatch = spec{id: "j", kind: "sysbatch", noDeploy: true, counts: map[string]int{"g": 1}}
		called   = spec{id: "j", kind: "batch", parent: true, noDeploy: true, counts: map[string]int{"g": 1}}
		atOnce   = spec{id: "j", kind: "service", noDeploy: true, counts: map[string]int{"g": 2}}
		batch    = spec{id: "j", kind: "batch", noDeploy: true, counts: map[string]int{"g": 1}}
		system   = spec{id: "j", kind: "system", counts: map[string]int{"g": 1}}
		yes, no  = ptr(true), ptr(false)
		pending  = []*api.Evaluation{{Status: "pending"}}
		delayed  = []*api.Evaluation{{Status: "pending", WaitUntil: time.Now().Add(time.Hour)}}
		blocked  = []*api.Evaluation{{Status: "complete"}, {Status: "blocked"}}
		allocs   = func(list ...*api.AllocationListStub) []*api.AllocationListStub { return list }
	)
	const nowhere = "no node takes it; group g: plan9 filtered out 1 of 1"
	filtered := []*api.Evaluation{{Status: "complete", FailedTGAllocs: map[string]*api.AllocationMetric{"g": {NodesEvaluated: 1, ConstraintFiltered: map[string]int{"plan9": 1}}}}}
	replaced := alloc("failed", nil)
	replaced.NextAllocation = "next"
	later := alloc("failed", nil)
	later.FollowupEvalID = "eval"

	for name, c := range map[string]struct {
		spec spec
		n    snapshot
		want verdict // waiting and detail are not compared
	}{
		"scheduler has not looked yet":   {one, snapshot{target: 1, jobIndex: 1, evals: pending}, verdict{desired: 1}},
		"deployment runs":                {two, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 2, HealthyAllocs: 1})}, verdict{healthy: 1, desired: 2}},
		"deployment successful":          {two, snapshot{deployment: deployment("successful", "", &api.DeploymentState{DesiredTotal: 2, HealthyAllocs: 2})}, verdict{outcome: Deployed, healthy: 2, desired: 2}},
		"failed, nothing to go back to":  {one, snapshot{deployment: deployment("failed", "Failed due to unhealthy allocations - no stable job version to auto revert to")}, verdict{outcome: Failed}},
		"failed, same spec as before":    {one, snapshot{deployment: deployment("failed", "Failed due to unhealthy allocations - not rolling back to stable job version 3 as current job has same specification")}, verdict{outcome: Failed}},
		"failed and rolling back":        {one, snapshot{deployment: deployment("failed", "Failed due to unhealthy allocations - rolling back to job version 0")}, verdict{outcome: Failed, reverting: true}},
		"failed at progress deadline":    {one, snapshot{deployment: deployment("failed", "Failed due to progress deadline")}, verdict{outcome: Failed}},
		"cancelled by a newer version":   {one, snapshot{deployment: deployment("cancelled", "Cancelled due to newer version of job")}, verdict{outcome: Superseded}},
		"paused":                         {one, snapshot{deployment: deployment("paused", "")}, verdict{}},
		"purged":                         {one, snapshot{jobGone: true}, verdict{outcome: Superseded}},
		"changed, without a deployment":  {one, snapshot{target: 1, jobIndex: 2}, verdict{outcome: Superseded}},
		"put back by Nomad":              {one, snapshot{target: 2, jobIndex: 1}, verdict{undone: true, desired: 1}},
		"put back by Nomad, count 0":     {zero, snapshot{target: 2, jobIndex: 1}, verdict{undone: true}},
		"canary not healthy yet":         {manual, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredCanaries: 1, DesiredTotal: 1})}, verdict{desired: 1}},
		"canary waits for a promotion":   {manual, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredCanaries: 1, HealthyAllocs: 1, DesiredTotal: 2})}, verdict{outcome: AwaitPromotion, healthy: 1, desired: 2}},
		"canary with auto_promote":       {one, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredCanaries: 1, HealthyAllocs: 1, DesiredTotal: 2})}, verdict{healthy: 1, desired: 2}},
		"promoted":                       {manual, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredCanaries: 1, HealthyAllocs: 1, DesiredTotal: 2, Promoted: true})}, verdict{healthy: 1, desired: 2}},
		"canary healthy, other group no": {manual, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredCanaries: 1, HealthyAllocs: 1, DesiredTotal: 1}, &api.DeploymentState{DesiredTotal: 1})}, verdict{healthy: 1, desired: 2}},

		"blocked with nothing under way":     {one, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 1}), evals: blocked}, verdict{desired: 1, blocked: true}},
		"blocked while another one starts":   {two, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 2}), evals: blocked, allocs: allocs(alloc("pending", nil))}, verdict{desired: 2}},
		"blocked while one becomes healthy":  {two, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 2}), evals: blocked, allocs: allocs(alloc("running", nil))}, verdict{desired: 2}},
		"blocked after the other is healthy": {two, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 2, HealthyAllocs: 1}), evals: blocked, allocs: allocs(alloc("running", yes))}, verdict{healthy: 1, desired: 2, blocked: true}},

		"count 0":              {zero, snapshot{}, verdict{outcome: Deployed}},
		"count 0, not yet":     {zero, snapshot{evals: pending}, verdict{}},
		"periodic":             {parent, snapshot{}, verdict{outcome: Deployed}},
		"parameterized":        {called, snapshot{}, verdict{outcome: Deployed}},
		"periodic, pends":      {parent, snapshot{evals: pending}, verdict{desired: 1}},
		"batch runs":           {batch, snapshot{allocs: allocs(alloc("running", nil))}, verdict{desired: 1}},
		"batch complete":       {batch, snapshot{allocs: allocs(alloc("complete", nil))}, verdict{outcome: Deployed, healthy: 1, desired: 1}},
		"batch failed":         {batch, snapshot{allocs: allocs(alloc("failed", nil))}, verdict{outcome: Failed, desired: 1}},
		"batch tries again":    {batch, snapshot{allocs: allocs(later), evals: delayed}, verdict{desired: 1}},
		"batch failed, pends":  {batch, snapshot{allocs: allocs(alloc("failed", nil)), evals: pending}, verdict{desired: 1}},
		"batch second attempt": {batch, snapshot{allocs: allocs(replaced, alloc("complete", nil))}, verdict{outcome: Deployed, healthy: 1, desired: 1}},

		"sysbatch runs":            {sysbatch, snapshot{allocs: allocs(alloc("running", nil))}, verdict{desired: 1}},
		"sysbatch complete":        {sysbatch, snapshot{allocs: allocs(alloc("complete", nil), alloc("complete", nil))}, verdict{outcome: Deployed, healthy: 2, desired: 2}},
		"sysbatch failed on one":   {sysbatch, snapshot{allocs: allocs(alloc("complete", nil), alloc("failed", nil))}, verdict{outcome: Failed, healthy: 1, desired: 2}},
		"sysbatch nowhere":         {sysbatch, snapshot{evals: filtered}, verdict{outcome: Deployed, note: nowhere}},
		"sysbatch not looked at":   {sysbatch, snapshot{evals: pending}, verdict{}},
		"max_parallel 0, nothing":  {atOnce, snapshot{}, verdict{desired: 2, collected: true}},
		"all collected":            {one, snapshot{target: 1, jobIndex: 1}, verdict{desired: 1, collected: true}},
		"all collected, settling":  {one, snapshot{target: 1, jobIndex: 1, settling: true}, verdict{desired: 1, collected: true}},
		"no place, no deployment":  {one, snapshot{target: 1, jobIndex: 1, evals: blocked}, verdict{desired: 1, blocked: true}},
		"max_parallel 0, one":      {atOnce, snapshot{allocs: allocs(alloc("running", nil), alloc("pending", nil))}, verdict{healthy: 1, desired: 2}},
		"max_parallel 0, all":      {atOnce, snapshot{allocs: allocs(alloc("running", nil), alloc("running", nil))}, verdict{outcome: Deployed, healthy: 2, desired: 2}},
		"max_parallel 0, blocked":  {atOnce, snapshot{allocs: allocs(alloc("running", nil)), evals: blocked}, verdict{healthy: 1, desired: 2, blocked: true}},
		"max_parallel 0, changed":  {atOnce, snapshot{target: 1, jobIndex: 3, allocs: allocs(alloc("running", nil), alloc("running", nil))}, verdict{outcome: Superseded}},
		"system deploys, 1.11":     {system, snapshot{deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 3, HealthyAllocs: 1}), allocs: allocs(alloc("running", yes), alloc("pending", nil))}, verdict{healthy: 1, desired: 3}},
		"system nowhere, 1.11":     {system, snapshot{deployment: deployment("successful", "", &api.DeploymentState{}), evals: filtered}, verdict{outcome: Deployed, note: nowhere}},
		"system, not placed yet":   {system, snapshot{deployment: deployment("successful", "", &api.DeploymentState{}), evals: pending}, verdict{}},
		"system nowhere, before":   {system, snapshot{evals: filtered}, verdict{outcome: Deployed, note: nowhere}},
		"system failed, 1.11":      {system, snapshot{deployment: deployment("failed", "Failed due to unhealthy allocations - rolling back to job version 1", &api.DeploymentState{DesiredTotal: 3})}, verdict{outcome: Failed, reverting: true, desired: 3}},
		"no deployment, all run":   {one, snapshot{allocs: allocs(alloc("running", nil))}, verdict{outcome: Deployed, healthy: 1, desired: 1}},
		"no deployment, one short": {two, snapshot{allocs: allocs(alloc("running", nil))}, verdict{healthy: 1, desired: 2}},
		"no deployment, dead":      {one, snapshot{allocs: allocs(alloc("failed", nil))}, verdict{outcome: Failed, desired: 1}},
		"system runs everywhere":   {system, snapshot{allocs: allocs(alloc("running", nil), alloc("running", nil))}, verdict{outcome: Deployed, healthy: 2, desired: 2}},
		"system blocked on a node": {system, snapshot{allocs: allocs(alloc("running", yes)), evals: blocked}, verdict{healthy: 1, desired: 1, blocked: true}},
		"system starts":            {system, snapshot{allocs: allocs(alloc("running", nil), alloc("pending", nil))}, verdict{healthy: 1, desired: 2}},

		"settling: success was before, now dead":     {one, snapshot{settling: true, deployment: deployment("successful", ""), allocs: allocs(alloc("failed", yes))}, verdict{outcome: Failed, desired: 1}},
		"settling: success was before, runs again":   {one, snapshot{settling: true, deployment: deployment("successful", ""), allocs: allocs(alloc("running", nil))}, verdict{outcome: Deployed, healthy: 1, desired: 1}},
		"settling: failed before":                    {one, snapshot{settling: true, deployment: deployment("failed", "x"), allocs: allocs(alloc("running", no))}, verdict{outcome: Failed, healthy: 1, desired: 1}},
		"settling: failed before, an older one runs": {two, snapshot{settling: true, deployment: deployment("failed", "x")}, verdict{outcome: Failed, desired: 2}},
		"settling: failed before, not yet looked at": {two, snapshot{settling: true, deployment: deployment("failed", "x"), evals: pending}, verdict{desired: 2}},
		"failed while it was read":                   {batch, snapshot{allocs: allocs(alloc("failed", nil)), unsettled: true}, verdict{desired: 1}},
		"settling: success was before, none left":    {one, snapshot{settling: true, deployment: deployment("successful", "")}, verdict{desired: 1, collected: true}},
		"settling: still running":                    {one, snapshot{settling: true, deployment: deployment("running", "", &api.DeploymentState{DesiredTotal: 1})}, verdict{desired: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := judge(c.spec, c.n)
			got.waiting, got.detail = "", ""
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSnapshot_UnderWay(t *testing.T) {
	t.Parallel()
	yes := ptr(true)
	for name, c := range map[string]struct {
		status string
		groups []*api.DeploymentState
		alloc  *api.AllocationListStub
		want   bool
	}{
		"an allocation starts":        {"running", []*api.DeploymentState{{DesiredTotal: 1}}, alloc("pending", nil), true},
		"all are healthy":             {"running", []*api.DeploymentState{{DesiredTotal: 1, HealthyAllocs: 1}}, alloc("running", yes), true},
		"one of two has no place":     {"running", []*api.DeploymentState{{DesiredTotal: 2, HealthyAllocs: 1}}, alloc("running", yes), false},
		"another group has none":      {"running", []*api.DeploymentState{{DesiredTotal: 1, HealthyAllocs: 1}, {DesiredTotal: 1}}, alloc("running", yes), false},
		"canaries wait":               {"running", []*api.DeploymentState{{DesiredTotal: 1, DesiredCanaries: 1, HealthyAllocs: 1}}, alloc("running", yes), false},
		"promoted":                    {"running", []*api.DeploymentState{{DesiredTotal: 1, DesiredCanaries: 1, HealthyAllocs: 1, Promoted: true}}, alloc("running", yes), true},
		"failed, and all are healthy": {"failed", []*api.DeploymentState{{DesiredTotal: 1, HealthyAllocs: 1}}, alloc("running", yes), false},
		"successful":                  {"successful", []*api.DeploymentState{{DesiredTotal: 1, HealthyAllocs: 1}}, alloc("running", yes), true},
	} {
		n := snapshot{deployment: deployment(c.status, "", c.groups...), allocs: []*api.AllocationListStub{c.alloc}}
		if got := n.underWay(); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

func TestResultOutcome(t *testing.T) {
	t.Parallel()
	for want, outcomes := range map[Outcome][]Outcome{
		Unchanged:       {Unchanged, Unchanged},
		Deployed:        {Unchanged, Deployed},
		Failed:          {Deployed, FailedReverted, Failed, Skipped},
		FailedReverted:  {FailedReverted, Skipped, TimedOut},
		PlacementFailed: {PlacementFailed, Skipped},
		Cancelled:       {Deployed, Failed, Cancelled},
	} {
		var r Result
		for _, o := range outcomes {
			r.Services = append(r.Services, ServiceResult{Outcome: o})
		}
		if got := r.Outcome(); got != want {
			t.Errorf("%v is %s, want %s", outcomes, got, want)
		}
	}
}
