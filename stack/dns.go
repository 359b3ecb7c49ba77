package stack

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// DNS is the dns block of a stack: the provider of its records, and what drover may
// change there.
type DNS struct {
	Provider string   // "" for none: drover does not manage the records
	Zones    []string // allow-list
	Policy   string   // "" for the default
	Repair   bool     // write back what another hand has changed
	Cluster  string   // name of this cluster among those that share the records of addresses
	TTL      int      // seconds, of records without their own; 0 for the default
	// Routes is true if hosts of routes get records.
	Routes bool
	// Targets are where these lead: addresses, or one name. Empty for the
	// instances of the edge.
	Targets []string
	// Resolvers are the name servers, HOST or HOST:PORT, that must return a
	// DNS-01 record before the CA is asked to validate it; empty for the system's.
	Resolvers []string

	Server       string
	ServerID     string
	Command      []string
	CAFile       string
	KeyName      string
	KeyAlgorithm string
	// Source of the credential: one of these, or none for the usual environment
	// variable of the provider.
	CredentialSecret string // name of a Secret of the stack; a controller has it too
	CredentialFile   string
	CredentialEnv    string

	Range hcl.Range
}

// Record is a DNS record that the stack asks for, beside those of its routes.
type Record struct {
	Name   string // relative to Zone, or complete
	Zone   string
	Type   string
	Values []string
	TTL    int // seconds; 0 for the default
	// Proxied is whether Cloudflare proxies the record; nil keeps the present setting.
	Proxied *bool
	Range   hcl.Range
}

// Values of provider and policy in a dns block.
var (
	dnsProviders = []string{"powerdns", "rfc2136", "cloudflare", "digitalocean", "hetzner", "route53", "webhook", "acme-dns", "exec"}
	dnsPolicies  = []string{"upsert-only", "sync", "create-only"}
)

type dnsBlock struct {
	Provider         string   `hcl:"provider"`
	Zones            []string `hcl:"zones,optional"`
	Policy           string   `hcl:"policy,optional"`
	Repair           bool     `hcl:"repair,optional"`
	Cluster          string   `hcl:"cluster,optional"`
	TTL              int      `hcl:"ttl,optional"`
	Server           string   `hcl:"server,optional"`
	ServerID         string   `hcl:"server_id,optional"`
	Command          []string `hcl:"command,optional"`
	CAFile           string   `hcl:"ca_file,optional"`
	KeyName          string   `hcl:"key_name,optional"`
	KeyAlgorithm     string   `hcl:"key_algorithm,optional"`
	CredentialSecret string   `hcl:"credential_secret,optional"`
	CredentialFile   string   `hcl:"credential_file,optional"`
	CredentialEnv    string   `hcl:"credential_env,optional"`
	Routes           *bool    `hcl:"routes,optional"`
	Targets          []string `hcl:"targets,optional"`
	Resolvers        []string `hcl:"resolvers,optional"`
}

type recordBlock struct {
	Zone    string   `hcl:"zone,optional"`
	Type    string   `hcl:"type"`
	Values  []string `hcl:"values"`
	TTL     int      `hcl:"ttl,optional"`
	Proxied *bool    `hcl:"proxied,optional"`
}

func (s *Stack) dns(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v dnsBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	if diags.HasErrors() {
		return diags
	}
	if v.Provider != "" && !slices.Contains(dnsProviders, v.Provider) {
		diags = append(diags, errAt(attrRange(b, "provider"), fmt.Sprintf("Unknown DNS provider %q", v.Provider), "Write one of "+strings.Join(dnsProviders, ", ")+`, or "" for none.`))
	}
	if v.Policy != "" && !slices.Contains(dnsPolicies, v.Policy) {
		diags = append(diags, errAt(attrRange(b, "policy"), fmt.Sprintf("Unknown DNS policy %q", v.Policy), "Write one of "+strings.Join(dnsPolicies, ", ")+"."))
	}
	if v.Provider != "" && len(v.Zones) == 0 {
		diags = append(diags, errAt(attrRange(b, "zones"), "A dns block without zones", "Write the zones that may be changed, for example zones = [\"example.org\"]. Nothing outside of them is touched."))
	}
	if len(v.Cluster) > 40 || v.Cluster != strings.Trim(v.Cluster, "-") || strings.Trim(v.Cluster, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		diags = append(diags, errAt(attrRange(b, "cluster"), fmt.Sprintf("Invalid name %q of a cluster", v.Cluster), "Write at most 40 lower-case letters, digits and dashes."))
	}
	if v.Provider == "acme-dns" && v.Cluster != "" {
		diags = append(diags, errAt(attrRange(b, "cluster"), "The DNS provider acme-dns has no records to share", "Remove cluster."))
	}
	if v.TTL < 0 {
		diags = append(diags, errAt(attrRange(b, "ttl"), "Invalid TTL", "Write a number of seconds."))
	}
	if v.Routes != nil && !*v.Routes && len(v.Targets) > 0 {
		diags = append(diags, errAt(attrRange(b, "targets"), "Targets of records that are not made", "Remove targets, or routes = false."))
	}
	for _, r := range v.Resolvers {
		if host, port, err := net.SplitHostPort(r); err == nil && (host == "" || port == "") || r == "" {
			diags = append(diags, errAt(attrRange(b, "resolvers"), fmt.Sprintf("Invalid resolver %q", r), "Write HOST or HOST:PORT of a name server."))
		}
	}
	if v.CredentialSecret != "" && v.CredentialFile+v.CredentialEnv != "" || v.CredentialFile != "" && v.CredentialEnv != "" {
		diags = append(diags, errAt(b.DefRange, "More than one DNS credential", "Write one of credential_secret, credential_file and credential_env."))
	}
	s.DNS = &DNS{
		Routes: v.Routes == nil || *v.Routes, Targets: v.Targets, Resolvers: v.Resolvers,
		Provider: v.Provider, Zones: v.Zones, Policy: v.Policy, Repair: v.Repair, Cluster: v.Cluster, TTL: v.TTL, Server: v.Server, ServerID: v.ServerID,
		Command: v.Command, CAFile: v.CAFile, KeyName: v.KeyName, KeyAlgorithm: v.KeyAlgorithm,
		CredentialSecret: v.CredentialSecret, CredentialFile: v.CredentialFile, CredentialEnv: v.CredentialEnv, Range: b.DefRange,
	}
	return diags
}

func (s *Stack) record(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v recordBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	s.Records = append(s.Records, &Record{Name: b.Labels[0], Zone: v.Zone, Type: v.Type, Values: v.Values, TTL: v.TTL, Proxied: v.Proxied, Range: b.DefRange})
	return diags
}
