package stack

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/hashicorp/hcl/v2"
)

// Metric is a condition of a gate: the result of a query stays below or above a limit.
type Metric struct {
	Name string
	// Prometheus is the base URL of a server with the HTTP API of Prometheus, such as
	// VictoriaMetrics. It never has a password.
	Prometheus string
	Query      string // PromQL
	// Exactly one of Below and Above is set: the value must be less, or greater.
	Below, Above *float64

	Interval  time.Duration // between two measurements
	Failures  int           // measurements in a row that break the limit and fail the gate
	Successes int           // measurements in a row that keep the limit before the gate can hold
	NoData    string        // one of the constants NoData…

	// Username is for basic authentication. Without one, Secret is a bearer token.
	Username string `json:",omitempty"`
	// Secret is the item of the stack's secrets with the password or the token, "" for
	// none. It is read when the gate is evaluated, and so never recorded.
	Secret        string `json:",omitempty"`
	TLSSkipVerify bool   `json:",omitempty"`
}

// Values of Metric.NoData: what a measurement without data counts as.
const (
	NoDataInconclusive = "inconclusive" // neither
	NoDataFail         = "fail"         // it breaks the limit
	NoDataPass         = "pass"         // it keeps the limit
)

const (
	defaultMetricInterval = 15 * time.Second
	minMetricInterval     = time.Second
	maxMetricInARow       = 1000
)

type metricBlock struct {
	Name          string            `hcl:"name,label"`
	Prometheus    string            `hcl:"prometheus"`
	Query         string            `hcl:"query"`
	Below         *float64          `hcl:"below,optional"`
	Above         *float64          `hcl:"above,optional"`
	Interval      string            `hcl:"interval,optional"`
	Failures      *int              `hcl:"failures,optional"`
	Successes     *int              `hcl:"successes,optional"`
	NoData        string            `hcl:"no_data,optional"`
	BasicAuth     *gateAuthBlock    `hcl:"basic_auth,block"`
	Bearer        *metricTokenBlock `hcl:"bearer,block"`
	TLSSkipVerify bool              `hcl:"tls_skip_verify,optional"`
}

type metricTokenBlock struct {
	Secret string `hcl:"secret"`
}

// Limit is the condition as text: "below 0.01".
func (m *Metric) Limit() string {
	if m.Below != nil {
		return "below " + strconv.FormatFloat(*m.Below, 'g', -1, 64)
	}
	return "above " + strconv.FormatFloat(*m.Above, 'g', -1, 64)
}

// metrics reads the metric blocks of the gate in gate.
func (r *environmentReader) metrics(gate *hcl.Block, blocks []metricBlock, w *Wave) {
	names := map[string]bool{}
	at := childBlocks(gate, "metric")
	for i, v := range blocks {
		b := at[i]
		m := &Metric{
			Name: v.Name, Prometheus: v.Prometheus, Query: v.Query, Below: v.Below, Above: v.Above,
			NoData: v.NoData, TLSSkipVerify: v.TLSSkipVerify, Failures: 1, Successes: 1,
		}
		if v.Name == "" || names[v.Name] {
			r.bad(b.DefRange, fmt.Sprintf("Two metrics of a gate are called %q", v.Name), "Give each metric a name of its own; events and messages have it.")
		}
		names[v.Name] = true
		switch u, err := url.Parse(v.Prometheus); {
		case err == nil && u.User != nil:
			r.bad(attrRange(b, "prometheus"), "The URL of a metric has a password", inRecord+"Write basic_auth { username = \"…\", secret = \"…\" } with the name of a secret of the stack.")
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
			r.bad(attrRange(b, "prometheus"), fmt.Sprintf("Invalid URL %q of a metric", v.Prometheus), "Write the URL below which the server has /api/v1/query: http://HOST:PORT or https://HOST/PATH.")
		}
		if _, err := metricsql.Parse(v.Query); err != nil {
			r.bad(attrRange(b, "query"), fmt.Sprintf("Invalid query of metric %q", v.Name), fmt.Sprintf("It is not PromQL: %s.", err))
		}
		if (v.Below == nil) == (v.Above == nil) {
			r.bad(b.DefRange, fmt.Sprintf("Metric %q needs one limit", v.Name), "Write either below = NUMBER or above = NUMBER.")
		}
		r.metricCounts(b, v, m, w)
		switch m.NoData {
		case "":
			m.NoData = NoDataInconclusive
		case NoDataInconclusive, NoDataFail, NoDataPass:
		default:
			r.bad(attrRange(b, "no_data"), fmt.Sprintf("Invalid no_data %q", m.NoData), `Write "inconclusive", "fail" or "pass".`)
		}
		r.metricAuth(b, v, m)
		w.Gate.Metrics = append(w.Gate.Metrics, m)
	}
}

// metricCounts reads interval, failures and successes of a metric.
func (r *environmentReader) metricCounts(b *hcl.Block, v metricBlock, m *Metric, w *Wave) {
	errorsBefore := len(r.diags)
	m.Interval = r.duration(b, "interval", v.Interval, defaultMetricInterval)
	if m.Interval > 0 && m.Interval < minMetricInterval {
		r.bad(attrRange(b, "interval"), fmt.Sprintf("The interval %s is too short", v.Interval), "Write at least 1s; metrics are scraped less often.")
	}
	for _, c := range []struct {
		attr string
		n    *int
		into *int
	}{{"failures", v.Failures, &m.Failures}, {"successes", v.Successes, &m.Successes}} {
		if c.n == nil {
			continue
		}
		if *c.into = *c.n; *c.n < 1 || *c.n > maxMetricInARow {
			r.bad(attrRange(b, c.attr), fmt.Sprintf("Invalid %s %d", c.attr, *c.n), fmt.Sprintf("Write how many measurements in a row decide, from 1 to %d.", maxMetricInARow))
		}
	}
	if len(r.diags) > errorsBefore {
		return
	}
	needs, has := m.Interval*time.Duration(max(m.Failures, m.Successes)), w.Bake+w.Gate.Timeout
	if needs > has {
		r.bad(attrRange(b, "interval"), fmt.Sprintf("Metric %q cannot decide within the gate", v.Name),
			fmt.Sprintf("%d measurements every %s take %s, and the gate ends after %s (bake and timeout).", max(m.Failures, m.Successes), m.Interval, needs, has))
	}
}

// metricAuth reads basic_auth and bearer of a metric.
func (r *environmentReader) metricAuth(b *hcl.Block, v metricBlock, m *Metric) {
	switch {
	case v.BasicAuth != nil && v.Bearer != nil:
		r.bad(childBlock(b, "bearer").DefRange, fmt.Sprintf("Metric %q has two credentials", v.Name), "Write either basic_auth or bearer.")
	case v.BasicAuth != nil:
		m.Username, m.Secret = v.BasicAuth.Username, v.BasicAuth.Secret
		if m.Username == "" {
			r.bad(attrRange(childBlock(b, "basic_auth"), "username"), "The user name is empty", "Write the user of the server, or bearer { secret = \"…\" } for a token.")
		}
		r.secretItem(childBlock(b, "basic_auth"), m.Secret)
	case v.Bearer != nil:
		m.Secret = v.Bearer.Secret
		r.secretItem(childBlock(b, "bearer"), m.Secret)
	}
}
