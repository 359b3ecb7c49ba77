package dns

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/stack"
)

// FromStack is what one dns block of a stack and the record blocks for it say: the
// provider's options and the records, with the place in the file as their Source.
func FromStack(s *stack.Stack, d *stack.DNS) (Options, []Record) {
	o := Options{
		Provider: d.Provider, Server: d.Server, ServerID: d.ServerID, Command: d.Command, CAFile: d.CAFile,
		KeyName: d.KeyName, KeyAlgorithm: d.KeyAlgorithm,
		CredentialSecret: d.CredentialSecret, CredentialFile: d.CredentialFile, CredentialEnv: d.CredentialEnv,
	}
	blocks := s.DNSProviders()
	records := make([]Record, 0, len(s.Records))
	for _, r := range s.Records {
		record := Record{
			Zone: r.Zone, Name: r.Name, Type: r.Type, TTL: cmp.Or(r.TTL, d.TTL), Values: r.Values, Proxied: r.Proxied,
			Source: fmt.Sprintf("%s:%d:%d", r.Range.Filename, r.Range.Start.Line, r.Range.Start.Column),
		}
		if recordOf(r, record, d, blocks) {
			records = append(records, record)
		}
	}
	return o, records
}

// recordOf reports whether a record is for the dns block d: it names the block, or it
// names none and is in the zones of d. One that is in the zones of no block is for the
// first, which reports the mistake.
func recordOf(r *stack.Record, record Record, d *stack.DNS, blocks []*stack.DNS) bool {
	if len(r.DNS) > 0 {
		return slices.Contains(r.DNS, d.Name)
	}
	in := func(b *stack.DNS) bool {
		_, err := normalizeRecord(record, normalizeZones(b.Zones))
		return !errors.Is(err, errOutside)
	}
	return in(d) || len(blocks) > 0 && d == blocks[0] && !slices.ContainsFunc(blocks, in)
}

// Owner returns the name that owns the records of a stack in an environment.
func Owner(stack, environment string) string { return stack + "/" + environment }

// BlockOwner returns the name that owns the records of one dns block of an owner: that of
// the owner, for the block without a name.
func BlockOwner(owner, block string) string {
	if block == "" {
		return owner
	}
	return owner + "/" + block
}

// StackOwner returns the owner of the stack whose dns block owner is, and the name of the
// block.
func StackOwner(owner string) (of, block string) {
	i := strings.IndexByte(owner, '/')
	if j := strings.IndexByte(owner[i+1:], '/'); i >= 0 && j >= 0 {
		return owner[:i+1+j], owner[i+j+2:]
	}
	return owner, ""
}

// place is where the records of a provider are, without its credential.
func (o Options) place() string {
	return strings.TrimSuffix(strings.Join([]string{o.Provider, strings.TrimSuffix(o.Server, "/"), o.ServerID, strings.Join(o.Command, " ")}, "|"), "||")
}

// samePlace reports whether two places may hold the same records. A server that is not
// named may be any.
func samePlace(a, b string) bool {
	if a == "" || b == "" {
		return true
	}
	provider, at, _ := strings.Cut(a, "|")
	other, otherAt, _ := strings.Cut(b, "|")
	return provider == other && (at == "" || otherAt == "" || at == otherAt)
}
