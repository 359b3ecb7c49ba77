package dns

import (
	"cmp"
	"fmt"

	"github.com/drover-nomad/drover/stack"
)

// FromStack is what the dns and record blocks of a stack say: the provider's
// options and the records, with the place in the file as their Source. The
// stack must have a dns block.
func FromStack(s *stack.Stack) (Options, []Record) {
	d := s.DNS
	o := Options{
		Provider: d.Provider, Server: d.Server, ServerID: d.ServerID, Command: d.Command, CAFile: d.CAFile,
		KeyName: d.KeyName, KeyAlgorithm: d.KeyAlgorithm,
		CredentialSecret: d.CredentialSecret, CredentialFile: d.CredentialFile, CredentialEnv: d.CredentialEnv,
	}
	records := make([]Record, 0, len(s.Records))
	for _, r := range s.Records {
		records = append(records, Record{
			Zone: r.Zone, Name: r.Name, Type: r.Type, TTL: cmp.Or(r.TTL, d.TTL), Values: r.Values, Proxied: r.Proxied,
			Source: fmt.Sprintf("%s:%d:%d", r.Range.Filename, r.Range.Start.Line, r.Range.Start.Column),
		})
	}
	return o, records
}

// Owner is the name under which the records of a stack in an environment are
// noted.
func Owner(stack, environment string) string { return stack + "/" + environment }
