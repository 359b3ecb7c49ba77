package dns_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

func open(t testing.TB, o dns.Options, credential string) dns.Provider {
	t.Helper()
	o.CredentialFile = filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(o.CredentialFile, []byte(credential+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := dns.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func manager(p dns.Provider, zones ...string) *dns.Manager {
	return &dns.Manager{Owner: "shop/prod", Provider: p, Zones: zones, Store: &dns.MemoryStore{}}
}

// reconcile plans and applies, and fails the test for an error of the store.
func reconcile(t testing.TB, m *dns.Manager, desired []dns.Record) (*dns.Plan, dns.Result) {
	t.Helper()
	plan, err := m.Plan(t.Context(), desired)
	if err != nil {
		t.Fatal(err)
	}
	res, err := m.Apply(t.Context(), plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	return plan, res
}

func everyType() []dns.Record {
	return []dns.Record{
		{Name: "@", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1", "192.0.2.2"}},
		{Name: "@", Zone: "example.org", Type: "AAAA", Values: []string{"2001:db8::1"}},
		{Name: "WWW", Zone: "example.org", Type: "CNAME", TTL: 60, Values: []string{"Edge.example.NET"}},
		{Name: "*.apps", Zone: "example.org", Type: "A", Values: []string{"192.0.2.3"}},
		{Name: "bücher", Zone: "example.org", Type: "A", Values: []string{"192.0.2.4"}},
		{Name: "txt", Zone: "example.org", Type: "TXT", Values: []string{`v=1; say "hi" \o/`, strings.Repeat("0123456789", 60), "grüße"}},
		{Name: "@", Zone: "example.org", Type: "CAA", Values: []string{`0 issue "letsencrypt.org; validationmethods=dns-01"`, `128 iodef "mailto:a@example.org"`}},
		{Name: "@", Zone: "example.org", Type: "MX", Values: []string{"10 MX1.example.net.", "020 mx2.example.net"}},
		{Name: "nomail", Zone: "example.org", Type: "MX", Values: []string{"0 ."}},
		{Name: "_sip._tcp", Zone: "example.org", Type: "SRV", Values: []string{"0 5 5060 sip.example.org", "10 5 5060 sip2.example.org."}},
		{Name: "sub", Zone: "example.org", Type: "NS", Values: []string{"ns1.example.net", "ns2.example.net."}},
		{Name: "7", Zone: "example.org", Type: "PTR", Values: []string{"host.example.net"}},
		{Name: "h", Zone: "example.org", Type: "HTTPS", Values: []string{`1 Other.example.net. port=8443  alpn="h2,h3"`}},
	}
}

// lifecycle is what holds for every provider on a real server, with every type of
// records except those that are named.
func lifecycle(t *testing.T, p dns.Provider, s *dnstest.Server, without ...string) {
	t.Helper()
	every := slices.DeleteFunc(everyType(), func(r dns.Record) bool { return slices.Contains(without, r.Type) })
	s.Set(t, "example.org", "mail.example.org", "MX", 3600, "10 mx.example.org.")
	s.Set(t, "example.org", "old.example.org", "A", 3600, "198.51.100.1")
	m := manager(p, "example.org")
	plan, res := reconcile(t, m, slices.Clone(every))
	if n := len(every); plan.Count(dns.Create) != n || len(res.Done) != n || len(res.Failed) != 0 {
		t.Fatalf("%d creations planned, %d done, failed: %v", plan.Count(dns.Create), len(res.Done), res.Failed)
	}
	dump := s.Dump(t, "example.org")
	for _, want := range []string{
		"example.org. 300 A 192.0.2.1", "example.org. 300 A 192.0.2.2", "example.org. 300 AAAA 2001:db8::1",
		"www.example.org. 60 CNAME edge.example.net.", "*.apps.example.org. 300 A 192.0.2.3",
		"xn--bcher-kva.example.org. 300 A 192.0.2.4",
		`txt.example.org. 300 TXT "v=1; say \"hi\" \\o/"`,
		`txt.example.org. 300 TXT "gr\195\188\195\159e"`,
		`example.org. 300 CAA 0 issue "letsencrypt.org; validationmethods=dns-01"`,
		`example.org. 300 CAA 128 iodef "mailto:a@example.org"`,
		"mail.example.org. 3600 MX 10 mx.example.org.",
		"example.org. 300 MX 10 mx1.example.net.", "example.org. 300 MX 20 mx2.example.net.", "nomail.example.org. 300 MX 0 .",
		"_sip._tcp.example.org. 300 SRV 0 5 5060 sip.example.org.",
		"7.example.org. 300 PTR host.example.net.", "h.example.org. 300 HTTPS 1 other.example.net. alpn=h2,h3 port=8443",
	} {
		if fields := strings.Fields(want); !slices.Contains(dump, want) && !slices.Contains(without, fields[2]) {
			t.Errorf("the zone lacks %s", want)
		}
	}
	if t.Failed() {
		t.Logf("the zone holds\n%s", strings.Join(dump, "\n"))
	}

	again, res := reconcile(t, m, slices.Clone(every))
	if !again.Empty() || again.Count(dns.Unchanged) != len(every) || len(res.Done) != 0 {
		t.Errorf("a second apply is not empty: %+v", again.Changes)
	}
	if after := s.Dump(t, "example.org"); !slices.Equal(after, dump) {
		t.Errorf("a second apply changed the zone")
	}

	// Drift is repaired if the stack says so, foreign records are not.
	m.Repair = true
	s.Set(t, "example.org", "www.example.org", "CNAME", 60, "elsewhere.example.net.")
	desired := append(slices.Clone(every), dns.Record{Name: "old", Zone: "example.org", Type: "A", Values: []string{"192.0.2.9"}})
	plan, _ = reconcile(t, m, desired)
	if plan.Count(dns.Update) != 1 || plan.Count(dns.Foreign) != 1 || len(plan.Conflicts()) != 1 {
		t.Errorf("after drift: %+v", plan.Changes)
	}
	dump = s.Dump(t, "example.org")
	if !slices.Contains(dump, "old.example.org. 3600 A 198.51.100.1") || !slices.Contains(dump, "www.example.org. 60 CNAME edge.example.net.") {
		t.Errorf("the zone holds\n%s", strings.Join(dump, "\n"))
	}
	m.Adopt = true
	reconcile(t, m, desired)
	if dump = s.Dump(t, "example.org"); !slices.Contains(dump, "old.example.org. 300 A 192.0.2.9") {
		t.Errorf("not adopted:\n%s", strings.Join(dump, "\n"))
	}

	// A CNAME makes room for addresses, in one step; all else goes.
	m.Policy = dns.Sync
	_, res = reconcile(t, m, []dns.Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}})
	if len(res.Failed) != 0 {
		t.Fatal(res.Failed)
	}
	if dump = s.Dump(t, "example.org"); !slices.Equal(sorted(dump), []string{"mail.example.org. 3600 MX 10 mx.example.org.", "www.example.org. 300 A 192.0.2.1"}) {
		t.Errorf("after sync the zone holds\n%s", strings.Join(dump, "\n"))
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

func powerdns(s *dnstest.Server) dns.Options {
	return dns.Options{Provider: dns.ProviderPowerDNS, Server: s.API}
}

func TestPowerDNS(t *testing.T) {
	t.Parallel()
	s := dnstest.PowerDNS(t, "example.org", "acme.example.net", "many.example", "one.example", "two.example")
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, open(t, powerdns(s), s.Key), s) })
	t.Run("libdns", func(t *testing.T) { dns.LibdnsContract(t, open(t, powerdns(s), s.Key), "acme.example.net") })
	t.Run("refused record", func(t *testing.T) {
		p := open(t, powerdns(s), s.Key)
		m := manager(p, "one.example")
		// A CNAME beside a record that came after the plan.
		desired := []dns.Record{
			{Name: "a", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
			{Name: "b", Zone: "one.example", Type: "CNAME", Values: []string{"edge.example.net"}},
			{Name: "c", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
		}
		plan, err := m.Plan(t.Context(), desired)
		if err != nil {
			t.Fatal(err)
		}
		s.Set(t, "one.example", "b.one.example", "A", 60, "198.51.100.7")
		res, err := m.Apply(t.Context(), plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Done) != 2 || len(res.Failed) != 1 {
			t.Fatalf("done %v, failed %v", res.Done, res.Failed)
		}
		if msg := res.Failed[0].Error(); !strings.Contains(msg, "record b.one.example CNAME: powerdns: ") || !strings.Contains(msg, "onflict") {
			t.Errorf("it says %q", msg)
		}
		want := []string{"a.one.example. 300 A 192.0.2.1", "b.one.example. 60 A 198.51.100.7", "c.one.example. 300 A 192.0.2.1"}
		if dump := sorted(s.Dump(t, "one.example")); !slices.Equal(dump, want) {
			t.Errorf("the zone holds %q", dump)
		}
	})
	t.Run("wrong zone", func(t *testing.T) {
		m := manager(open(t, powerdns(s), s.Key), "two.example", "nowhere.example")
		plan, res := reconcile(t, m, []dns.Record{
			{Name: "a", Zone: "two.example", Type: "A", Values: []string{"192.0.2.1"}},
			{Name: "a", Zone: "nowhere.example", Type: "A", Values: []string{"192.0.2.1"}},
		})
		if len(plan.Errors) != 1 || len(res.Done) != 1 {
			t.Fatalf("errors %v, done %v", plan.Errors, res.Done)
		}
		if msg := plan.Errors[0].Error(); !strings.Contains(msg, "does not have the zone nowhere.example") {
			t.Errorf("it says %q", msg)
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		m := manager(open(t, powerdns(s), "not-the-key-at-all"), "two.example")
		plan, err := m.Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 {
			t.Fatalf("%v %v", plan, err)
		}
		msg := plan.Errors[0].Error()
		if !strings.Contains(msg, "does not accept the credential") || strings.Contains(msg, "not-the-key-at-all") {
			t.Errorf("it says %q", msg)
		}
	})
	t.Run("a thousand", func(t *testing.T) {
		m := manager(open(t, powerdns(s), s.Key), "many.example")
		var desired []dns.Record
		for i := range 1000 {
			desired = append(desired, dns.Record{Name: fmt.Sprintf("h%d", i), Zone: "many.example", Type: "A", Values: []string{"192.0.2.1"}})
		}
		start := time.Now()
		_, res := reconcile(t, m, desired)
		if len(res.Done) != 1000 {
			t.Fatalf("%d done, %v", len(res.Done), res.Failed)
		}
		t.Logf("1000 records in %v", time.Since(start))
	})
}

func TestPowerDNSFaults(t *testing.T) {
	t.Parallel()
	s := dnstest.PowerDNS(t, "example.org")
	m := manager(open(t, powerdns(s), s.Key), "example.org")
	desired := []dns.Record{{Name: "a", Zone: "example.org", Type: "A", Values: []string{"192.0.2.1"}}}
	plan, err := m.Plan(t.Context(), desired)
	if err != nil {
		t.Fatal(err)
	}

	// Hanging: the deadline holds, for reading and for writing.
	s.Pause(t)
	m.Timeout = 300 * time.Millisecond
	start := time.Now()
	hung, err := m.Plan(t.Context(), desired)
	if err != nil || len(hung.Errors) != 1 || !strings.Contains(hung.Errors[0].Error(), "in time") {
		t.Fatalf("%v %v", hung, err)
	}
	res, err := m.Apply(t.Context(), plan, nil)
	if err != nil || len(res.Failed) != 1 {
		t.Fatalf("%v %v", res, err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	s.Resume(t)
	m.Timeout = 0

	// It is unknown whether the hanging server did it: either way a second
	// apply brings the record and owns it.
	if _, res := reconcile(t, m, desired); len(res.Failed) != 0 {
		t.Fatal(res.Failed)
	}
	if plan, _ := reconcile(t, m, desired); plan.Count(dns.Unchanged) != 1 {
		t.Errorf("%+v", plan.Changes)
	}

	// Down.
	s.Stop()
	m.Timeout = 10 * time.Second
	plan, err = m.Plan(t.Context(), desired)
	if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "connection refused") {
		t.Fatalf("%v %v", plan.Errors, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Plan(ctx, desired); err == nil {
		t.Error("a cancelled plan is no error")
	}
}

// fakeClock never waits.
type fakeClock struct {
	now   time.Time
	slept []time.Duration
}

func (c *fakeClock) Now() time.Time { return c.now }
func (c *fakeClock) Sleep(_ context.Context, d time.Duration) error {
	c.slept = append(c.slept, d)
	c.now = c.now.Add(d)
	return nil
}

func TestRetry(t *testing.T) {
	t.Parallel()
	var answers []func(http.ResponseWriter)
	say := func(status int, retryAfter string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, `{"rrsets":[]}`)
		}
	}
	asked := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers[min(asked, len(answers)-1)](w)
		asked++
	}))
	t.Cleanup(api.Close)
	clock := &fakeClock{now: time.Now()}
	p := open(t, dns.Options{Provider: dns.ProviderPowerDNS, Server: api.URL, Clock: clock}, "key")
	read := func(a ...func(http.ResponseWriter)) error {
		answers, asked, clock.slept = a, 0, nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		clock.now = time.Now()
		_, err := p.GetRecords(ctx, "example.org.")
		return err
	}
	if err := read(say(429, "7"), say(503, ""), say(200, "")); err != nil || asked != 3 || clock.slept[0] != 7*time.Second || clock.slept[1] < 500*time.Millisecond || clock.slept[1] > time.Second {
		t.Errorf("%v after %d requests, slept %v", err, asked, clock.slept)
	}
	if err := read(say(429, time.Now().Add(20*time.Second).UTC().Format(http.TimeFormat)), say(200, "")); err != nil || clock.slept[0] < 15*time.Second {
		t.Errorf("a date: %v, slept %v", err, clock.slept)
	}
	if err := read(say(429, "3600")); err == nil || asked != 1 || len(clock.slept) != 0 {
		t.Errorf("a pause longer than the deadline: %v after %d requests, slept %v", err, asked, clock.slept)
	}
	if err := read(say(502, "")); err == nil || asked != 5 || !strings.Contains(err.Error(), "502 Bad Gateway") {
		t.Errorf("%v after %d requests", err, asked)
	}
	if err := read(say(404, "")); err == nil || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
}
