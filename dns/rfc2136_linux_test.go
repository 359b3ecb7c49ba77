package dns_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

func rfc2136(s *dnstest.Server) dns.Options {
	return dns.Options{Provider: dns.ProviderRFC2136, Server: s.DNS, KeyName: s.TSIGName}
}

func TestRFC2136(t *testing.T) {
	t.Parallel()
	s := dnstest.PowerDNS(t, "example.org", "acme.example.net", "many.example", "one.example", "two.example")
	wrong := "d3Jvbmctd3Jvbmctd3Jvbmctd3JvbmctIQ=="
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, open(t, rfc2136(s), s.TSIGSecret), s) })
	t.Run("libdns", func(t *testing.T) { dns.LibdnsContract(t, open(t, rfc2136(s), s.TSIGSecret), "acme.example.net") })
	t.Run("changed since the plan", func(t *testing.T) {
		changedSincePlan(t, open(t, rfc2136(s), s.TSIGSecret), s, 0, "b.one.example CNAME: rfc2136: it has changed since the plan was made")
	})
	for _, tc := range []struct {
		name, secret, zone, want string
		change                   func(*dns.Options)
	}{
		{"wrong zone", s.TSIGSecret, "nowhere.example", "does not have the zone", nil},
		{"wrong secret", wrong, "two.example", "drover", nil},
		{"unknown key", s.TSIGSecret, "two.example", "stranger", func(o *dns.Options) { o.KeyName = "stranger" }},
		{"no key", "", "two.example", "refuses to transfer", func(o *dns.Options) { o.KeyName = "" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := rfc2136(s)
			if tc.change != nil {
				tc.change(&o)
			}
			p := open(t, o, tc.secret)
			plan, err := manager(p, tc.zone).Plan(t.Context(), nil)
			if err != nil || len(plan.Errors) != 1 {
				t.Fatalf("%+v %v", plan, err)
			}
			_, err = p.AppendRecords(t.Context(), tc.zone, dns.ToLibdns(tc.zone, dns.Key{Name: "a." + tc.zone, Type: "A"}, dns.Set{TTL: 60, Values: []string{"192.0.2.1"}}))
			if err == nil {
				t.Fatal("an update was accepted")
			}
			for _, msg := range []string{plan.Errors[0].Error(), err.Error()} {
				t.Log(msg)
				if strings.Contains(msg, wrong) || strings.Contains(msg, s.TSIGSecret) {
					t.Errorf("the secret is in %q", msg)
				}
			}
			if msg := plan.Errors[0].Error(); !strings.Contains(msg, tc.want) {
				t.Errorf("it says %q, not %q", msg, tc.want)
			}
		})
	}
	t.Run("a thousand", func(t *testing.T) {
		m := manager(open(t, rfc2136(s), s.TSIGSecret), "many.example")
		var desired []dns.Record
		for i := range 1000 {
			desired = append(desired, dns.Record{Name: fmt.Sprintf("h%d", i), Zone: "many.example", Type: "A", Values: []string{"192.0.2.1"}})
		}
		start := time.Now()
		if _, res := reconcile(t, m, desired); len(res.Done) != 1000 {
			t.Fatalf("%d done", len(res.Done))
		}
		t.Logf("1000 records in %v", time.Since(start))
		if plan, _ := reconcile(t, m, desired); !plan.Empty() {
			t.Error("the second plan is not empty")
		}
	})
	t.Run("hanging and down", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
		if err != nil {
			t.Fatal(err)
		}
		o := rfc2136(s)
		o.Server = l.Addr().String()
		m := manager(open(t, o, s.TSIGSecret), "two.example")
		m.Timeout = 200 * time.Millisecond
		start := time.Now()
		plan, err := m.Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "in time") || time.Since(start) > 3*time.Second {
			t.Errorf("hanging, after %v: %v %v", time.Since(start), plan.Errors, err)
		}
		_ = l.Close()
		// A process that this one is just starting has the socket too, until its exec.
		devtest.Until(t, 10*time.Second, "the server is down", func() bool {
			plan, err = m.Plan(t.Context(), nil)
			return err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "connection reset")
		})
		if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "connection refused") {
			t.Errorf("down: %v %v", plan.Errors, err)
		}
	})
}

// changedSincePlan plans three records, of which another client sets two before the plan
// is applied. These two must fail and stay as they are; failure is in the error of one.
func changedSincePlan(t *testing.T, p dns.Provider, s *dnstest.Server, which int, failure string) {
	t.Helper()
	m := manager(p, "one.example")
	plan, err := m.Plan(t.Context(), []dns.Record{
		{Name: "a", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
		{Name: "b", Zone: "one.example", Type: "CNAME", Values: []string{"edge.example.net"}},
		{Name: "c", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Set(t, "one.example", "b.one.example", "A", 60, "198.51.100.7")
	s.Set(t, "one.example", "c.one.example", "A", 60, "198.51.100.8")
	res, err := m.Apply(t.Context(), plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Done) != 1 || len(res.Failed) != 2 || !strings.Contains(res.Failed[which].Error(), failure) {
		t.Errorf("got done %v, failed %v; want one done and two failed, with %q", res.Done, res.Failed, failure)
	}
	want := []string{"a.one.example. 300 A 192.0.2.1", "b.one.example. 60 A 198.51.100.7", "c.one.example. 60 A 198.51.100.8"}
	if got := sorted(s.Dump(t, "one.example")); !slices.Equal(got, want) {
		t.Errorf("got the zone %q, want %q", got, want)
	}
}
