package acl

import (
	"context"
	"fmt"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// Bootstrap creates or updates the policies of all uses in one namespace of
// Nomad, and the auth method by which a drover in the cluster logs in with its
// workload identity. Policies of jobs are bound to these jobs. The policies of
// schedules are created with the schedules. Bootstrap needs a management token
// (PUT /v1/acl/policy/:name, /v1/acl/auth-method/:name).
func Bootstrap(ctx context.Context, c *api.Client, s Scope, w Workload) ([]Policy, error) {
	var made []Policy
	for _, u := range Uses() {
		if u == Schedule {
			continue
		}
		p := s.Nomad(u)
		err := PutNomadPolicy(ctx, c, p)
		if u == CI && unknownCapability(err) {
			s.PlanBySubmit = true
			p = s.Nomad(u)
			err = PutNomadPolicy(ctx, c, p)
		}
		if err != nil {
			return made, err
		}
		made = append(made, p)
	}
	for _, id := range s.Edges {
		p := s.OfEdge(id)
		if err := PutNomadPolicy(ctx, c, p); err != nil {
			return made, err
		}
		made = append(made, p)
	}
	return made, w.applyLogin(ctx, c)
}

// unknownCapability recognises the answer of a Nomad that is older than a
// capability.
func unknownCapability(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Invalid namespace capability")
}

// BootstrapConsul creates or updates the Consul policies of people and pipelines, and
// the auth method, policies and roles of w. It needs acl = "write".
func BootstrapConsul(ctx context.Context, c *capi.Client, s Scope, w Workload) ([]Policy, error) {
	var made []Policy
	for _, u := range []Use{Deployer, CI, Reader} {
		p := s.Consul(u)
		if _, err := PutConsulPolicy(ctx, c, p); err != nil {
			return made, err
		}
		made = append(made, p)
	}
	return made, w.Apply(ctx, c)
}

// PutNomadPolicy creates or updates a Nomad policy.
func PutNomadPolicy(ctx context.Context, c *api.Client, p Policy) error {
	policy := &api.ACLPolicy{Name: p.Name, Description: p.Description, Rules: p.Rules}
	if p.Job != "" {
		policy.JobACL = &api.JobACL{Namespace: p.Namespace, JobID: p.Job}
	}
	if _, err := c.ACLPolicies().Upsert(policy, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("writing Nomad's policy %s: %w", p.Name, err)
	}
	return nil
}
