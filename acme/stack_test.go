package acme_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/stack"
)

// Every mistake in a certificate or an issuer has its place.
func TestFromStack_PlacesOfMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"an own CA": {`
issuer "house" {
  own_ca {
    lifetime              = "100h"
    intermediate_lifetime = "200h"
  }
}`, []string{"shop/stack.hcl:2,1-15: issuer house: intermediate_lifetime 200h0m0s is less than three times lifetime 100h0m0s"}},
		"Vault": {`
issuer "vault" {
  vault {
    address = "http://vault.example.org:8200"
    role    = "web"
  }
}`, []string{"shop/stack.hcl:2,1-15: issuer vault: \"http://vault.example.org:8200\" is not https"}},
		"a certificate": {`
certificate "many" {
  names = [for i in range(101) : "a${i}.example.org"]
}`, []string{"shop/stack.hcl:2,1-19: certificate many: it has 101 names; CAs take at most 100"}},
		"two at once": {`
issuer "house" {
  own_ca {
    lifetime              = "100h"
    intermediate_lifetime = "200h"
  }
}
issuer "vault" {
  vault {
    address = "http://vault.example.org:8200"
    role    = "web"
  }
}`, []string{"shop/stack.hcl:2,1-15: issuer house: ", "shop/stack.hcl:8,1-15: issuer vault: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := stack.Load(t.Context(), stack.Options{Path: "shop", FS: fstest.MapFS{"stack.hcl": {Data: []byte("stack \"shop\" {}" + c.text)}}})
			if err == nil {
				_, _, err = acme.FromStack(s)
			}
			if err == nil {
				t.Fatalf("got no error, want %q", c.want)
			}
			all := err.Error()
			if list, ok := err.(interface{ Errs() []error }); ok {
				all = ""
				for _, e := range list.Errs() {
					all += e.Error() + "\n"
				}
			}
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("got %s\nwant %q", all, want)
				}
			}
		})
	}
}
