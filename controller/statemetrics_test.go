package controller

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
)

// list decodes a list as Nomad's API returns it.
func list[T any](t *testing.T, text string) (out []T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// observedShop is stack shop in environment prod, whose release 7 is in its second wave.
func observedShop(t *testing.T) *observed {
	t.Helper()
	home := nomad.Defaults{Region: "global"}
	o := newObserved(home)
	head := &record.Release{
		Number: 7, Kind: "deploy", Version: "1.2.0", AppVersion: "3", State: record.Running, Started: at(1000),
		Targets: json.RawMessage(`[{"Name":"eu"},{"Name":"us","Region":"us"},{"Name":"far","Cluster":{"Address":"http://far:4646"}}]`),
		Waves:   []record.Wave{{Name: "eu", State: record.Done, Ended: at(1100)}, {Name: "us", State: record.Running, Started: at(1100)}, {Name: "far"}},
	}
	lines := []record.Service{
		{Name: "web", Target: "eu", JobID: "web-eu", Change: record.ChangeUpdate, Spec: "x", Step: record.StepDone, Ended: at(1090)},
		{Name: "night", Target: "eu", JobID: "night", Change: record.ChangeNone, Spec: "x", Step: record.StepUnchanged},
		{Name: "gone", Target: "eu", JobID: "gone", Change: record.ChangeNone, Spec: "x", Step: record.StepUnchanged},
		{Name: "old", Target: "eu", JobID: "old", Change: record.ChangeStop, Before: "x", Step: record.StepPruned},
		{Name: "hidden", Target: "eu", JobID: "hidden", Namespace: "secret", Change: record.ChangeNone, Spec: "x", Step: record.StepUnchanged},
		{Name: "web", Target: "us", JobID: "web-eu", Wave: 1, Change: record.ChangeUpdate, Spec: "x", Step: record.StepSubmitted, Index: 5},
		{Name: "web", Target: "far", JobID: "web-eu", Wave: 2, Change: record.ChangeUpdate, Spec: "x", Step: record.StepPending, Before: "y"},
	}
	o.stacks["shop/prod"] = &observedStack{
		index: record.Index{Stack: "shop", Environment: "prod", Release: 7}, head: head, lines: linesOf(home, head, lines),
		schedules: map[string]*record.Schedule{
			"weekly": {Runs: []record.Run{{At: at(900), OK: true, Outcome: "deployed"}, {At: at(950), OK: false, Outcome: "failed", Elapsed: 1500 * time.Millisecond}, {At: at(960), Skipped: true, Outcome: ""}}},
			"never":  {Paused: "by a@b"},
		},
	}
	o.setJobs(list[jobEntry](t, `[
		{"ID":"web-eu","Namespace":"default","Type":"service","Status":"running","JobSummary":{"Summary":{"a":{"Queued":1},"b":{"Queued":1,"Running":2}}}},
		{"ID":"night","Namespace":"default","Type":"batch","Status":"running","JobSummary":null},
		{"ID":"night/periodic-1700000000","ParentID":"night","Namespace":"default","Type":"batch","Status":"dead"}]`))
	o.setAllocations(list[allocationEntry](t, `[
		{"ID":"1","Namespace":"default","JobID":"web-eu","JobVersion":3,"DesiredStatus":"run","ClientStatus":"running","TaskStates":{"t":{"Restarts":4},"s":{"Restarts":1}},"DeploymentStatus":{"Healthy":true}},
		{"ID":"2","Namespace":"default","JobID":"web-eu","JobVersion":2,"DesiredStatus":"stop","ClientStatus":"running","TaskStates":null},
		{"ID":"3","Namespace":"default","JobID":"web-eu","JobVersion":3,"DesiredStatus":"run","ClientStatus":"failed","NextAllocation":"1"},
		{"ID":"4","Namespace":"default","JobID":"web-eu","JobVersion":3,"DesiredStatus":"run","ClientStatus":"failed"},
		{"ID":"5","Namespace":"default","JobID":"night/periodic-1700000000","JobVersion":0,"DesiredStatus":"run","ClientStatus":"complete"},
		{"ID":"6","Namespace":"other","JobID":"web-eu","JobVersion":0,"DesiredStatus":"run","ClientStatus":"running"}]`))
	o.setDeployments(list[deploymentEntry](t, `[
		{"ID":"b","Namespace":"default","JobID":"web-eu","JobVersion":3,"CreateIndex":20,"Status":"running","StatusDescription":"Deployment is running but requires manual promotion","TaskGroups":{"a":{"DesiredTotal":2,"HealthyAllocs":1},"b":{"DesiredTotal":1,"HealthyAllocs":0}}},
		{"ID":"a","Namespace":"default","JobID":"web-eu","JobVersion":2,"CreateIndex":10,"Status":"successful"}]`))
	for _, l := range []string{listRecords, listJobs, listAllocations, listDeployments} {
		o.read[l] = true
	}
	return o
}

// samples returns the lines of families whose names begin with prefix, without comments.
func (o *observed) samples(prefix string) string {
	var e exposition
	o.write(&e)
	var out []string
	for line := range strings.Lines(e.String()) {
		if strings.HasPrefix(line, prefix) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func TestObserved_ServicesOfTheNewestRelease(t *testing.T) {
	t.Parallel()
	o := observedShop(t)
	const want = `drover_service_info{stack="shop",environment="prod",target="eu",release="7",service="web",namespace="default",job="web-eu",type="service"} 1
drover_service_info{stack="shop",environment="prod",target="eu",release="7",service="night",namespace="default",job="night",type="batch"} 1
drover_service_info{stack="shop",environment="prod",target="eu",release="7",service="gone",namespace="default",job="gone",type=""} 1
drover_service_registered{stack="shop",environment="prod",target="eu",release="7",service="web"} 1
drover_service_registered{stack="shop",environment="prod",target="eu",release="7",service="night"} 1
drover_service_registered{stack="shop",environment="prod",target="eu",release="7",service="gone"} 0
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="queued"} 2
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="pending"} 0
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="running"} 2
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="complete"} 0
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="failed"} 1
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="lost"} 0
drover_service_allocations{stack="shop",environment="prod",target="eu",release="7",service="web",state="unknown"} 0
`
	if got := o.samples("drover_service_"); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant first\n%s", got, want)
	}
	const of = `{stack="shop",environment="prod",target="eu",release="7",service=`
	for _, line := range []string{
		`drover_service_allocations` + of + `"night",state="complete"} 1`,
		`drover_service_allocations_healthy` + of + `"web"} 1`,
		`drover_service_allocations_healthy` + of + `"gone"} 0`,
		`drover_service_allocations_outdated` + of + `"web"} 1`,
		`drover_service_restarts_total` + of + `"web"} 0`,
		`drover_service_deployment_status` + of + `"web",status="awaiting-promotion"} 1`,
		`drover_service_deployment_desired_allocations` + of + `"web"} 3`,
		`drover_service_deployment_healthy_allocations` + of + `"web"} 1`,
	} {
		if got := o.samples("drover_service_"); !strings.Contains(got, line+"\n") {
			t.Errorf("want %s, got\n%s", line, got)
		}
	}
	got := o.samples("drover_service_")
	for _, service := range []string{"old", "hidden"} {
		if strings.Contains(got, `"`+service+`"`) {
			t.Errorf("service %s is exported:\n%s", service, got)
		}
	}
	if strings.Contains(got, `target="us"`) || strings.Contains(got, `target="far"`) {
		t.Errorf("jobs of another region or cluster have the values of a job here:\n%s", got)
	}
}

func TestObserved_NoServicesBeforeEachListWasRead(t *testing.T) {
	t.Parallel()
	o := observedShop(t)
	delete(o.read, listAllocations)
	if got := o.samples("drover_service_"); got != "" {
		t.Errorf("got %s\nwant nothing: allocations are not known yet", got)
	}
}

func TestObserved_Restarts(t *testing.T) {
	t.Parallel()
	o := observedShop(t)
	set := func(text string) string {
		o.setAllocations(list[allocationEntry](t, text))
		_, value, _ := strings.Cut(o.samples(`drover_service_restarts_total{stack="shop",environment="prod",target="eu",release="7",service="web"`), "} ")
		return strings.TrimSpace(value)
	}
	const first = `{"ID":"1","Namespace":"default","JobID":"web-eu","ClientStatus":"running","TaskStates":{"t":{"Restarts":%d}}}`
	for i, c := range []struct{ text, want string }{
		{fmt.Sprintf("["+first+"]", 5), "0"}, // as before: those were not seen
		{fmt.Sprintf("["+first+"]", 7), "2"},
		{fmt.Sprintf("["+first+`,{"ID":"new","Namespace":"default","JobID":"web-eu","ClientStatus":"pending","TaskStates":{"t":{"Restarts":1}}}]`, 7), "3"},
		{"[]", "3"}, // a counter does not go back when an allocation is collected
	} {
		if got := set(c.text); got != c.want {
			t.Errorf("list %d: got %s restarts, want %s", i+1, got, c.want)
		}
	}
}

func TestObserved_Release(t *testing.T) {
	t.Parallel()
	o := observedShop(t)
	const of = `{stack="shop",environment="prod",release="7"`
	want := strings.Join([]string{
		`drover_release_info` + of + `,kind="deploy",version="1.2.0",app_version="3"} 1`,
		`drover_release_started_timestamp_seconds` + of + `} 1000`,
		`drover_release_ended_timestamp_seconds` + of + `} 0`,
		`drover_release_wave_state` + of + `,wave="eu",state="deployed"} 1`,
		`drover_release_wave_state` + of + `,wave="us",state="running"} 1`,
		`drover_release_wave_state` + of + `,wave="far",state="waiting"} 1`,
		`drover_release_services` + of + `,target="eu",step="done"} 1`,
		`drover_release_services` + of + `,target="eu",step="pruned"} 1`,
		`drover_release_services` + of + `,target="eu",step="unchanged"} 3`,
		`drover_release_services` + of + `,target="far",step="pending"} 1`,
		`drover_release_services` + of + `,target="us",step="submitted"} 1`, "",
	}, "\n")
	states := o.samples("drover_release_state{")
	if got := strings.ReplaceAll(o.samples("drover_release_"), states, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if n := strings.Count(states, "} 1\n"); n != 1 || !strings.Contains(states, of+`,state="running"} 1`) || strings.Count(states, "\n") != len(releaseStates) {
		t.Errorf("got\n%s\nwant one of %d states, running", states, len(releaseStates))
	}
}

func TestObserved_GateWaits(t *testing.T) {
	t.Parallel()
	const name = "drover_release_gate_waiting_since_timestamp_seconds"
	const of = name + `{stack="shop",environment="prod",release="7",wave=`
	for what, c := range map[string]struct {
		change func(s *observedStack)
		want   string
	}{
		"nothing waits while services change": {func(*observedStack) {}, ""},
		"all services of the wave are healthy": {func(s *observedStack) {
			s.lines[5].step, s.lines[5].ended = record.StepDone, at(1180)
		}, of + `"us",gate="health"} 1180` + "\n"},
		"an approval, since the wave before": {func(s *observedStack) {
			s.head.State, s.head.Waves[1].State = record.NeedsApproval, record.NeedsApproval
		}, of + `"us",gate="approval"} 1100` + "\n"},
		"an approval of the first wave": {func(s *observedStack) {
			s.head.State, s.head.Waves = record.NeedsApproval, []record.Wave{{Name: "eu", State: record.NeedsApproval}}
		}, of + `"eu",gate="approval"} 1000` + "\n"},
		"canaries": {func(s *observedStack) {
			s.head.State, s.head.Waves[1].State = record.NeedsPromotion, record.Interrupted
			s.lines[5].outcome, s.lines[5].started, s.lines[5].ended = "awaiting-promotion", at(1110), at(1120)
		}, of + `"us",gate="promotion"} 1120` + "\n"},
		"the release has ended": {func(s *observedStack) {
			s.head.State, s.head.Waves[1].State = record.Aborted, record.NeedsApproval
		}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			o := observedShop(t)
			c.change(o.stacks["shop/prod"])
			if got := o.samples(name); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestObserved_Schedules(t *testing.T) {
	t.Parallel()
	const of = `{stack="shop",environment="prod",schedule=`
	want := strings.Join([]string{
		`drover_schedule_paused` + of + `"never"} 1`, `drover_schedule_paused` + of + `"weekly"} 0`,
		`drover_schedule_last_run_timestamp_seconds` + of + `"weekly"} 960`,
		`drover_schedule_last_run_outcome` + of + `"weekly",outcome="skipped"} 1`,
		`drover_schedule_last_run_ok` + of + `"weekly"} 0`, // of the run before
		`drover_schedule_last_run_duration_seconds` + of + `"weekly"} 0`, "",
	}, "\n")
	if got := observedShop(t).samples("drover_schedule_"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// seriesPerService is in the table of docs/reference/metrics.md.
const seriesPerService = 15

func TestObserved_CardinalityAndMemoryOf300Services(t *testing.T) {
	o := newObserved(nomad.Defaults{})
	head := &record.Release{Number: 1, State: record.Done, Targets: json.RawMessage(`[{}]`)}
	var lines []record.Service
	var jobs, allocations, deployments []string
	for i := range 300 {
		id := fmt.Sprintf("service-%03d", i)
		lines = append(lines, record.Service{Name: id, JobID: id, Change: record.ChangeCreate, Spec: "x", Step: record.StepDone})
		jobs = append(jobs, fmt.Sprintf(`{"ID":%q,"Namespace":"default","Type":"service"}`, id))
		allocations = append(allocations, fmt.Sprintf(`{"ID":"a-%s","Namespace":"default","JobID":%q,"DesiredStatus":"run","ClientStatus":"running","TaskStates":{"t":{"Restarts":0,"Events":[{"Message":%q}]}}}`, id, id, strings.Repeat("m", 3000)))
		deployments = append(deployments, fmt.Sprintf(`{"Namespace":"default","JobID":%q,"Status":"successful"}`, id))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	o.stacks["big/prod"] = &observedStack{index: record.Index{Stack: "big", Environment: "prod"}, head: head, lines: linesOf(o.home, head, lines)}
	o.setJobs(list[jobEntry](t, "["+strings.Join(jobs, ",")+"]"))
	o.setAllocations(list[allocationEntry](t, "["+strings.Join(allocations, ",")+"]"))
	o.setDeployments(list[deploymentEntry](t, "["+strings.Join(deployments, ",")+"]"))
	runtime.GC()
	runtime.ReadMemStats(&after)
	for _, l := range []string{listRecords, listJobs, listAllocations, listDeployments} {
		o.read[l] = true
	}
	text := o.samples("drover_")
	if got := strings.Count(text, "drover_service_"); got != 300*seriesPerService {
		t.Errorf("got %d series of 300 services, want %d", got, 300*seriesPerService)
	}
	all := strings.Split(text, "\n")
	slices.Sort(all)
	if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
		t.Errorf("%d of %d series are duplicates", len(all)-n, len(all))
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("300 services take %d KiB, want at most 2 MiB", grown>>10)
	}
	runtime.KeepAlive(o)
}

// The reference lists each metric, and no other.
func TestMetrics_ReferenceListsEach(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{store: acme.NewStore(acme.Directory(t.TempDir())), clock: acme.SystemClock{}}
	c.metrics = newMetrics(c)
	names := func(pattern, text string) (out []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			out = append(out, m[1])
		}
		slices.Sort(out)
		return out
	}
	got := names("(?m)^\\| `([a-z_]+)` \\|", string(page))
	want := names(`(?m)^# TYPE (\S+) `, c.metrics.text(t.Context()))
	if !slices.Equal(got, want) {
		t.Errorf("docs/reference/metrics.md lists\n%q\n/metrics has\n%q", got, want)
	}
	if !strings.Contains(string(page), fmt.Sprintf("These are %d series for each service", seriesPerService)) {
		t.Errorf("the page does not say that a service has %d series", seriesPerService)
	}
}
