package dns_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/libdns/libdns"
	libdnsrfc2136 "github.com/libdns/rfc2136"

	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/dns/dnstest"
)

// TestLibdnsProvider runs a provider of libdns through the adapter, on a real
// PowerDNS. libdns/rfc2136 stands for the others; drover itself has its own client.
func TestLibdnsProvider(t *testing.T) {
	t.Parallel()
	s := dnstest.PowerDNS(t, "example.org", "acme.example.net", "values.example", "acme2.example", "two.example", "one.example")
	// It returns the texts of TXT records with escapes, and escapes them when it
	// deletes them.
	p := &libdnsrfc2136.Provider{KeyName: s.TSIGName, KeyAlg: "hmac-sha256", Key: s.TSIGSecret, Server: s.DNS}
	whole := dns.OpenLibdns("test", p, s.TSIGSecret, true)
	values := dns.OpenLibdns("test", p, s.TSIGSecret, false)
	// PowerDNS 4.7 does not find a single value of type HTTPS that is to be deleted.
	t.Run("lifecycle", func(t *testing.T) { lifecycle(t, whole, s, dns.TypeHTTPS) })
	t.Run("libdns", func(t *testing.T) { dns.LibdnsContract(t, whole, "acme.example.net") })
	t.Run("without SetRecords", func(t *testing.T) {
		dns.LibdnsContract(t, values, "acme2.example")
		m := manager(values, "values.example")
		www := func(ttl int, values ...string) []dns.Record {
			return []dns.Record{
				{Name: "www", Zone: "values.example", Type: "A", TTL: ttl, Values: values},
				{Name: "c", Zone: "values.example", Type: "CNAME", TTL: ttl, Values: []string{"h" + strings.ReplaceAll(values[0], ".", "-") + ".example.net"}},
			}
		}
		for _, desired := range [][]dns.Record{www(60, "192.0.2.1", "192.0.2.2"), www(60, "192.0.2.2", "192.0.2.3"), www(300, "192.0.2.3")} {
			if _, res := reconcile(t, m, desired); len(res.Failed) > 0 {
				t.Fatal(res.Failed)
			}
			if plan, _ := reconcile(t, m, desired); !plan.Empty() {
				t.Errorf("the second plan: got %+v, want it empty", plan.Changes)
			}
		}
		want := []string{"c.values.example. 300 CNAME h192-0-2-3.example.net.", "www.values.example. 300 A 192.0.2.3"}
		if dump := sorted(s.Dump(t, "values.example")); !slices.Equal(dump, want) {
			t.Errorf("got %q, want %q", dump, want)
		}
	})
	t.Run("changed since the plan", func(t *testing.T) {
		m := manager(whole, "one.example")
		desired := []dns.Record{
			{Name: "a", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
			{Name: "b", Zone: "one.example", Type: "A", Values: []string{"192.0.2.1"}},
		}
		plan, err := m.Plan(t.Context(), desired)
		if err != nil {
			t.Fatal(err)
		}
		s.Set(t, "one.example", "a.one.example", "A", 60, "198.51.100.8")
		res, err := m.Apply(t.Context(), plan, nil)
		if err != nil || len(res.Done) != 1 || len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "a.one.example A has changed since the plan was made") {
			t.Errorf("done %v, failed %v, error %v", res.Done, res.Failed, err)
		}
	})
	t.Run("wrong secret", func(t *testing.T) {
		wrong := "d3Jvbmctd3Jvbmctd3Jvbmctd3JvbmctIQ=="
		p := dns.OpenLibdns("test", &libdnsrfc2136.Provider{KeyName: s.TSIGName, KeyAlg: "hmac-sha256", Key: wrong, Server: s.DNS}, wrong, true)
		plan, err := manager(p, "two.example").Plan(t.Context(), nil)
		if err != nil || len(plan.Errors) != 1 || strings.Contains(plan.Errors[0].Error(), wrong) {
			t.Errorf("got %+v and error %v", plan, err)
		}
	})
}

// talkative names its credential in every error.
type talkative struct {
	dns.Provider
	err error
}

func (p talkative) GetRecords(context.Context, string) ([]libdns.Record, error) { return nil, p.err }

func TestLibdnsProvider_Errors(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"the-key:the-secret", "single-secret"} {
		parts := strings.Split(text, ":")
		p := dns.OpenLibdns("test", talkative{err: errors.New("GET https://api.example/?key=" + parts[len(parts)-1] + "&" + text + ": no such zone")}, text, true)
		_, err := p.GetRecords(t.Context(), "example.org")
		if err == nil || strings.Contains(err.Error(), parts[len(parts)-1]) || !strings.Contains(err.Error(), "test: GET https://api.example/?key=(redacted)") {
			t.Errorf("got %v, want the error without the credential", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := dns.OpenLibdns("test", talkative{err: http.ErrHandlerTimeout}, "secret", true).GetRecords(ctx, "example.org")
	var e *dns.Error
	if !errors.As(err, &e) || e.Kind != dns.KindUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it is unavailable", err)
	}
}

// TestClouds opens the providers of libdns that drover brings. They are not run
// against their clouds.
func TestClouds(t *testing.T) {
	t.Parallel()
	for provider, env := range map[string]string{dns.ProviderDigitalOcean: "DIGITALOCEAN_ACCESS_TOKEN", dns.ProviderHetzner: "HCLOUD_TOKEN"} {
		getenv := func(name string) string { return map[string]string{env: "the-token"}[name] }
		if _, err := dns.Open(dns.Options{Provider: provider, Getenv: getenv}); err != nil {
			t.Errorf("%s: %v", provider, err)
		}
		var missing *dns.CredentialError
		if _, err := dns.Open(dns.Options{Provider: provider}); !errors.As(err, &missing) || missing.Env != env {
			t.Errorf("%s without a token: got %v", provider, err)
		}
	}
	for credential, ok := range map[string]bool{"AKIA:secret": true, "AKIA:secret:token:with:colons": true, "AKIA": false, ":secret": false} {
		_, err := dns.Open(dns.Options{Provider: dns.ProviderRoute53, CredentialSecret: "aws"}.WithCredential(credential))
		if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("route53 with %s: %v", credential, err)
		}
	}
	var missing *dns.CredentialError
	if _, err := dns.Open(dns.Options{Provider: dns.ProviderRoute53, CredentialSecret: "aws"}); !errors.As(err, &missing) || missing.Secret != "aws" {
		t.Errorf("route53 without its secret: got %v, want that it does not fall back to the environment", err)
	}
	if _, err := dns.Open(dns.Options{Provider: dns.ProviderRoute53}); err != nil {
		t.Errorf("route53 with the credentials of AWS: %v", err)
	}
}
