package stack

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// PublicValues returns the values that contain no secrets, for records and saved plans.
func (s *Stack) PublicValues() map[string]cty.Value {
	out := maps.Clone(s.Values)
	maps.DeleteFunc(out, func(name string, _ cty.Value) bool {
		// SERVICE.NAME, where a service declares it anew
		return slices.Contains(s.SecretVariables, name[strings.LastIndex(name, ".")+1:])
	})
	return out
}

// keepSecret records the variables in the value of a secret.
func (s *Stack) keepSecret(e hcl.Expression) {
	for _, t := range e.Variables() {
		if name := variableName(t); name != "" && !slices.Contains(s.SecretVariables, name) {
			s.SecretVariables = append(s.SecretVariables, name)
		}
	}
}

// keepSecretHeaders records the variables of HTTP headers that are credentials. If the
// headers are not written one by one, each of them counts as a credential.
func (s *Stack) keepSecretHeaders(headers hcl.Expression, ctx *hcl.EvalContext) {
	pairs, diags := hcl.ExprMap(headers)
	if diags.HasErrors() {
		s.keepSecret(headers)
		return
	}
	for _, p := range pairs {
		name, diags := p.Key.Value(ctx)
		known := !diags.HasErrors() && name.Type() == cty.String && name.IsKnown() && !name.IsNull()
		if !known || secretHeader(name.AsString()) {
			s.keepSecret(p.Value)
		}
	}
}

// variableName returns NAME of var.NAME or var["NAME"], "" for other references.
func variableName(t hcl.Traversal) string {
	if len(t) < 2 || t.RootName() != "var" {
		return ""
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		return step.Name
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			return step.Key.AsString()
		}
	}
	return ""
}

// secretHeader reports whether an HTTP header carries a credential.
func secretHeader(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Authorization", "Proxy-Authorization", "Cookie":
		return true
	}
	return false
}

// PublicChecks returns the checks as a record may hold them. A check with a
// password, with a header that may be a credential, or with the value of a secret
// variable, keeps its name only and is Withheld.
func (s *Stack) PublicChecks() []*Check {
	var secrets []string
	for name, v := range s.Values {
		if slices.Contains(s.SecretVariables, name[strings.LastIndex(name, ".")+1:]) && v.Type() == cty.String && v.IsKnown() && !v.IsNull() && v.AsString() != "" {
			secrets = append(secrets, v.AsString())
		}
	}
	out := make([]*Check, len(s.Checks))
	for i, c := range s.Checks {
		copied := *c
		u, err := url.Parse(c.URL)
		withheld := c.Withheld || c.Password != "" || err != nil || u.User != nil
		sent := []string{c.URL, c.Body, c.Username, c.Contains}
		for name, value := range c.Headers {
			withheld = withheld || SensitiveHeader(name)
			sent = append(sent, value)
		}
		for _, text := range sent {
			withheld = withheld || slices.ContainsFunc(secrets, func(secret string) bool { return strings.Contains(text, secret) })
		}
		if withheld {
			copied = Check{Name: c.Name, Withheld: true}
		}
		out[i] = &copied
	}
	return out
}

// SensitiveHeader reports whether an HTTP header may be a credential.
func SensitiveHeader(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"auth", "cookie", "token", "key", "secret", "password"}, func(part string) bool { return strings.Contains(name, part) })
}
