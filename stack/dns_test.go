package stack

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"
)

func loadConfig(t *testing.T, text string) (*Stack, error) {
	t.Helper()
	return Load(context.Background(), Options{Path: "shop", FS: fstest.MapFS{
		"stack.hcl":     {Data: []byte(text)},
		"variables.hcl": {Data: []byte(`variable "zone" { default = "example.org" }`)},
	}})
}

func TestDNS(t *testing.T) {
	s, err := loadConfig(t, `
stack "shop" {}
dns {
  provider = "powerdns"
  server   = "http://127.0.0.1:8081"
  zones    = [var.zone]
  policy   = "sync"
  ttl      = 60
}
record "www" {
  type   = "A"
  values = ["192.0.2.1"]
}
record "www" {
  type   = "AAAA"
  zone   = var.zone
  values = ["2001:db8::1"]
  ttl    = 5
}
`)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.DNS[0]; len(s.DNS) != 1 || d.Name != "" || d.Provider != "powerdns" || d.Zones[0] != "example.org" || d.Policy != "sync" || d.TTL != 60 || d.Range.Start.Line != 3 {
		t.Errorf("dns: %+v", s.DNS)
	}
	if len(s.Records) != 2 || s.Records[1].Type != "AAAA" || s.Records[1].Zone != "example.org" || s.Records[1].TTL != 5 || s.Records[1].Range.Start.Line != 14 {
		t.Errorf("records: %+v", s.Records)
	}
	for _, tc := range []struct{ text, want string }{
		{`dns { provider = "bind" }`, `Unknown DNS provider "bind"`},
		{"dns {\n provider = \"exec\"\n zones = [\"x.org\"]\n policy = \"all\"\n}", `Unknown DNS policy "all"`},
		{`dns { provider = "exec" }`, "without zones"},
		{"dns {\n provider = \"\"\n}\ndns {\n provider = \"\"\n}", "Duplicate dns"},
		{"dns {\n provider = \"exec\"\n zones = [\"x.org\"]\n cluster = \"Frankfurt\"\n}", "stack.hcl:4,12-23: Invalid name \"Frankfurt\" of a cluster"},
		{"dns {\n provider = \"acme-dns\"\n zones = [\"x.org\"]\n cluster = \"fra\"\n}", "no records to share"},
		{"dns {\n provider = \"\"\n api_key = \"x\"\n}", "api_key"},
		{`record "www" { type = "A" }`, "values"},
		{"dns \"a\" {\n provider = \"\"\n}\ndns \"a\" {\n provider = \"\"\n}", "stack.hcl:4,1-8: Duplicate dns; dns a is already defined"},
		{"dns \"a\" \"b\" {\n provider = \"\"\n}", "Extraneous label for dns"},
		{"dns \"In House\" {\n provider = \"\"\n}", "stack.hcl:1,5-15: Invalid name \"In House\" of a dns block"},
		{"dns \"a\" {\n provider = \"exec\"\n zones = [\"x.org\"]\n}\ndns \"b\" {\n provider = \"exec\"\n zones = [\"y.org\", \"X.org.\"]\n}", "stack.hcl:5,1-8: Two dns blocks for the zone X.org. at the same provider"},
		{"dns {\n provider = \"exec\"\n zones = [\"x.org\"]\n}\ndns \"b\" {\n provider = \"cloudflare\"\n zones = [\"x.org\"]\n}", "stack.hcl:5,1-8: Two dns blocks would answer DNS-01 in the zone x.org"},
		{"dns \"a\" {\n provider = \"exec\"\n zones = [\"x.org\"]\n}\nrecord \"www\" {\n type = \"A\"\n values = [\"192.0.2.1\"]\n dns = [\"b\"]\n}", "stack.hcl:5,1-13: Record \"www\" is for the unknown dns block \"b\""},
		{"dns {\n provider = \"powerdns\"\n zones = [\"x.org\"]\n}\nrecord \"www\" {\n type = \"A\"\n values = [\"192.0.2.1\"]\n proxied = true\n}", "powerdns cannot proxy"},
	} {
		if _, err := loadConfig(t, tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.text, err, tc.want)
		}
	}
}

func TestDNS_Several(t *testing.T) {
	for name, text := range map[string]string{
		"written": `
dns "internal" {
  provider   = "powerdns"
  zones      = [var.zone]
  challenges = false
}
dns "external" {
  provider = "cloudflare"
  zones    = [var.zone]
}
dns {
  provider = ""
}`,
		"of a table": `
dynamic "dns" {
  for_each = { internal = "powerdns", external = "cloudflare" }
  iterator = it
  labels   = [it.key]
  content {
    provider   = it.value
    zones      = [var.zone]
    challenges = it.key == "external"
  }
}
dynamic "dns" {
  for_each = [""]
  iterator = it
  content {
    provider = it.value
  }
}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadConfig(t, text+`
record "www" {
  type   = "A"
  values = ["192.0.2.1"]
  dns    = ["internal"]
}`)
			if err != nil {
				t.Fatal(err)
			}
			byName := map[string]*DNS{}
			for _, d := range s.DNS {
				byName[d.Name] = d
			}
			if len(s.DNS) != 3 || byName[""] == nil || byName[""].Provider != "" || byName["internal"].Provider != "powerdns" || !byName["internal"].NoChallenges ||
				byName["external"].Provider != "cloudflare" || byName["external"].NoChallenges {
				t.Errorf("got %+v, want the blocks internal, external and one without a name", s.DNS)
			}
			if got := s.DNSProviders(); len(got) != 2 {
				t.Errorf("got %d providers, want 2", len(got))
			}
			if got := s.Records[0].DNS; len(got) != 1 || got[0] != "internal" {
				t.Errorf("got the record for %q, want internal", got)
			}
		})
	}
}
