package acme_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acme"
)

func TestManager_OwnersOfNames(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	m := acme.NewManager(acme.Config{Store: store})
	defer m.Close()
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
