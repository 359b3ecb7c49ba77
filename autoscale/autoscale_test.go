package autoscale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/prometheus"
)

// scalingOf parses a job file with a scaling block.
func scalingOf(t *testing.T, block string) *api.ScalingPolicy {
	t.Helper()
	job, err := jobspec2.Parse("a.nomad.hcl", strings.NewReader(fmt.Sprintf("job \"a\" {\n  group \"g\" {\n    scaling {\n%s\n    }\n    task \"t\" {\n      driver = \"mock_driver\"\n    }\n  }\n}\n", block)))
	if err != nil {
		t.Fatal(err)
	}
	return job.TaskGroups[0].Scaling
}

// policyOf parses the checks of a policy with bounds 1 and 10.
func policyOf(t *testing.T, policy string) Policy {
	t.Helper()
	p, problems := Parse(scalingOf(t, "min = 1\nmax = 10\npolicy {\n"+policy+"\n}"))
	if len(problems) > 0 {
		t.Fatalf("got problems %+v, want none", problems)
	}
	return p
}

func check(name, more, strategy string) string {
	return fmt.Sprintf("check %q {\n source = \"prometheus\"\n query = %q\n %s\n strategy %s\n}\n", name, name, more, strategy)
}

func TestParse_ReadsWhatNomadAutoscalerReads(t *testing.T) {
	t.Parallel()
	p := policyOf(t, `
		cooldown = "2m"
		cooldown_on_scale_up = "20s"
		evaluation_interval = "5s"
		on_check_error = "fail"
		target "nomad" { dry-run = true }
		schedule {
			start = "0 8 * * 1-5"
			duration = "10h"
		}
		check "cpu" {
			source = "nomad-apm"
			query = "avg_cpu"
			query_window = "3m"
			query_window_offset = "10s"
			group = "load"
			on_error = "ignore"
			strategy "target-value" {
				target = 70
				threshold = 0.2
				max_scale_up = 2
				max_scale_down = "1"
			}
		}
		check "night" {
			schedule {
				start = "0 22 * * *"
				end = "0 6 * * *"
			}
			strategy "fixed-value" { value = "3" }
		}`)
	if p.Cooldown != 2*time.Minute || p.CooldownUp != 20*time.Second || p.Interval != 5*time.Second || !p.Fail || !p.DryRun || p.Schedule == nil || p.Min != 1 || p.Max != 10 {
		t.Errorf("got policy %+v", p)
	}
	c := p.Checks[0]
	if want := (targetValue{70, 0.2, limits{2, 1}}); c.Strategy != want {
		t.Errorf("got strategy %+v, want %+v", c.Strategy, want)
	}
	if c.Name != "cpu" || c.Window != 3*time.Minute || c.Offset != 10*time.Second || c.Group != "load" || c.OnError != "ignore" {
		t.Errorf("got check %+v", c)
	}
	if u, err := c.Usage(); err != nil || u != (Usage{"avg", "cpu"}) {
		t.Errorf("got %+v, %v, want avg of cpu", u, err)
	}
	if p.Checks[1].Schedule == nil || p.Checks[1].Strategy != (fixedValue{3}) {
		t.Errorf("got check %+v", p.Checks[1])
	}
}

func TestParse_Mistakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ block, path, want string }{
		"no check":              {`max = 2` + "\n" + `policy { cooldown = "1m" }`, "policy", "has no check"},
		"unknown name":          {`max = 2` + "\n" + `policy { cooldwn = "1m" }`, "policy/cooldwn", `Unknown name "cooldwn"`},
		"duration":              {`max = 2` + "\n" + `policy { cooldown = "1 min" }`, "policy/cooldown", `cooldown is "1 min"`},
		"short interval":        {`max = 2` + "\n" + `policy { evaluation_interval = "10ms" }`, "policy/evaluation_interval", "evaluation_interval"},
		"on_check_error":        {`max = 2` + "\n" + `policy { on_check_error = "stop" }`, "policy/on_check_error", "on_check_error"},
		"unknown source":        {"max = 2\npolicy {\n" + strings.Replace(check("a", "", `"pass-through" {}`), "prometheus", "datadog", 1) + "}", "policy/check a/source", `Unknown source "datadog"`},
		"no strategy":           {"max = 2\npolicy {\ncheck \"a\" {\n query = \"x\"\n source = \"prometheus\"\n}\n}", "policy/check a", "has 0 strategies"},
		"unknown strategy":      {"max = 2\npolicy {\n" + check("a", "", `"pid" {}`) + "}", "policy/check a/strategy pid", `Unknown strategy "pid"`},
		"no target":             {"max = 2\npolicy {\n" + check("a", "", `"target-value" {}`) + "}", "policy/check a/strategy target-value", "has no target"},
		"target is no number":   {"max = 2\npolicy {\n" + check("a", "", `"target-value" { target = "much" }`) + "}", "policy/check a/strategy target-value/target", `target is "much"`},
		"no bound":              {"max = 2\npolicy {\n" + check("a", "", `"threshold" { delta = 1 }`) + "}", "policy/check a/strategy threshold", "neither lower_bound nor upper_bound"},
		"two actions":           {"max = 2\npolicy {\n" + check("a", "", "\"threshold\" {\n delta = 1\n value = 2\n lower_bound = 1\n}") + "}", "policy/check a/strategy threshold", "has 2 of delta, percentage and value"},
		"fraction of an action": {"max = 2\npolicy {\n" + check("a", "", "\"threshold\" {\n delta = 1.5\n lower_bound = 1\n}") + "}", "policy/check a/strategy threshold/delta", `delta is "1.5"`},
		"no query":              {"max = 2\npolicy {\ncheck \"a\" {\n source = \"edge\"\n strategy \"pass-through\" {}\n}\n}", "policy/check a", "has no query"},
		"query of nomad-apm":    {"max = 2\npolicy {\ncheck \"a\" {\n query = \"p99_cpu\"\n strategy \"pass-through\" {}\n}\n}", "policy/check a/query", "is no query of nomad-apm"},
		"query of edge":         {"max = 2\npolicy {\ncheck \"a\" {\n source = \"edge\"\n query = \"requests\"\n strategy \"pass-through\" {}\n}\n}", "policy/check a/query", "is no query of source edge"},
		"schedule":              {"max = 2\npolicy {\nschedule {\n start = \"0 8 * * *\"\n}\n}", "policy/schedule", "one of end and duration"},
		"cron":                  {"max = 2\npolicy {\nschedule {\n start = \"at eight\"\n duration = \"1h\"\n}\n}", "policy/schedule", "is no cron expression"},
		"target":                {"max = 2\npolicy {\ntarget \"aws-asg\" {}\n}", "policy/target aws-asg", "Unknown target"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := Parse(scalingOf(t, test.block))
			if !slices.ContainsFunc(problems, func(p Problem) bool {
				return strings.Join(p.Path, "/") == test.path && strings.Contains(p.Message, test.want) && p.Remedy != ""
			}) {
				t.Errorf("got %+v, want one at %q with %q", problems, test.path, test.want)
			}
		})
	}
	other := scalingOf(t, "min = 1\nmax = 2\npolicy {\ncheck \"a\" {\n query = \"taskgroup_avg_cpu/g/other@default\"\n strategy \"pass-through\" {}\n}\n}")
	other.Target = map[string]string{"Namespace": "default", "Job": "a", "Group": "g"}
	if _, problems := Parse(other); len(problems) != 1 {
		t.Errorf("got %+v, want one problem: the query is about another job", problems)
	}
	if _, problems := Parse(&api.ScalingPolicy{}); len(problems) != 1 || !strings.Contains(problems[0].Message, "has no max") {
		t.Errorf("got %+v, want that there is no max", problems)
	}
	if p, problems := Parse(scalingOf(t, "min = 1\nmax = 2")); len(problems) > 0 || len(p.Checks) > 0 {
		t.Errorf("got %+v, %+v, want no check and no problem: a block without a policy is for scaling by hand", p, problems)
	}
}

func TestStrategies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		strategy string
		count    int
		samples  []float64
		want     int
	}{
		"target-value above":               {`"target-value" { target = 10 }`, 2, []float64{5, 25}, 5},
		"target-value below":               {`"target-value" { target = 10 }`, 5, []float64{1}, 1},
		"target-value rounds up":           {`"target-value" { target = 10 }`, 3, []float64{5}, 2},
		"target-value within":              {"\"target-value\" {\n target = 10\n threshold = 0.2\n}", 4, []float64{11.9}, 4},
		"target-value outside":             {"\"target-value\" {\n target = 10\n threshold = 0.2\n}", 4, []float64{12.1}, 5},
		"target-value default dead band":   {`"target-value" { target = 100 }`, 4, []float64{100.9}, 4},
		"target-value from zero":           {`"target-value" { target = 10 }`, 0, []float64{25}, 3},
		"target-value zero, nothing to do": {`"target-value" { target = 10 }`, 0, []float64{0}, 0},
		"target-value of zero":             {`"target-value" { target = 0 }`, 1, []float64{3}, 3},
		"target-value step up":             {"\"target-value\" {\n target = 10\n max_scale_up = 1\n}", 2, []float64{100}, 3},
		"target-value step down":           {"\"target-value\" {\n target = 10\n max_scale_down = 2\n}", 9, []float64{1}, 7},
		"target-value greatest":            {`"target-value" { target = 1 }`, 2, []float64{1e300}, 2147483647},
		"target-value negative":            {`"target-value" { target = 1 }`, 2, []float64{-5}, 0},
		"pass-through":                     {`"pass-through" {}`, 2, []float64{1, 7.9}, 7},
		"pass-through step":                {`"pass-through" { max_scale_up = 2 }`, 2, []float64{7}, 4},
		"fixed-value":                      {`"fixed-value" { value = 6 }`, 2, nil, 6},
		"threshold delta":                  {"\"threshold\" {\n lower_bound = 80\n within_bounds_trigger = 2\n delta = 2\n}", 3, []float64{90, 10, 80}, 5},
		"threshold too few":                {"\"threshold\" {\n lower_bound = 80\n within_bounds_trigger = 3\n delta = 2\n}", 3, []float64{90, 10, 80}, 3},
		"threshold default trigger":        {"\"threshold\" {\n lower_bound = 80\n delta = 2\n}", 3, []float64{90, 90, 90, 90}, 3},
		"threshold upper is excluded":      {"\"threshold\" {\n upper_bound = 20\n within_bounds_trigger = 1\n delta = -1\n}", 3, []float64{20}, 3},
		"threshold down":                   {"\"threshold\" {\n upper_bound = 20\n within_bounds_trigger = 1\n delta = -5\n}", 3, []float64{19}, 0},
		"threshold percentage":             {"\"threshold\" {\n lower_bound = 1\n within_bounds_trigger = 1\n percentage = 50\n}", 3, []float64{2}, 5},
		"threshold percentage down":        {"\"threshold\" {\n lower_bound = 1\n within_bounds_trigger = 1\n percentage = -50\n}", 3, []float64{2}, 2},
		"threshold value":                  {"\"threshold\" {\n lower_bound = 1\n within_bounds_trigger = 1\n value = 8\n}", 3, []float64{2}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := policyOf(t, check("a", "", test.strategy))
			if got, reason := p.Checks[0].Strategy.next(test.count, test.samples); got != test.want || reason == "" {
				t.Errorf("got %d (%s), want %d", got, reason, test.want)
			}
		})
	}
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	target := func(name, more string) string { return check(name, more, `"target-value" { target = 10 }`) }
	missing := errors.New("down")
	type readings map[string]any // a value or an error, by check
	for name, test := range map[string]struct {
		policy string
		group  Group
		read   readings
		want   int
		reason string
	}{
		"up":                        {target("a", ""), Group{Desired: 2, Running: 2}, readings{"a": 20.0}, 4, "check a: 20 is 2 times the target 10"},
		"down":                      {target("a", ""), Group{Desired: 4, Running: 4}, readings{"a": 5.0}, 2, "check a"},
		"max":                       {target("a", ""), Group{Desired: 4, Running: 4}, readings{"a": 500.0}, 10, "200 is limited to 10"},
		"min":                       {target("a", ""), Group{Desired: 4, Running: 4}, readings{"a": 0.0}, 1, "0 is limited to 1"},
		"the highest count wins":    {target("a", "") + target("b", ""), Group{Desired: 2, Running: 2}, readings{"a": 20.0, "b": 30.0}, 6, "check b"},
		"up wins over down":         {target("a", "") + target("b", ""), Group{Desired: 4, Running: 4}, readings{"a": 1.0, "b": 12.0}, 5, "check b"},
		"no change wins over down":  {target("a", "") + target("b", ""), Group{Desired: 4, Running: 4}, readings{"a": 1.0, "b": 10.0}, 4, "check b"},
		"the higher of two downs":   {target("a", "") + target("b", ""), Group{Desired: 8, Running: 8}, readings{"a": 1.0, "b": 5.0}, 4, "check b"},
		"a group hides no change":   {target("a", `group = "x"`) + target("b", `group = "x"`), Group{Desired: 4, Running: 4}, readings{"a": 1.0, "b": 10.0}, 1, "check a"},
		"a group of no change":      {target("a", `group = "x"`) + target("b", ""), Group{Desired: 4, Running: 4}, readings{"a": 10.0, "b": 1.0}, 4, "check a"},
		"missing data":              {target("a", ""), Group{Desired: 4, Running: 4}, readings{"a": missing}, 4, "no data"},
		"missing data, out of both": {target("a", ""), Group{Desired: 20, Running: 20}, readings{"a": missing}, 20, "no data"},
		"missing, and another up":   {target("a", "") + target("b", ""), Group{Desired: 2, Running: 2}, readings{"a": missing, "b": 20.0}, 4, "check b"},
		"missing, and another down": {target("a", "") + target("b", ""), Group{Desired: 4, Running: 4}, readings{"a": missing, "b": 1.0}, 4, "check a"},
		"missing in a group":        {target("a", `group = "x"`) + target("b", `group = "x"`), Group{Desired: 4, Running: 4}, readings{"a": missing, "b": 1.0}, 4, "check a"},
		"missing and fail":          {"on_check_error = \"fail\"\n" + target("a", "") + target("b", ""), Group{Desired: 2, Running: 2}, readings{"a": missing, "b": 20.0}, 2, "check a has no data: down"},
		"fail of one check":         {target("a", `on_error = "fail"`) + target("b", ""), Group{Desired: 2, Running: 2}, readings{"a": missing, "b": 20.0}, 2, "check a has no data"},
		"ignore of one check":       {"on_check_error = \"fail\"\n" + target("a", `on_error = "ignore"`) + target("b", ""), Group{Desired: 2, Running: 2}, readings{"a": missing, "b": 20.0}, 4, "check b"},
		"cooldown after up":         {"cooldown_on_scale_up = \"30s\"\n" + target("a", ""), Group{Desired: 2, Running: 2, Changed: now.Add(-20 * time.Second), Raised: true}, readings{"a": 20.0}, 2, "wants 4, in cooldown until 12:00:10"},
		"after the cooldown of up":  {"cooldown_on_scale_up = \"30s\"\n" + target("a", ""), Group{Desired: 2, Running: 2, Changed: now.Add(-31 * time.Second), Raised: true}, readings{"a": 20.0}, 4, "check a"},
		"cooldown after down":       {"cooldown_on_scale_up = \"30s\"\n" + target("a", ""), Group{Desired: 2, Running: 2, Changed: now.Add(-31 * time.Second)}, readings{"a": 20.0}, 2, "in cooldown until 12:04:29"},
		"the count is ahead":        {target("a", ""), Group{Desired: 6, Running: 2}, readings{"a": 20.0}, 6, "check a"},
		"the count is ahead, down":  {target("a", ""), Group{Desired: 6, Running: 2}, readings{"a": 5.0}, 1, "check a"},
		"too many still run":        {target("a", ""), Group{Desired: 2, Running: 6}, readings{"a": 5.0}, 2, "check a"},
		"outside the schedule":      {"schedule {\n start = \"0 13 * * *\"\n duration = \"1h\"\n}\n" + target("a", ""), Group{Desired: 2, Running: 2}, readings{"a": 20.0}, 2, "outside the schedule"},
		"a check outside":           {target("a", "schedule {\n start = \"0 13 * * *\"\n duration = \"1h\"\n}") + target("b", ""), Group{Desired: 4, Running: 4}, readings{"a": 20.0, "b": 5.0}, 2, "check b"},
		"all checks outside":        {target("a", "schedule {\n start = \"0 13 * * *\"\n duration = \"1h\"\n}"), Group{Desired: 4, Running: 4}, readings{"a": 20.0}, 4, "no check is in its schedule"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := Evaluate(t.Context(), policyOf(t, test.policy), test.group, now, func(_ context.Context, c Check) ([]float64, error) {
				switch v := test.read[c.Name].(type) {
				case float64:
					return []float64{v}, nil
				case error:
					return nil, v
				}
				return nil, fmt.Errorf("check %s was not to be read", c.Name)
			})
			if d.Want != test.want || !strings.Contains(d.Reason, test.reason) {
				t.Errorf("got %d because %q, want %d because %q", d.Want, d.Reason, test.want, test.reason)
			}
			if d.Changes(test.group) != (test.want != test.group.Desired) {
				t.Error("Changes is wrong")
			}
		})
	}
}

func TestSchedule_IsActive(t *testing.T) {
	t.Parallel()
	day := func(hour, minute int) time.Time { return time.Date(2026, 11, 30, hour, minute, 0, 0, time.UTC) } // a Monday
	for _, test := range []struct {
		start, end, duration string
		at                   time.Time
		want                 bool
	}{
		{"0 8 * * 1-5", "", "10h", day(8, 0), true},
		{"0 8 * * 1-5", "", "10h", day(17, 59), true},
		{"0 8 * * 1-5", "", "10h", day(18, 0), false},
		{"0 8 * * 1-5", "", "10h", day(7, 59), false},
		{"0 22 * * *", "0 6 * * *", "", day(23, 0), true},
		{"0 22 * * *", "0 6 * * *", "", day(5, 59), true},
		{"0 22 * * *", "0 6 * * *", "", day(6, 0), false},
		{"0 22 * * *", "0 6 * * *", "", day(12, 0), false},
		{"0 * * * *", "0 0 * * *", "", day(12, 30), true}, // starts again in each hour
		{"0 8 * * 1-5", "", "10h", day(12, 0).In(time.FixedZone("", 7*3600)), true},
		{"0 0 1 1 *", "0 0 1 2 *", "", day(12, 0), false},
	} {
		s, err := newSchedule(test.start, test.end, test.duration)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.isActive(test.at); got != test.want {
			t.Errorf("%+v: got %v, want %v", test, got, test.want)
		}
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	answers := map[string]string{
		"matrix":  `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"2.5"]]}]}}`,
		"two":     `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"1"},"values":[[1,"1"]]},{"metric":{"a":"2"},"values":[[1,"1"]]}]}}`,
		"nothing": `{"status":"success","data":{"resultType":"matrix","result":[]}}`,
		"vector":  `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"NaN"]}]}}`,
		"vectors": `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"1"]}]}}`,
		"scalar":  `{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}`,
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+"?"+r.URL.Query().Get("start")+" "+r.URL.Query().Get("end")+" "+r.URL.Query().Get("step")+r.URL.Query().Get("time"))
		fmt.Fprint(w, answers[r.URL.Query().Get("query")])
	}))
	t.Cleanup(srv.Close)
	p := prometheus.Client{Address: srv.URL, HTTP: srv.Client()}
	for query, want := range map[string]string{
		"matrix": "[1 2.5] <nil>", "two": "[] the query has 2 series, one is needed: use sum or avg", "nothing": "[] <nil>",
		"vector": "[NaN] <nil>", "vectors": "[] the query has 2 series, one is needed: use sum or avg", "scalar": "[4] <nil>",
	} {
		instant := !slices.Contains([]string{"matrix", "two", "nothing"}, query)
		got, err := Samples(t.Context(), p, Check{Query: query, Window: time.Minute, Instant: instant}, time.Unix(1000, 0))
		if text := fmt.Sprint(got, err); text != want {
			t.Errorf("%s: got %s, want %s", query, text, want)
		}
	}
	asked = nil
	_, _ = Samples(t.Context(), p, Check{Query: "matrix", Window: 10 * time.Minute, Offset: time.Minute}, time.Unix(1000, 0))
	_, _ = Samples(t.Context(), p, Check{Query: "vector", Instant: true}, time.Unix(1000, 0))
	if want := []string{"/api/v1/query_range?340.000 940.000 10", "/api/v1/query?  1000.000"}; !slices.Equal(asked, want) {
		t.Errorf("got requests %q, want %q", asked, want)
	}
}

func TestUsage_Of(t *testing.T) {
	t.Parallel()
	for operation, want := range map[string]float64{"sum": 9, "avg": 3, "min": 1, "max": 6} {
		if got := (Usage{operation, "cpu"}).Of([]float64{2, 6, 1}); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, want %v", operation, got, want)
		}
	}
	if got := (Usage{"avg", "cpu"}).Of(nil); len(got) != 0 {
		t.Errorf("got %v of no allocation, want no data", got)
	}
}

func TestFromEdge(t *testing.T) {
	t.Parallel()
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests += 100
		fmt.Fprintf(w, "haproxy_backend_http_requests_total{proxy=\"web\"} %d\nhaproxy_backend_current_queue{proxy=\"web\"} 8\n", requests)
	}))
	t.Cleanup(srv.Close)
	scrape := func(at int64) *edge.Scrape {
		t.Helper()
		s, err := edge.ScrapeMetrics(t.Context(), srv.Client(), map[string]string{"a": strings.TrimPrefix(srv.URL, "http://")}, "", time.Unix(at, 0))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := scrape(100)
	second := scrape(105)
	for query, want := range map[string]float64{"sum_requests/web": 20, "avg_requests/web": 5, "sum_queue/web": 8, "avg_queue/web": 2} {
		if got, err := FromEdge(second, first, Check{Query: query}, 4); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, %v, want %v", query, got, err, want)
		}
	}
	if got, err := FromEdge(second, nil, Check{Query: "sum_requests/web"}, 4); err == nil {
		t.Errorf("got %v from one scrape, want an error", got)
	}
	if got, err := FromEdge(second, first, Check{Query: "sum_requests/none"}, 4); err == nil {
		t.Errorf("got %v for a service that the edge does not have, want an error", got)
	}
}
