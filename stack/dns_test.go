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
	if d := s.DNS; d == nil || d.Provider != "powerdns" || d.Zones[0] != "example.org" || d.Policy != "sync" || d.TTL != 60 || d.Range.Start.Line != 3 {
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
		{"dns {\n provider = \"powerdns\"\n zones = [\"x.org\"]\n}\nrecord \"www\" {\n type = \"A\"\n values = [\"192.0.2.1\"]\n proxied = true\n}", "powerdns cannot proxy"},
	} {
		if _, err := loadConfig(t, tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.text, err, tc.want)
		}
	}
}
