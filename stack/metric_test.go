package stack

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestMetrics_AreRead(t *testing.T) {
	t.Parallel()
	s, err := loadEnvironment(t, `
wave "w" {
  bake = "10m"
  gate {
    metric "errors" {
      prometheus = "http://prometheus.${var.domain}:9090/select"
      query      = "sum(rate(http_errors_total[1m])) / sum(rate(http_requests_total[1m]))"
      below      = 0.01
    }
    metric "traffic" {
      prometheus = "https://vm"
      query      = "sum(rate(http_requests_total[1m]))"
      above      = 0
      interval   = "30s"
      failures   = 2
      successes  = 3
      no_data    = "fail"
    }
  }
}`)
	if err != nil {
		t.Fatal(err)
	}
	ms := s.Waves[0].Gate.Metrics
	if len(ms) != 2 {
		t.Fatalf("got %d metrics, want 2", len(ms))
	}
	a, b := ms[0], ms[1]
	if a.Name != "errors" || a.Prometheus != "http://prometheus.example.org:9090/select" || a.Limit() != "below 0.01" || a.Interval != 15*time.Second ||
		a.Failures != 1 || a.Successes != 1 || a.NoData != NoDataInconclusive {
		t.Errorf("got %+v, want the defaults", a)
	}
	if b.Limit() != "above 0" || b.Interval != 30*time.Second || b.Failures != 2 || b.Successes != 3 || b.NoData != NoDataFail {
		t.Errorf("got %+v, want what the file says", b)
	}
	// A release records the wave; a gate without metrics is recorded as before.
	text, err := json.Marshal(s.Waves[0])
	if err != nil {
		t.Fatal(err)
	}
	var back Wave
	if err := json.Unmarshal(text, &back); err != nil || len(back.Gate.Metrics) != 2 || back.Gate.Metrics[1].Limit() != "above 0" {
		t.Errorf("got %+v and %v from the record, want the metrics", back.Gate, err)
	}
	if text, err = json.Marshal(Gate{}); err != nil || strings.Contains(string(text), "Metrics") {
		t.Errorf("got %s and %v, want no field of metrics", text, err)
	}
}

func TestMetrics_Credentials(t *testing.T) {
	t.Parallel()
	s, err := Load(t.Context(), Options{Path: "shop", Environment: "prod", FS: fsOf(map[string]string{
		"stack.hcl": "stack \"shop\" {}\nservice \"web\" {}\nsecret \"prom\" {}\n", "web.nomad.hcl": `job "web" {}`,
		"environments/prod.hcl": `
wave "w" {
  gate {
    metric "a" {
      prometheus = "http://p"
      query      = "a"
      below      = 1
      basic_auth {
        username = "u"
        secret   = "prom"
      }
    }
    metric "b" {
      prometheus = "http://p"
      query      = "b"
      below      = 1
      bearer {
        secret = "prom"
      }
    }
  }
}`,
	})})
	if err != nil {
		t.Fatal(err)
	}
	ms := s.Waves[0].Gate.Metrics
	if ms[0].Username != "u" || ms[0].Secret != "prom" || ms[1].Username != "" || ms[1].Secret != "prom" {
		t.Errorf("got %+v and %+v", ms[0], ms[1])
	}
}

// Each mistake is one diagnostic with file, line and column.
func TestMetrics_Mistakes(t *testing.T) {
	t.Parallel()
	const head = "wave \"w\" {\n  gate {\n    metric \"m\" {\n" // three lines
	with := func(lines ...string) string { return head + strings.Join(lines, "\n") + "\n    }\n  }\n}" }
	const source, query, below = `      prometheus = "http://p:9090"`, `      query = "up"`, `      below = 1`
	for name, c := range map[string]struct{ text, want string }{
		"no source":        {with(query, below), `prod.hcl:3,16-16: Missing required argument; The argument "prometheus" is required`},
		"no query":         {with(source, below), `prod.hcl:3,16-16: Missing required argument; The argument "query" is required`},
		"no limit":         {with(source, query), `prod.hcl:3,5-15: Metric "m" needs one limit; Write either below = NUMBER or above = NUMBER.`},
		"two limits":       {with(source, query, below, `      above = 0`), `prod.hcl:3,5-15: Metric "m" needs one limit`},
		"limit as text":    {with(source, query, `      below = "low"`), `prod.hcl:6,16-19: Unsuitable value type; Unsuitable value: a number is required`},
		"unknown argument": {with(source, query, `      bellow = 1`), `prod.hcl:6,7-13: Unsupported argument; An argument named "bellow" is not expected here. Did you mean "below"?`},
		"half a URL":       {with(`      prometheus = "p:9090"`, query, below), `prod.hcl:4,20-28: Invalid URL "p:9090" of a metric; Write the URL below which the server has /api/v1/query`},
		"a URL with query": {with(`      prometheus = "http://p?x=1"`, query, below), `prod.hcl:4,20-34: Invalid URL "http://p?x=1" of a metric`},
		"a password":       {with(`      prometheus = "http://a:b@p"`, query, below), `prod.hcl:4,20-34: The URL of a metric has a password; It would stand in the record of every release. Write basic_auth`},
		"no PromQL":        {with(source, `      query = "sum(rate(x[1m])"`, below), `prod.hcl:5,15-32: Invalid query of metric "m"; It is not PromQL: `},
		"unknown function": {with(source, `      query = "summ(x)"`, below), `prod.hcl:5,15-24: Invalid query of metric "m"; It is not PromQL: unsupported function "summ".`},
		"an empty query":   {with(source, `      query = ""`, below), `prod.hcl:5,15-17: Invalid query of metric "m"`},
		"interval":         {with(source, query, below, `      interval = "15"`), `prod.hcl:7,18-22: Invalid interval "15"; Write a duration`},
		"a short interval": {with(source, query, below, `      interval = "100ms"`), `prod.hcl:7,18-25: The interval 100ms is too short`},
		"a long interval":  {with(source, query, below, `      interval = "1h"`), `prod.hcl:7,18-22: Metric "m" cannot decide within the gate; 1 measurements every 1h0m0s take 1h0m0s, and the gate ends after 5m0s (bake and timeout).`},
		"many failures":    {with(source, query, below, `      failures = 21`), `prod.hcl:3,5-15: Metric "m" cannot decide within the gate; 21 measurements every 15s take 5m15s`},
		"no failures":      {with(source, query, below, `      failures = 0`), `prod.hcl:7,18-19: Invalid failures 0; Write how many measurements in a row decide, from 1 to 1000.`},
		"no successes":     {with(source, query, below, `      successes = -1`), `prod.hcl:7,19-21: Invalid successes -1`},
		"no_data":          {with(source, query, below, `      no_data = "ok"`), `prod.hcl:7,17-21: Invalid no_data "ok"; Write "inconclusive", "fail" or "pass".`},
		"unknown secret":   {with(source, query, below, "      bearer {\n        secret = \"p\"\n      }"), `prod.hcl:8,18-21: The gate names the unknown secret item "p"`},
		"two credentials":  {with(source, query, below, "      bearer {\n        secret = \"p\"\n      }\n      basic_auth {\n        username = \"u\"\n        secret = \"p\"\n      }"), `prod.hcl:7,7-13: Metric "m" has two credentials; Write either basic_auth or bearer.`},
		"promote, no gate": {"wave \"w\" {\n  promote = true\n}", `prod.hcl:2,13-17: Wave "w" promotes canaries without a gate; Write bake, or a gate with metric, http or command; or auto_promote in the job.`},
		"same name":        {"wave \"w\" {\n  gate {\n    metric \"m\" {\n" + source + "\n" + query + "\n" + below + "\n    }\n    metric \"m\" {\n" + source + "\n" + query + "\n" + below + "\n    }\n  }\n}", `prod.hcl:8,5-15: Two metrics of a gate are called "m"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadEnvironment(t, c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v, want\n%s", err, c.want)
			}
		})
	}
}
