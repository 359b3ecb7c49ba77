package acl

import (
	"context"
	"fmt"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// Bootstrap makes the policies of all uses in one namespace of Nomad, those of
// jobs bound to the jobs. scheduleJob is the ID of a job that redeploys by the
// clock; empty for none. What is there is brought to what it should be.
// (PUT /v1/acl/policy/:name; a management token.)
func Bootstrap(ctx context.Context, c *api.Client, s Scope, scheduleJob string) ([]Policy, error) {
	var made []Policy
	for _, u := range Uses() {
		p := s.Nomad(u)
		if u == Schedule {
			if scheduleJob == "" {
				continue
			}
			p.Namespace, p.Job = s.namespace(), scheduleJob
		}
		if err := putNomadPolicy(ctx, c, p); err != nil {
			return made, err
		}
		made = append(made, p)
	}
	return made, nil
}

// BootstrapConsul makes the policies of people and pipelines, and what w says
// of workloads. (acl = "write")
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

func putNomadPolicy(ctx context.Context, c *api.Client, p Policy) error {
	policy := &api.ACLPolicy{Name: p.Name, Description: p.Description, Rules: p.Rules}
	if p.Job != "" {
		policy.JobACL = &api.JobACL{Namespace: p.Namespace, JobID: p.Job}
	}
	if _, err := c.ACLPolicies().Upsert(policy, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("writing Nomad's policy %s: %w", p.Name, err)
	}
	return nil
}
