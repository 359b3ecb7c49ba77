package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/nomad"
)

// cacheFor is the greatest age of the certificates in /metrics.
const cacheFor = 10 * time.Second

// metrics holds the values of /metrics.
type metrics struct {
	c       *controller
	started time.Time

	reading sync.Mutex // one reads the store

	mu       sync.Mutex
	list     []*acme.Object
	readAt   time.Time // zero when it must be read again
	storeOK  bool
	served   map[string][]acme.Served
	last     map[string]time.Time
	errors   map[string]int
	requests map[requestKey]*requestCount
	issuers  map[string]bool       // by name: whether the last answer to this replica was one
	accounts map[string]bool       // by name: whether the store has an account there
	trust    map[string]acme.Trust // by name of the issuer
	dns      map[string]map[string]int
	orphans  int            // -1 if unknown
	drift    map[string]int // by STACK/ENV
	runs     map[string]int
	refused  map[string]int // tags for the edge that do not count, by service
	shared   int            // hosts of several namespaces without a table; -1 if unknown
	observed *observed      // nil unless this replica is the leader
	scaler   *scaler        // nil unless this replica scales
}

type requestKey struct{ issuer, status string }

type requestCount struct {
	count   int
	seconds float64
}

func newMetrics(c *controller) *metrics {
	m := &metrics{c: c, started: time.Now(), last: map[string]time.Time{}, errors: map[string]int{}, runs: map[string]int{}, requests: map[requestKey]*requestCount{}, issuers: map[string]bool{}}
	m.forget()
	return m
}

// forget removes the values that only the leader keeps current.
func (m *metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served, m.dns, m.orphans, m.drift = nil, map[string]map[string]int{}, -1, nil
	m.refused, m.shared, m.observed, m.scaler = nil, -1, nil, nil
}

// observe sets where the values about stacks come from.
func (m *metrics) observe(o *observed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observed = o
}

// scale sets where the values about scaling come from.
func (m *metrics) scale(s *scaler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scaler = s
}

// observing returns what observe was given last, nil if there is nothing.
func (m *metrics) observing() *observed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.observed
}

// stale makes the next call of certificates read the store.
func (m *metrics) stale() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readAt = time.Time{}
}

func (m *metrics) request(r acme.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := requestKey{r.Issuer, strconv.Itoa(r.Status)}
	if r.Status == 0 {
		k.status = "none"
	}
	n := m.requests[k]
	if n == nil {
		n = &requestCount{}
		m.requests[k] = n
	}
	n.count++
	n.seconds += r.Duration.Seconds()
	m.issuers[r.Issuer] = r.Status != 0 && r.Status < 500 && r.Status != http.StatusTooManyRequests
}

func (m *metrics) done(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last[what] = time.Now()
	m.runs[what]++
}

func (m *metrics) failed(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errors[what]++
}

func (m *metrics) serve(s map[string][]acme.Served) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served = s
}

// dnsRecords sets the counts of the records of an owner by result; nil removes them.
func (m *metrics) dnsRecords(owner string, counts map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dns[owner] = counts; counts == nil {
		delete(m.dns, owner)
	}
}

func (m *metrics) drifted(counts map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drift = counts
}

// routesRefused has how many tags of each service do not count, and how many hosts
// several namespaces share.
func (m *metrics) routesRefused(counts map[string]int, shared int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused, m.shared = counts, shared
}

func (m *metrics) orphaned(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.orphans = n
}

// certificates returns those of the store, or the last ones if it does not answer. It
// reports whether the store answered.
func (m *metrics) certificates(ctx context.Context) ([]*acme.Object, bool) {
	m.reading.Lock()
	defer m.reading.Unlock()
	m.mu.Lock()
	list, ok, fresh := m.list, m.storeOK, time.Since(m.readAt) < cacheFor
	m.mu.Unlock()
	if fresh {
		return list, ok
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	asked := time.Now()
	got, err := m.c.store.List(ctx)
	account, aerr := m.c.store.Account(ctx)
	trust := map[string]acme.Trust{}
	if aerr == nil {
		for _, i := range account.Issuers {
			if t, err := m.c.store.Trust(ctx, i.Name); err == nil && i.Signs() {
				trust[i.Name] = t
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.storeOK = err == nil
	if err == nil || len(got) > 0 {
		m.list, m.readAt = got, asked
	}
	if aerr == nil {
		m.accounts, m.trust = map[string]bool{}, trust
		for _, r := range account.CAs {
			m.accounts[r.Issuer] = r.Location != ""
		}
	}
	return m.list, m.storeOK
}

func (c *controller) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		state := "standby"
		leader, since := c.state()
		if leader {
			state = "leader"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"state": state, "since": since.UTC().Format(time.RFC3339)})
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = io.WriteString(w, c.metrics.text(r.Context()))
	})
	mux.HandleFunc("GET /crl/{name}", func(w http.ResponseWriter, r *http.Request) {
		list, err := c.store.CRL(r.Context(), r.PathValue("name"))
		switch {
		case errors.Is(err, acme.ErrNotFound):
			http.NotFound(w, r)
		case err != nil:
			http.Error(w, "the certificate store does not answer", http.StatusServiceUnavailable)
		default:
			w.Header().Set("Content-Type", "application/pkix-crl")
			_, _ = w.Write(list) // #nosec G705 -- a signed list, of its own type
		}
	})
	return mux
}

// exposition is Prometheus's text format 0.0.4.
type exposition struct{ strings.Builder }

func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample takes labels as name, value, name, value.
func (e *exposition) sample(name string, value float64, labels ...string) {
	text := append(make([]byte, 0, 256), name...)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		text = append(append(append(text, sep), labels[i]...), `="`...)
		text = append(append(text, escapeLabel.Replace(labels[i+1])...), '"')
	}
	if len(labels) > 0 {
		text = append(text, '}')
	}
	text = append(strconv.AppendFloat(append(text, ' '), value, 'f', -1, 64), '\n')
	_, _ = e.Write(text) // a builder does not fail
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

var phases = []acme.Phase{acme.Temporary, acme.Issued, acme.Ready, acme.Failing, acme.Held, acme.Revoked}

func (m *metrics) text(ctx context.Context) string {
	list, storeOK := m.certificates(ctx)
	leader, _ := m.c.state()
	m.mu.Lock()
	defer m.mu.Unlock()
	var e exposition
	one := func(name, kind, help string, value float64) {
		e.family(name, kind, help)
		e.sample(name, value)
	}
	one("drover_controller_leader", "gauge", "Whether this replica holds the lock and works.", number(leader))
	one("drover_store_up", "gauge", "Whether the certificate store answered the last time.", number(storeOK))
	e.family("drover_controller_last_reconcile_timestamp_seconds", "gauge", "When this replica last did this work without an error of the cluster.")
	for _, what := range slices.Sorted(maps.Keys(m.last)) {
		e.sample("drover_controller_last_reconcile_timestamp_seconds", unix(m.last[what]), "work", what)
	}
	e.family("drover_controller_runs_total", "counter", "How often this work was done.")
	for _, what := range slices.Sorted(maps.Keys(m.runs)) {
		e.sample("drover_controller_runs_total", float64(m.runs[what]), "work", what)
	}
	e.family("drover_controller_errors_total", "counter", "How often this work failed.")
	for _, what := range slices.Sorted(maps.Keys(m.errors)) {
		e.sample("drover_controller_errors_total", float64(m.errors[what]), "work", what)
	}
	for _, g := range []struct {
		name, help string
		value      func(*acme.Object) float64
	}{
		{"not_before_timestamp_seconds", "Start of the life of the stored certificate.", func(o *acme.Object) float64 { return unix(o.Status.NotBefore) }},
		{"not_after_timestamp_seconds", "End of the life of the stored certificate.", func(o *acme.Object) float64 { return unix(o.Status.NotAfter) }},
		{"renew_at_timestamp_seconds", "When it is to be renewed; 0 when that is not known.", func(o *acme.Object) float64 { return unix(o.Status.RenewAt) }},
		{"next_attempt_timestamp_seconds", "When the next attempt is after one that failed; 0 without.", func(o *acme.Object) float64 { return unix(o.Status.NextAttempt) }},
		{"ready", "Whether what is served is what is stored.", func(o *acme.Object) float64 { return number(o.Status.Phase == acme.Ready) }},
		{"attempts", "Attempts that failed in a row.", func(o *acme.Object) float64 { return float64(o.Status.Attempts) }},
	} {
		e.family("drover_certificate_"+g.name, "gauge", g.help)
		for _, o := range list {
			e.sample("drover_certificate_"+g.name, g.value(o), "certificate", o.Spec.Name)
		}
	}
	e.family("drover_certificate_phase", "gauge", "1 for the phase that a certificate is in.")
	for _, o := range list {
		for _, p := range phases {
			e.sample("drover_certificate_phase", number(o.Status.Phase == p), "certificate", o.Spec.Name, "phase", string(p))
		}
	}
	e.family("drover_certificate_info", "gauge", "1; who issued a certificate, its serial number and the stack that it is of.")
	for _, o := range list {
		stack, env, _ := strings.Cut(o.Spec.Owner, "/")
		labels := []string{"certificate", o.Spec.Name, "issuer", o.Status.Issuer, "serial", o.Status.Serial}
		if stack != "" { // a certificate of `drover cert issue` has no owner
			labels = append(labels, "stack", stack, "environment", env)
		}
		e.sample("drover_certificate_info", 1, labels...)
	}
	e.family("drover_trust_not_after_timestamp_seconds", "gauge", "End of the life of a CA that clients trust, of an own CA or of Vault.")
	for _, name := range slices.Sorted(maps.Keys(m.trust)) {
		for _, c := range m.trust[name].CAs() {
			e.sample("drover_trust_not_after_timestamp_seconds", unix(c.NotAfter), "issuer", name, "subject", c.Subject.CommonName)
		}
	}
	e.family("drover_crl_next_update_timestamp_seconds", "gauge", "When the list of revoked certificates of an own CA ends.")
	for _, name := range slices.Sorted(maps.Keys(m.trust)) {
		if at := m.trust[name].NextUpdate(); !at.IsZero() {
			e.sample("drover_crl_next_update_timestamp_seconds", unix(at), "issuer", name)
		}
	}
	e.family("drover_certificate_served_match", "gauge", "Whether this instance of the edge serves what is stored; the leader looks.")
	for _, name := range slices.Sorted(maps.Keys(m.served)) {
		for _, s := range m.served[name] {
			e.sample("drover_certificate_served_match", number(s.Match), "certificate", name, "address", s.Address)
		}
	}
	ready := map[string]bool{}
	for _, o := range list {
		for _, name := range o.Spec.Issuers {
			ready[name] = false // until the first request to it
		}
	}
	for name := range m.trust {
		ready[name] = true // an own CA is asked by no request
	}
	maps.Copy(ready, m.accounts)
	maps.Copy(ready, m.issuers)
	e.family("drover_issuer_ready", "gauge", "Whether the CA answered the last request of this replica; before the first request, whether there is an account.")
	for _, name := range slices.Sorted(maps.Keys(ready)) {
		e.sample("drover_issuer_ready", number(ready[name]), "issuer", name)
	}
	keys := slices.SortedFunc(maps.Keys(m.requests), func(a, b requestKey) int {
		return strings.Compare(a.issuer+"\x00"+a.status, b.issuer+"\x00"+b.status)
	})
	e.family("drover_acme_requests_total", "counter", "Requests to CAs by the status of the answer; none without one.")
	for _, k := range keys {
		e.sample("drover_acme_requests_total", float64(m.requests[k].count), "issuer", k.issuer, "status", k.status)
	}
	e.family("drover_acme_request_seconds_total", "counter", "How long CAs took to answer.")
	for _, k := range keys {
		e.sample("drover_acme_request_seconds_total", m.requests[k].seconds, "issuer", k.issuer, "status", k.status)
	}
	e.family("drover_dns_records", "gauge", "Records of a stack by what became of them the last time; the leader looks.")
	for _, owner := range slices.Sorted(maps.Keys(m.dns)) {
		for _, action := range slices.Sorted(maps.Keys(m.dns[owner])) {
			e.sample("drover_dns_records", float64(m.dns[owner][action]), "owner", owner, "action", action)
		}
	}
	e.family("drover_stack_drift", "gauge", "Jobs of a stack that are not as its last release left them; the leader looks.")
	for _, full := range slices.Sorted(maps.Keys(m.drift)) {
		stack, env, _ := strings.Cut(full, "/")
		e.sample("drover_stack_drift", float64(m.drift[full]), "stack", stack, "environment", env)
	}
	e.family("drover_consul_orphans", "gauge", "Registrations in Consul whose allocation is over; the leader looks.")
	if m.orphans >= 0 {
		e.sample("drover_consul_orphans", float64(m.orphans))
	}
	e.family("drover_edge_tags_refused", "gauge", "Tags of a service for the edge that do not count, such as routes of another service; the leader looks.")
	for _, name := range slices.Sorted(maps.Keys(m.refused)) {
		e.sample("drover_edge_tags_refused", float64(m.refused[name]), "service", name)
	}
	e.family("drover_edge_hosts_shared", "gauge", "Hosts on which several namespaces have routes while no table allows it; the leader looks.")
	if m.shared >= 0 {
		e.sample("drover_edge_hosts_shared", float64(m.shared))
	}
	o := m.observed
	if o == nil {
		o = newObserved(nomad.Defaults{})
	}
	o.write(&e)
	scales := m.scaler
	if scales == nil {
		scales = &scaler{}
	}
	scales.writeMetrics(&e)
	e.self(m.started)
	return e.String()
}
