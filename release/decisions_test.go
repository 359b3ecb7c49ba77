package release

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func TestStateAfter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		outcome     rollout.Outcome
		interrupted bool
		onFailure   string
		want        record.State
	}{
		"deployed":                         {rollout.Deployed, false, OnFailureRevertRelease, record.Done},
		"unchanged":                        {rollout.Unchanged, false, OnFailureStop, record.Done},
		"deployed, and interrupted after":  {rollout.Deployed, true, OnFailureStop, record.Done},
		"a canary waits":                   {rollout.AwaitPromotion, false, OnFailureRevertRelease, record.NeedsPromotion},
		"a wave waits":                     {rollout.AwaitApproval, false, OnFailureRevertRelease, record.NeedsApproval},
		"a wave waits, and is interrupted": {rollout.AwaitApproval, true, OnFailureRevertRelease, record.NeedsApproval},
		"unreachable":                      {rollout.Unreachable, false, OnFailureRevertRelease, record.Interrupted},
		"interrupted":                      {rollout.Cancelled, true, OnFailureRevertRelease, record.Interrupted},
		"failed, and interrupted":          {rollout.Failed, true, OnFailureRevertRelease, record.Interrupted},
		"failed, stop":                     {rollout.Failed, false, OnFailureStop, record.FailedState},
		"failed, revert-service":           {rollout.Failed, false, OnFailureRevertService, record.Reverting},
		"timed out, revert-release":        {rollout.TimedOut, false, OnFailureRevertRelease, record.Reverting},
		"another client changed a job":     {rollout.Superseded, false, OnFailureRevertRelease, record.Reverting},
	} {
		if got := stateAfter(tt.outcome, tt.interrupted, tt.onFailure); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestSuccessState(t *testing.T) {
	t.Parallel()
	runs, gone := record.Service{Spec: "1"}, record.Service{Before: "1", Change: record.ChangeStop}
	for name, tt := range map[string]struct {
		kind  string
		lines []record.Service
		want  record.State
	}{
		"a deploy":                        {KindDeploy, []record.Service{runs}, record.Done},
		"a deploy of nothing":             {KindDeploy, nil, record.Done},
		"a destroy":                       {KindDestroy, []record.Service{gone}, record.Destroyed},
		"a destroy that leaves a service": {KindDestroy, []record.Service{gone, runs}, record.Done},
	} {
		if got := successState(tt.kind, tt.lines); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestWaveStateAfter(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[rollout.Outcome]record.State{
		rollout.Failed: record.FailedState, rollout.TimedOut: record.FailedState, rollout.FailedReverted: record.FailedState, rollout.Superseded: record.FailedState,
		rollout.AwaitPromotion: record.Interrupted, rollout.Cancelled: record.Interrupted, rollout.Unreachable: record.Interrupted,
	} {
		if got := waveStateAfter(outcome); got != want {
			t.Errorf("%s: got %s, want %s", outcome, got, want)
		}
	}
}

func TestFailurePolicy(t *testing.T) {
	t.Parallel()
	for state, want := range map[record.State]string{
		record.Done: OnFailureRevertRelease, record.Reverted: OnFailureRevertRelease, record.Aborted: OnFailureRevertRelease,
		record.FailedState: OnFailureStop, record.RevertFailed: OnFailureStop, record.Abandoned: OnFailureStop, record.Destroyed: OnFailureStop,
	} {
		if got := failurePolicy("", &record.Release{State: state}); got != want {
			t.Errorf("after a release that is %s: got %s, want %s", state, got, want)
		}
	}
	if got := failurePolicy("", nil); got != OnFailureStop {
		t.Errorf("first release: got %s, want %s", got, OnFailureStop)
	}
	if got := failurePolicy(OnFailureRevertService, nil); got != OnFailureRevertService {
		t.Errorf("asked for: got %s, want %s", got, OnFailureRevertService)
	}
}

func TestChangesWave(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		line record.Service
		want bool
	}{
		"updates a job":             {record.Service{Wave: 1, Change: record.ChangeUpdate}, true},
		"creates a job":             {record.Service{Wave: 1, Change: record.ChangeCreate}, true},
		"renews secrets":            {record.Service{Wave: 1, Change: record.ChangeNone, Renewed: []string{"cert"}}, true},
		"leaves a job as it is":     {record.Service{Wave: 1, Change: record.ChangeNone}, false},
		"stops a job, after waves":  {record.Service{Wave: 1, Change: record.ChangeStop}, false},
		"updates it in other waves": {record.Service{Wave: 0, Change: record.ChangeUpdate}, false},
	} {
		if got := changesWave([]record.Service{tt.line}, 1); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	wave := &stack.Wave{Approve: true}
	if !needsApproval(wave, KindDeploy) || needsApproval(wave, KindRollback) || needsApproval(&stack.Wave{}, KindDeploy) {
		t.Error("want an approval for a wave that asks for one, but for a rollback")
	}
	waves := []record.Wave{{State: record.Done}, {State: record.NeedsApproval}}
	if got := waitingWave(&record.Release{State: record.NeedsApproval, Waves: waves}); got != 1 {
		t.Errorf("got wave %d, want 1", got)
	}
	if got := waitingWave(&record.Release{State: record.Aborted, Waves: waves}); got != -1 {
		t.Errorf("of a release that has ended: got wave %d, want none", got)
	}
	if got := waitingWave(&record.Release{State: record.Running, Waves: waves[:1]}); got != -1 {
		t.Errorf("of a release whose waves are done: got wave %d, want none", got)
	}
}

func TestAssignWaves(t *testing.T) {
	t.Parallel()
	member := func(target, service string) stack.Member { return stack.Member{Target: target, Service: service} }
	waves := []*stack.Wave{
		{Members: []stack.Member{member("b", "api"), member("a", "api")}},
		{Members: []stack.Member{member("a", "web"), member("a", "db")}},
	}
	parts, err := assignWaves([]render.Job{
		jobAt("web", "a", "web", "", ""), jobAt("api", "b", "api", "", ""), jobAt("db", "a", "db", "", ""), jobAt("api", "a", "api", "", ""),
	}, waves)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range parts {
		text := string(rune('0'+p.Wave)) + p.Target
		for _, j := range p.Jobs {
			text += " " + j.Service
		}
		got = append(got, text)
	}
	if want := []string{"0a api", "0b api", "1a web db"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := assignWaves([]render.Job{jobAt("other", "a", "other", "", "")}, waves); err == nil {
		t.Error("a service that no wave names: got no error")
	}
}

func TestJoinLastWave(t *testing.T) {
	t.Parallel()
	req := Request{Waves: []*stack.Wave{{Members: []stack.Member{{Service: "api"}}}, {}}, Jobs: []render.Job{jobAt("api", "", "api", "", ""), jobAt("old", "gone", "old", "", "")}}
	req.joinLastWave()
	if got := req.Waves[1].Members; len(got) != 1 || got[0] != (stack.Member{Target: "gone", Service: "old"}) {
		t.Errorf("got %+v, want old@gone in the last wave", got)
	}
	if len(req.Waves[0].Members) != 1 {
		t.Errorf("the first wave has %+v, want api alone", req.Waves[0].Members)
	}
}

func TestOwnership(t *testing.T) {
	t.Parallel()
	exact, runs := &record.Owner{Exact: true}, &record.Owner{}
	for name, tt := range map[string]struct {
		s    suspect
		want ownership
	}{
		"another record left it so":                     {suspect{owner: exact}, ownedByOther},
		"another record left it so, ours ran it":        {suspect{owner: exact, runs: true}, ownedByOther},
		"another record runs it":                        {suspect{owner: runs}, ownedByOther},
		"both run it, and it changed since":             {suspect{owner: runs, runs: true}, ownedByStack},
		"ours runs it, changed by hand":                 {suspect{runs: true}, ownedByStack},
		"identical, and of no record":                   {suspect{same: true}, ownedByStack},
		"of no record":                                  {suspect{}, ownedByNone},
		"to stop, of another record":                    {suspect{owner: exact, stop: true}, sparedForOther},
		"to stop, created by another client":            {suspect{stop: true, left: 5, created: 9}, sparedRecreated},
		"to stop, changed by hand":                      {suspect{stop: true, runs: true, left: 5, created: 3}, ownedByStack},
		"to stop, and the record does not know it":      {suspect{stop: true, created: 9}, ownedByStack},
		"to stop, ours ran it, another one runs it now": {suspect{stop: true, runs: true, owner: runs}, ownedByStack},
	} {
		if got := tt.s.ownership(); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

func TestIsManaged(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		line record.Service
		want bool
	}{
		"deployed":                         {record.Service{Step: record.StepDone}, true},
		"failed":                           {record.Service{Step: record.StepFailed}, true},
		"pending update":                   {record.Service{Step: record.StepPending, Planned: 5}, true},
		"pending creation":                 {record.Service{Step: record.StepPending}, false},
		"reverted update":                  {record.Service{Step: record.StepReverted, Planned: 5}, true},
		"reverted creation, so it is gone": {record.Service{Step: record.StepReverted}, false},
		"pruned":                           {record.Service{Step: record.StepPruned, Planned: 5}, false},
	} {
		if got := isManaged(tt.line); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func TestIsExpected(t *testing.T) {
	t.Parallel()
	create := record.Service{Change: record.ChangeCreate, Spec: "1", Step: record.StepPending}
	for name, tt := range map[string]struct {
		state record.State
		line  record.Service
		want  bool
	}{
		"deployed":                       {record.Done, record.Service{Spec: "1", Step: record.StepDone}, true},
		"still to be created":            {record.Running, create, true},
		"not created, and failed":        {record.FailedState, create, true},
		"not created, and reverted":      {record.Reverted, create, false},
		"not created, and aborted":       {record.Aborted, create, false},
		"not created, being reverted":    {record.Reverting, create, false},
		"not created, revert failed":     {record.RevertFailed, create, false},
		"pruned":                         {record.Done, record.Service{Before: "1", Change: record.ChangeStop, Step: record.StepPruned}, false},
		"former version, update to come": {record.Running, record.Service{Before: "1", Spec: "2", Change: record.ChangeUpdate, Step: record.StepPending}, true},
	} {
		if got, _ := isExpected(&record.Release{State: tt.state}, tt.line); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

func TestCarryOver(t *testing.T) {
	t.Parallel()
	p := &Plan{
		defaults: map[string]nomad.Defaults{}, req: Request{Partial: true, Forget: []string{"gone"}}, moved: map[jobKey]bool{{"", nomad.JobID{Namespace: "default", ID: "moved"}}: true},
		lines: []record.Service{
			{Name: "api", JobID: "api", Step: record.StepDone, Spec: "2", Before: "1", Index: 9, Planned: 5, Secrets: []string{"token"}, Outcome: "deployed", Wave: 3},
			{Name: "db", JobID: "db", Step: record.StepReverted, Spec: "2", Before: "1", Index: 8, Planned: 4, BeforeSecrets: []string{"old"}},
			{Name: "old", JobID: "old", Step: record.StepPruned, Before: "1"},
			{Name: "web", JobID: "web", Step: record.StepDone, Spec: "1", Index: 7},
			{Name: "moved", JobID: "moved", Step: record.StepDone, Spec: "1", Index: 7},
			{Name: "far", Target: "gone", JobID: "far", Step: record.StepDone, Spec: "1", Index: 7},
		},
	}
	got := p.carried([]record.Service{{Name: "web", JobID: "web"}})
	if len(got) != 2 || got[0].Name != "api" || got[1].Name != "db" {
		t.Fatalf("got %+v, want api and db", got)
	}
	for i, want := range []struct {
		spec    string
		index   uint64
		secrets string
	}{{"2", 9, "token"}, {"1", 8, "old"}} {
		l := got[i]
		if l.Spec != want.spec || l.Before != want.spec || l.Index != want.index || l.Planned != want.index || !slices.Equal(l.Secrets, []string{want.secrets}) {
			t.Errorf("%s: got spec %s, index %d, secrets %q; want %+v", l.Name, l.Spec, l.Index, l.Secrets, want)
		}
		if !isCarriedOver(l) || l.Wave != 0 || l.Outcome != "" {
			t.Errorf("%s: got %+v, want a line of no wave that is carried over", l.Name, l)
		}
	}
}

func TestChooseRollback(t *testing.T) {
	t.Parallel()
	heads := []*record.Release{
		{Number: 4, State: record.Unreadable, Detail: "broken"}, {Number: 3, State: record.Done, Total: 1, Inputs: "3"},
		{Number: 2, State: record.Reverted, Total: 1}, {Number: 1, State: record.Done, Total: 1, Inputs: "1"},
	}
	for number, want := range map[int]string{1: "", 3: "", 2: "never complete", 4: "broken", 9: "there are 1 to 4"} {
		got, err := chooseRollback(heads, number)
		if want == "" && (err != nil || got.Number != number) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("release %d: got %+v, %v, want error %q", number, got, err, want)
		}
	}
	if _, err := chooseRollback(nil, 0); !errors.Is(err, record.ErrNoRelease) {
		t.Errorf("without a release: got %v, want %v", err, record.ErrNoRelease)
	}
	if got, err := chooseRollback(heads[1:], 0); err != nil || got.Number != 1 {
		t.Errorf("newest good one: got %+v, %v, want release 1", got, err)
	}
}

func TestResult_Outcome(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		state record.State
		cause rollout.Outcome
		want  rollout.Outcome
	}{
		"deployed":                      {record.Done, "", rollout.Deployed},
		"destroyed":                     {record.Destroyed, "", rollout.Deployed},
		"interrupted":                   {record.Interrupted, "", rollout.Cancelled},
		"unreachable":                   {record.Interrupted, rollout.Unreachable, rollout.Unreachable},
		"a canary waits":                {record.NeedsPromotion, rollout.AwaitPromotion, rollout.AwaitPromotion},
		"failed and stayed":             {record.FailedState, rollout.TimedOut, rollout.TimedOut},
		"reverted":                      {record.Reverted, rollout.TimedOut, rollout.FailedReverted},
		"reverted but for another's":    {record.Reverted, rollout.Superseded, rollout.Superseded},
		"aborted":                       {record.Aborted, "", rollout.Deployed},
		"aborted but for another's job": {record.Aborted, rollout.Superseded, rollout.Superseded},
		"revert failed":                 {record.RevertFailed, rollout.TimedOut, rollout.Failed},
	} {
		r := Result{Release: &record.Release{State: tt.state, Cause: string(tt.cause)}}
		if got := r.Outcome(); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
	services := rollout.Result{Services: []rollout.ServiceResult{{Outcome: rollout.Unchanged}}}
	if got := (Result{Result: services}).Outcome(); got != rollout.Unchanged {
		t.Errorf("without a release: got %s, want %s", got, rollout.Unchanged)
	}
}

func TestErrors_SayWhatToDo(t *testing.T) {
	t.Parallel()
	head := &record.Release{Number: 3, Stack: "shop", Environment: "prod", State: record.Interrupted}
	in := func(s record.State) *record.Release { h := *head; h.State = s; return &h }
	cause := errors.New("cause")
	for want, err := range map[string]error{
		"drover resume shop -e prod":                  &OpenError{Release: head},
		"drover approve shop -e prod":                 &OpenError{Release: in(record.NeedsApproval)},
		"drover promote shop -e prod":                 &OpenError{Release: in(record.NeedsPromotion)},
		"ann@host":                                    &OpenError{Release: head, Holder: &record.Holder{User: "ann", Host: "host"}},
		"there is no release":                         &NotOpenError{},
		"release 3 is already finished (interrupted)": &NotOpenError{head},
		"job \"web\" is too large":                    &TooLargeError{"web", cause},
		"cannot be recorded: cause":                   &RecordTooLargeError{cause},
		"--forget east":                               &RetiredError{Target: "east", Jobs: []string{"web"}, Err: cause},
		"targets now":                                 &RetiredError{Jobs: []string{"web"}, Err: cause},
		"give the new one another name":               &RelocatedError{Target: "east", Was: "http://a", Now: ""},
		"same job \"web\"":                            &SameJobError{"web", "api", nomad.JobID{ID: "web", Namespace: "default"}},
		"no service \"nosuch\"; it has api, web":      &NotRecordedError{"shop", 3, "service", "nosuch", []string{"api", "web"}},
		"drover rollback":                             &DestroyedError{head},
		"no wave of it waits":                         &NoApprovalError{head},
		"drover schedule apply":                       &AttendedError{"nightly", []string{"a wave waits"}},
		"registers Consul service web, and so does":   &SharedNameError{[]SharedName{{Kind: "service", Name: "web", JobID: "a", OtherJobID: "b"}}},
		"asks for route":                              &SharedNameError{[]SharedName{{Kind: "route", Name: "example.org/", JobID: "a", OtherJobID: "b"}}},
		"since the plan was made":                     &StalePlanError{[]string{"job changed"}},
	} {
		if got := err.Error(); !strings.Contains(got, want) {
			t.Errorf("%T: got %q, want it to contain %q", err, got, want)
		}
	}
	for _, err := range []error{&TooLargeError{"web", cause}, &RecordTooLargeError{cause}, &RetiredError{Err: cause}} {
		if !errors.Is(err, cause) {
			t.Errorf("%T does not wrap its cause", err)
		}
	}
	for state, want := range map[record.State]string{record.Running: "its process has ended", record.Reverting: "while reverting", record.Paused: "paused"} {
		if got := Describe(in(state)); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want it to contain %q", state, got, want)
		}
	}
	if got := StackArgs("shop", stack.DefaultEnvironment); got != "shop" {
		t.Errorf("default environment: got %q, want shop", got)
	}
	if got := (ForeignJob{JobID: "web"}).Reason(); got == "" {
		t.Error("a job of no record has no reason")
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	a := claimedName{kind: "service", name: "web", region: "east"}
	for name, tt := range map[string]struct {
		b    claimedName
		want bool
	}{
		"same":            {a, true},
		"unknown region":  {claimedName{kind: "service", name: "web"}, true},
		"another region":  {claimedName{kind: "service", name: "web", region: "west"}, false},
		"another name":    {claimedName{kind: "service", name: "api", region: "east"}, false},
		"a route":         {claimedName{kind: "route", name: "web", region: "east"}, false},
		"another cluster": {claimedName{kind: "service", name: "web", region: "east", cluster: "http://far"}, false},
	} {
		if got := a.overlaps(tt.b); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
	if !claimsNames(rollout.Change{Action: rollout.ActionCreate}) || claimsNames(rollout.Change{Action: rollout.ActionNone}) {
		t.Error("a new job claims its names, an unchanged one none")
	}
	if !KeepsRunning(&api.Job{}) {
		t.Error("a job without a type is a service")
	}
}

func TestRecordedChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		planned rollout.Change
		want    record.Change
	}{
		"an unchanged job":                     {rollout.Change{Action: rollout.ActionNone, Index: 7}, record.ChangeNone},
		"a job that does not exist":            {rollout.Change{Action: rollout.ActionCreate}, record.ChangeCreate},
		"a stopped job":                        {rollout.Change{Action: rollout.ActionCreate, Index: 7}, record.ChangeUpdate},
		"an update in place":                   {rollout.Change{Action: rollout.ActionInPlace, Index: 7}, record.ChangeUpdate},
		"a replacement":                        {rollout.Change{Action: rollout.ActionReplace, Index: 7}, record.ChangeUpdate},
		"a recreation":                         {rollout.Change{Action: rollout.ActionRecreate, Index: 7}, record.ChangeUpdate},
		"a job that is not in the stack":       {rollout.Change{Action: rollout.ActionStop, Index: 7}, record.ChangeStop},
		"a recreation of a job that is purged": {rollout.Change{Action: rollout.ActionRecreate}, record.ChangeCreate},
	} {
		if got := recordedChange(c.planned); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// Until a job has run to its end, or its variable has its new values, the record must not
// say that nothing is left to do.
func TestNoteUnchanged(t *testing.T) {
	t.Parallel()
	service, batch, sysbatch := api.JobTypeService, api.JobTypeBatch, api.JobTypeSysbatch
	for name, c := range map[string]struct {
		line record.Service
		kind *string
		want record.Step
	}{
		"a service":                     {record.Service{}, &service, record.StepUnchanged},
		"a service with a new secret":   {record.Service{Renewed: []string{"token"}}, &service, record.StepPending},
		"a batch job":                   {record.Service{}, &batch, record.StepPending},
		"a sysbatch job":                {record.Service{}, &sysbatch, record.StepPending},
		"a job without a type":          {record.Service{}, nil, record.StepUnchanged},
		"a batch job with a new secret": {record.Service{Renewed: []string{"token"}}, &batch, record.StepPending},
	} {
		l := c.line
		l.Step = record.StepPending
		id := "web"
		noteUnchanged(&l, &api.Job{ID: &id, Type: c.kind, TaskGroups: []*api.TaskGroup{{Name: &id}}})
		if l.Step != c.want {
			t.Errorf("%s: got step %s, want %s", name, l.Step, c.want)
		}
		if isCarriedOver(l) {
			t.Errorf("%s: it looks like a job that the request did not name", name)
		}
	}
}
