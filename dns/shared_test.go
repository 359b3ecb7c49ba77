package dns_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// clock is a Clock that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// Sleep implements dns.Clock.
func (c *clock) Sleep(context.Context, time.Duration) error { return nil }

// site is drover in one of several clusters: each has its own store.
type site struct {
	t *testing.T
	*dns.Manager
	clock *clock
}

func newSite(t *testing.T, name string, p dns.Provider) site {
	c := &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	m := manager(p, "example.org")
	m.Cluster, m.Policy, m.Clock = name, dns.Sync, c
	return site{t, m, c}
}

// has reconciles www.example.org with these addresses; nothing is desired without one.
func (s site) has(ttl int, values ...string) (*dns.Plan, dns.Result) {
	s.t.Helper()
	return s.named("www", ttl, values...)
}

func (s site) named(name string, ttl int, values ...string) (*dns.Plan, dns.Result) {
	s.t.Helper()
	var desired []dns.Record
	if len(values) > 0 {
		desired = []dns.Record{{Name: name, Zone: "example.org", Type: "A", TTL: ttl, Values: values}}
	}
	p, res, err := s.Reconcile(s.t.Context(), desired)
	if err != nil || len(res.Failed) > 0 {
		s.t.Fatalf("%s: %v %v", s.Cluster, res.Failed, err)
	}
	return p, res
}

// sharedBy is what holds for clusters that share a name, on every provider. dump returns
// the records of the zone.
func sharedBy(t *testing.T, open func() dns.Provider, set func(name, typ string, ttl int, values ...string), dump func() []string) {
	t.Helper()
	var fra, ams site
	is := func(want ...string) {
		t.Helper()
		got := slices.DeleteFunc(dump(), func(r string) bool {
			return !strings.Contains(r, "www.example.org.") && !strings.Contains(r, "apps.example.org.")
		})
		if got = sorted(got); !slices.Equal(got, want) {
			t.Errorf("the zone holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	mark := func(cluster, values string) string {
		return `_drover-` + cluster + `-a.www.example.org. 300 TXT "drover ttl=300 values=` + values + ` owner=shop/prod"`
	}
	www := func(values ...string) (out []string) {
		for _, v := range values {
			out = append(out, "www.example.org. 300 A "+v)
		}
		return out
	}
	run := func(name string, f func(t *testing.T)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			fra, ams = newSite(t, "fra", open()), newSite(t, "ams", open())
			f(t)
			fra.has(0)
			ams.has(0)
			set("www.example.org", "A", 300)
			is()
		})
	}
	run("each adds and removes its own addresses only", func(*testing.T) {
		fra.has(300, "192.0.2.1", "192.0.2.2")
		ams.has(300, "198.51.100.1") // without --adopt
		marks := []string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1,192.0.2.2")}
		is(append(marks, www("192.0.2.1", "192.0.2.2", "198.51.100.1")...)...)
		for _, s := range []site{fra, ams} {
			values := map[string][]string{"fra": {"192.0.2.1", "192.0.2.2"}, "ams": {"198.51.100.1"}}[s.Cluster]
			if p, res := s.has(300, values...); !p.Empty() || len(res.Done) > 0 {
				t.Errorf("%s changes the record again: %+v", s.Cluster, res.Done)
			}
		}
		fra.has(300, "192.0.2.2", "192.0.2.3")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.2,192.0.2.3")}, www("192.0.2.2", "192.0.2.3", "198.51.100.1")...)...)
		fra.has(0)
		is(append([]string{mark("ams", "198.51.100.1")}, www("198.51.100.1")...)...)
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "198.51.100.1")...)...)
	})
	run("an address of both stays until both have removed it", func(*testing.T) {
		fra.has(300, "192.0.2.1", "192.0.2.9")
		ams.has(300, "192.0.2.9", "198.51.100.1")
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("ams", "192.0.2.9,198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "192.0.2.9", "198.51.100.1")...)...)
		ams.has(300, "198.51.100.1")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "198.51.100.1")...)...)
	})
	run("a cluster that lost its store knows its addresses by its marker", func(t *testing.T) {
		fra.has(300, "192.0.2.1")
		ams.has(300, "198.51.100.1")
		fra = newSite(t, "fra", open())
		fra.has(300, "192.0.2.2")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.2")}, www("192.0.2.2", "198.51.100.1")...)...)
	})
	run("the least TTL wins until its cluster leaves", func(*testing.T) {
		fra.has(300, "192.0.2.1")
		ams.has(60, "198.51.100.1")
		if p, _ := fra.has(300, "192.0.2.1"); !p.Empty() {
			t.Errorf("fra changes the record again: %+v", p.Changes)
		}
		if got := dump(); !slices.Contains(got, "www.example.org. 60 A 192.0.2.1") || !slices.Contains(got, "www.example.org. 60 A 198.51.100.1") {
			t.Errorf("the zone holds\n%s", strings.Join(got, "\n"))
		}
		ams.has(0)
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("fra", "192.0.2.1")}, www("192.0.2.1")...)...)
	})
	run("a record without a marker is foreign, and keeps its values when it is adopted", func(t *testing.T) {
		set("www.example.org", "A", 300, "203.0.113.5")
		p, _ := fra.has(300, "192.0.2.1")
		if c := p.Conflicts(); len(c) != 1 || !strings.Contains(c[0].Reason, "no cluster has marked it; --adopt shares it") {
			t.Errorf("conflicts: %+v", c)
		}
		is(www("203.0.113.5")...)
		fra.Adopt = true
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("fra", "192.0.2.1")}, www("192.0.2.1", "203.0.113.5")...)...)
		fra.has(0)
		is(www("203.0.113.5")...)
	})
	run("a removed address that another cluster writes back is removed again", func(*testing.T) {
		fra.has(300, "192.0.2.1", "192.0.2.2")
		ams.has(300, "198.51.100.1")
		fra.has(300, "192.0.2.1")
		back := []string{"192.0.2.1", "192.0.2.2", "198.51.100.1"} // by a writer that read the zone before
		set("www.example.org", "A", 300, back...)
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "198.51.100.1")...)...)
		fra.clock.now = fra.clock.now.Add(2 * time.Hour)
		set("www.example.org", "A", 300, back...) // long after that it is another hand's
		fra.has(300, "192.0.2.1")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www(back...)...)...)
	})
	run("a cluster that does not share leaves a marked record alone", func(*testing.T) {
		fra.has(300, "192.0.2.1")
		ams.Cluster = ""
		p, _ := ams.has(300, "198.51.100.1")
		if c := p.Conflicts(); len(c) != 1 || !strings.Contains(c[0].Reason, "cluster fra has marked it; set cluster") {
			t.Errorf("conflicts: %+v", c)
		}
		is(append([]string{mark("fra", "192.0.2.1")}, www("192.0.2.1")...)...)
	})
	run("a record of one cluster becomes shared", func(*testing.T) {
		fra.Cluster = ""
		fra.has(300, "192.0.2.1", "192.0.2.2")
		is(www("192.0.2.1", "192.0.2.2")...)
		fra.Cluster = "fra"
		fra.has(300, "192.0.2.1")
		ams.has(300, "198.51.100.1")
		is(append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "198.51.100.1")...)...)
	})
	run("both write at the same time", func(t *testing.T) {
		var wg sync.WaitGroup
		for _, s := range []site{fra, ams} {
			wg.Go(func() {
				for i := range 10 {
					last := map[string]string{"fra": "192.0.2.", "ams": "198.51.100."}[s.Cluster] + string(rune('0'+i%2))
					_, _, err := s.Reconcile(t.Context(), []dns.Record{{Name: "www", Zone: "example.org", Type: "A", Values: []string{last}}})
					if err != nil {
						t.Errorf("%s: %v", s.Cluster, err)
					}
				}
			})
		}
		wg.Wait()
		want := append([]string{mark("ams", "198.51.100.1"), mark("fra", "192.0.2.1")}, www("192.0.2.1", "198.51.100.1")...)
		devtest.Until(t, 30*time.Second, "both have their last address, and no other", func() bool {
			fra.has(300, "192.0.2.1") // as the controller does every few minutes
			ams.has(300, "198.51.100.1")
			return slices.Equal(sorted(slices.DeleteFunc(dump(), func(r string) bool { return !strings.Contains(r, "www.example.org.") })), want)
		})
	})
	run("a wildcard", func(*testing.T) {
		fra.named("*.apps", 300, "192.0.2.1")
		ams.named("*.apps", 300, "198.51.100.1")
		fra.named("*.apps", 300)
		is("*.apps.example.org. 300 A 198.51.100.1", `_drover-ams-a._any.apps.example.org. 300 TXT "drover ttl=300 values=198.51.100.1 owner=shop/prod"`)
	})
}
