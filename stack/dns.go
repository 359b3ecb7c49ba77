package stack

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// DNS is the dns block of a stack: the provider of its records, and what drover may
// change there.
type DNS struct {
	// Name is the label of the block, "" for the one without a label.
	Name     string
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
	// NoChallenges is true if DNS-01 is not answered here: the CA asks other servers.
	NoChallenges bool
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
	DNS     []string // names of dns blocks; empty for all whose zones it is in
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
	Challenges       *bool    `hcl:"challenges,optional"`
}

type recordBlock struct {
	Zone    string   `hcl:"zone,optional"`
	Type    string   `hcl:"type"`
	Values  []string `hcl:"values"`
	TTL     int      `hcl:"ttl,optional"`
	Proxied *bool    `hcl:"proxied,optional"`
	DNS     []string `hcl:"dns,optional"`
}

func (s *Stack) dns(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v dnsBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	if diags.HasErrors() {
		return diags
	}
	if name := b.Labels[0]; len(name) > longestDNSName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		diags = append(diags, errAt(b.LabelRanges[0], fmt.Sprintf("Invalid name %q of a dns block", name), fmt.Sprintf("Write at most %d lower-case letters, digits, dashes and underscores.", longestDNSName)))
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
	s.DNS = append(s.DNS, &DNS{
		Name: b.Labels[0], NoChallenges: v.Challenges != nil && !*v.Challenges, Routes: v.Routes == nil || *v.Routes, Targets: v.Targets, Resolvers: v.Resolvers,
		Provider: v.Provider, Zones: v.Zones, Policy: v.Policy, Repair: v.Repair, Cluster: v.Cluster, TTL: v.TTL, Server: v.Server, ServerID: v.ServerID,
		Command: v.Command, CAFile: v.CAFile, KeyName: v.KeyName, KeyAlgorithm: v.KeyAlgorithm,
		CredentialSecret: v.CredentialSecret, CredentialFile: v.CredentialFile, CredentialEnv: v.CredentialEnv, Range: b.DefRange,
	})
	return diags
}

func (s *Stack) record(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v recordBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	s.Records = append(s.Records, &Record{Name: b.Labels[0], Zone: v.Zone, Type: v.Type, Values: v.Values, TTL: v.TTL, Proxied: v.Proxied, DNS: v.DNS, Range: b.DefRange})
	return diags
}

// longestDNSName is the limit of the name of a dns block, which is in the path of a Nomad
// Variable: drover/dns-credentials/STACK/ENVIRONMENT/NAME.
const longestDNSName = 20

// DNSProviders returns the dns blocks that name a provider in this environment.
func (s *Stack) DNSProviders() []*DNS {
	return slices.DeleteFunc(slices.Clone(s.DNS), func(d *DNS) bool { return d.Provider == "" })
}

// checkDNS finds what several dns blocks of a stack must not have in common.
func (s *Stack) checkDNS() hcl.Diagnostics {
	var diags hcl.Diagnostics
	blocks := s.DNSProviders()
	for i, d := range blocks {
		for _, other := range blocks[:i] {
			at := slices.IndexFunc(d.Zones, func(z string) bool {
				return slices.ContainsFunc(other.Zones, func(o string) bool { return sameZone(z, o) })
			})
			switch {
			case at < 0:
			case d.sameAccount(other):
				diags = append(diags, errAt(d.Range, fmt.Sprintf("Two dns blocks for the zone %s at the same provider", d.Zones[at]), fmt.Sprintf("Write one dns block for it; the other is at %s.", place(other.Range))))
			case !d.NoChallenges && !other.NoChallenges:
				diags = append(diags, errAt(d.Range, fmt.Sprintf("Two dns blocks would answer DNS-01 in the zone %s", d.Zones[at]),
					fmt.Sprintf("Write challenges = false into the one whose name servers a CA does not ask; the other is at %s.", place(other.Range))))
			}
		}
	}
	return diags
}

func sameZone(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// sameAccount reports whether both blocks lead to the same records.
func (d *DNS) sameAccount(o *DNS) bool {
	return d.Provider == o.Provider && d.Server == o.Server && d.ServerID == o.ServerID && slices.Equal(d.Command, o.Command) &&
		d.KeyName == o.KeyName && d.CredentialSecret == o.CredentialSecret && d.CredentialFile == o.CredentialFile && d.CredentialEnv == o.CredentialEnv
}

// labelDNS gives the dns blocks without a label an empty one: the label of a block type
// is either required or not possible in a schema of HCL.
func labelDNS(body hcl.Body) {
	b, ok := body.(*hclsyntax.Body)
	if !ok {
		return
	}
	for _, block := range b.Blocks {
		switch {
		case block.Type == "dns" && len(block.Labels) == 0:
			block.Labels, block.LabelRanges = []string{""}, []hcl.Range{block.TypeRange}
		case block.Type == "dynamic" && slices.Equal(block.Labels, []string{"dns"}) && block.Body.Attributes["labels"] == nil:
			at := block.TypeRange
			empty := &hclsyntax.LiteralValueExpr{Val: cty.StringVal(""), SrcRange: at}
			block.Body.Attributes["labels"] = &hclsyntax.Attribute{Name: "labels", Expr: &hclsyntax.TupleConsExpr{Exprs: []hclsyntax.Expression{empty}, SrcRange: at, OpenRange: at},
				SrcRange: at, NameRange: at, EqualsRange: at}
		}
	}
}
