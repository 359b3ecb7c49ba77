package acme_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		spec acme.Spec
		want string // "" when it is fine
	}{
		{"plain", acme.Spec{Name: "a", Names: []string{"Example.COM."}}, ""},
		{"address", acme.Spec{Name: "a", Names: []string{"192.0.2.1", "2001:db8::1"}}, ""},
		{"umlaut", acme.Spec{Name: "a", Names: []string{"*.bücher.example"}}, ""},
		{"no names", acme.Spec{Name: "a"}, "it has no names"},
		{"bad name", acme.Spec{Name: "../a", Names: []string{"example.com"}}, "is no name for a certificate"},
		{"no dot", acme.Spec{Name: "a", Names: []string{"localhost"}}, "has no dot"},
		{"space", acme.Spec{Name: "a", Names: []string{"exa mple.com"}}, "is no domain"},
		{"star inside", acme.Spec{Name: "a", Names: []string{"a.*.example.com"}}, "is no domain"},
		{"part of nothing visible", acme.Spec{Name: "a", Names: []string{"\u034f.example.com"}}, "is no domain"},
		{"wildcard by http", acme.Spec{Name: "a", Names: []string{"*.example.com"}, Challenge: acme.HTTP01}, "a wildcard cannot be proven"},
		{"address by dns", acme.Spec{Name: "a", Names: []string{"192.0.2.1", "*.example.com"}}, "can be proven by http-01 only"},
		{"challenge", acme.Spec{Name: "a", Names: []string{"example.com"}, Challenge: "tls-alpn-01"}, "unknown challenge"},
		{"key", acme.Spec{Name: "a", Names: []string{"example.com"}, KeyType: "dsa"}, "unknown type of key"},
		{"many", acme.Spec{Name: "a", Names: strings.Split(strings.Repeat("a.example.com,", 101), ",")}, "101"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.spec.Normalize()
			var bad *acme.SpecError
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) && c.name != "many"):
				t.Errorf("%v", err)
			case c.want == "":
				if again, err := got.Normalize(); err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
					t.Errorf("normalizing twice: %v, %v", again, err)
				}
			}
		})
	}
	a, _ := acme.Spec{Name: "a", Names: []string{"B.example.com", "a.example.com", "b.example.com."}}.Normalize()
	b, _ := acme.Spec{Name: "b", Names: []string{"a.example.com", "b.example.com"}}.Normalize()
	if a.NameSet() != b.NameSet() || len(a.Names) != 2 {
		t.Errorf("%v and %v are the same names", a.Names, b.Names)
	}
}

func TestWindowPutsRenewalsOff(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	now := time.Now().UTC()
	chain, key, err := acme.SelfSigned([]string{"a.example.com"}, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pki.First(chain)
	from := now.Sub(now.Truncate(24*time.Hour)) + 2*time.Hour // in two hours
	o := &acme.Object{Chain: chain, Key: secrets.NewValue(key)}
	o.Spec = acme.Spec{Name: "a", Names: []string{"a.example.com"}, Window: acme.Window{From: from, For: time.Hour}, Issuers: []string{"letsencrypt"}}
	o.Status = acme.Status{Phase: acme.Ready, Serial: acme.Serial(leaf), NotAfter: leaf.NotAfter, NotBefore: leaf.NotBefore, RenewAt: now.Add(-time.Minute)}
	if err := store.Put(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	m := acme.NewManager(acme.Config{Store: store})
	r, err := m.Reconcile(t.Context(), "a")
	if err != nil || r.Issued || r.Next.Sub(now) < 110*time.Minute || r.Next.Sub(now) > 2*time.Hour+time.Second {
		t.Errorf("due, but not in the window: next look in %s, %v", r.Next.Sub(now), err)
	}
}

func TestStoreRefusesWhatIsNewer(t *testing.T) {
	t.Parallel()
	b := acme.Directory(t.TempDir())
	for layout, want := range map[string]string{"99": "update drover", "": "not written by drover"} {
		items := acme.Items{"_layout": layout, "spec": "{}", "status": "{}"}
		if _, err := b.Put(t.Context(), acme.Path("n"+layout), items, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := acme.NewStore(b).Get(t.Context(), "n"+layout); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("layout %q: %v", layout, err)
		}
	}
	if list, err := acme.NewStore(b).List(t.Context()); err == nil || len(list) != 0 {
		t.Errorf("%d listed, %v", len(list), err)
	}
}

// TestStoreGoneOrFull: nothing is asked of a CA that could not be kept.
func TestStoreGoneOrFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := acme.NewManager(acme.Config{Store: acme.NewStore(acme.Directory(file)), Requests: func(r acme.Request) { t.Errorf("asked %s", r.URL) }})
	var store *acme.StoreError
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); !errors.As(err, &store) {
		t.Errorf("%v", err)
	}
	if _, err := m.Reconcile(t.Context(), "a"); !errors.As(err, &store) {
		t.Errorf("%v", err)
	}
}

func TestKeysAreNotTold(t *testing.T) {
	t.Parallel()
	_, key, err := acme.SelfSigned([]string{"a.example.com"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := &acme.Object{Key: secrets.NewValue(key)}
	items := acme.Items{"key": key}
	account := &acme.Account{Key: secrets.NewValue(key), Issuers: map[string]acme.Issuer{"a": {EAB: &acme.EAB{KeyID: "k", MACKey: secrets.NewValue(key)}}}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "object", o, "items", items, "account", account, "bundle", o.Bundle())
	texts := []string{log.String(), fmt.Sprintf("%v %+v %#v %s", o, *o, items, items), fmt.Sprintf("%+v %#v", *account, account.Issuers["a"].EAB)}
	for _, v := range []any{o, account, items} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	line := strings.Split(key, "\n")[1]
	for _, text := range texts {
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, line) {
			t.Errorf("the error contains a private key: %.80s", text)
		}
	}
}

// Two names never share the path of a variable.
func TestPath_IsUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, name := range []string{"x.wild", "x*", "*", "*.x", "wild.x", "x.*", "x.y", "x-y", "x_y"} {
		if !acme.IsName(name) {
			continue
		}
		if other, taken := seen[acme.Path(name)]; taken {
			t.Errorf("%s and %s are both at %s", other, name, acme.Path(name))
		}
		seen[acme.Path(name)] = name
	}
	if len(seen) < 6 {
		t.Errorf("only %v are names", seen)
	}
}
