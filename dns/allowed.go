package dns

import (
	"fmt"
	"slices"
	"strings"
)

// OperatorProvider is a DNS provider that the operator configured for a process
// that works on stored records, such as the controller. Its server, command,
// environment variables and files are the operator's.
type OperatorProvider struct {
	Options
	Zones []string // that it may change, with the zones below; all when empty
}

// Allowed says which providers and zones the stored records of stacks in one
// namespace may use. Stored records are requests of a deployer: the process that
// works on them has credentials of its own, which a request must not use.
type Allowed struct {
	Providers []OperatorProvider
	// OwnServers allows a stack whose credential is its own secret to name the
	// server itself. Such a request uses only the network of this process.
	OwnServers bool
	// Zones are those that stacks may change, with the zones below; nil allows all.
	Zones []string
	// Getenv returns the credentials of Providers; nil for none.
	Getenv func(string) string
}

// RefusedError means that stored records use something that the operator did not
// configure.
type RefusedError struct {
	Owner string
	Msg   string
}

func (e *RefusedError) Error() string { return e.Msg }

// Options returns the options with which the provider of w is opened. It takes from w
// only the kind of the provider and its server, by which it finds the provider, and what
// belongs to the stack's own credential. It returns a *RefusedError if the operator did
// not configure the provider or a zone.
func (a Allowed) Options(w *Wanted) (Options, error) {
	refuse := func(format string, args ...any) (Options, error) {
		return Options{}, &RefusedError{w.Owner, fmt.Sprintf(format, args...)}
	}
	for _, z := range w.Zones {
		if a.Zones != nil && !Within(z, a.Zones) {
			return refuse("the operator does not allow zone %s here; the allowed zones are: %s", z, orNone(a.Zones))
		}
	}
	asked := w.Options
	var zones []string
	for _, p := range a.Providers {
		if !p.meant(asked) {
			continue
		}
		i := slices.IndexFunc(w.Zones, func(z string) bool { return len(p.Zones) > 0 && !Within(z, p.Zones) })
		if i >= 0 {
			zones = append(zones, w.Zones[i])
			continue
		}
		o := p.Options
		if asked.CredentialSecret != "" { // at the operator's server, with the stack's own rights
			o.CredentialSecret, o.CredentialEnv, o.CredentialFile = asked.CredentialSecret, "", ""
			o.KeyName, o.KeyAlgorithm = asked.KeyName, asked.KeyAlgorithm
		}
		o.Getenv = a.Getenv
		return o, nil
	}
	if len(zones) > 0 {
		return refuse("the operator's DNS provider %s is not for zone %s", asked.Provider, zones[0])
	}
	ownSecret := asked.CredentialSecret != "" && slices.Contains([]string{ProviderPowerDNS, ProviderRFC2136, ProviderCloudflare, ProviderDigitalOcean, ProviderHetzner, ProviderRoute53, ProviderACMEDNS}, asked.Provider)
	if a.OwnServers && ownSecret {
		return Options{
			Provider: asked.Provider, Server: asked.Server, ServerID: asked.ServerID, CA: asked.CA,
			KeyName: asked.KeyName, KeyAlgorithm: asked.KeyAlgorithm, CredentialSecret: asked.CredentialSecret,
		}, nil
	}
	what := asked.Provider
	if asked.Server != "" {
		what += " at " + asked.Server
	}
	if a.OwnServers {
		return refuse("the DNS provider %s needs something of the controller, which only the operator can give: name a secret of the stack with credential_secret, or configure the provider in the controller's tenancy file", what)
	}
	return refuse("the DNS provider %s is not among those that the operator configured for this namespace in the controller's tenancy file", what)
}

// meant reports whether a stack that asks for o means this provider: of its kind
// and, as far as o names them, with its server and command.
func (p OperatorProvider) meant(o Options) bool {
	return o.Provider == p.Provider && (o.Server == "" || o.Server == p.Server) &&
		(o.ServerID == "" || o.ServerID == p.ServerID) && (len(o.Command) == 0 || slices.Equal(o.Command, p.Command))
}

// Within reports whether a zone is one of zones, or below one of them.
func Within(zone string, zones []string) bool {
	zone = bareZone(zone)
	return slices.ContainsFunc(zones, func(z string) bool {
		z = bareZone(z)
		return zone == z || strings.HasSuffix(zone, "."+z)
	})
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
