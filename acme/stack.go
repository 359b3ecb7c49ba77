package acme

import (
	"errors"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// FromStack returns what the certificate and issuer blocks of a stack say. The error is
// hcl.Diagnostics: each mistake has the place of its block.
func FromStack(s *stack.Stack) ([]Spec, []Issuer, error) {
	var diags hcl.Diagnostics
	mistake := func(at hcl.Range, err error) {
		if err == nil {
			return
		}
		text := err.Error()
		var issuer *IssuerError
		if errors.As(err, &issuer) {
			text = "issuer " + issuer.Issuer + ": " + issuer.Err.Error()
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: text, Subject: &at})
	}
	specs := make([]Spec, 0, len(s.Certificates))
	for _, c := range s.Certificates {
		spec, err := Spec{
			Name: c.Name, Owner: s.Name + "/" + s.Environment, Names: c.Names, Issuers: c.Issuers, Challenge: c.Challenge, KeyType: c.KeyType, ReuseKey: c.ReuseKey,
			Profile: c.Profile, PreferredChain: c.PreferredChain, NoEdge: c.NoEdge, Window: Window{From: c.WindowFrom, For: c.WindowFor},
		}.Normalize()
		specs = append(specs, spec)
		mistake(c.Range, err)
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
		mistake(i.Range, issuer.Validate())
	}
	if diags.HasErrors() {
		return specs, issuers, diags
	}
	return specs, issuers, nil
}
