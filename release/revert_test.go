package release

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

func TestReversalOf(t *testing.T) {
	t.Parallel()
	updated := record.Service{Name: "web", Change: record.ChangeUpdate, Spec: "2", Before: "1", Planned: 5}
	created := record.Service{Name: "web", Change: record.ChangeCreate, Spec: "2"}
	started := record.Service{Name: "web", Change: record.ChangeUpdate, Spec: "2", Before: "1", BeforeStopped: true, Planned: 5}
	pruned := record.Service{Name: "web", Change: record.ChangeStop, Before: "1", Planned: 5}
	prunedStopped := record.Service{Name: "web", Change: record.ChangeStop, Before: "1", BeforeStopped: true, Planned: 5}
	at := func(l record.Service, s record.Step) record.Service { l.Step = s; return l }
	for name, tt := range map[string]struct {
		line       record.Service
		failedOnly bool
		want       string
	}{
		"not begun":                      {at(updated, record.StepPending), false, ""},
		"unchanged":                      {at(updated, record.StepUnchanged), false, ""},
		"reverted already":               {at(updated, record.StepReverted), false, ""},
		"being submitted":                {at(updated, record.StepSubmitting), false, "restore"},
		"submitted":                      {at(updated, record.StepSubmitted), false, "restore"},
		"deployed":                       {at(updated, record.StepDone), false, "restore"},
		"failed":                         {at(updated, record.StepFailed), false, "restore"},
		"revert was interrupted":         {at(updated, record.StepReverting), false, "restore"},
		"created":                        {at(created, record.StepDone), false, "stop"},
		"creation may have arrived":      {at(created, record.StepSubmitting), false, "stop"},
		"started a stopped job":          {at(started, record.StepDone), false, "stop"},
		"prune not begun":                {at(pruned, record.StepPending), false, ""},
		"prune under way":                {at(pruned, record.StepPruning), false, "recreate"},
		"pruned":                         {at(pruned, record.StepPruned), false, "recreate"},
		"pruned a stopped job":           {at(prunedStopped, record.StepPruned), false, "settled"},
		"revert-service, deployed":       {at(updated, record.StepDone), true, ""},
		"revert-service, submitted":      {at(updated, record.StepSubmitted), true, ""},
		"revert-service, failed":         {at(updated, record.StepFailed), true, "restore"},
		"revert-service, new and failed": {at(created, record.StepFailed), true, "stop"},
		"revert-service, its revert was interrupted":  {at(updated, record.StepReverting), true, "restore"},
		"revert-service leaves what is pruned":        {at(pruned, record.StepPruned), true, ""},
		"revert-service, a prune that is interrupted": {at(pruned, record.StepReverting), true, "recreate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rev := reversalOf([]record.Service{tt.line}, tt.failedOnly)
			got := ""
			for what, list := range map[string][]int{"recreate": rev.recreate, "restore": rev.restore, "stop": rev.stop, "settled": rev.settled} {
				if len(list) > 0 {
					got += what
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReversal_Remaining(t *testing.T) {
	t.Parallel()
	lines := []record.Service{
		{Name: "restored", Step: record.StepReverted},
		{Name: "stuck", Step: record.StepReverting, Detail: "no answer"},
		{Name: "other", Step: record.StepDone, Outcome: string(rollout.Superseded)},
		{Name: "untouched", Step: record.StepPending},
	}
	rev := reversal{recreate: []int{0}, restore: []int{1}, stop: []int{2}}
	if got, want := rev.remaining(lines), "stuck: no answer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (reversal{restore: []int{0, 2}}).remaining(lines); got != "" {
		t.Errorf("got %q, want none: one is restored and the other is another client's", got)
	}
}

func TestEndOfRevert(t *testing.T) {
	t.Parallel()
	results := func(outcomes ...rollout.Outcome) rollout.Result {
		var r rollout.Result
		for _, o := range outcomes {
			r.Services = append(r.Services, rollout.ServiceResult{Service: "web", Outcome: o, Detail: "why"})
		}
		return r
	}
	failed := &record.Release{OnFailure: OnFailureRevertRelease, Cause: "failed", Detail: "api: died"}
	service := &record.Release{OnFailure: OnFailureRevertService, Cause: "failed", Detail: "api: died"}
	aborted := &record.Release{OnFailure: OnFailureRevertRelease, Aborting: true}
	for name, tt := range map[string]struct {
		head        *record.Release
		good        record.State
		result      rollout.Result
		remaining   string
		interrupted bool
		want        ending
	}{
		"everything restored":                            {failed, record.Reverted, results(rollout.Deployed), "", false, ending{record.Reverted, "failed", "api: died"}},
		"nothing to restore":                             {failed, record.Reverted, results(), "", false, ending{record.Reverted, "failed", "api: died"}},
		"revert-service leaves the release failed":       {service, record.Reverted, results(rollout.Deployed), "", false, ending{record.FailedState, "failed", "api: died"}},
		"revert-service, aborted":                        {service, record.Aborted, results(rollout.Deployed), "", false, ending{record.Aborted, "failed", "api: died"}},
		"aborted":                                        {aborted, record.Aborted, results(rollout.Unchanged), "", false, ending{record.Aborted, "", ""}},
		"interrupted":                                    {failed, record.Reverted, results(rollout.Cancelled), "web: not reverted", true, ending{record.Reverting, "failed", "web: not reverted"}},
		"an abort that is interrupted keeps no cause":    {aborted, record.Aborted, results(rollout.Cancelled), "web: x", true, ending{record.Reverting, "", "web: x"}},
		"an abort that cannot reach a cluster":           {aborted, record.Aborted, results(rollout.Unreachable), "web: no answer", false, ending{record.Reverting, "unreachable", "web: no answer"}},
		"a job that Nomad refuses":                       {failed, record.Reverted, results(rollout.Failed), "web: 500", false, ending{record.Reverting, "failed", "web: 500"}},
		"another client changed one":                     {failed, record.Reverted, results(rollout.Deployed, rollout.Superseded), "", false, ending{record.Reverted, "superseded", "web: why"}},
		"restored and not healthy":                       {failed, record.Reverted, results(rollout.TimedOut), "", false, ending{record.RevertFailed, "timed-out", "reverted, but not healthy: web: why"}},
		"an abort whose former version is not healthy":   {aborted, record.Aborted, results(rollout.Failed), "", false, ending{record.RevertFailed, "failed", "reverted, but not healthy: web: why"}},
		"revert-service, one of them does not go back":   {service, record.Reverted, results(rollout.Failed), "web: 500", false, ending{record.Reverting, "failed", "web: 500"}},
		"revert-service, another client changed the one": {service, record.Reverted, results(rollout.Superseded), "", false, ending{record.Reverted, "superseded", "web: why"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := endOfRevert(tt.head, tt.good, tt.result, tt.remaining, tt.interrupted); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestStandingOf(t *testing.T) {
	t.Parallel()
	job := func(index uint64) *api.Job { return &api.Job{JobModifyIndex: &index} }
	stopped := func(index uint64) *api.Job { yes := true; return &api.Job{JobModifyIndex: &index, Stop: &yes} }
	line := func(change record.Change, before string, step record.Step, planned, index uint64) record.Service {
		return record.Service{Change: change, Spec: "2", Before: before, Step: step, Planned: planned, Index: index}
	}
	submitting := line(record.ChangeUpdate, "1", record.StepSubmitting, 5, 0)
	submitted := line(record.ChangeUpdate, "1", record.StepSubmitted, 5, 9)
	reverting := line(record.ChangeUpdate, "1", record.StepReverting, 5, 9)
	created := line(record.ChangeCreate, "", record.StepSubmitted, 0, 9)
	pruning := record.Service{Change: record.ChangeStop, Before: "1", Step: record.StepPruning, Planned: 5}
	wasStopped := submitted
	wasStopped.BeforeStopped = true
	completed := submitted
	completed.Completed = &record.Completion{Spec: "2"}
	completedBefore := submitted
	completedBefore.Completed = &record.Completion{Spec: "1"}
	type want struct {
		st      standing
		decided bool
	}
	undecided := want{elsewhere, false}
	for name, tt := range map[string]struct {
		line record.Service
		job  *api.Job
		want want
	}{
		"at the index of the release":                   {submitted, job(9), want{atSpec, true}},
		"at the index of the plan":                      {submitting, job(5), want{atBefore, true}},
		"registration may have arrived":                 {submitting, job(9), undecided},
		"another index":                                 {submitted, job(12), undecided},
		"a revert may have registered it":               {reverting, job(9), undecided},
		"a revert that has not arrived":                 {reverting, job(5), want{atBefore, true}},
		"gone while it was created again":               {submitting, nil, want{atSpec, true}},
		"gone":                                          {submitted, nil, want{elsewhere, true}},
		"created, and gone":                             {created, nil, want{atBefore, true}},
		"created":                                       {created, job(9), want{atSpec, true}},
		"ran to completion and was collected":           {completed, nil, want{atSpec, true}},
		"an older version ran to completion":            {completedBefore, nil, want{elsewhere, true}},
		"pruned":                                        {pruning, nil, want{atSpec, true}},
		"prune not arrived":                             {pruning, job(5), undecided},
		"prune has stopped it and not purged it":        {pruning, stopped(6), want{atSpec, true}},
		"stopped while it was created again":            {submitting, stopped(6), want{atSpec, true}},
		"stopped by another client":                     {submitted, stopped(12), want{elsewhere, true}},
		"stopped before, and stopped again":             {wasStopped, stopped(12), want{atBefore, true}},
		"stopped before, and deployed":                  {wasStopped, job(9), want{atSpec, true}},
		"a new job that a revert has stopped":           {line(record.ChangeCreate, "", record.StepReverting, 0, 9), stopped(12), want{atSpec, true}},
		"a new job that is not there, revert under way": {line(record.ChangeCreate, "", record.StepReverting, 0, 9), nil, want{atBefore, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, decided := standingOf(tt.line, tt.job)
			if got := (want{st, decided}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRecordReverted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		res  rollout.ServiceResult
		step record.Step
		idx  uint64
	}{
		"healthy":                    {rollout.ServiceResult{Outcome: rollout.Deployed, Submitted: true}, record.StepReverted, 9},
		"nothing to register":        {rollout.ServiceResult{Outcome: rollout.Unchanged}, record.StepReverted, 5},
		"registered and not healthy": {rollout.ServiceResult{Outcome: rollout.Failed, Submitted: true}, record.StepReverted, 9},
		"timed out":                  {rollout.ServiceResult{Outcome: rollout.TimedOut, Submitted: true}, record.StepReverted, 9},
		"interrupted":                {rollout.ServiceResult{Outcome: rollout.Cancelled, Submitted: true}, record.StepReverting, 9},
		"unreachable":                {rollout.ServiceResult{Outcome: rollout.Unreachable, Submitted: true}, record.StepReverting, 9},
		"a canary waits":             {rollout.ServiceResult{Outcome: rollout.AwaitPromotion, Submitted: true}, record.StepReverting, 9},
		"refused":                    {rollout.ServiceResult{Outcome: rollout.Failed}, record.StepReverting, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := record.Service{Step: record.StepReverting, Index: 9}
			recordReverted(&l, 5, tt.res)
			if l.Step != tt.step || l.Index != tt.idx || l.Outcome != string(tt.res.Outcome) {
				t.Errorf("got step %s, index %d, outcome %s; want %s, %d, %s", l.Step, l.Index, l.Outcome, tt.step, tt.idx, tt.res.Outcome)
			}
			if ended := l.Step == record.StepReverted; l.Ended.IsZero() == ended {
				t.Errorf("got end %s for step %s", l.Ended, l.Step)
			}
		})
	}
}

func TestRecordOutcome(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change record.Change
		step   record.Step
		res    rollout.ServiceResult
		want   record.Step
		ended  bool
	}{
		"deployed":                         {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.Deployed, Submitted: true}, record.StepDone, true},
		"unchanged":                        {record.ChangeNone, record.StepPending, rollout.ServiceResult{Outcome: rollout.Unchanged}, record.StepUnchanged, true},
		"unchanged and registered anyway":  {record.ChangeNone, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.Deployed, Submitted: true}, record.StepDone, true},
		"failed":                           {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.Failed, Submitted: true}, record.StepFailed, true},
		"reverted by Nomad":                {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.FailedReverted, Submitted: true}, record.StepFailed, true},
		"refused before it was submitted":  {record.ChangeUpdate, record.StepPending, rollout.ServiceResult{Outcome: rollout.Failed}, record.StepPending, true},
		"registration may have arrived":    {record.ChangeUpdate, record.StepSubmitting, rollout.ServiceResult{Outcome: rollout.Failed}, record.StepSubmitting, true},
		"skipped":                          {record.ChangeUpdate, record.StepPending, rollout.ServiceResult{Outcome: rollout.Skipped}, record.StepPending, false},
		"cancelled":                        {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.Cancelled, Submitted: true}, record.StepSubmitted, false},
		"a canary waits":                   {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.AwaitPromotion, Submitted: true}, record.StepSubmitted, false},
		"unreachable after its submission": {record.ChangeUpdate, record.StepSubmitted, rollout.ServiceResult{Outcome: rollout.Unreachable, Submitted: true}, record.StepSubmitted, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := record.Service{Change: tt.change, Step: tt.step}
			recordOutcome(&l, tt.res)
			if l.Step != tt.want || l.Outcome != string(tt.res.Outcome) || l.Ended.IsZero() == tt.ended {
				t.Errorf("got step %s, outcome %s, end %s; want %s, %s, ended %t", l.Step, l.Outcome, l.Ended, tt.want, tt.res.Outcome, tt.ended)
			}
		})
	}
}

var errNoAnswer = &url.Error{Op: "Put", URL: "http://nomad", Err: errors.New("connection reset by peer")}

func TestUnreverted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err         error
		interrupted bool
		want        rollout.Outcome
	}{
		"another client changed it": {nil, false, rollout.Superseded},
		"interrupted":               {context.Canceled, true, rollout.Cancelled},
		"no answer":                 {errNoAnswer, false, rollout.Unreachable},
		"refused":                   {errors.New("no"), false, rollout.Failed},
	} {
		if got := unreverted(record.Service{Name: "web", JobID: "web"}, tt.err, tt.interrupted); got.Outcome != tt.want || got.Submitted {
			t.Errorf("%s: got %+v, want outcome %s", name, got, tt.want)
		}
	}
}

func TestPruneOutcome(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err         error
		interrupted bool
		want        rollout.Outcome
	}{
		"interrupted":         {errors.New("no"), true, rollout.Cancelled},
		"the lock is lost":    {&rollout.Refusal{Outcome: rollout.Superseded, Err: errMoved}, false, rollout.Superseded},
		"the lock, no answer": {fmt.Errorf("x: %w", &rollout.Refusal{Outcome: rollout.Unreachable, Err: errNoAnswer}), false, rollout.Unreachable},
		"taken over":          {fmt.Errorf("x: %w", record.ErrTakenOver), false, rollout.Superseded},
		"locked":              {&record.LockedError{}, false, rollout.Superseded},
		"no answer":           {errNoAnswer, false, rollout.Unreachable},
		"refused":             {errors.New("no"), false, rollout.Failed},
	} {
		if got := pruneOutcome(tt.err, tt.interrupted); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestFailedServices(t *testing.T) {
	t.Parallel()
	got := failedServices([]record.Service{
		{Name: "a", Step: record.StepDone, Outcome: "deployed"},
		{Name: "b", JobID: "b-1", Step: record.StepFailed, Outcome: "timed-out", Detail: "why"},
		{Name: "c", Step: record.StepSubmitted},
	})
	if len(got) != 1 || got[0].JobID != "b-1" || got[0].Outcome != rollout.TimedOut || got[0].Detail != "why" || !got[0].Submitted {
		t.Errorf("got %+v, want the result of b", got)
	}
}

func TestIsChanged(t *testing.T) {
	t.Parallel()
	unchanged := []record.Step{record.StepPending, record.StepUnchanged, record.StepReverted}
	for _, s := range []record.Step{record.StepPending, record.StepUnchanged, record.StepSubmitting, record.StepSubmitted, record.StepDone, record.StepFailed, record.StepPruning, record.StepPruned, record.StepReverting, record.StepReverted} {
		if got, want := isChanged(record.Service{Step: s}), !slices.Contains(unchanged, s); got != want {
			t.Errorf("%s: got %t, want %t", s, got, want)
		}
	}
}

func TestIsPlanned(t *testing.T) {
	t.Parallel()
	carried := record.Service{Change: record.ChangeNone, Step: record.StepUnchanged}
	looked := carried
	looked.Ended = time.Now()
	for name, tt := range map[string]struct {
		line record.Service
		want bool
	}{
		"pruned":                             {record.Service{Change: record.ChangeStop, Step: record.StepPending}, false},
		"carried over":                       {carried, false},
		"unchanged, and found to be healthy": {looked, true},
		"unchanged, not yet looked at":       {record.Service{Change: record.ChangeNone, Step: record.StepPending}, true},
		"updated":                            {record.Service{Change: record.ChangeUpdate, Step: record.StepDone}, true},
	} {
		if got := isPlanned(tt.line); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func TestRevertGoal(t *testing.T) {
	t.Parallel()
	if got := revertGoal(&record.Release{Aborting: true}); got != record.Aborted {
		t.Errorf("aborting: got %s, want %s", got, record.Aborted)
	}
	if got := revertGoal(&record.Release{}); got != record.Reverted {
		t.Errorf("failed: got %s, want %s", got, record.Reverted)
	}
}
