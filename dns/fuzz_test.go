package dns

import "testing"

// A value in its normal form stays as it is, and a text is what was quoted.
func FuzzValue(f *testing.F) {
	for _, s := range [][2]string{
		{"A", "192.0.2.1"}, {"AAAA", "2001:DB8::1"}, {"CNAME", "Example.ORG."}, {"TXT", `"a" "b\"c\010"`},
		{"TXT", "plain text"}, {"CAA", `0 issue "letsencrypt.org"`}, {"MX", "10 mail.example.org"}, {"SRV", "1 2 3 a.example.org."},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, typ, value string) {
		if v, err := normalizeValue(typ, value); err == nil {
			again, err := normalizeValue(typ, v)
			if err != nil || again != v {
				t.Errorf("%s %q: %q, then %q (%v)", typ, value, v, again, err)
			}
		}
		if text, err := unquoteTXT(quoteTXT(value)); err != nil || text != value {
			t.Errorf("%q quoted is %s, unquoted %q (%v)", value, quoteTXT(value), text, err)
		}
		if n, err := normalizeName(value); err == nil {
			again, err := normalizeName(n)
			if err != nil || again != n {
				t.Errorf("name %q: %q, then %q (%v)", value, n, again, err)
			}
		}
	})
}
