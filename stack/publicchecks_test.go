package stack

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
)

func TestPublicChecks(t *testing.T) {
	t.Parallel()
	const secret = "never-recorded"
	for name, test := range map[string]struct {
		check    Check
		withheld bool
	}{
		"plain":                      {Check{URL: "https://example.org/", Headers: map[string]string{"Accept": "text/html"}, Status: []int{200}}, false},
		"password that is a secret":  {Check{URL: "https://example.org/", Username: "me", Secret: "admin"}, false},
		"password":                   {Check{URL: "https://example.org/", Username: "me", Password: secret}, true},
		"password in the URL":        {Check{URL: "https://me:" + secret + "@example.org/"}, true},
		"URL that cannot be read":    {Check{URL: "https://me:" + secret + "@exa mple:x/"}, true},
		"credential in a header":     {Check{URL: "https://example.org/", Headers: map[string]string{"X-Api-Key": secret}}, true},
		"secret variable in a body":  {Check{URL: "https://example.org/", Body: "token=" + secret}, true},
		"secret variable in the URL": {Check{URL: "https://example.org/?t=" + secret}, true},
		"withheld before":            {Check{Withheld: true}, true},
	} {
		test.check.Name = "c"
		s := &Stack{Checks: []*Check{&test.check}, SecretVariables: []string{"token"}, Values: map[string]cty.Value{"token": cty.StringVal(secret), "port": cty.NumberIntVal(1)}}
		got := s.PublicChecks()
		text, err := json.Marshal(got)
		if err != nil || strings.Contains(string(text), secret) {
			t.Errorf("%s: the record holds %s, %v", name, text, err)
		}
		if got[0].Name != "c" || got[0].Withheld != test.withheld || (got[0].URL == "") != test.withheld {
			t.Errorf("%s: got %+v, want withheld %v", name, got[0], test.withheld)
		}
	}
}
