package cli

import (
	"strings"
	"testing"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
)

// The scripts run against a Nomad and Consul with ACLs and mutual TLS.
func TestOnSecureCluster(t *testing.T) {
	t.Parallel()
	dev := startCluster(t, devcluster.Options{Secure: true})
	env, err := dev.Env("")
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, tokens(t, dev)...)
	testscript.Run(t, scripts("secure", env...))
}

// tokens are variables with a token for each use that takes one, in both
// systems.
func tokens(t *testing.T, dev *devcluster.Cluster) []string {
	t.Helper()
	nc, cc := dev.NomadConfig(), dev.ConsulConfig()
	program, err := (devcluster.Tools{}).Path(t.Context(), devcluster.Nomad)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"NOMAD_PROGRAM=" + program,
		"MANAGEMENT_NOMAD=" + nc.SecretID, "MANAGEMENT_CONSUL=" + cc.Token,
		"PLAIN_NOMAD_ADDR=" + strings.Replace(dev.NomadAddr(), "https:", "http:", 1),
	}
	nomad, err := api.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	consul, err := capi.NewClient(cc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nomad.Namespaces().Register(&api.Namespace{Name: "other"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, use := range []acl.Use{acl.Deployer, acl.CI, acl.Reader} {
		n, _, err := nomad.ACLTokens().Create(&api.ACLToken{Type: "client", Policies: []string{acl.Scope{}.Nomad(use).Name}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := consul.ACL().TokenCreate(&capi.ACLToken{Policies: []*capi.ACLTokenPolicyLink{{Name: acl.Scope{}.Consul(use).Name}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToUpper(string(use))
		env = append(env, name+"_NOMAD="+n.SecretID, name+"_CONSUL="+c.SecretID)
	}
	return env
}
