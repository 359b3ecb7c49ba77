package dns_test

import (
	"errors"
	"testing"

	"github.com/drover-nomad/drover/dns"
)

func TestAllowed_Options(t *testing.T) {
	t.Parallel()
	operator := dns.Allowed{
		Providers: []dns.OperatorProvider{
			{Options: dns.Options{Provider: dns.ProviderPowerDNS, Server: "http://ns:8081", CredentialEnv: "PDNS_API_KEY"}, Zones: []string{"example.org"}},
			{Options: dns.Options{Provider: dns.ProviderExec, Command: []string{"/usr/local/bin/hook"}}},
		},
		Zones: []string{"example.org"},
	}
	alone := dns.Allowed{OwnServers: true}
	for _, c := range []struct {
		name    string
		allowed dns.Allowed
		asked   dns.Options
		zone    string
		want    dns.Options // Provider "" for a refusal
	}{
		{"the operator's server, with the operator's credential", operator, dns.Options{Provider: "powerdns", Server: "http://ns:8081", CredentialEnv: "NOMAD_TOKEN"}, "sub.example.org",
			dns.Options{Provider: "powerdns", Server: "http://ns:8081", CredentialEnv: "PDNS_API_KEY"}},
		{"the operator's server, not named", operator, dns.Options{Provider: "powerdns", CredentialFile: "/etc/shadow"}, "example.org",
			dns.Options{Provider: "powerdns", Server: "http://ns:8081", CredentialEnv: "PDNS_API_KEY"}},
		{"the operator's server, with the stack's own credential", operator, dns.Options{Provider: "powerdns", CredentialSecret: "key"}, "example.org",
			dns.Options{Provider: "powerdns", Server: "http://ns:8081", CredentialSecret: "key"}},
		{"another server", operator, dns.Options{Provider: "powerdns", Server: "http://attacker", CredentialSecret: "key"}, "example.org", dns.Options{}},
		{"another command", operator, dns.Options{Provider: "exec", Command: []string{"/bin/sh"}}, "example.org", dns.Options{}},
		{"the operator's command, not named", operator, dns.Options{Provider: "exec"}, "example.org", dns.Options{Provider: "exec", Command: []string{"/usr/local/bin/hook"}}},
		{"another zone", operator, dns.Options{Provider: "powerdns"}, "example.com", dns.Options{}},
		{"a zone above", operator, dns.Options{Provider: "powerdns"}, "org", dns.Options{}},
		{"a zone that ends alike", operator, dns.Options{Provider: "powerdns"}, "badexample.org", dns.Options{}},
		{"one namespace: own server and secret", alone, dns.Options{Provider: "powerdns", Server: "http://ns", CredentialSecret: "key", CredentialEnv: "NOMAD_TOKEN", CredentialFile: "/etc/shadow"}, "example.org",
			dns.Options{Provider: "powerdns", Server: "http://ns", CredentialSecret: "key"}},
		{"one namespace: a variable of the controller", alone, dns.Options{Provider: "powerdns", Server: "http://attacker", CredentialEnv: "NOMAD_TOKEN"}, "example.org", dns.Options{}},
		{"one namespace: the provider's own variable", alone, dns.Options{Provider: "cloudflare", Server: "http://attacker"}, "example.org", dns.Options{}},
		{"one namespace: a file of the controller", alone, dns.Options{Provider: "powerdns", Server: "http://attacker", CredentialFile: "/etc/shadow"}, "example.org", dns.Options{}},
		{"one namespace: a command", alone, dns.Options{Provider: "exec", Command: []string{"/bin/sh"}, CredentialSecret: "key"}, "example.org", dns.Options{}},
		{"one namespace: the identity of the machine", alone, dns.Options{Provider: "route53"}, "example.org", dns.Options{}},
		{"one namespace: a cloud, with the stack's own credential", alone, dns.Options{Provider: "route53", CredentialSecret: "key"}, "example.org",
			dns.Options{Provider: "route53", CredentialSecret: "key"}},
		{"one namespace: a webhook, which has the operator's credential", alone, dns.Options{Provider: "webhook", Server: "http://127.0.0.1:8888", CredentialSecret: "key"}, "example.org", dns.Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.allowed.Options(&dns.Wanted{Owner: "shop/prod", Options: c.asked, Zones: []string{c.zone}})
			var refused *dns.RefusedError
			if (c.want.Provider == "") != errors.As(err, &refused) {
				t.Fatalf("got error %v, want %+v", err, c.want)
			}
			if got.Provider != c.want.Provider || got.Server != c.want.Server || got.CredentialEnv != c.want.CredentialEnv || got.CredentialFile != c.want.CredentialFile ||
				got.CredentialSecret != c.want.CredentialSecret || len(got.Command) != len(c.want.Command) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
