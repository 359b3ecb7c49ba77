package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/jobs"
)

// scraped is an active target (GET /api/v1/targets).
type scraped struct {
	Labels    map[string]string `json:"labels"`
	ScrapeURL string            `json:"scrapeUrl"`
	Health    string            `json:"health"`
	LastError string            `json:"lastError"`
}

// testMonitoring deploys the stack monitoring with VictoriaMetrics, and then with Debian's
// Prometheus, which has no Consul discovery. Each target has to be up: oCIS, mesh, edge,
// controller, nodes, and the agents of Nomad and Consul. An alert has to arrive.
func testMonitoring(t *testing.T, r *running) {
	const fires = "groups:\n  - name: test\n    rules:\n      - alert: TestFires\n        expr: vector(1)\n"
	t.Cleanup(func() {
		if _, errs, code := r.drover.run(context.WithoutCancel(t.Context()), "destroy", "monitoring", "-e", "dev", "-y"); code != 0 {
			t.Errorf("drover destroy monitoring: exit code %d\n%s", code, errs)
		}
	})
	for _, server := range []string{"victoria-metrics", "prometheus"} {
		r.drover.must(t, "deploy", "monitoring", "-e", "dev", "-var", "server="+server, "-var", "node_exporter=true", "-var", "alertmanager=true", "-var", "rules="+fires)
		testTargets(t, r, server)
		testQueries(t, r, server)
		testAlert(t, r)
		if server == "prometheus" {
			continue
		}
		if pages := r.httpGet(t, server, "/vmui/custom-dashboards", nil); strings.Count(pages, `"filename"`) != 3 {
			t.Errorf("vmui has other dashboards than 3:\n%.2000s", pages)
		}
	}
}

// testAlert waits until an alert has arrived and vmalert evaluates each rule.
func testAlert(t *testing.T, r *running) {
	t.Helper()
	eventually(t, "the alert arrives at Alertmanager", func() bool {
		return strings.Contains(r.httpGet(t, "alertmanager", "/api/v2/alerts", nil), `"alertname":"TestFires"`)
	})
	// An evaluation may have failed before the server listened.
	rules := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the rules of vmalert:\n%s", rules)
		}
	})
	eventually(t, "vmalert can evaluate each rule", func() bool {
		rules = r.httpGet(t, "vmalert", "/api/v1/rules", nil)
		return strings.Contains(rules, `"health":"ok"`) && !strings.Contains(rules, `"health":"err"`)
	})
}

// httpGet makes a GET request to an instance of a service, and returns the body.
func (r *running) httpGet(t *testing.T, service, path string, values url.Values) string {
	t.Helper()
	// Whether its check passes or not: on a busy machine one may time out.
	entries, _, err := r.consul.Health().Service(service, "metrics", false, nil)
	if err != nil || len(entries) == 0 {
		t.Fatalf("got %d instances of %s and %v", len(entries), service, err)
	}
	s := entries[len(entries)-1].Service
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(s.Address, strconv.Itoa(s.Port))+path+"?"+values.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func testTargets(t *testing.T, r *running, server string) {
	t.Helper()
	// Every instance with the tag has to be a target.
	names, _, err := r.consul.Catalog().Services(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"nomad": 1, "consul": 1}
	for name, tags := range names {
		if slices.Contains(tags, "metrics") {
			list, _, err := r.consul.Catalog().Service(name, "metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			want[name] = len(list)
		}
	}
	var targets []scraped
	eventually(t, fmt.Sprintf("the targets are up: %v", want), func() bool {
		var answer struct {
			Data struct {
				ActiveTargets []scraped `json:"activeTargets"`
			} `json:"data"`
		}
		if json.Unmarshal([]byte(r.httpGet(t, server, "/api/v1/targets", url.Values{"state": {"active"}})), &answer) != nil {
			return false
		}
		targets = answer.Data.ActiveTargets
		up := map[string]int{}
		for _, s := range targets {
			if s.Health == "up" {
				up[s.Labels["job"]]++
			}
		}
		for name, n := range want {
			if up[name] < n {
				return false
			}
		}
		return !slices.ContainsFunc(targets, func(s scraped) bool { return s.Health != "up" })
	})
	services := map[string]bool{}
	for _, s := range targets {
		if s.Labels["job"] == "ocis-metrics" {
			services[s.Labels["service"]] = true
		}
	}
	t.Logf("%d targets are up, %d services of oCIS among them: %v", len(targets), len(services), want)
	if want["ocis-metrics"] < 20 || len(services) < 20 || want["ocis-mesh"] == 0 || want["edge"] == 0 || want["drover-controller"] == 0 || want["node-exporter"] == 0 {
		t.Errorf("got instances %v, %d services of oCIS, want some of each and most of oCIS", want, len(services))
	}
}

// testQueries evaluates every panel of the dashboards. Those that have data in any case
// must have it.
func testQueries(t *testing.T, r *running, server string) {
	t.Helper()
	files, err := jobs.Stack("monitoring")
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`drover_service_allocations{stack="ocis",environment="dev",service="proxy",state="running"} >= 1`, `drover_release_state{stack="ocis",state="deployed"} == 1`,
		`drover_certificate_not_after_timestamp_seconds{certificate="public"}`, `haproxy_backend_http_responses_total{job="edge"}`,
		`haproxy_process_uptime_seconds{job="ocis-mesh"}`, `node_memory_MemAvailable_bytes{node!=""}`, `nomad_runtime_alloc_bytes`, `consul_runtime_alloc_bytes`,
		`go_goroutines{job="ocis-metrics",service="gateway"}`, `ALERTS{alertname="TestFires",alertstate="firing"}`,
	} {
		eventually(t, query, func() bool {
			answer := r.httpGet(t, server, "/api/v1/query", url.Values{"query": {query}})
			return strings.Contains(answer, `"status":"success"`) && !strings.Contains(answer, `"result":[]`)
		})
	}
	// Of the others, some are empty while all is well, and rates need two scrapes.
	withData := []string{
		"Targets that answer", "Memory available", "Disk left", "Allocations by state", "Health of the servers", "Memory of the agents",
		"Leaders", "Memory of the replicas", "State of the newest release", "Services by step", "Drift", "Running allocations",
		"Instances that take requests", "Life left", "Served as stored",
	}
	panels, empty := 0, []string{}
	for _, name := range []string{"cluster", "stack", "edge"} {
		f, err := files.Open("dashboards/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Rows []struct {
				Panels []struct {
					Title string   `json:"title"`
					Expr  []string `json:"expr"`
				} `json:"panels"`
			} `json:"rows"`
		}
		if err := json.NewDecoder(f).Decode(&d); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				panels++
				for _, expr := range p.Expr {
					answer := ""
					look := func() bool {
						answer = r.httpGet(t, server, "/api/v1/query", url.Values{"query": {expr}})
						return !strings.Contains(answer, `"result":[]`)
					}
					if slices.Contains(withData, p.Title) {
						eventually(t, "the panel "+p.Title+" has data", look)
					} else {
						look()
					}
					if !strings.Contains(answer, `"status":"success"`) {
						t.Errorf("panel %s of %s, %s: %s", p.Title, name, expr, answer)
					}
					if strings.Contains(answer, `"result":[]`) {
						empty = append(empty, p.Title)
					}
				}
			}
		}
	}
	t.Logf("%s: %d panels; without data: %q", server, panels, empty)
}
