package acme_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// TestDNS01_BehindCachingResolver: the resolver of this host keeps for an hour that
// a name does not exist, as the zone says.
func TestDNS01_BehindCachingResolver(t *testing.T) {
	t.Parallel()
	const zone = "example.com"
	server := dnstest.PowerDNS(t, zone)
	host, port, err := net.SplitHostPort(server.DNS)
	if err != nil {
		t.Fatal(err)
	}
	server.Set(t, zone, "ns1.example.com", "A", 60, host)
	w := newWorld(t, acmetest.Options{Resolver: server.DNS})
	cache := dnstest.Resolver(t, server.DNS, zone)
	provider, err := dns.Open(dns.Options{Provider: dns.ProviderPowerDNS, Server: server.API}.WithCredential(server.Key))
	if err != nil {
		t.Fatal(err)
	}
	solver := &acme.DNS{
		Zones: []acme.Zone{{Name: zone, Provider: provider}}, Timeout: 15 * time.Second,
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, cache)
		}},
	}
	solver.SetPort(port)
	m := w.manager(t, func(c *acme.Config) { c.Solvers[acme.DNS01] = solver })
	w.issue(t, m, acme.Spec{Name: "wild", Names: []string{"example.com", "*.example.com"}})
	for _, r := range server.Dump(t, zone) {
		if strings.HasPrefix(r, "_acme-challenge") {
			t.Errorf("left in the zone: %s", r)
		}
	}
	// A resolver that is named has to return the record, after the authorities do.
	solver.Resolvers = []string{cache}
	w.issue(t, m, acme.Spec{Name: "named", Names: []string{"*.sub.example.com"}})
}
