package acme_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acme"
)

func TestManager_OwnersOfNames(t *testing.T) {
	t.Parallel()
	backend := acme.Directory(t.TempDir())
	store := acme.NewStore(backend)
	m := acme.NewManager(acme.Config{Store: store})
	defer m.Close()
	if _, err := backend.Put(t.Context(), acme.Path("foreign"), acme.Items{"spec": "?"}, ""); err != nil { // keeps no owner from anything
		t.Fatal(err)
	}
	spec := func(owner, name string) acme.Spec {
		return acme.Spec{Name: "public", Owner: owner, Names: []string{name}}
	}
	apply := func(s acme.Spec) error {
		t.Helper()
		_, err := m.Apply(t.Context(), s)
		return err
	}
	has := func(owner, name string) {
		t.Helper()
		o, err := store.Get(t.Context(), "public")
		if err != nil || o.Spec.Owner != owner || o.Spec.Names[0] != name {
			t.Fatalf("got %+v, %v, want %s of %q", o.Spec, err, name, owner)
		}
	}
	if err := apply(spec("", "shop.example.org")); err != nil {
		t.Fatal(err)
	}
	if err := apply(spec("shop/prod", "shop.example.org")); err != nil {
		t.Fatal(err)
	}
	has("shop/prod", "shop.example.org") // the first stack that asks for it
	var bad *acme.SpecError
	if err := apply(spec("evil/prod", "evil.example.org")); !errors.As(err, &bad) || !strings.Contains(err.Error(), "it belongs to stack shop/prod") {
		t.Errorf("got %v, want that it belongs to shop/prod", err)
	}
	has("shop/prod", "shop.example.org")
	if err := apply(spec("blog/prod", "shop.example.org")); err != nil { // shares it
		t.Error(err)
	}
	has("shop/prod", "shop.example.org")
	if err := apply(spec("", "www.example.org")); err != nil { // by hand
		t.Error(err)
	}
	has("shop/prod", "www.example.org")
	if err := apply(spec("shop/prod", "shop.example.org")); err != nil {
		t.Error(err)
	}
	if err := store.Reown(t.Context(), "shop/prod", ""); err != nil {
		t.Fatal(err)
	}
	has("", "shop.example.org")
	if err := apply(spec("evil/prod", "evil.example.org")); err != nil {
		t.Error(err)
	}
	has("evil/prod", "evil.example.org")
	if err := store.Reown(t.Context(), "evil/prod", "shop/prod", "another"); err != nil {
		t.Fatal(err)
	}
	has("evil/prod", "evil.example.org")
}

// TestManager_PermitsDefaultIssuer: a certificate that names no issuer gets the default
// one, for which it needs the permission too.
func TestManager_PermitsDefaultIssuer(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	var asked []string
	m := acme.NewManager(acme.Config{Store: store, DefaultIssuer: "corp", Permit: func(s acme.Spec) error {
		asked = s.Issuers
		return errors.New("corp is not for this namespace")
	}})
	defer m.Close()
	// As an older drover stored it.
	if err := store.Put(t.Context(), &acme.Object{Spec: acme.Spec{Name: "public", Names: []string{"shop.example.org"}}}); err != nil {
		t.Fatal(err)
	}
	_, err := m.Reconcile(t.Context(), "public")
	var refused *acme.PermitError
	if !errors.As(err, &refused) || !slices.Equal(asked, []string{"corp"}) {
		t.Errorf("got %v, asked about issuers %q; want a PermitError about corp", err, asked)
	}
	o, err := store.Get(t.Context(), "public")
	if err != nil || o.Status.Reason != "it is not permitted" {
		t.Errorf("got %v, %v, want the reason in the status", o, err)
	}
}
