package acme_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
)

// TestCAA_BeforeOrder: CAA records that forbid the CA are an error before an order is
// placed.
func TestCAA_BeforeOrder(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "example.com 127.9.4.1")
	n.answers(func(_, _ string, q dns.Question, m *dns.Msg) (bool, bool) {
		m.Rcode = dns.RcodeServerFailure
		return q.Qtype == dns.TypeCAA && strings.HasSuffix(q.Name, "unknown.example.com."), false
	})
	w := newWorld(t, acmetest.Options{Resolver: n.address})
	m := w.manager(t, func(c *acme.Config) { c.Solvers[acme.DNS01] = n.solver("example.com") })
	w.issue(t, m, acme.Spec{Name: "account", Names: []string{"none.example.com"}, Challenge: acme.DNS01})
	account, err := w.store.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.add(`other.example.com. 60 CAA 0 issue "other.test"`,
		`own.other.example.com. 60 CAA 0 issue "pebble.letsencrypt.org"`,
		`both.example.com. 60 CAA 0 issue "other.test"`, `both.example.com. 60 CAA 0 issue "Pebble.LetsEncrypt.org"`,
		`wild.example.com. 60 CAA 0 issue "pebble.letsencrypt.org"`, `wild.example.com. 60 CAA 0 issuewild ";"`,
		`report.example.com. 60 CAA 0 iodef "mailto:ops@example.com"`,
		fmt.Sprintf(`account.example.com. 60 CAA 0 issue "pebble.letsencrypt.org; accounturi=%s; validationmethods=http-01,dns-01"`, account.CAs[w.ca.Directory].Location),
		`stranger.example.com. 60 CAA 0 issue "pebble.letsencrypt.org; accounturi=https://other.test/1"`,
		`http.example.com. 60 CAA 0 issue "pebble.letsencrypt.org; validationmethods=http-01"`,
		`unknown.example.com. 60 CAA 0 issue "other.test"`, `alias.example.com. 60 CNAME other.example.com.`)
	for name, forbidden := range map[string]string{
		"a.other.example.com":   `the CAA records of other.example.com do not allow it to issue for a.other.example.com by dns-01: 0 issue "other.test"; it is pebble.letsencrypt.org`,
		"own.other.example.com": "", "both.example.com": "", "wild.example.com": "", "report.example.com": "", "account.example.com": "", "unknown.example.com": "",
		"*.wild.example.com": `0 issuewild ";"`, "stranger.example.com": "accounturi=https://other.test/1", "http.example.com": "validationmethods=http-01",
		"alias.example.com": `0 issue "other.test"`,
	} {
		id := strings.Replace(name, "*", "star", 1)
		if forbidden == "" {
			w.issue(t, m, acme.Spec{Name: id, Names: []string{name}, Challenge: acme.DNS01})
			continue
		}
		if _, err := m.Apply(t.Context(), acme.Spec{Name: id, Names: []string{name}, Challenge: acme.DNS01}); err != nil {
			t.Fatal(err)
		}
		orders := w.count("ordered")
		r, err := m.Reconcile(t.Context(), id)
		var ie *acme.IssuerError
		if !errors.As(err, &ie) || ie.Step != "checking CAA" || !strings.Contains(err.Error(), forbidden) || r.Issued || w.count("ordered") != orders {
			t.Errorf("%s: got %v, %d orders, want %q", name, err, w.count("ordered")-orders, forbidden)
		}
	}
}
