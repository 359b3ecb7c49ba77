package stack

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Scrub removes the secrets from a frozen stack that an older drover wrote with
// secrets in clear: keys of external account bindings, credentials of checks and
// gates, and the values of the variables that they were passed with. It reports
// whether there were any.
func Scrub(text []byte) ([]byte, bool, error) {
	s, err := Thaw(text)
	if err != nil {
		return nil, false, err
	}
	found := map[string]bool{}
	for _, is := range s.Issuers {
		found[is.EABMACKey] = true
	}
	checks := slices.Clone(s.Checks)
	for _, w := range s.Waves {
		if w.Gate.HTTP != nil {
			checks = append(checks, w.Gate.HTTP)
		}
	}
	for _, c := range checks {
		for _, secret := range c.credentials() {
			found[secret] = true
		}
	}
	delete(found, "")
	for name, v := range s.Values {
		if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && found[v.AsString()] {
			s.SecretVariables = append(s.SecretVariables, name[strings.LastIndex(name, ".")+1:])
		}
	}
	if len(found) == 0 && len(s.PublicValues()) == len(s.Values) {
		return text, false, nil
	}
	for _, w := range s.Waves {
		if w.Gate.HTTP != nil {
			w.Gate.HTTP.scrub()
		}
	}
	slices.Sort(s.SecretVariables)
	s.SecretVariables = slices.Compact(s.SecretVariables)
	out, err := Freeze(s)
	return out, err == nil, err
}

// ScrubWave removes the credentials from the probe of a wave's gate, in JSON as
// a release records it, and reports whether there were any.
func ScrubWave(text []byte) ([]byte, bool, error) {
	w := &Wave{}
	if err := json.Unmarshal(text, w); err != nil {
		return nil, false, fmt.Errorf("reading a wave: %w", err)
	}
	if w.Gate.HTTP == nil || len(w.Gate.HTTP.credentials()) == 0 {
		return text, false, nil
	}
	w.Gate.HTTP.scrub()
	out, err := json.Marshal(w)
	return out, err == nil, err
}

// credentials are the secrets that a check holds in clear.
func (c *Check) credentials() []string {
	var out []string
	if c.Password != "" {
		out = append(out, c.Password)
	}
	for name, value := range c.Headers {
		if secretHeader(name) && value != "" {
			out = append(out, value)
		}
	}
	if u, err := url.Parse(c.URL); err == nil && u.User != nil {
		if password, set := u.User.Password(); set {
			out = append(out, password)
		}
	}
	return out
}

// scrub removes what credentials returns.
func (c *Check) scrub() {
	c.Password = ""
	for name := range c.Headers {
		if secretHeader(name) {
			delete(c.Headers, name)
		}
	}
	if u, err := url.Parse(c.URL); err == nil && u.User != nil {
		u.User = nil
		c.URL = u.String()
	}
}
