package secrets

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/stack"
)

func TestValueNeverShows(t *testing.T) {
	t.Parallel()
	v := struct{ V Value }{NewValue("hunter22")}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v.V)
	for _, s := range []string{string(text), fmt.Sprint(v), fmt.Sprintf("%+v %#v %s %q", v, v, v.V, v.V), log.String()} {
		if strings.Contains(s, "hunter22") || !strings.Contains(s, "redacted") {
			t.Errorf("shows %s", s)
		}
	}
}

func TestRedactor(t *testing.T) {
	t.Parallel()
	hide := Redactor(NewValue("secret"), NewValue("secret-and-more"), NewValue("p&ss word"), NewValue("abc"),
		NewValue("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\nq83vEjRWeJq8\n-----END PRIVATE KEY-----\n"))
	for in, want := range map[string]string{
		"x secret-and-more y":         "x (redacted) y",
		"secret, secret":              "(redacted), (redacted)",
		"?q=p%26ss+word":              "?q=(redacted)",
		"abc stays":                   "abc stays",
		"key: q83vEjRWeJq8":           "key: (redacted)",
		"-----BEGIN PRIVATE KEY-----": "-----BEGIN PRIVATE KEY-----",
	} {
		if got := hide(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	count := map[rune]int{}
	const n = 62 * 1000
	text := randomText(n)
	for _, r := range text {
		count[r]++
	}
	if len(text) != n || len(count) != 62 {
		t.Fatalf("%d characters, %d different", len(text), len(count))
	}
	for r, c := range count { // 1000 expected, standard deviation 31.4
		if c < 800 || c > 1200 {
			t.Errorf("%c came %d times of 1000", r, c)
		}
	}
	if u := randomUUID(); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(u) {
		t.Errorf("uuid %s", u)
	}
}

func verify(t *testing.T, items map[string]string, name, host string, at time.Time) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(items[name+"_ca"]))
	block, _ := pem.Decode([]byte(items[name+"_cert"]))
	if block == nil {
		t.Fatal("no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: at}); err != nil {
		t.Error(err)
	}
}

func TestCertificateLife(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	spec := &stack.Secret{Name: "ldap", Type: stack.SecretCertificate, DNSNames: []string{"ldap.internal"}, IPAddresses: []string{"127.0.0.1"}}
	items := map[string]string{}
	step := func(what string, at time.Time, want bool) {
		t.Helper()
		before := maps.Clone(items)
		made, err := Certify(spec, items, at, false)
		if err != nil || made != want || made == maps.Equal(before, items) {
			t.Fatalf("%s: made %v, %v", what, made, err)
		}
		verify(t, items, "ldap", "ldap.internal", at)
		verify(t, items, "ldap", "127.0.0.1", at)
	}
	step("first", now, true)
	ca, key := items["ldap_ca"], items["ldap_ca_key"]
	step("the same day", now, false)
	step("before the last third", now.Add(240*day), false)
	step("in the last third", now.Add(250*day), true)
	if items["ldap_ca"] != ca || items["ldap_ca_key"] != key {
		t.Error("the CA changed with the leaf")
	}
	spec.DNSNames = append(spec.DNSNames, "new.internal")
	step("for another name", now.Add(251*day), true)
	verify(t, items, "ldap", "new.internal", now.Add(251*day))
	// The CA in its last third: jobs get the new items at different times, so a
	// task with the items of before has to trust the new leaf.
	renewal := func(what string, at time.Time) {
		t.Helper()
		before := items["ldap_ca"]
		step(what, at, true)
		late := maps.Clone(items)
		late["ldap_ca"] = before
		verify(t, late, "ldap", "ldap.internal", at)
	}
	renewal("the CA in its last third", now.Add(7*365*day))
	if items["ldap_ca_key"] != key || !strings.HasPrefix(items["ldap_ca"], ca) || items["ldap_ca"] == ca || items["ldap_ca_next_key"] == "" {
		t.Error("a new CA has to stand beside the old one, which signs")
	}
	renewal("when the new CA is known everywhere", now.Add(7*365*day+250*day))
	if items["ldap_ca_key"] == key || !strings.HasSuffix(items["ldap_ca"], ca) || items["ldap_ca_next_key"] != "" {
		t.Error("the new CA has to sign, beside the old one")
	}
	renewal("later", now.Add(8*365*day+250*day))

	// After years without a deploy the CA is replaced at once.
	step("the CA at its end", now.Add(25*365*day), true)
}

// A value of at least four characters is in no redacted text, whatever the other
// values are.
func FuzzRedactor(f *testing.F) {
	f.Add("hunter2!", "hunter", "password is hunter2!, escaped hunter2%21")
	f.Add("-----BEGIN X-----\nabcdefgh\n-----END X-----\n", "redacted", "abcdefgh (redacted)")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		out := Redactor(NewValue(a), NewValue(b))(text)
		for _, secret := range []string{a, b} {
			s := strings.TrimSpace(secret)
			left := func(part string) bool { return strings.Contains(part, s) }
			if len(s) >= 4 && slices.ContainsFunc(strings.Split(out, Redacted), left) {
				t.Errorf("%q is still in %q", s, out)
			}
		}
	})
}

// An export or a foreign file of secrets is read or refused.
func FuzzImport(f *testing.F) {
	f.Add([]byte("layout: 1\nstack: s\nenvironment: e\nsecrets:\n  word: x\n  tls_cert: y\n"))
	f.Add([]byte(`{"layout":1,"secrets":{"word":"x"}}`))
	f.Add([]byte("a: &x\n  b: 0123\nc: *x\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		specs := []*stack.Secret{
			{Name: "word", Type: stack.SecretRandom, Length: 8, ImportPaths: []string{"a.b", "c.b"}},
			{Name: "tls", Type: stack.SecretCertificate},
		}
		found, rep, err := ReadImport(specs, file)
		if err != nil {
			return
		}
		for item, value := range found {
			if value == "" || NameOf(specs, item) == item && item != "word" {
				t.Errorf("took %s = %q: %+v", item, value, rep)
			}
		}
	})
}
