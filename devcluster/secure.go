package devcluster

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
)

// secrets are the tokens and keys of a cluster with Options.Secure, beside the keys of its
// certificates. They are made once, since they are in the agents' configuration.
type secrets struct {
	// Nomad and Consul are the tokens that may do everything.
	Nomad  string `json:"nomad"`
	Consul string `json:"consul"`
	// Agents are the Consul tokens of the agents of both, by name.
	Agents map[string]string `json:"agents"`
	// DNS is the token that Consul's agents answer DNS queries with, and
	// Replication the one with which regions copy ACLs from the first.
	DNS          string `json:"dns"`
	Replication  string `json:"replication"`
	NomadGossip  string `json:"nomad_gossip"`
	ConsulGossip string `json:"consul_gossip"`
}

// The names in secure/ that others read.
const (
	secretsFile = "tokens.json"
	nomadCA     = "nomad-ca.pem"
	consulCA    = "consul-ca.pem"
	nomadCLI    = "nomad-cli"
	consulCLI   = "consul-cli"
)

// names returns the names in the agent's certificate, which Nomad and Consul check with
// verify_server_hostname.
func (a *agentSpec) names() []string {
	switch {
	case a.program == Consul && a.server:
		return []string{"server." + a.datacenter + ".consul", "localhost"}
	case a.program == Consul:
		return []string{"client." + a.datacenter + ".consul", "localhost"}
	case a.server:
		return []string{"server." + a.region + ".nomad", "localhost"}
	}
	return []string{"client." + a.region + ".nomad", "localhost"}
}

// socketDir has nothing but the socket: containers mount it.
func (l *layout) socketDir(addr string) string { return l.path("secure", addr) }

// socket is where the Consul agent at addr serves its HTTP API to its own node.
func (l *layout) socket(addr string) string { return l.path("secure", addr, "http.sock") }

// consulVolume is the host volume of a Nomad client with the socket of its
// Consul agent.
func (l *layout) consulVolume(a *agentSpec) string {
	if !l.Secure {
		return ""
	}
	return fmt.Sprintf("  host_volume \"consul\" {\n    path      = %q\n    read_only = true\n  }\n", l.socketDir(a.consul))
}

// first reports whether the region is the first one, which is authoritative for
// ACLs: the others replicate them.
func (l *layout) first(region string) bool { return region == l.Shape.Regions[0] }

// consulDatacenter is the Consul datacenter of a region.
func (l *layout) consulDatacenter(region string) string {
	if len(l.Shape.Regions) > 1 {
		return region
	}
	return l.Shape.Datacenters[0]
}

// consulSecure returns the additional configuration of a Consul agent in a secure
// cluster: HTTPS with client certificates, a socket for processes on the node, and ACLs
// on both.
func (l *layout) consulSecure(a *agentSpec) string {
	s := l.secrets
	var b strings.Builder
	fmt.Fprintf(&b, `addresses {
  http = "unix://%s"
}
unix_sockets {
  mode = "0666"
}
tls {
  defaults {
    ca_file         = %q
    cert_file       = %q
    key_file        = %q
    verify_incoming = true
    verify_outgoing = true
  }
  internal_rpc {
    verify_server_hostname = true
  }
}
encrypt            = %q
primary_datacenter = %q
acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_replication = %t
  tokens {
    agent = %q
    dns   = %q
`, l.socket(a.addr), l.path("secure", consulCA), l.path("secure", a.name+".pem"), l.path("secure", a.name+"-key.pem"),
		s.ConsulGossip, l.consulDatacenter(l.Shape.Regions[0]), a.server && len(l.Shape.Regions) > 1, s.Agents[a.name], s.DNS)
	if a.server && l.first(a.region) {
		fmt.Fprintf(&b, "    initial_management = %q\n", s.Consul)
	}
	if a.server && !l.first(a.region) {
		fmt.Fprintf(&b, "    replication = %q\n", s.Replication)
	}
	b.WriteString("  }\n}\n")
	return b.String()
}

// nomadSecure returns the additional configuration of a Nomad agent.
func (l *layout) nomadSecure(a *agentSpec) string {
	s := l.secrets
	var b strings.Builder
	fmt.Fprintf(&b, `tls {
  http                   = true
  rpc                    = true
  ca_file                = %q
  cert_file              = %q
  key_file               = %q
  verify_server_hostname = true
  verify_https_client    = true
}
acl {
  enabled = true
`, l.path("secure", nomadCA), l.path("secure", a.name+".pem"), l.path("secure", a.name+"-key.pem"))
	if a.server && !l.first(a.region) {
		fmt.Fprintf(&b, "  replication_token = %q\n", s.Nomad)
	}
	b.WriteString("}\n")
	return b.String()
}

// nomadConsulSecure returns the additional settings of its consul block.
func (l *layout) nomadConsulSecure(a *agentSpec) string {
	s := l.secrets
	var b strings.Builder
	fmt.Fprintf(&b, `  ssl       = true
  ca_file   = %q
  cert_file = %q
  key_file  = %q
  token     = %q
`, l.path("secure", consulCA), l.path("secure", consulCLI+".pem"), l.path("secure", consulCLI+"-key.pem"), s.Agents[a.name])
	if a.server {
		fmt.Fprintf(&b, `  service_identity {
    aud = [%[1]q]
    ttl = "1h"
  }
  task_identity {
    aud = [%[1]q]
    ttl = "1h"
  }
`, acl.Audience)
	} else {
		fmt.Fprintf(&b, "  service_auth_method = %[1]q\n  task_auth_method    = %[1]q\n", acl.AuthMethod)
	}
	return b.String()
}

// nomadServerSecure returns the additional settings of the server block of a Nomad server.
// Consul has copies of the keys with which Nomad signs identities, so that they must not
// be rotated: Nomad would do so after 30 days.
func (l *layout) nomadServerSecure() string {
	return fmt.Sprintf("  encrypt                     = %q\n  authoritative_region        = %q\n  root_key_rotation_threshold = \"87600h\"\n",
		l.secrets.NomadGossip, l.Shape.Regions[0])
}

func (l *layout) saveSecrets() error {
	b, err := json.MarshalIndent(l.secrets, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.path("secure"), 0o755); err != nil { // #nosec G301 -- the files in it are closed
		return err
	}
	return writeFile(l.path("secure", secretsFile), append(b, '\n'), 0o600)
}

func readSecrets(dir string) (*secrets, error) {
	path := filepath.Join(dir, "secure", secretsFile)
	b, err := os.ReadFile(path) // #nosec G703 -- the directory is the caller's choice
	if err != nil {
		return nil, fmt.Errorf("reading the dev cluster's tokens: %w", err)
	}
	var s secrets
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading the dev cluster's tokens %s: %w", path, err)
	}
	return &s, nil
}

// newSecrets makes the tokens and keys of a new cluster.
func (l *layout) newSecrets() {
	l.secrets = &secrets{
		Nomad: uuid(), Consul: uuid(), DNS: uuid(), Replication: uuid(),
		NomadGossip: gossipKey(), ConsulGossip: gossipKey(), Agents: map[string]string{},
	}
	for _, a := range l.agents() {
		l.secrets.Agents[a.name] = uuid()
	}
}

// uuid is a random UUID (RFC 9562, version 4), the form of a token.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func gossipKey() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// nomadConfigOf is the configuration of a client of the Nomad agent at address
// that may do everything.
func (l *layout) nomadConfigOf(address, region string) *api.Config {
	c := &api.Config{Address: address, Region: region}
	if l.Secure {
		c.SecretID = l.secrets.Nomad
		c.TLSConfig = &api.TLSConfig{
			CACert: l.path("secure", nomadCA), ClientCert: l.path("secure", nomadCLI+".pem"), ClientKey: l.path("secure", nomadCLI+"-key.pem"),
		}
	}
	return c
}

// consulConfigOf is the same for Consul.
func (l *layout) consulConfigOf(address string) *capi.Config {
	c := &capi.Config{Address: address}
	if l.Secure {
		c.Token = l.secrets.Consul
		c.TLSConfig = capi.TLSConfig{
			CAFile: l.path("secure", consulCA), CertFile: l.path("secure", consulCLI+".pem"), KeyFile: l.path("secure", consulCLI+"-key.pem"),
		}
	}
	return c
}

// NomadConfig is what a client of Nomad's API in the first region needs.
func (c *Cluster) NomadConfig() *api.Config { return c.l.nomadConfigOf(c.NomadAddr(), "") }

// ConsulConfig is what a client of Consul's API in the first region needs.
func (c *Cluster) ConsulConfig() *capi.Config { return c.l.consulConfigOf(c.ConsulAddr()) }

// Secure reports whether the cluster was made with Options.Secure.
func (c *Cluster) Secure() bool { return c.l.Secure }

// secureEnv returns the additional variables of Env for a secure cluster.
func (l *layout) secureEnv() []string {
	return []string{
		"NOMAD_TOKEN=" + l.secrets.Nomad,
		"NOMAD_CACERT=" + l.path("secure", nomadCA),
		"NOMAD_CLIENT_CERT=" + l.path("secure", nomadCLI+".pem"),
		"NOMAD_CLIENT_KEY=" + l.path("secure", nomadCLI+"-key.pem"),
		"CONSUL_HTTP_TOKEN=" + l.secrets.Consul,
		"CONSUL_CACERT=" + l.path("secure", consulCA),
		"CONSUL_CLIENT_CERT=" + l.path("secure", consulCLI+".pem"),
		"CONSUL_CLIENT_KEY=" + l.path("secure", consulCLI+"-key.pem"),
	}
}
