package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

const sharedRule = "shared-between-environments"

// Environment is a stack as one of its environments renders it.
type Environment struct {
	Name    string
	Targets []*stack.Target
	Jobs    []render.Job
}

// Environments finds jobs, Consul services and routes of one environment that
// another environment of the stack claims in the same cluster and region. Only
// clusters that both name by their address are compared: where the others are is
// not known offline, and a deploy finds out.
func Environments(env Environment, others []Environment, disable []string) []Finding {
	l := &list{}
	i := slices.IndexFunc(Rules(), func(r Rule) bool { return r.Name == sharedRule })
	if slices.Contains(disable, sharedRule) {
		return l.sorted()
	}
	rule := Rules()[i]
	for _, other := range others {
		theirs := map[string]string{} // what is claimed → by which job
		for _, j := range other.Jobs {
			for _, c := range claimsOf(j, other.Targets) {
				theirs[c.key] = *j.Job.ID
			}
		}
		for _, j := range env.Jobs {
			s := newSubject(j)
			for _, c := range claimsOf(j, env.Targets) {
				if id, taken := theirs[c.key]; taken {
					l.add(rule, j.Service, s.at(), fmt.Sprintf("%s is also that of job %s in environment %s, in the same cluster", c.what, id, other.Name),
						`Make it depend on ${drover.environment}, or give the environments different clusters.`)
				}
			}
		}
	}
	return l.sorted()
}

// claimOf is what a job claims in a cluster with an address.
type claimOf struct{ key, what string }

func claimsOf(j render.Job, targets []*stack.Target) []claimOf {
	i := slices.IndexFunc(targets, func(t *stack.Target) bool { return t.Name == j.Target })
	if i < 0 || targets[i].Cluster == nil {
		return nil
	}
	t := targets[i]
	at := strings.TrimSuffix(t.Cluster.Address, "/") + "\x00" + cmp.Or(name(j.Job.Region), t.Region) + "\x00"
	namespace := cmp.Or(name(j.Job.Namespace), t.Namespace, api.DefaultNamespace)
	out := []claimOf{{at + "job\x00" + namespace + "\x00" + *j.Job.ID, "Job ID " + *j.Job.ID}}
	for _, c := range consul.Claims(j.Job) {
		what := "Consul service " + c.Name
		if c.Kind == consul.ClaimRoute {
			what = "Route " + c.Name
		}
		out = append(out, claimOf{at + c.Kind + "\x00" + c.Name, what})
	}
	return out
}
