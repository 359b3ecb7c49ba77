package controller

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acme"
)

// TestCRL_IsServed: clients read the lists of revoked certificates of own CAs at
// /crl/NAME-NUMBER.crl.
func TestCRL_IsServed(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	m := acme.NewManager(acme.Config{Store: store, Issuers: []acme.Issuer{{Name: "own", OwnCA: &acme.OwnCA{}}}})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	o, err := m.Reconcile(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Revoke(t.Context(), "a", 1); err != nil {
		t.Fatal(err)
	}
	h := (&controller{store: store}).handler()
	get := func(path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return rec
	}
	got := get("/crl/own-2.crl")
	list, err := x509.ParseRevocationList(got.Body.Bytes())
	if err != nil || got.Header().Get("Content-Type") != "application/pkix-crl" || len(list.RevokedCertificateEntries) != 1 {
		t.Fatalf("got %d, %v", got.Code, err)
	}
	if serial := fmt.Sprintf("%032x", list.RevokedCertificateEntries[0].SerialNumber); serial != o.Object.Status.Serial {
		t.Errorf("got %s, want %s", serial, o.Object.Status.Serial)
	}
	for _, path := range []string{"/crl/own-3.crl", "/crl/none-2.crl", "/crl/..%2f..%2facme%2faccount-2.crl"} {
		if got := get(path); got.Code != http.StatusNotFound {
			t.Errorf("%s: got %d", path, got.Code)
		}
	}
}

// TestAlertRules_NameMetrics: every metric of drover in the alert rules and the dashboards
// is one of /metrics, and those of an own CA have values.
func TestAlertRules_NameMetrics(t *testing.T) {
	t.Parallel()
	var rules string
	for _, name := range []string{"rules.yml", "dashboards/cluster.json", "dashboards/stack.json", "dashboards/edge.json"} {
		text, err := os.ReadFile("../jobs/monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		rules += string(text)
	}
	store := acme.NewStore(acme.Directory(t.TempDir()))
	m := acme.NewManager(acme.Config{Store: store, Issuers: []acme.Issuer{{Name: "own", OwnCA: &acme.OwnCA{}}}})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}, Issuers: []string{"own"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Reconcile(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	c := &controller{store: store, manager: m, clock: acme.SystemClock{}}
	c.metrics = newMetrics(c)
	text := c.metrics.text(t.Context())
	names := regexp.MustCompile(`\bdrover_\w+`).FindAllString(rules, -1)
	for _, name := range names {
		if !strings.Contains(text, "# TYPE "+name+" ") {
			t.Errorf("/metrics has no %s", name)
		}
	}
	for _, want := range []string{
		`drover_trust_not_after_timestamp_seconds{issuer="own",subject="own"} `, `drover_crl_next_update_timestamp_seconds{issuer="own"} `,
		`drover_issuer_ready{issuer="own"} 1`,
		`drover_certificate_not_after_timestamp_seconds{certificate="a"} `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s\n%s", want, text)
		}
	}
	if len(names) < 40 {
		t.Errorf("only %q", names)
	}
}
