package importer

import (
	"fmt"
	"slices"
)

// AddSecret returns the name of the secret with this value, which it adds if there is
// none. The value "" is unknown: each call adds a secret then.
func (m *Model) AddSecret(hint, value, description string) string {
	if at := slices.IndexFunc(m.Secrets, func(s Secret) bool { return s.Value == value }); value != "" && at >= 0 {
		return m.Secrets[at].Name
	}
	name := Identifier(hint)
	for i := 2; slices.ContainsFunc(m.Secrets, func(s Secret) bool { return s.Name == name }); i++ {
		name = fmt.Sprintf("%s_%d", Identifier(hint), i)
	}
	m.Secrets = append(m.Secrets, Secret{Name: name, Description: description, Value: value, Unknown: value == ""})
	return name
}

// unknownSecret reports whether there is a secret of this name without a value.
func (m *Model) unknownSecret(name string) bool {
	return slices.ContainsFunc(m.Secrets, func(s Secret) bool { return s.Name == name && s.Unknown })
}

// SharedSecret is AddSecret for formats in which one name without a value is one
// secret wherever it stands.
func (m *Model) SharedSecret(hint, value, description string) string {
	if name := Identifier(hint); value == "" && m.unknownSecret(name) {
		return name
	}
	return m.AddSecret(hint, value, description)
}
