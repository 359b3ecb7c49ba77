package edge

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// instance of a service in a namespace, of a job of the same name.
func registration(namespace, service string, index uint64, tags ...string) Registration {
	return Registration{Service: service, Namespace: namespace, Job: service, Version: "1", Index: index, Tags: tags}
}

// served are the routes of services that an edge serves by a decision: "KEY SERVICE".
func served(t *testing.T, d Decision, all []Registration, settings *Settings) []string {
	t.Helper()
	catalog := map[string][]string{}
	for _, r := range all {
		catalog[r.Service] = slices.Compact(slices.Sorted(slices.Values(append(catalog[r.Service], r.Tags...))))
	}
	p, _ := d.Publish()
	left, _ := p.Filter(catalog)
	var out []string
	for _, r := range Read(HAProxy, settings.taken(left), settings).Routes {
		out = append(out, r.From+" "+r.Service)
	}
	slices.Sort(out)
	return out
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const victim, login = "drover.route=victim.test/", "drover.route=victim.test/login/"
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	old := now.Add(-24 * time.Hour)
	claim := func(namespace, service, route string) Claim {
		return Claim{Route: route, Service: service, Namespace: namespace, Job: service, Since: old}
	}
	web := claim("default", "web", "http victim.test/")
	table := &Settings{Tenants: map[string]Tenant{
		"default": {Services: []string{"web", "app"}, Hosts: []string{"victim.test"}}, "evil": {Services: []string{"evil"}, Hosts: []string{"victim.test"}},
	}}
	for _, c := range []struct {
		name     string
		before   []Claim
		first    bool
		several  bool
		settings *Settings
		all      []Registration
		ended    bool
		unknown  bool // whether jobs have ended
		served   []string
		refused  []string // parts of the messages, in order
		shared   []string
		claims   int
	}{
		{
			name: "the older claim wins, not the first in the alphabet", before: []Claim{web},
			all:    []Registration{registration("default", "web", 9, victim), registration("default", "app", 1, victim)},
			served: []string{"victim.test/ web"}, refused: []string{"victim.test/ belongs to service web since 2026-11-29"}, claims: 1,
		},
		{
			name: "of two new claims the older registration wins", before: []Claim{},
			all:    []Registration{registration("default", "app", 9, victim), registration("default", "web", 1, victim)},
			served: []string{"victim.test/ web"}, refused: []string{"belongs to service web"}, claims: 1,
		},
		{
			name: "the first decision is as without one", first: true, several: true,
			all: []Registration{
				registration("default", "web", 1, victim), registration("default", "app", 9, victim), registration("evil", "evil", 2, login),
			},
			served: []string{"victim.test/ app", "victim.test/login/ evil"}, refused: []string{"belongs to service app"}, shared: []string{"victim.test"}, claims: 2,
		},
		{
			name: "what was shared stays", several: true, before: []Claim{web, claim("evil", "evil", "http victim.test/login/")},
			all:    []Registration{registration("default", "web", 1, victim), registration("evil", "evil", 2, login, "drover.route=victim.test/more/")},
			served: []string{"victim.test/ web", "victim.test/login/ evil", "victim.test/more/ evil"}, shared: []string{"victim.test"}, claims: 3,
		},
		{
			name: "a path of another namespace's host", several: true, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("evil", "evil", 2, login, "drover.sni=victim.test", "drover.route=evil.test/")},
			served: []string{"evil.test/ evil", "victim.test/ web"},
			refused: []string{
				"the host victim.test belongs to service web of namespace default", "the host victim.test belongs to service web of namespace default",
			}, claims: 2,
		},
		{
			name: "a path of the own namespace's host", several: true, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("default", "app", 2, login)},
			served: []string{"victim.test/ web", "victim.test/login/ app"}, claims: 2,
		},
		{
			name: "one namespace", before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("", "outside", 2, login)},
			served: []string{"victim.test/ web", "victim.test/login/ outside"}, claims: 2,
		},
		{
			name: "a table allows it", several: true, settings: table, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("evil", "evil", 2, login)},
			served: []string{"victim.test/ web", "victim.test/login/ evil"}, claims: 2,
		},
		{
			name: "the service is away and its job is not", several: true, before: []Claim{web},
			all: []Registration{registration("evil", "evil", 2, victim)}, refused: []string{"belongs to service web of namespace default"}, claims: 1,
		},
		{
			name: "the job has ended", several: true, before: []Claim{web}, ended: true,
			all: []Registration{registration("evil", "evil", 2, victim)}, served: []string{"victim.test/ evil"}, claims: 1,
		},
		{
			name: "whether the job has ended is unknown", several: true, before: []Claim{func() Claim { c := web; c.Missing = now.Add(-time.Minute); return c }()}, unknown: true,
			all: []Registration{registration("evil", "evil", 2, victim)}, refused: []string{"belongs to service web"}, claims: 1,
		},
		{
			name: "unknown for long", several: true, before: []Claim{func() Claim { c := web; c.Missing = now.Add(-time.Hour); return c }()}, unknown: true,
			all: []Registration{registration("evil", "evil", 2, victim)}, served: []string{"victim.test/ evil"}, claims: 1,
		},
		{
			name: "the service no longer asks", before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, "drover.route=other.test/"), registration("default", "app", 2, victim)},
			served: []string{"other.test/ web", "victim.test/ app"}, claims: 2,
		},
		{
			name: "the job calls its service otherwise", before: []Claim{web},
			all:    []Registration{{Service: "web2", Namespace: "default", Job: "web", Version: "2", Index: 3, Tags: []string{victim}}},
			served: []string{"victim.test/ web2"}, claims: 1,
		},
		{
			name: "an invalid option of another job", before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), {Service: "web", Namespace: "default", Job: "spoiler", Version: "1", Index: 2, Tags: []string{"drover.alow=10.0.0.0/8", login}}},
			served: []string{"victim.test/ web"}, refused: []string{`whose tag "drover.alow=10.0.0.0/8" is not valid`, "is not valid"}, claims: 1,
		},
		{
			name: "an invalid option of all", before: []Claim{web},
			all: []Registration{registration("default", "web", 1, victim, "drover.alow=10.0.0.0/8")}, claims: 1,
		},
		{
			name: "instances of one version disagree", before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("default", "web", 2, victim, login, "drover.allow=10.0.0.0/8")},
			served: []string{"victim.test/ web"}, refused: []string{"not all instances of one version have it"}, claims: 1,
		},
		{
			name: "two versions may differ", before: []Claim{web},
			all: []Registration{
				registration("default", "web", 1, victim), {Service: "web", Namespace: "default", Job: "web", Version: "2", Index: 2, Tags: []string{login}},
			},
			served: []string{"victim.test/ web", "victim.test/login/ web"}, claims: 2,
		},
		{
			name: "an instance of another namespace", several: true, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("evil", "web", 2, login, "drover.allow=10.0.0.0/8")},
			served: []string{"victim.test/ web"}, refused: []string{"the service belongs to namespace default", "the service belongs to namespace default"}, claims: 1,
		},
		{
			name: "a service of another class", settings: &Settings{Class: "default", DefaultClass: "default"}, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim, "drover.class=internal"), registration("default", "app", 2, victim)},
			served: []string{"victim.test/ app"}, claims: 1,
		},
		{
			name: "one instance keeps a service in its class", settings: &Settings{Class: "default", DefaultClass: "default"}, before: []Claim{},
			all: []Registration{registration("default", "web", 1, victim, "drover.class=internal"), registration("default", "web", 2, victim)},
		},
		{
			name: "an instance of another namespace has no class", several: true, settings: &Settings{Class: "default", DefaultClass: "default"}, before: []Claim{web},
			all:    []Registration{registration("default", "web", 1, victim), registration("evil", "web", 2, "drover.class=internal")},
			served: []string{"victim.test/ web"}, refused: []string{"the service belongs to namespace default"}, claims: 1,
		},
		{
			name: "a wildcard over another namespace's host", several: true, before: []Claim{claim("default", "web", "http *.victim.test/")},
			all:     []Registration{registration("evil", "evil", 2, "drover.route=login.victim.test/")},
			refused: []string{"the host *.victim.test belongs to service web"}, claims: 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := Claimants{
				Kind: HAProxy, Settings: c.settings, Registrations: c.all, Several: c.several, Before: c.before, First: c.first, Now: now,
				Ended: func(Claim) (bool, bool) { return c.ended, !c.unknown },
			}
			d := Decide(in)
			if got := served(t, d, c.all, c.settings); !slices.Equal(got, c.served) {
				t.Errorf("got routes %q, want %q", got, c.served)
			}
			if len(d.Refused) != len(c.refused) {
				t.Fatalf("got refused %+v, want %q", d.Refused, c.refused)
			}
			for i, part := range c.refused {
				if !strings.Contains(d.Refused[i].Message, part) {
					t.Errorf("got refused %q, want %q", d.Refused[i].Message, part)
				}
			}
			if got := slices.Sorted(maps.Keys(d.Shared)); !slices.Equal(got, c.shared) {
				t.Errorf("got shared hosts %q, want %q", got, c.shared)
			}
			if len(d.Claims) != c.claims {
				t.Errorf("got claims %+v, want %d", d.Claims, c.claims)
			}
			// The next decision is the same.
			in.Before, in.First = d.Claims, false
			again := Decide(in)
			if !slices.Equal(again.Claims, d.Claims) && c.name != "the job has ended" {
				t.Errorf("got other claims next time: %+v, want %+v", again.Claims, d.Claims)
			}
			if got := served(t, again, c.all, c.settings); !slices.Equal(got, c.served) {
				t.Errorf("got routes %q next time, want %q", got, c.served)
			}
		})
	}
}

// An instance that restricts who reaches the service counts, whatever the others have.
func TestDecide_RestrictionsAreNotUnited(t *testing.T) {
	t.Parallel()
	all := []Registration{
		registration("default", "web", 1, "drover.route=a.test/", "drover.allow=10.0.0.0/8"),
		registration("default", "web", 2, "drover.route=a.test/", "drover.allow=0.0.0.0/0", "drover.http=serve"),
	}
	tags, reasons := agreed(HAProxy, "web", all, nil)
	if want := []string{"drover.allow=0.0.0.0/0", "drover.allow=10.0.0.0/8", "drover.route=a.test/"}; !slices.Equal(tags, want) {
		t.Errorf("got tags %q, want %q", tags, want)
	}
	if len(reasons) != 1 || reasons["drover.http=serve"] == "" {
		t.Errorf("got reasons %q, want one for drover.http=serve", reasons)
	}
}

// Instances of other namespaces get no requests of a service: of its own, of its canaries,
// and of an authenticator.
func TestDecide_Own(t *testing.T) {
	t.Parallel()
	settings := &Settings{Authenticators: []string{"authn"}}
	named := func(id string, r Registration) Registration {
		r.ID = id
		return r
	}
	hidden := Registration{Service: "web", Index: 9, Hidden: true}
	all := []Registration{
		named("web-1", registration("default", "web", 5, "drover.route=web.test/", "drover.weight=10 version v2", "drover.canary=header X-Canary yes service helper")),
		named("web-evil", registration("evil", "web", 1)), // older
		named("web-hidden", hidden),
		named("web-by-hand", Registration{Service: "web", Index: 10}),
		named("helper-1", registration("default", "helper", 6)),
		named("helper-evil", registration("evil", "helper", 7)),
		named("alone-1", registration("default", "alone", 6, "drover.route=alone.test/", "drover.weight=10 service hidden")),
		named("hidden-evil", registration("evil", "hidden", 7, "drover.route=hidden.test/")),
		named("authn-1", registration("default", "authn", 8)),
		named("other-evil", registration("evil", "other", 8)), // which no edge uses
		named("other-1", registration("default", "other", 9)),
	}
	in := Claimants{Kind: HAProxy, Settings: settings, Several: true, Registrations: all, Now: time.Unix(1e9, 0)}
	in.Before = []Claim{{Route: "http web.test/", Service: "web", Namespace: "default", Job: "web"}}
	digests := func(ids ...string) (out []string) {
		for _, id := range ids {
			out = append(out, tagDigest(id))
		}
		slices.Sort(out)
		return out
	}
	check := func(d Decision, want map[string][]string) {
		t.Helper()
		if !maps.EqualFunc(d.Own, want, slices.Equal) {
			t.Errorf("got %v, want %v", d.Own, want)
		}
	}
	d := Decide(in)
	want := map[string][]string{
		"web": digests("web-1", "web-by-hand"), "web.service.helper": digests("helper-1"), "alone.service.hidden": nil,
	}
	check(d, want)
	p, _ := d.Publish()
	if !p.owns("web", "web-1") || p.owns("web", "web-evil") || !p.owns("alone", "any") || p["_own/alone.service.hidden"] != "-" || p["authn"] != "" {
		t.Errorf("got %q", p)
	}
	left, problems := p.Filter(map[string][]string{"web": {"drover.route=web.test/"}, "helper": nil})
	if len(problems) != 1 || problems[0].Service != "web" || problems[0].Costs != CostsNothing || len(left["web"]) != 1 {
		t.Errorf("got %q and problems %+v, want one of web", left, problems)
	}

	// The controller remembers the namespace of an authenticator while it restarts.
	in.Before = d.Claims
	in.Registrations = slices.Concat(all[:8], []Registration{
		named("authn-evil", registration("evil", "authn", 11)), named("authn-2", registration("default", "authn", 12)),
	})
	want["authn"] = digests("authn-2")
	check(Decide(in), want)

	// The first decision keeps the routes that are served.
	in.Before, in.First = nil, true
	check(Decide(in), map[string][]string{})
}

// Tags of an instance whose namespace the controller cannot see do not count for a service
// of another one.
func TestDecide_TagsOfHiddenInstances(t *testing.T) {
	t.Parallel()
	web := registration("default", "web", 5, "drover.route=web.test/")
	hidden := Registration{Service: "web", Index: 9, Hidden: true, Tags: []string{"drover.route=web.test/", "drover.route=evil.test/", "drover.allow=192.0.2.1"}}
	d := Decide(Claimants{Kind: HAProxy, Settings: &Settings{}, Several: true, Registrations: []Registration{web, hidden}, Now: time.Unix(1e9, 0)})
	if len(d.Claims) != 1 || d.Claims[0].Route != "http web.test/" {
		t.Errorf("got claims %+v, want that on web.test/ alone", d.Claims)
	}
	var refused []string
	for _, r := range d.Refused {
		refused = append(refused, r.Tag)
	}
	if slices.Sort(refused); !slices.Equal(refused, []string{"drover.allow=192.0.2.1", "drover.route=evil.test/"}) {
		t.Errorf("got refused tags %q, want the two of the hidden instance alone", refused)
	}
	// One that was registered by hand is of the service.
	hidden.Hidden = false
	if d := Decide(Claimants{Kind: HAProxy, Settings: &Settings{}, Several: true, Registrations: []Registration{web, hidden}, Now: time.Unix(1e9, 0)}); len(d.Claims) != 2 {
		t.Errorf("registered by hand: got claims %+v, want two", d.Claims)
	}
}

// Until the controller has allowed a route, several namespaces cannot claim it.
func TestPublished_Strict(t *testing.T) {
	t.Parallel()
	p, _ := Decision{Claims: []Claim{{Route: "http a.test/", Service: "web"}}, Strict: true}.Publish()
	left, problems := p.Filter(map[string][]string{"web": {"drover.route=a.test/", "drover.strip=/x", "v1"}, "evil": {"drover.route=a.test/login/", "drover.route=a.test/"}})
	if !slices.Equal(left["web"], []string{"drover.route=a.test/", "drover.strip=/x", "v1"}) || len(left["evil"]) != 0 {
		t.Errorf("got %q", left)
	}
	if len(problems) != 2 || !strings.Contains(problems[0].Message, "not allowed it yet") || !strings.Contains(problems[1].Message, "belongs to service web") {
		t.Errorf("got problems %+v", problems)
	}
	if left, problems := Published(nil).Filter(map[string][]string{"web": {"drover.route=a.test/"}}); len(problems) > 0 || len(left["web"]) != 1 {
		t.Errorf("without a decision, got %q and %+v", left, problems)
	}
}

// Very many routes are published only where they are in dispute.
func TestPublish_Partial(t *testing.T) {
	t.Parallel()
	d := Decision{Strict: true, Refused: []RefusedTag{{"evil", "drover.route=host7.test/", "it belongs to web"}}}
	for i := range 2000 {
		d.Claims = append(d.Claims, Claim{Route: "http host" + strings.Repeat("x", i%20) + ".test/", Service: "web"})
	}
	d.Claims = append(d.Claims, Claim{Route: "http host7.test/", Service: "web"})
	p, partial := d.Publish()
	if !partial || p["web"] != "http host7.test/" || p[strictItem] != "" {
		t.Errorf("got partial %v and %q", partial, p)
	}
}
