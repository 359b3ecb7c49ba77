package rollout

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// deployed brings jobs to the cluster for a gate to look at.
func deployed(t *testing.T, c nomad.Clients, jobs ...render.Job) Party {
	t.Helper()
	for _, j := range jobs {
		cleanUp(t, c, *j.Job.ID)
	}
	r, err := prepareAndApply(t.Context(), c, jobs, Options{}, nil)
	if err != nil || r.Outcome() != Deployed {
		t.Fatalf("%+v, %v", r, err)
	}
	return Party{Clients: c, Jobs: jobs}
}

// answers is a server whose n-th answer (from 1) has the status that f gives.
func answers(t *testing.T, f func(n int64) int) *stack.Check {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(f(n.Add(1))) }))
	t.Cleanup(srv.Close)
	return &stack.Check{URL: srv.URL}
}

// hides is a party whose Nomad has no leader when fails says so of the n-th
// reading (from 1). Its event stream is not there, so that it is read every
// few seconds.
func hides(t *testing.T, p Party, fails func(n int64) bool) Party {
	t.Helper()
	proxy := devtest.NewProxy(t, &api.Config{Address: p.Clients.Nomad.Address(), TLSConfig: &api.TLSConfig{}})
	var n atomic.Int64
	proxy.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/event/stream" || r.URL.Path == "/v1/allocations" && fails(n.Add(1)) {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
			return false
		}
		return true
	})
	var err error
	if p.Clients.Nomad, err = nomadClient(proxy.URL, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// noConsul is a party whose Consul does not answer.
func noConsul(t *testing.T, p Party) Party {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	cfg := capi.DefaultConfig()
	cfg.Address = srv.Listener.Addr().String()
	var err error
	if p.Clients.Consul, err = capi.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

// measures is a metric that has to be below 1. The n-th answer (from 1) of its source is
// what f returns, or none if that is "".
func measures(t *testing.T, f func(n int64) string) *stack.Metric {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch value := f(n.Add(1)); value {
		case "":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "none":
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
		default:
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"value":[0,"`+value+`"]}]}}`)
		}
	}))
	t.Cleanup(srv.Close)
	one := 1.0
	return &stack.Metric{Name: "m", Prometheus: srv.URL, Query: "m", Below: &one, Interval: time.Second, Failures: 1, Successes: 1, NoData: stack.NoDataInconclusive}
}

// gateOf is a gate of one metric.
func gateOf(timeout time.Duration, m *stack.Metric) stack.Gate {
	return stack.Gate{Timeout: timeout, Metrics: []*stack.Metric{m}}
}

func testGate(t *testing.T, c nomad.Clients) {
	steady := deployed(t, c, service(mockJob(prefix(t)+"steady", runs())))
	restless := mockJob(prefix(t)+"restless", map[string]any{"run_for": "1500ms", "exit_code": 1})
	restless.TaskGroups[0].RestartPolicy.Attempts, restless.TaskGroups[0].RestartPolicy.Delay = ptr(1000), ptr(100*time.Millisecond)
	crashing := deployed(t, c, service(restless))
	gone := deployed(t, c, service(mockJob(prefix(t)+"gone", runs())))
	changing := deployed(t, c, service(mockJob(prefix(t)+"changing", runs())))
	listed := deployed(t, c, service(checked(mockJob(prefix(t)+"listed", runs()), openPort(t))))
	stamp := t.TempDir() + "/stamp"
	var offline atomic.Bool

	for _, test := range []struct {
		name    string
		party   Party
		gate    GateOptions
		during  func(GateProgress) // called with each progress
		ok      bool
		away    bool
		unknown bool
		detail  string
		breaks  int
		atLeast time.Duration
	}{
		{name: "nothing asked", party: steady, gate: GateOptions{Gate: stack.Gate{Timeout: time.Minute}}, ok: true},
		{name: "bake", party: steady, gate: GateOptions{Gate: stack.Gate{Timeout: time.Minute}, Bake: 2 * time.Second}, ok: true, atLeast: 2 * time.Second},
		{
			name: "a probe that breaks the bake", party: steady, ok: true, breaks: 1, atLeast: 4 * time.Second,
			gate: GateOptions{Bake: 2 * time.Second, Gate: stack.Gate{Timeout: time.Minute, HTTP: answers(t, func(n int64) int {
				if n == 1 || n == 3 {
					return 503
				}
				return 200
			})}},
		},
		{
			name: "a probe that never holds", party: steady, detail: "the gate did not hold within 2s: http://127.0.0.1:",
			gate: GateOptions{Gate: stack.Gate{Timeout: 2 * time.Second, HTTP: answers(t, func(int64) int { return 503 })}},
		},
		{
			name: "a command", party: steady, ok: true,
			gate: GateOptions{Env: []string{"DROVER_WAVE=w"}, Gate: stack.Gate{Timeout: time.Minute, Command: []string{"sh", "-c", "test $DROVER_WAVE = w"}}},
		},
		{ // and is asked again
			name: "a command that fails at first", party: steady, ok: true, atLeast: 2 * time.Second,
			gate: GateOptions{Gate: stack.Gate{Timeout: time.Minute, Command: []string{"sh", "-c", "test -e " + stamp + " || ! touch " + stamp}}},
		},
		{
			name: "a command that fails", party: steady, detail: "the gate did not hold within 1s: sh: exit status 3: no (redacted)",
			gate: GateOptions{
				Gate:   stack.Gate{Timeout: time.Second, Command: []string{"sh", "-c", "echo no hush; exit 3"}},
				Redact: func(s string) string { return strings.ReplaceAll(s, "hush", "(redacted)") },
			},
		},
		{
			name: "a command that does not exist", party: steady, detail: `exec: "there-is-none"`,
			gate: GateOptions{Gate: stack.Gate{Timeout: time.Second, Command: []string{"there-is-none"}}},
		},
		{
			name: "a task that restarts", party: crashing, detail: "the gate did not hold within 3s: ",
			gate: GateOptions{Gate: stack.Gate{Timeout: 3 * time.Second}, Bake: time.Minute},
		},
		{ // which is when the timeout is long over
			name: "a Nomad that does not answer for a while", party: hides(t, steady, func(n int64) bool { return n == 2 }), ok: true, breaks: 1, atLeast: 10 * time.Second,
			gate: GateOptions{Gate: stack.Gate{Timeout: time.Second}, Bake: 6 * time.Second, Silence: time.Minute},
		},
		{
			name: "a Nomad that does not answer any more", party: hides(t, steady, func(n int64) bool { return n > 1 }), away: true,
			detail: "the services could not be seen for 5s: it waited for an answer from the servers: No cluster leader",
			gate:   GateOptions{Gate: stack.Gate{Timeout: time.Second}, Bake: time.Minute, Silence: 5 * time.Second},
		},
		{
			name: "a Consul that does not answer", party: noConsul(t, listed), away: true,
			detail: "the services could not be seen for 3s: it waited for an answer from Consul: ",
			gate:   GateOptions{Gate: stack.Gate{Timeout: time.Second}, Bake: time.Minute, Silence: 3 * time.Second},
		},
		{ // the probe tells first that the network is gone
			name: "no network", party: hides(t, steady, func(int64) bool { return offline.Load() }), away: true,
			detail: "the services could not be seen for 3s: ",
			gate: GateOptions{Bake: time.Minute, Silence: 3 * time.Second, Gate: stack.Gate{Timeout: time.Second, HTTP: answers(t, func(n int64) int {
				if n > 1 {
					offline.Store(true)
					return 503
				}
				return 200
			})}},
		},
		{
			name: "a job that is stopped meanwhile", party: gone, detail: "gone: another client stopped job",
			gate: GateOptions{Gate: stack.Gate{Timeout: time.Minute}, Bake: time.Minute},
			during: func(p GateProgress) {
				if p.Waiting == "" {
					_, _, _ = c.Nomad.Jobs().Deregister(*gone.Jobs[0].Job.ID, false, nil)
				}
			},
		},
		{
			name: "a metric that holds", party: steady, ok: true, atLeast: 3 * time.Second,
			gate: GateOptions{Gate: gateOf(time.Minute, measures(t, func(int64) string { return "0" })), Bake: 3 * time.Second},
		},
		{ // in the middle of the bake time, which it ends
			name: "a metric that fails while all bakes", party: steady, detail: "metric m: 1, not below 1",
			gate: GateOptions{Bake: time.Hour, Gate: gateOf(time.Minute, measures(t, func(n int64) string { return fmt.Sprint(n / 2) }))},
		},
		{
			name: "a metric that fails for a moment", party: steady, ok: true, atLeast: 4500 * time.Millisecond,
			gate: GateOptions{Bake: 4500 * time.Millisecond, Gate: func() stack.Gate {
				m := measures(t, func(n int64) string { return fmt.Sprint(n % 2) })
				m.Failures = 2
				return gateOf(time.Minute, m)
			}()},
		},
		{
			name: "no data", party: steady, unknown: true, detail: "metric m: no data for 3s",
			gate: GateOptions{Bake: time.Minute, Gate: gateOf(3*time.Second, measures(t, func(int64) string { return "none" }))},
		},
		{
			name: "a source that stops to answer", party: steady, unknown: true, detail: "metric m: HTTP status 503 for 3s",
			gate: GateOptions{Bake: time.Minute, Gate: gateOf(3*time.Second, measures(t, func(n int64) string {
				if n > 1 {
					return ""
				}
				return "0"
			}))},
		},
		{
			name: "a source that does not answer for a moment", party: steady, ok: true,
			gate: GateOptions{Bake: 2 * time.Second, Gate: gateOf(time.Minute, measures(t, func(n int64) string {
				if n < 4 {
					return ""
				}
				return "0"
			}))},
		},
		{
			name: "too few measurements that hold", party: steady, detail: "the gate did not hold within 2s: metric m: 0, below 1, and more measurements",
			gate: GateOptions{Gate: func() stack.Gate {
				m := measures(t, func(int64) string { return "0" })
				m.Successes = 9
				return gateOf(2*time.Second, m)
			}()},
		},
		{
			name: "a job that another client changes", party: changing, detail: "changing: another client changed job",
			gate: GateOptions{Gate: stack.Gate{Timeout: time.Minute}, Bake: time.Minute},
			during: func(p GateProgress) {
				if p.Waiting == "" {
					other := mockJob(*changing.Jobs[0].Job.ID, runs())
					other.TaskGroups[0].Count = ptr(2)
					_, _, _ = c.Nomad.Jobs().Register(other, nil)
				}
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var seen []string
			r, err := Hold(t.Context(), []Party{test.party}, test.gate, func(p GateProgress) {
				seen = append(seen, fmt.Sprintf("%q until %v", p.Waiting, !p.Until.IsZero()))
				if test.during != nil {
					test.during(p)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.OK != test.ok || r.Away != test.away || r.Unknown != test.unknown || !strings.Contains(r.Detail, test.detail) || r.Breaks < test.breaks || r.Elapsed < test.atLeast {
				t.Errorf("it ended as %+v; seen\n%s", r, strings.Join(seen, "\n"))
			}
		})
	}
}
