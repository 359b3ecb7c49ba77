package devcluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme/pki"
)

// secureFiles makes the CAs of Nomad and Consul and the certificates of the
// agents and of who talks to them, unless good ones are there.
func (l *layout) secureFiles() error {
	if err := mkdir(l.path("secure"), 0o755); err != nil {
		return err
	}
	now := time.Now()
	for _, program := range []string{Nomad, Consul} {
		ca, key, err := l.authority(program, now)
		if err != nil {
			return err
		}
		leaves := map[string]pki.Leaf{program + "-cli": {CommonName: program + "-cli"}}
		for _, a := range l.agents() {
			if a.program == program {
				if program == Consul {
					if err := mkdir(l.socketDir(a.addr), 0o755); err != nil {
						return err
					}
				}
				leaves[a.name] = pki.Leaf{CommonName: a.names()[0], DNSNames: a.names(), IPAddresses: []string{a.addr}}
			}
		}
		for name, leaf := range leaves {
			leaf.ClientAuth, leaf.Lifetime = true, pki.CALifetime
			if err := l.certificate(name, leaf, ca, key, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// authority is the CA of one program.
func (l *layout) authority(program string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certFile, keyFile := l.path("secure", program+"-ca.pem"), l.path("secure", program+"-ca-key.pem")
	cert, _ := os.ReadFile(certFile)
	keyPEM, _ := os.ReadFile(keyFile)
	if ca, signer, err := pki.ParseCA(string(cert), string(keyPEM)); err == nil && !pki.Due(ca, now) {
		if key, ok := signer.(*ecdsa.PrivateKey); ok {
			return ca, key, nil
		}
	}
	ca, key, err := pki.NewCA("drover dev "+program, now)
	if err != nil {
		return nil, nil, err
	}
	text, err := pki.EncodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return ca, key, errors.Join(
		writeFile(keyFile, []byte(text), 0o600),
		writeFile(certFile, []byte(pki.EncodeCertificate(ca.Raw)), 0o644))
}

func (l *layout) certificate(name string, leaf pki.Leaf, ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time) error {
	certFile, keyFile := l.path("secure", name+".pem"), l.path("secure", name+"-key.pem")
	cert, _ := os.ReadFile(certFile)
	keyPEM, _ := os.ReadFile(keyFile)
	old := pki.First(string(cert))
	key, err := pki.ParseKey(string(keyPEM))
	if err == nil && old != nil && pki.Fits(old, key) && old.CheckSignatureFrom(ca) == nil && !pki.Due(old, now) {
		return nil
	}
	certPEM, newKey, err := pki.Sign(leaf, ca, caKey, now)
	if err != nil {
		return err
	}
	return errors.Join(writeFile(keyFile, []byte(newKey), 0o600), writeFile(certFile, []byte(certPEM), 0o644))
}

// httpClient returns a client for the agents of one program that ignores the
// user's proxy. If the cluster is secure and the program is Nomad or Consul, the
// client sends a token and a client certificate.
func (l *layout) httpClient(program string) (*http.Client, error) {
	hc := &http.Client{Timeout: 5 * time.Second}
	if !l.Secure || program != Nomad && program != Consul {
		hc.Transport = &http.Transport{}
		return hc, nil
	}
	ca, cli, header, token := consulCA, consulCLI, "X-Consul-Token", l.secrets.Consul // #nosec G101 -- names of files and headers
	if program == Nomad {
		ca, cli, header, token = nomadCA, nomadCLI, "X-Nomad-Token", l.secrets.Nomad // #nosec G101 -- as above
	}
	config, err := capi.SetupTLSConfig(&capi.TLSConfig{
		CAFile: l.path("secure", ca), CertFile: l.path("secure", cli+".pem"), KeyFile: l.path("secure", cli+"-key.pem"),
	})
	if err != nil {
		return nil, fmt.Errorf("reading the dev cluster's certificates: %w", err)
	}
	hc.Transport = withToken{&http.Transport{TLSClientConfig: config}, header, token}
	return hc, nil
}

// withToken adds a token to every request.
type withToken struct {
	*http.Transport
	header, token string
}

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(t.header, t.token)
	return t.Transport.RoundTrip(r)
}

// protect gives the servers of a secure cluster, once they have a leader, the
// tokens that the configuration of the others names. It changes nothing that
// is there already. Agents of the next stages find all that they need.
func (l *layout) protect(ctx context.Context, stage []*agentSpec) error {
	for _, a := range stage {
		var err error
		switch {
		case !l.Secure || !a.server:
		case a.program == Consul && l.first(a.region):
			err = l.seedConsul(ctx, a)
		case a.program == Nomad && a.name == l.firstServer(a.region):
			err = l.seedNomad(ctx, a)
		}
		if err != nil {
			return fmt.Errorf("securing the dev cluster: %w", err)
		}
	}
	return nil
}

func (l *layout) firstServer(region string) string {
	for _, a := range l.agents() {
		if a.program == Nomad && a.server && a.region == region {
			return a.name
		}
	}
	return ""
}

// What Nomad's agents and Consul's DNS may do in Consul. Services of jobs are
// registered with tokens of their own, but the client removes them with its
// token: without service:write on all of them they stay behind.
const (
	nomadServerRules = `agent_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
service_prefix "nomad" {
  policy = "write"
}
`
	nomadClientRules = `agent_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "write"
}
`
	dnsRules = `node_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "read"
}
`
	replicationRules = `acl = "write"
operator = "write"
service_prefix "" {
  policy     = "read"
  intentions = "read"
}
`
)

// seedConsul makes the tokens of all agents in the Consul of the first region,
// from which the others copy them.
func (l *layout) seedConsul(ctx context.Context, server *agentSpec) error {
	c, err := capi.NewClient(l.consulConfigOf(server.httpAddr(l.Ports)))
	if err != nil {
		return err
	}
	for name, rules := range map[string]string{
		"nomad-server": nomadServerRules, "nomad-client": nomadClientRules, "dns": dnsRules, "replication": replicationRules,
	} {
		if _, err := acl.PutConsulPolicy(ctx, c, acl.Policy{Name: name, Description: "Made by drover dev up", Rules: rules}); err != nil {
			return err
		}
	}
	with := func(policy string) *capi.ACLToken {
		return &capi.ACLToken{Policies: []*capi.ACLTokenPolicyLink{{Name: policy}}}
	}
	tokens := map[string]*capi.ACLToken{l.secrets.DNS: with("dns"), l.secrets.Replication: with("replication")}
	for _, a := range l.agents() {
		var t *capi.ACLToken
		switch {
		case a.program == Consul:
			t = &capi.ACLToken{NodeIdentities: []*capi.ACLNodeIdentity{{NodeName: a.name, Datacenter: a.datacenter}}}
		case a.program == Nomad && a.server:
			t = with("nomad-server")
		case a.program == Nomad:
			t = with("nomad-client")
		default:
			continue
		}
		t.Description = a.name
		tokens[l.secrets.Agents[a.name]] = t
	}
	for secret, t := range tokens {
		_, _, err := c.ACL().TokenReadSelf((&capi.QueryOptions{Token: secret}).WithContext(ctx))
		if err == nil {
			continue
		}
		t.SecretID = secret
		if _, _, err := c.ACL().TokenCreate(t, (&capi.WriteOptions{}).WithContext(ctx)); err != nil {
			return fmt.Errorf("making a Consul token: %w", err)
		}
	}
	return nil
}

// seedNomad bootstraps the ACLs of Nomad in the first region, from which the
// others copy them, and makes the region's Consul trust its identities.
func (l *layout) seedNomad(ctx context.Context, server *agentSpec) error {
	n, err := api.NewClient(l.nomadConfigOf(server.httpAddr(l.Ports), server.region))
	if err != nil {
		return err
	}
	keys, err := acl.Keys(ctx, n)
	if err != nil {
		return err
	}
	w := acl.Workload{Keys: keys, Namespaces: []string{api.DefaultNamespace}, TaskServices: []string{"com.owncloud."}, TaskJobs: []string{"ocis-*", "mesh-ocis"}}
	if l.first(server.region) {
		_, _, err := n.ACLTokens().BootstrapOpts(l.secrets.Nomad, (&api.WriteOptions{}).WithContext(ctx))
		if err != nil && !strings.Contains(err.Error(), "already done") {
			return fmt.Errorf("bootstrapping Nomad's ACLs: %w", err)
		}
		if _, err := acl.Bootstrap(ctx, n, acl.Scope{}, w); err != nil {
			return err
		}
	}
	var address string
	for _, a := range l.agents() {
		if a.program == Consul && a.server && a.region == server.region {
			address = a.httpAddr(l.Ports)
		}
	}
	c, err := capi.NewClient(l.consulConfigOf(address))
	if err != nil {
		return err
	}
	if l.first(server.region) {
		_, err := acl.BootstrapConsul(ctx, c, acl.Scope{}, w)
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var last error
	err = wait(limit, func() (bool, error) {
		last = w.ApplyMethod(limit, c) // refused until the tokens are copied
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
