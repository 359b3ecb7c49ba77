package tenancy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/tenancy"
)

const table = `
dns_provider "corp" {
  type           = "powerdns"
  server         = "http://ns:8081"
  credential_env = "PDNS_API_KEY"
}
namespace "shop" {
  zones         = ["shop.example.org"]
  certificates  = ["shop.example.org", "*.shop.example.org"]
  issuers       = ["letsencrypt"]
  dns_providers = ["corp"]
}
`

func parse(t *testing.T, text string) *tenancy.Table {
	t.Helper()
	got, err := tenancy.Parse([]byte(text), "tenancy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTable_DNS(t *testing.T) {
	t.Parallel()
	asks := func(zone string, o dns.Options) *dns.Wanted { return &dns.Wanted{Zones: []string{zone}, Options: o} }
	corp, own := dns.Options{Provider: "powerdns"}, dns.Options{Provider: "powerdns", Server: "http://own", CredentialSecret: "key"}
	providers := table[:strings.Index(table, "namespace")]
	for _, c := range []struct {
		name, text, namespace string
		wanted                *dns.Wanted
		allowed               bool
	}{
		{"its zone and provider", table, "shop", asks("shop.example.org", corp), true},
		{"a zone of its own zone", table, "shop", asks("a.shop.example.org", corp), true},
		{"a zone of others", table, "shop", asks("example.org", corp), false},
		{"a server of its own", table, "shop", asks("shop.example.org", own), false},
		{"a namespace that is not in the table", table, "other", asks("shop.example.org", corp), false},
		{"no namespaces: the operator's provider", providers, "any", asks("example.org", corp), true},
		{"no namespaces: a server of its own", providers, "any", asks("example.org", own), true},
		{"no table: a server of its own", "", "any", asks("example.org", own), true},
		{"no table: no credential of its own", "", "any", asks("example.org", corp), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var parsed *tenancy.Table
			if c.text != "" {
				parsed = parse(t, c.text)
			}
			if _, err := parsed.DNS(c.namespace, nil).Options(c.wanted); (err == nil) != c.allowed {
				t.Errorf("got %v, want allowed %v", err, c.allowed)
			}
		})
	}
}

func TestTable_Certificate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		namespace, name, issuer string
		allowed                 bool
	}{
		{"shop", "shop.example.org", "letsencrypt", true},
		{"shop", "*.shop.example.org", "letsencrypt", true},
		{"shop", "a.b.shop.example.org", "letsencrypt", true},
		{"shop", "example.org", "letsencrypt", false},
		{"shop", "*.example.org", "letsencrypt", false},
		{"shop", "badshop.example.org", "letsencrypt", false},
		{"shop", "shop.example.org", "own", false},
		{"other", "shop.example.org", "letsencrypt", false},
	} {
		err := parse(t, table).Certificate(c.namespace, acme.Spec{Name: "c", Names: []string{c.name}, Issuers: []string{c.issuer}})
		if (err == nil) != c.allowed {
			t.Errorf("%s asks for %s of %s: got %v, want allowed %v", c.namespace, c.name, c.issuer, err, c.allowed)
		}
	}
	var none *tenancy.Table
	if err := none.Certificate("any", acme.Spec{Names: []string{"example.org"}}); err != nil {
		t.Errorf("got %v without a table, want no error", err)
	}
	if got := parse(t, table).Namespaces(); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("got namespaces %q, want shop", got)
	}
}

func TestParse_Mistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`dns_provider "a" {}`:                                                            "Missing required argument",
		`dns_provider "a" { type = "bind" }`:                                             `t.hcl:1,20-33: There is no type "bind"`,
		`namespace "a" { dns_providers = ["b"] }`:                                        `no DNS provider "b"`,
		`namespace "a" { certificates = ["a*.org"] }`:                                    `no pattern`,
		"namespace \"a\" {}\nnamespace \"a\" {}":                                         `t.hcl:2,1-14: Namespace "a" is there twice`,
		"dns_provider \"a\" { type = \"exec\" }\ndns_provider \"a\" { type = \"exec\" }": `Two DNS providers`,
		`namespace "a" { zone = [] }`:                                                    "Unsupported argument",
	} {
		if _, err := tenancy.Parse([]byte(text), "t.hcl"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
