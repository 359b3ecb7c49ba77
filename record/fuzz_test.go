package record

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/stack"
)

// A secret that is long enough to be one is in no text that was redacted,
// whatever the other secrets are.
func FuzzRedactor(f *testing.F) {
	f.Add("hunter2!", "hunter", "password is hunter2!, escaped hunter2%21")
	f.Add("-----BEGIN X-----\nabcdefgh\n-----END X-----\n", "redacted", "abcdefgh (redacted)")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		out := Redactor(NewValue(a), NewValue(b))(text)
		rest := strings.ReplaceAll(out, Redacted, "\x00")
		for _, secret := range []string{a, b} {
			if s := strings.TrimSpace(secret); len(s) >= 4 && strings.Contains(rest, s) {
				t.Errorf("%q is still in %q", s, out)
			}
		}
	})
}

// An export or a foreign file of secrets is taken or refused.
func FuzzImport(f *testing.F) {
	f.Add([]byte("layout: 1\nstack: s\nenvironment: e\nsecrets:\n  word: x\n  tls_cert: y\n"))
	f.Add([]byte(`{"layout":1,"secrets":{"word":"x"}}`))
	f.Add([]byte("a: &x\n  b: 0123\nc: *x\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		specs := []*stack.Secret{
			{Name: "word", Type: stack.SecretRandom, Length: 8, ImportPaths: []string{"a.b", "c.b"}},
			{Name: "tls", Type: stack.SecretCertificate},
		}
		found, rep, err := readImport(specs, file)
		if err != nil {
			return
		}
		for item, value := range found {
			if value == "" || secretOf(specs, item) == item && item != "word" {
				t.Errorf("took %s = %q: %+v", item, value, rep)
			}
		}
	})
}
