package stack

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// frozen is the part of a stack that Freeze keeps.
type frozen struct {
	Stack  *Stack
	Values map[string]json.RawMessage // each with its type
}

// Freeze returns the stack without its files and layers, as JSON: the part that is needed
// after its jobs are rendered. It leaves out secrets that a stack may hold in clear (the
// keys of external account bindings and the credentials of checks) and the values of the
// variables that carry them: they are not needed with rendered jobs. A key that a CA asks
// for is read from the store of the certificates.
func Freeze(s *Stack) ([]byte, error) {
	c := *s
	c.FS, c.Dir, c.Plain = nil, "", nil
	c.Variables, c.Base, c.Overlay = nil, nil, nil
	c.Values, c.Checks = nil, s.PublicChecks()
	c.Services = make([]*Service, len(s.Services))
	for i, svc := range s.Services {
		copied := *svc
		copied.Layer, copied.Values = nil, nil
		c.Services[i] = &copied
	}
	c.Issuers = make([]*Issuer, len(s.Issuers))
	for i, is := range s.Issuers {
		copied := *is
		copied.EABMACKey = ""
		if is.Vault != nil {
			v := *is.Vault
			v.Secret = ""
			copied.Vault = &v
		}
		c.Issuers[i] = &copied
	}
	f := frozen{Stack: &c, Values: map[string]json.RawMessage{}}
	for name, v := range s.PublicValues() {
		text, err := ctyjson.Marshal(v, cty.DynamicPseudoType)
		if err != nil {
			return nil, fmt.Errorf("writing the value of %s: %w", name, err)
		}
		f.Values[name] = text
	}
	return json.Marshal(f)
}

// Thaw reads what Freeze wrote.
func Thaw(text []byte) (*Stack, error) {
	var f frozen
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("reading a stack: %w", err)
	}
	if f.Stack == nil {
		return nil, fmt.Errorf("reading a stack: there is none")
	}
	if s := f.Stack; holes(s.Services) || holes(s.Secrets) || holes(s.Volumes) || holes(s.Checks) || holes(s.Records) || holes(s.Certificates) ||
		holes(s.Issuers) || holes(s.Clusters) || holes(s.Targets) || holes(s.Waves) || holes(s.Schedules) {
		return nil, fmt.Errorf("reading a stack: a part of it is null")
	}
	f.Stack.Values = map[string]cty.Value{}
	for name, raw := range f.Values {
		v, err := ctyjson.Unmarshal(raw, cty.DynamicPseudoType)
		if err != nil {
			return nil, fmt.Errorf("reading the value of %s: %w", name, err)
		}
		f.Stack.Values[name] = v
	}
	return f.Stack, nil
}

// holes reports whether list has a nil element.
func holes[T any](list []*T) bool { return slices.Contains(list, nil) }
