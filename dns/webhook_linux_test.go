package dns_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// TestWebhook uses the webhook server of external-dns and its provider for PowerDNS.
func TestWebhook(t *testing.T) {
	t.Parallel()
	s := dnstest.PowerDNS(t, "example.org", "acme.example.net", "one.example", "hidden.example")
	url := dnstest.ExternalDNS(t, s, "example.org", "acme.example.net", "one.example")
	p, err := dns.Open(dns.Options{Provider: dns.ProviderWebhook, Server: url + "/"})
	if err != nil {
		t.Fatal(err)
	}
	// Its PowerDNS provider takes PTR records of addresses only.
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, p, s, dns.TypePTR) })
	t.Run("libdns", func(t *testing.T) { dns.LibdnsContract(t, p, "acme.example.net") })
	t.Run("refused record", func(t *testing.T) {
		changedSincePlan(t, p, s, 1, "c.one.example A: webhook: c.one.example A has changed since the plan was made")
	})
	t.Run("another zone", func(t *testing.T) {
		plan, err := manager(p, "nowhere.example").Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "does not have the zone nowhere.example") {
			t.Errorf("got %+v and error %v", plan, err)
		}
	})
	t.Run("PowerDNS is down", func(t *testing.T) {
		s.Stop()
		m := manager(p, "example.org")
		plan, err := m.Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 {
			t.Errorf("got %+v and error %v", plan, err)
		}
	})
}

// hookServer speaks the protocol to its tests: what external-dns' own server and
// its provider for PowerDNS never say.
type hookServer struct {
	mu      sync.Mutex
	domains string
	records []map[string]any
	adjust  func([]map[string]any) []map[string]any
	media   string
	status  map[string]int
	changes []map[string][]map[string]any
	header  http.Header
}

func (h *hookServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.header = r.Header
	w.Header().Set("Content-Type", h.media)
	if status := h.status[r.Method+" "+r.URL.Path]; status != 0 {
		w.WriteHeader(status)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /":
		_, _ = io.WriteString(w, h.domains)
	case "GET /records":
		_ = json.NewEncoder(w).Encode(h.records)
	case "POST /adjustendpoints":
		var es []map[string]any
		_ = json.NewDecoder(r.Body).Decode(&es)
		_ = json.NewEncoder(w).Encode(h.adjust(es))
	case "POST /records":
		var c map[string][]map[string]any
		_ = json.NewDecoder(r.Body).Decode(&c)
		h.changes = append(h.changes, c)
		h.records = append(slices.DeleteFunc(h.records, func(e map[string]any) bool {
			return slices.ContainsFunc(slices.Concat(c["updateOld"], c["delete"]), func(o map[string]any) bool { return o["dnsName"] == e["dnsName"] })
		}), slices.Concat(c["create"], c["updateNew"])...)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func hookFake(t *testing.T) (*hookServer, *dns.Manager) {
	t.Helper()
	h := &hookServer{
		domains: "{}", media: "application/external.dns.webhook+json;version=1", status: map[string]int{},
		adjust: func(es []map[string]any) []map[string]any { return es },
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, manager(open(t, dns.Options{Provider: dns.ProviderWebhook, Server: server.URL}, "of-the-proxy"), "example.org")
}

func TestWebhook_Adjusts(t *testing.T) {
	t.Parallel()
	h, m := hookFake(t)
	h.adjust = func(es []map[string]any) []map[string]any {
		for _, e := range es {
			e["recordTTL"] = max(e["recordTTL"].(float64), 600)
			e["providerSpecific"] = []map[string]string{{"name": "alias", "value": "false"}}
		}
		return slices.DeleteFunc(es, func(e map[string]any) bool { return e["recordType"] == "CAA" })
	}
	desired := []dns.Record{{Name: "www", Zone: "example.org", Type: "A", TTL: 60, Values: []string{"192.0.2.1"}}}
	reconcile(t, m, desired)
	if len(h.changes) != 1 || h.records[0]["recordTTL"] != 600.0 || h.records[0]["providerSpecific"] == nil {
		t.Fatalf("got %v, want a TTL of 600 and what the provider adds", h.changes)
	}
	if plan, _ := reconcile(t, m, desired); !plan.Empty() || len(h.changes) != 1 {
		t.Errorf("the second plan: got %+v, want it empty", plan.Changes)
	}
	// The labels of a record stay when the record changes.
	h.records[0]["labels"] = map[string]any{"owner": "x"}
	desired[0].Values = []string{"192.0.2.2"}
	reconcile(t, m, desired)
	if c := h.changes[len(h.changes)-1]; len(c["updateNew"]) != 1 || c["updateNew"][0]["labels"] == nil || c["updateOld"][0]["targets"].([]any)[0] != "192.0.2.1" {
		t.Errorf("got %v, want an update with the old record and its labels", c)
	}
	// A record that the provider cannot hold does not keep others from being made.
	_, res := reconcile(t, m, append(desired,
		dns.Record{Name: "@", Zone: "example.org", Type: "CAA", Values: []string{`0 issue "ca.example"`}},
		dns.Record{Name: "b", Zone: "example.org", Type: "A", Values: []string{"192.0.2.3"}}))
	if len(res.Done) != 1 || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "does not take example.org CAA") {
		t.Errorf("done %v, failed %v", res.Done, res.Failed)
	}
	if got := h.header.Get("Authorization"); got != "Bearer of-the-proxy" {
		t.Errorf("got Authorization %q", got)
	}
}

func TestWebhook_RoutingPolicy(t *testing.T) {
	t.Parallel()
	h, m := hookFake(t)
	m.Adopt = true
	for _, id := range []string{"eu", "us"} {
		h.records = append(h.records, map[string]any{"dnsName": "www.example.org", "recordType": "A", "setIdentifier": id, "recordTTL": 60, "targets": []string{"192.0.2.1"}})
	}
	_, res := reconcile(t, m, []dns.Record{{Name: "www", Zone: "example.org", Type: "A", TTL: 60, Values: []string{"192.0.2.1"}}})
	if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "routing policy") || len(h.changes) != 0 {
		t.Errorf("failed %v, changed %v", res.Failed, h.changes)
	}
}

func TestWebhook_Faults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, want string
		change     func(*hookServer)
	}{
		{"not the protocol", "does not speak version 1", func(h *hookServer) { h.media = "text/html" }},
		{"another version", "does not speak version 1", func(h *hookServer) { h.media = "application/external.dns.webhook+json;version=2" }},
		{"not found", "GET /records answered 404", func(h *hookServer) { h.status["GET /records"] = 404 }},
		{"other domains", "does not have the zone example.org", func(h *hookServer) { h.domains = `{"include": ["example.net"]}` }},
		{"excluded", "does not have the zone example.org", func(h *hookServer) { h.domains = `{"include": ["org"], "exclude": ["example.org"]}` }},
		{"bad answer", "cannot be read", func(h *hookServer) { h.domains = `[` }},
		{"unauthorized", "does not accept the credential", func(h *hookServer) { h.status["GET /"] = 401 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, m := hookFake(t)
			tc.change(h)
			plan, err := m.Plan(t.Context(), nil)
			if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), tc.want) {
				t.Fatalf("got %+v and error %v, want %q", plan, err, tc.want)
			}
			if msg := plan.Errors[0].Error(); strings.Contains(msg, "of-the-proxy") {
				t.Errorf("the credential is in %q", msg)
			}
		})
	}
	for domains, want := range map[string]string{
		`{"include": [".example.org"]}`:                                          "", // the zone itself is not changed
		`{"include": ["other.example.org"]}`:                                     "does not have www.example.org among its domains",
		`{"regexInclude": "example", "regexExclude": "^www"}`:                    "does not have www.example.org among its domains",
		`{"regexInclude": "example"}`:                                            "",
		`{"include": ["example.org"], "exclude": ["www.example.org", "a.test"]}`: "does not have www.example.org among its domains",
	} {
		h, m := hookFake(t)
		h.domains = domains
		_, res := reconcile(t, m, []dns.Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}})
		if got := len(res.Failed) == 0; got != (want == "") || !got && !strings.Contains(res.Failed[0].Error(), want) {
			t.Errorf("%s: failed %v, want %q", domains, res.Failed, want)
		}
	}
}
