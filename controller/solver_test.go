package controller

import (
	"slices"
	"testing"

	"github.com/drover-nomad/drover/dns"
)

func TestForOwner(t *testing.T) {
	t.Parallel()
	list := []*dns.Wanted{
		{Owner: "evil/prod", Zones: []string{"login.example.org", "Example.org.", "example.com", "badexample.org"}},
		{Owner: "shop/prod", Zones: []string{"example.org"}},
	}
	zones := func(owner string) (out []string) {
		for _, w := range forOwner(list, owner) {
			out = append(out, w.Owner)
			out = append(out, w.Zones...)
		}
		return out
	}
	for owner, want := range map[string][]string{
		"shop/prod": {"shop/prod", "example.org", "evil/prod", "example.com", "badexample.org"},
		"":          {"evil/prod", "login.example.org", "Example.org.", "example.com", "badexample.org", "shop/prod", "example.org"},
		"other/dev": {"evil/prod", "login.example.org", "Example.org.", "example.com", "badexample.org", "shop/prod", "example.org"},
	} {
		if got := zones(owner); !slices.Equal(got, want) {
			t.Errorf("certificate of %q: got %q, want %q", owner, got, want)
		}
	}
	list = append(list, &dns.Wanted{Owner: "shop/prod/inside", Zones: []string{"example.com"}})
	want := []string{"shop/prod", "example.org", "shop/prod/inside", "example.com", "evil/prod", "badexample.org"}
	if got := zones("shop/prod"); !slices.Equal(got, want) {
		t.Errorf("with a second dns block: got %q, want %q", got, want)
	}
	if len(list[0].Zones) != 4 {
		t.Error("forOwner changed its argument")
	}
}
