package stack

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestCertificateNameProblem(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"www.example.org":             "",
		"localhost":                   "",
		"*.example.org":               "",
		"192.0.2.1":                   "",
		"2001:db8::1":                 "",
		"xn--bcher-kva.example":       "",
		"www.example.org:8443":        "it has a port",
		"[2001:db8::1]:443":           "it has a port",
		"192.0.2.1:443":               "it has a port",
		"https://www.example.org":     "it is a URL",
		"https://www.example.org:444": "it is a URL",
		"www.example.org/path":        "it is not a domain",
		"www..example.org":            "it is not a domain",
		"www.example.org.":            "it is not a domain",
		"":                            "it is not a domain",
		"two names":                   "it is not a domain",
		"w*.example.org":              "a wildcard stands alone in the first label",
		"www.*.org":                   "a wildcard stands alone in the first label",
		"*.org":                       "a wildcard stands alone in the first label",
	} {
		if got := certificateNameProblem(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// TestIssuer_AcceptTerms: an issuer block says which terms of service are accepted,
// also for Let's Encrypt, which needs no URL.
func TestIssuer_AcceptTerms(t *testing.T) {
	t.Parallel()
	load := func(issuer string) (*Stack, error) { return loadWith(t, issuer) }
	for text, want := range map[string]Issuer{
		`issuer "letsencrypt" { accept_terms = "https://letsencrypt.org/terms.pdf" }`:              {DirectoryURL: "https://acme-v02.api.letsencrypt.org/directory", AcceptTerms: "https://letsencrypt.org/terms.pdf"},
		"issuer \"own\" {\n  directory_url = \"https://ca.test/dir\"\n  accept_terms = \"any\"\n}": {DirectoryURL: "https://ca.test/dir", AcceptTerms: "any"},
	} {
		s, err := load(text)
		if err != nil {
			t.Fatal(err)
		}
		if i := s.Issuers[0]; i.DirectoryURL != want.DirectoryURL || i.AcceptTerms != want.AcceptTerms {
			t.Errorf("%s: got %+v", text, i)
		}
	}
	for text, want := range map[string]string{
		`issuer "own" { accept_terms = "any" }`:          "An issuer is reached by https",
		`issuer "letsencrypt" { accept_terms = "true" }`: `Invalid accept_terms "true"`,
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// loadWith loads a stack of one job with more in its stack.hcl.
func loadWith(t *testing.T, more string, vars ...string) (*Stack, error) {
	t.Helper()
	files := fstest.MapFS{
		"stack.hcl":     {Data: []byte("stack \"web\" {}\n" + more)},
		"variables.hcl": {Data: []byte("variable \"secret\" {\n  type = string\n  default = \"\"\n}\n")},
		"web.nomad.hcl": {Data: []byte("job \"web\" {\n  group \"web\" {\n    task \"web\" {\n      driver = \"exec\"\n    }\n  }\n}\n")},
	}
	return Load(t.Context(), Options{Path: "web", FS: files, Vars: vars})
}

// TestIssuer_ThatSigns: blocks of an own CA and of Vault, whose secret is in no record.
func TestIssuer_ThatSigns(t *testing.T) {
	t.Parallel()
	s, err := loadWith(t, `
issuer "own" {
  own_ca {
    common_name = "Example"
    lifetime    = "240h"
    crl_url     = "http://ca.example.org/crl"
  }
}
issuer "vault" {
  vault {
    address = "https://vault.example.org:8200"
    role    = "web"
    approle {
      role_id   = "id"
      secret_id = var.secret
    }
  }
}
issuer "jwt" {
  vault {
    address  = "https://vault.example.org:8200"
    role     = "web"
    lifetime = "72h"
    jwt { role = "drover" }
  }
}
issuer "process" {
  vault {
    address = "https://vault.example.org:8200"
    role    = "web"
  }
}
`, "secret=hidden-secret")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Issuers[0].OwnCA; *c != (OwnCA{CommonName: "Example", Lifetime: 240 * time.Hour, CRLURL: "http://ca.example.org/crl"}) {
		t.Errorf("got %+v", c)
	}
	for i, want := range []Vault{
		{Role: "web", Auth: "approle", AuthRole: "id", Secret: "hidden-secret"},
		{Role: "web", Auth: "jwt", AuthRole: "drover", Lifetime: 72 * time.Hour},
		{Role: "web", Auth: "process"},
	} {
		want.Address = "https://vault.example.org:8200"
		if v := s.Issuers[1+i].Vault; *v != want {
			t.Errorf("got %+v, want %+v", v, want)
		}
	}
	text, err := Freeze(s)
	if err != nil || strings.Contains(string(text), "hidden-secret") {
		t.Errorf("the record has the secret: %s, %v", text, err)
	}
	if s.Issuers[1].Vault.Secret != "hidden-secret" {
		t.Error("Freeze changed the stack")
	}
	for text, want := range map[string]string{
		`issuer "own" {}`:                                                         "An issuer is reached by https",
		"issuer \"letsencrypt\" {\n  own_ca {}\n}":                                "has settings of ACME",
		"issuer \"own\" {\n  email = \"a@example.org\"\n  own_ca {}\n}":           "has settings of ACME",
		"issuer \"own\" {\n  directory_url = \"https://ca.test\"\n  own_ca {}\n}": "is two CAs",
		"issuer \"own\" {\n  own_ca {\n    lifetime = \"90d\"\n  }\n}":            `Invalid lifetime "90d"`,
		"issuer \"own\" {\n  own_ca {\n    root_lifetime = \"5m\"\n  }\n}":        `Invalid root_lifetime "5m"`,
		"issuer \"v\" {\n  vault {\n    address = \"https://v\"\n    role = \"r\"\n    token = \"t\"\n    jwt { role = \"r\" }\n  }\n}": "Several ways to log in",
	} {
		if _, err := loadWith(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
