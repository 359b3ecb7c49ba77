package consul

import (
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge/route"
)

// A Claim is a name that a job uses in Consul. Another job with the same name gets a part
// of its requests.
type Claim struct {
	Kind string // ClaimService or ClaimRoute
	Name string
}

// Kinds of claims.
const (
	ClaimService = "service" // the name of a service
	ClaimRoute   = "route"   // HOST/PATH, a port or a host, by a tag for the edge
)

// Claims returns what a job claims, each once. Names that only a node can fill in
// are left out, and so is the name that all edges have.
func Claims(job *api.Job) []Claim {
	var out []Claim
	add := func(kind, name string) {
		c := Claim{kind, name}
		if !strings.Contains(name, "${") && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	for _, s := range Of(ProviderConsul, Services(job)) {
		if s.Name != route.EdgeName || job.ID == nil || !route.IsEdge(*job.ID) {
			add(ClaimService, s.Name)
		}
	}
	for _, s := range route.Services(job) {
		if s.Provider != "" && s.Provider != ProviderConsul {
			continue
		}
		for _, tag := range s.Tags {
			if t, ok := route.Parse(tag); ok && t.From != "" {
				add(ClaimRoute, t.From)
			}
		}
	}
	return out
}
