package dns_test

import (
	"fmt"
	"testing"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// Several clusters share a name, on real servers: each has its own ledger, and they know
// of each other by the zone alone.
func TestShared(t *testing.T) {
	t.Parallel()
	t.Run("PowerDNS", func(t *testing.T) {
		t.Parallel()
		s := dnstest.PowerDNS(t, "example.org")
		sharedOnPowerDNS(t, s, powerdns(s), s.Key)
	})
	t.Run("RFC 2136 on PowerDNS", func(t *testing.T) {
		t.Parallel()
		s := dnstest.PowerDNS(t, "example.org")
		sharedOnPowerDNS(t, s, rfc2136(s), s.TSIGSecret)
	})
	t.Run("BIND", func(t *testing.T) {
		t.Parallel()
		o := dns.Options{Provider: dns.ProviderRFC2136, Server: bind(t, "example.org"), KeyName: "drover"}
		other := open(t, o, bindSecret) // another program
		set := func(name, typ string, ttl int, values ...string) {
			key := dns.Key{Name: name, Type: typ}
			var err error
			if len(values) == 0 {
				_, err = other.DeleteRecords(t.Context(), "example.org", dns.ToLibdns("example.org", key, dns.Set{TTL: ttl, Values: []string{""}}))
			} else {
				_, err = other.SetRecords(t.Context(), "example.org", dns.ToLibdns("example.org", key, dns.Set{TTL: ttl, Values: values}))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		dump := func() (out []string) {
			sets, errs := (&dns.Manager{Provider: other, Zones: []string{"example.org"}}).Read(t.Context())
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			for key, s := range sets["example.org"] {
				for _, v := range s.Values {
					if key.Type == dns.TypeTXT {
						v = fmt.Sprintf("%q", v)
					}
					out = append(out, fmt.Sprintf("%s. %d %s %s", key.Name, s.TTL, key.Type, v))
				}
			}
			return out
		}
		sharedBy(t, func() dns.Provider { return open(t, o, bindSecret) }, set, dump)
	})
}

func sharedOnPowerDNS(t *testing.T, s *dnstest.Server, o dns.Options, credential string) {
	t.Helper()
	set := func(name, typ string, ttl int, values ...string) {
		s.Set(t, "example.org", name, typ, ttl, values...)
	}
	sharedBy(t, func() dns.Provider { return open(t, o, credential) }, set, func() []string { return s.Dump(t, "example.org") })
}
