package acl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Nomad before 2.0.4 does not plan for the workload identity of a task
// (https://github.com/hashicorp/nomad/pull/28139). A drover that runs as a task therefore
// exchanges a second identity, made only for this, for a token with the policies of its
// job.
const (
	// LoginMethod is the name of the auth method in Nomad.
	LoginMethod = "drover"
	// LoginIdentity is the name of the identity block, and LoginAudience who it
	// is for.
	LoginIdentity = "drover"
	LoginAudience = "drover"
	// loginTTL is how long such a token lives: longer than a release takes.
	loginTTL = 8 * time.Hour
)

// applyLogin creates or updates the auth method of w.
func (w Workload) applyLogin(ctx context.Context, c *api.Client) error {
	config := &api.ACLAuthMethodConfig{
		BoundAudiences: []string{LoginAudience}, SigningAlgs: []string{"RS256"},
		ClaimMappings: map[string]string{"nomad_job_id": "job", "nomad_namespace": "namespace"},
	}
	if w.JWKSURL != "" {
		config.JWKSURL, config.JWKSCACert = w.JWKSURL, w.JWKSCA
	} else {
		config.JWTValidationPubKeys = w.Keys
	}
	// #nosec G101 -- the format of a name
	method := &api.ACLAuthMethod{
		Name: LoginMethod, Type: api.ACLAuthMethodTypeJWT, TokenLocality: api.ACLAuthMethodTokenLocalityLocal,
		MaxTokenTTL: loginTTL, TokenNameFormat: "${auth_method_name}-${value.job}", Config: config,
	}
	q := (&api.WriteOptions{}).WithContext(ctx)
	_, _, err := c.ACLAuthMethods().Get(LoginMethod, (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case nomad.IsNotFound(err):
		_, _, err = c.ACLAuthMethods().Create(method, q)
	case err == nil:
		_, _, err = c.ACLAuthMethods().Update(method, q)
	}
	if err != nil {
		return fmt.Errorf("writing Nomad's auth method %s: %w", LoginMethod, err)
	}
	return nil
}

// ErrNoLogin means that Nomad has no auth method for drover.
var ErrNoLogin = errors.New("Nomad has no ACL auth method " + LoginMethod + ", with which a drover in the cluster logs in; `drover acl bootstrap` makes it")

// BindLogin gives logins with the identity of p's job the policy p. It returns ErrNoLogin
// if the auth method does not exist.
func BindLogin(ctx context.Context, c *api.Client, p Policy) error {
	if _, _, err := c.ACLAuthMethods().Get(LoginMethod, (&api.QueryOptions{}).WithContext(ctx)); nomad.IsNotFound(err) {
		return ErrNoLogin
	}
	want := &api.ACLBindingRule{
		Description: p.Description, AuthMethod: LoginMethod, BindType: api.ACLBindingRuleBindTypePolicy, BindName: p.Name,
		Selector: fmt.Sprintf("value.job == %q and value.namespace == %q", p.Job, p.Namespace),
	}
	old, err := bindings(ctx, c, p.Name)
	if err != nil {
		return err
	}
	q := (&api.WriteOptions{}).WithContext(ctx)
	if len(old) > 0 {
		want.ID = old[0]
		_, _, err = c.ACLBindingRules().Update(want, q)
	} else {
		_, _, err = c.ACLBindingRules().Create(want, q)
	}
	if err != nil {
		return fmt.Errorf("writing Nomad's binding rule for %s: %w", p.Name, err)
	}
	return nil
}

// RemoveNomadPolicy deletes a policy and the rules that bind it to logins.
func RemoveNomadPolicy(ctx context.Context, c *api.Client, name string) error {
	old, err := bindings(ctx, c, name)
	if err != nil {
		return err
	}
	q := (&api.WriteOptions{}).WithContext(ctx)
	for _, id := range old {
		if _, err := c.ACLBindingRules().Delete(id, q); err != nil && !nomad.IsNotFound(err) {
			return fmt.Errorf("removing Nomad's binding rule for %s: %w", name, err)
		}
	}
	if _, err := c.ACLPolicies().Delete(name, q); err != nil && !nomad.IsNotFound(err) {
		return fmt.Errorf("removing Nomad's policy %s: %w", name, err)
	}
	return nil
}

// bindings returns the IDs of the rules that bind a policy. Rules have no names.
func bindings(ctx context.Context, c *api.Client, policy string) ([]string, error) {
	all, _, err := c.ACLBindingRules().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading Nomad's binding rules: %w", err)
	}
	var out []string
	for _, stub := range all {
		if stub.AuthMethod != LoginMethod {
			continue
		}
		rule, _, err := c.ACLBindingRules().Get(stub.ID, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("reading Nomad's binding rule %s: %w", stub.ID, err)
		}
		if rule.BindType == api.ACLBindingRuleBindTypePolicy && rule.BindName == policy {
			out = append(out, rule.ID)
		}
	}
	return out, nil
}
