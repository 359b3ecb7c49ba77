package stack

import (
	"strings"
	"testing"
	"testing/fstest"
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
	load := func(issuer string) (*Stack, error) {
		files := fstest.MapFS{
			"stack.hcl":     {Data: []byte("stack \"web\" {}\n" + issuer)},
			"web.nomad.hcl": {Data: []byte("job \"web\" {\n  group \"web\" {\n    task \"web\" {\n      driver = \"exec\"\n    }\n  }\n}\n")},
		}
		return Load(t.Context(), Options{Path: "web", FS: files})
	}
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
