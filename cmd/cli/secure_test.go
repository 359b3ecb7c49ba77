package cli

import (
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// The scripts run against a Nomad and Consul with ACLs and mutual TLS. TestOnCluster runs
// the same commands under the race detector.
func TestOnSecureCluster(t *testing.T) {
	t.Parallel()
	dev := startCluster(t, devcluster.Options{Secure: true})
	env, err := dev.Env("")
	if err != nil {
		t.Fatal(err)
	}
	env = append(append(env, tokens(t, dev)...), plainPath(t))
	runOnCluster(t, scripts("secure", env...))
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
	if _, err := nomad.Namespaces().Register(&api.Namespace{Name: "other"}, nil); err != nil {
		t.Fatal(err)
	}
	for _, use := range []acl.Use{acl.Deployer, acl.CI, acl.Reader} {
		for _, token := range devtest.Tokens(t, dev, use) {
			// NOMAD_TOKEN is READER_NOMAD, and CONSUL_HTTP_TOKEN is READER_CONSUL
			name, value, _ := strings.Cut(token, "=")
			system, _, _ := strings.Cut(name, "_")
			env = append(env, strings.ToUpper(string(use))+"_"+system+"="+value)
		}
	}
	// One that sees jobs and nothing of what drover keeps.
	blind := acl.Policy{Name: "blind", Rules: "namespace \"default\" {\n  capabilities = [\"list-jobs\", \"read-job\"]\n}\n"}
	if err := acl.PutNomadPolicy(t.Context(), nomad, blind); err != nil {
		t.Fatal(err)
	}
	n, _, err := nomad.ACLTokens().Create(&api.ACLToken{Type: "client", Policies: []string{blind.Name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(env, "BLIND_NOMAD="+n.SecretID)
}
