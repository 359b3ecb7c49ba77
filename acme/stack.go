package acme

import (
	"errors"

	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// FromStack is what the certificate and issuer blocks of a stack say.
func FromStack(s *stack.Stack) ([]Spec, []Issuer, error) {
	var errs []error
	specs := make([]Spec, 0, len(s.Certificates))
	for _, c := range s.Certificates {
		spec, err := Spec{
			Name: c.Name, Owner: s.Name + "/" + s.Environment, Names: c.Names, Issuers: c.Issuers, Challenge: c.Challenge, KeyType: c.KeyType, ReuseKey: c.ReuseKey,
			Profile: c.Profile, PreferredChain: c.PreferredChain, NoEdge: c.NoEdge, Window: Window{From: c.WindowFrom, For: c.WindowFor},
		}.Normalize()
		specs = append(specs, spec)
		errs = append(errs, err)
	}
	issuers := make([]Issuer, 0, len(s.Issuers))
	for _, i := range s.Issuers {
		issuer := Issuer{Name: i.Name, Directory: i.DirectoryURL, CA: i.CA, Email: i.Email, Profile: i.Profile}
		if c := i.OwnCA; c != nil {
			issuer.OwnCA = &OwnCA{CommonName: c.CommonName, Lifetime: c.Lifetime, IntermediateLifetime: c.IntermediateLifetime, RootLifetime: c.RootLifetime, CRLURL: c.CRLURL}
		}
		if v := i.Vault; v != nil {
			issuer.Vault = &Vault{Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, Role: v.Role, Lifetime: v.Lifetime,
				Auth: v.Auth, AuthMount: v.AuthMount, AuthRole: v.AuthRole, Secret: secrets.NewValue(v.Secret)}
		}
		if i.AcceptTerms != "" {
			issuer.AcceptTerms = []string{i.AcceptTerms}
		}
		if i.EABKeyID != "" {
			issuer.EAB = &EAB{KeyID: i.EABKeyID, MACKey: secrets.NewValue(i.EABMACKey)}
		}
		issuers = append(issuers, issuer)
		errs = append(errs, issuer.Validate())
	}
	return specs, issuers, errors.Join(errs...)
}
