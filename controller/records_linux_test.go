package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// The controller has nothing but what a deployment left in Nomad: it keeps the
// records of the stack, and proves a wildcard in its zone. Without the
// credential it says so, once, and holds the certificate.
func TestDNS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devtest.Cluster(t, devcluster.Options{}), "dns")
	server := dnstest.PowerDNS(t, "example.org")
	w.ca = acmetest.Start(t, acmetest.Options{Resolver: server.DNS})
	w.s.Directory, w.s.CA = w.ca.Directory, w.ca.Root
	w.want(t, "*.example.org", "example.org")

	wants := dns.DesiredRecords{Client: w.nomad}
	stack := dns.Wanted{
		Owner: "shop/prod", Zones: []string{"example.org"}, Policy: dns.Sync, Repair: true, Resolvers: []string{server.DNS},
		Options: dns.Options{Provider: dns.ProviderPowerDNS, Server: server.API, CredentialSecret: "dns_key"},
		Records: []dns.Record{{Name: "www", Type: "A", Values: []string{"192.0.2.1"}}},
		Hosts:   []string{"shop.example.org"},
	}
	put := func() {
		t.Helper()
		if _, err := wants.Put(t.Context(), &stack); err != nil {
			t.Fatal(err)
		}
	}
	put()
	often := func(c *controller.Config) {
		c.Nomad, c.LookEvery = w.nomad, 300*time.Millisecond
		c.Public = w.public
	}

	said, _, stop := w.replica(t, often)
	said.untilText(t, "stack shop/prod: the DNS provider powerdns needs its credential, the secret dns_key of the stack")
	said.until(t, "held")
	o, err := w.store.Get(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, why := acme.Attention(o, time.Now()); o.Status.Attempts != 0 || !strings.Contains(why, "zone example.org of stack shop/prod: the DNS provider powerdns needs its credential") {
		t.Errorf("the certificate is held with %d attempts, because %q", o.Status.Attempts, why)
	}
	persistent := acme.Spec{Name: "p", Names: []string{"example.org"}, Challenge: acme.DNSPersist01}
	if s, err := controller.DNSSolvers(wants, dns.Allowed{}, nil, false)(t.Context(), persistent); err != nil || !slices.Equal(s.(*acme.DNS).Resolvers, stack.Resolvers) {
		t.Errorf("dns-persist-01 without the credential: %+v, %v", s, err)
	}
	stop()
	if n := strings.Count(said.String(), "warning "); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, said)
	}

	if _, err := wants.PutCredential(t.Context(), stack.Owner, server.Key); err != nil {
		t.Fatal(err)
	}
	said, address, _ := w.replica(t, often)
	zone := func(within time.Duration, want ...string) {
		t.Helper()
		var got []string
		for late := time.After(within); ; {
			got = slices.DeleteFunc(server.Dump(t, "example.org"), func(r string) bool { return strings.HasPrefix(r, "_acme-challenge.") })
			slices.Sort(got)
			if slices.Equal(got, want) {
				return
			}
			select {
			case <-late:
				t.Fatalf("the zone holds %q, want %q\n%s", got, want, said)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	const www, shop = "www.example.org. 300 A 192.0.2.1", "shop.example.org. 300 A 198.51.100.7"
	zone(30*time.Second, shop, www)
	said.until(t, "issued")
	has(t, get(t, address, "/metrics"), `drover_dns_records{owner="shop/prod",action="unchanged"}`, `drover_controller_last_reconcile_timestamp_seconds{work="dns"}`,
		`drover_issuer_ready{issuer="pebble"} 1`)

	// Another program deletes and changes records.
	server.Set(t, "example.org", "www.example.org", "A", 300)
	server.Set(t, "example.org", "shop.example.org", "A", 60, "192.0.2.66")
	zone(30*time.Second, shop, www)

	// Without repair, what another program changes is its own from then on.
	stack.Repair = false
	put()
	devtest.Until(t, 30*time.Second, "the claim has ended", func() bool {
		server.Set(t, "example.org", "shop.example.org", "A", 60, "192.0.2.77") // the controller may still repair
		return strings.Contains(said.String(), "record shop.example.org A is not as the stack wants it: another program has changed it")
	})
	const theirs = "shop.example.org. 60 A 192.0.2.77"
	zone(time.Second, theirs, www)

	// Wanted otherwise.
	stack.Records[0].Values = []string{"192.0.2.2"}
	stack.Hosts = nil
	put()
	zone(30*time.Second, theirs, "www.example.org. 300 A 192.0.2.2")

	// A dns block whose name servers the CA does not ask answers no DNS-01.
	solver := func() (*acme.DNS, error) {
		s, err := controller.DNSSolvers(wants, dns.Allowed{OwnServers: true}, nil, false)(t.Context(), acme.Spec{Names: []string{"example.org"}, Owner: stack.Owner, Challenge: acme.DNS01})
		d, _ := s.(*acme.DNS)
		return d, err
	}
	if d, err := solver(); err != nil || len(d.Zones) != 1 {
		t.Errorf("got solver %+v, %v, want one with the zone of the stack", d, err)
	}
	stack.NoChallenges = true
	put()
	if d, err := solver(); err == nil || !strings.Contains(err.Error(), "a DNS provider is needed") {
		t.Errorf("got solver %+v, %v, want an error: no block answers DNS-01", d, err)
	}

	// Wanted no more: what is there stays.
	if err := wants.Delete(t.Context(), stack.Owner); err != nil {
		t.Fatal(err)
	}
	for late := time.After(30 * time.Second); strings.Contains(get(t, address, "/metrics"), "drover_dns_records{"); {
		select {
		case <-late:
			t.Fatal("the metrics do not forget the stack")
		case <-time.After(50 * time.Millisecond):
		}
	}
	zone(time.Second, theirs, "www.example.org. 300 A 192.0.2.2")
	if strings.Contains(said.String(), server.Key) {
		t.Error("the credential is in an event")
	}
}
