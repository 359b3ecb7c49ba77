// Package security holds attacks of one tenant on another, and on the operator, on
// a cluster with ACLs, mutual TLS and two namespaces.
package security

import (
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// evil is the namespace of the tenant that attacks.
const evil = "evil"

// site is a secured cluster: the operator and a victim are in the namespace
// "default", the attacker in evil.
type site struct {
	*devcluster.Cluster
	nomad  *api.Client  // of the operator
	consul *capi.Client // of the operator
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Cluster: devtest.Cluster(t, devcluster.Options{Secure: true})}
	var err error
	if s.nomad, err = api.NewClient(s.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	if s.consul, err = capi.NewClient(s.ConsulConfig()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.nomad.Namespaces().Register(&api.Namespace{Name: evil}, nil); err != nil {
		t.Fatal(err)
	}
	keys, err := acl.Keys(t.Context(), s.nomad)
	if err != nil {
		t.Fatal(err)
	}
	scope, w := acl.Scope{Namespace: evil}, acl.Workload{Keys: keys, Namespaces: []string{evil}}
	if _, err := acl.Bootstrap(t.Context(), s.nomad, scope, w); err != nil {
		t.Fatal(err)
	}
	if _, err := acl.BootstrapConsul(t.Context(), s.consul, scope, w); err != nil {
		t.Fatal(err)
	}
	return s
}

// as is Nomad's API in the hands of one use in a namespace, limited to some stacks
// if given.
func (s *site) as(t *testing.T, use acl.Use, namespace string, stacks ...string) *api.Client {
	t.Helper()
	p := acl.Scope{Namespace: namespace, Stacks: stacks}.Nomad(use)
	if len(stacks) > 0 {
		p.Name += "-of-" + stacks[0]
		if err := acl.PutNomadPolicy(t.Context(), s.nomad, p); err != nil {
			t.Fatal(err)
		}
	}
	token, _, err := s.nomad.ACLTokens().Create(&api.ACLToken{Type: "client", Policies: []string{p.Name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config := s.NomadConfig()
	config.SecretID, config.Namespace = token.SecretID, namespace
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// until waits until ok returns true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	devtest.Until(t, 3*time.Minute, what, ok)
}

func TestTenants(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, test := range map[string]func(*testing.T, *site){
		"a deployer makes the controller and the CLI work for it": confusedDeputy,
		"a tenant becomes an address of the edge":                 becomesTheEdge,
		"a stack changes the certificate of another":              takesACertificate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}
