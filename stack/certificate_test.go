package stack

import "testing"

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
