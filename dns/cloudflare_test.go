package dns

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeCloudflare has the part of the API that drover uses, as its reference
// describes it: pages, identifiers, and batches that are done whole or not.
type fakeCloudflare struct {
	mu      sync.Mutex
	next    int
	records map[string]cloudflareRecord
	busy    int // requests to answer with 429 first
	batches int
}

func (f *fakeCloudflare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	say := func(status int, result any, pages int, errs ...string) {
		w.WriteHeader(status)
		list := []map[string]any{}
		for _, e := range errs {
			list = append(list, map[string]any{"code": 81053, "message": e})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"success": len(errs) == 0, "result": result, "errors": list, "result_info": map[string]any{"total_pages": pages}})
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer the-right-token":
		say(403, nil, 0, "Authentication error")
	case f.busy > 0:
		f.busy--
		w.Header().Set("Retry-After", "0")
		say(429, nil, 0, "slow down")
	case r.URL.Path == "/zones":
		if r.URL.Query().Get("name") != zone {
			say(200, []any{}, 0)
			return
		}
		say(200, []map[string]string{{"id": "z1"}}, 1)
	case r.URL.Path == "/zones/z1/dns_records":
		var page int
		_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
		var all []cloudflareRecord
		for _, id := range slices.Sorted(maps.Keys(f.records)) {
			all = append(all, f.records[id])
		}
		const per = 3
		from := min((page-1)*per, len(all))
		say(200, all[from:min(from+per, len(all))], (len(all)+per-1)/per)
	case r.URL.Path == "/zones/z1/dns_records/batch" && r.Method == http.MethodPost:
		var b cloudflareBatch
		_ = json.NewDecoder(r.Body).Decode(&b)
		f.batches++
		next := maps.Clone(f.records)
		for _, d := range b.Deletes {
			delete(next, d.ID)
		}
		for _, p := range b.Patches {
			old := next[p.ID]
			if p.Content != "" || p.Data != nil {
				old.Content, old.Data, old.Priority = p.Content, p.Data, p.Priority
			}
			old.TTL = p.TTL
			if p.Proxied != nil {
				old.Proxied = p.Proxied
			}
			next[p.ID] = stored(old)
		}
		for _, p := range b.Posts {
			if strings.HasPrefix(p.Name, "bad.") {
				say(400, nil, 0, "An A record with that host already exists.")
				return
			}
			f.next++
			p.ID = fmt.Sprintf("r%03d", f.next)
			next[p.ID] = stored(p)
		}
		f.records = next
		say(200, map[string]any{}, 0)
	default:
		say(404, nil, 0, "no route")
	}
}

// stored is a record as the API keeps it: the TTL of a proxied one is automatic,
// whatever was asked for.
func stored(r cloudflareRecord) cloudflareRecord {
	if r.isProxied() {
		r.TTL = automatic
	}
	return r
}

func openFake(t *testing.T, f *fakeCloudflare, token string) Provider {
	t.Helper()
	api := httptest.NewServer(f)
	t.Cleanup(api.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Open(Options{Provider: ProviderCloudflare, Server: api.URL, CredentialFile: file})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCloudflare(t *testing.T) {
	t.Parallel()
	f := &fakeCloudflare{busy: 2, records: map[string]cloudflareRecord{
		"m": {ID: "m", Name: "mail.example.org", Type: "MX", Content: "mx.example.org", TTL: 1},
		"t": {ID: "t", Name: "old.example.org", Type: "TXT", Content: "without quotes", TTL: 1},
	}}
	p := openFake(t, f, "the-right-token")
	m := &Manager{Owner: "o", Provider: p, Zones: []string{zone}, Store: &MemoryStore{}}
	desired := []Record{
		{Name: "www", Zone: zone, Type: "A", Values: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		{Name: "c", Zone: zone, Type: "CNAME", Values: []string{"edge.example.net"}},
		{Name: "@", Zone: zone, Type: "CAA", Values: []string{`0 issue "letsencrypt.org"`}},
		{Name: "t", Zone: zone, Type: "TXT", Values: []string{strings.Repeat("x", 300), `say "hi" \o/`}},
		{Name: "@", Zone: zone, Type: "MX", Values: []string{"10 mx1.example.org", "0 mx0.example.org"}},
		{Name: "_sip._tcp", Zone: zone, Type: "SRV", Values: []string{"0 5 5060 sip.example.org"}},
		{Name: "@", Zone: zone, Type: "HTTPS", Values: []string{"1 . alpn=h2,h3"}},
		{Name: "sub", Zone: zone, Type: "NS", Values: []string{"ns1.example.net"}},
	}
	apply := func() (*Plan, Result) {
		t.Helper()
		plan, err := m.Plan(t.Context(), desired)
		if err != nil || len(plan.Errors) > 0 {
			t.Fatal(err, plan)
		}
		res, err := m.Apply(t.Context(), plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		return plan, res
	}
	if _, res := apply(); len(res.Done) != len(desired) || f.batches != 1 {
		t.Fatalf("%+v in %d batches", res, f.batches)
	}
	if plan, _ := apply(); !plan.Empty() || f.batches != 1 {
		t.Errorf("the second plan: %+v, %d batches", plan.Changes, f.batches)
	}
	// One of three addresses changes: one record is patched, two keep their
	// identifiers.
	before := maps.Clone(f.records)
	desired[0].Values[1] = "192.0.2.9"
	apply()
	changed := 0
	for id, r := range f.records {
		if b, there := before[id]; !there || b.Content != r.Content {
			changed++
		}
	}
	if changed != 1 || len(f.records) != len(before) {
		t.Errorf("%d records changed", changed)
	}
	desired = append(desired, Record{Name: "bad", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}}, Record{Name: "good", Zone: zone, Type: "A", Values: []string{"192.0.2.1"}})
	_, res := apply()
	if len(res.Done) != 1 || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "bad.example.org A: cloudflare: An A record with that host already exists. (81053)") {
		t.Errorf("%+v", res)
	}
	desired, m.Policy = nil, Sync
	if _, res := apply(); len(res.Failed) > 0 || len(f.records) != 2 {
		t.Errorf("after sync: %v %v", res.Failed, f.records)
	}
	libdnsContract(t, p, zone)

	m.Provider = openFake(t, f, "a-wrong-token")
	plan, err := m.Plan(t.Context(), nil)
	if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "does not accept the credential") || strings.Contains(plan.Errors[0].Error(), "a-wrong-token") {
		t.Errorf("%v %v", plan.Errors, err)
	}
	m.Provider, m.Zones = p, []string{"example.net"}
	plan, err = m.Plan(t.Context(), nil)
	if err != nil || len(plan.Errors) != 1 || !strings.Contains(plan.Errors[0].Error(), "0 zones named example.net") {
		t.Errorf("%v %v", plan.Errors, err)
	}
}

func TestCloudflare_Proxied(t *testing.T) {
	t.Parallel()
	on, off := true, false
	www := func(ttl int, proxied *bool, values ...string) []Record {
		return []Record{{Name: "www", Zone: zone, Type: "A", TTL: ttl, Values: values, Proxied: proxied}}
	}
	a := func(id, value string, ttl int, proxied *bool) cloudflareRecord {
		return cloudflareRecord{ID: id, Name: "www." + zone, Type: "A", Content: value, TTL: ttl, Proxied: proxied}
	}
	for _, tc := range []struct {
		name    string
		have    []cloudflareRecord
		desired []Record
		proxied bool
		ttl     int // as the API has it
	}{
		{"proxied by hand, with a TTL", []cloudflareRecord{a("1", "192.0.2.1", 1, &on)}, www(60, nil, "192.0.2.1"), true, 1},
		{"proxied by hand, another value", []cloudflareRecord{a("1", "192.0.2.1", 1, &on)}, www(60, nil, "192.0.2.2", "192.0.2.3"), true, 1},
		{"created proxied", nil, www(60, &on, "192.0.2.1"), true, 1},
		{"created", nil, www(60, nil, "192.0.2.1"), false, 60},
		{"proxied from now on", []cloudflareRecord{a("1", "192.0.2.1", 60, &off)}, www(60, &on, "192.0.2.1"), true, 1},
		{"not proxied any more", []cloudflareRecord{a("1", "192.0.2.1", 1, &on)}, www(60, &off, "192.0.2.1"), false, 60},
		{"one of two proxied", []cloudflareRecord{a("1", "192.0.2.1", 1, &on), a("2", "192.0.2.2", 60, &off)}, www(60, &on, "192.0.2.1", "192.0.2.2"), true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeCloudflare{records: map[string]cloudflareRecord{}}
			for _, r := range tc.have {
				f.records[r.ID] = r
			}
			m := &Manager{Owner: "o", Provider: openFake(t, f, "the-right-token"), Zones: []string{zone}, Store: &MemoryStore{}, Adopt: true}
			if _, res, err := m.Reconcile(t.Context(), tc.desired); err != nil || len(res.Failed) > 0 {
				t.Fatal(err, res.Failed)
			}
			if len(f.records) != len(tc.desired[0].Values) {
				t.Errorf("got %v, want %d records", f.records, len(tc.desired[0].Values))
			}
			for _, r := range f.records {
				if r.isProxied() != tc.proxied || r.TTL != tc.ttl {
					t.Errorf("got %+v, want proxied %v and TTL %d", r, tc.proxied, tc.ttl)
				}
			}
			plan, err := m.Plan(t.Context(), tc.desired)
			if err != nil || !plan.Empty() || plan.Count(Unchanged) != 1 {
				t.Errorf("the second plan: got %+v and error %v, want it empty", plan.Changes, err)
			}
		})
	}
	_, err := Normalize([]Record{{Name: "t", Zone: zone, Type: "TXT", Values: []string{"x"}, Proxied: &on}}, []string{zone})
	if err == nil || !strings.Contains(err.Error(), "proxied is for records of type A, AAAA, CNAME") {
		t.Errorf("a proxied TXT record: got error %v", err)
	}
	// Some are proxied, and the stack leaves it open: nothing changes.
	f := &fakeCloudflare{records: map[string]cloudflareRecord{"1": a("1", "192.0.2.1", 1, &on), "2": a("2", "192.0.2.2", 60, &off)}}
	m := &Manager{Owner: "o", Provider: openFake(t, f, "the-right-token"), Zones: []string{zone}, Store: &MemoryStore{}, Adopt: true}
	desired := www(60, nil, "192.0.2.1", "192.0.2.2")
	if _, _, err := m.Reconcile(t.Context(), desired); err != nil {
		t.Fatal(err)
	}
	if plan, err := m.Plan(t.Context(), desired); err != nil || !plan.Empty() || f.batches != 0 {
		t.Errorf("some proxied: got %+v, %d batches and error %v, want it unchanged", plan.Changes, f.batches, err)
	}
}
