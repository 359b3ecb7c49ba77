// Package tenancy reads the table in which an operator says what each Nomad
// namespace may claim: zones, names of certificates and issuers, and the DNS
// providers that the controller uses on its behalf
// (docs/reference/tenancy.md).
package tenancy

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/stack"
)

// Table is what the namespaces of a cluster may claim. A nil *Table is that of a
// cluster with one namespace, which may claim everything.
type Table struct {
	providers  map[string]dns.OperatorProvider
	namespaces map[string]namespaceBlock // empty if the table names no namespace
}

type file struct {
	Providers  []providerBlock  `hcl:"dns_provider,block"`
	Namespaces []namespaceBlock `hcl:"namespace,block"`
}

type providerBlock struct {
	Name           string   `hcl:"name,label"`
	Type           string   `hcl:"type"`
	Server         string   `hcl:"server,optional"`
	ServerID       string   `hcl:"server_id,optional"`
	CAFile         string   `hcl:"ca_file,optional"`
	Command        []string `hcl:"command,optional"`
	KeyName        string   `hcl:"key_name,optional"`
	KeyAlgorithm   string   `hcl:"key_algorithm,optional"`
	CredentialFile string   `hcl:"credential_file,optional"`
	CredentialEnv  string   `hcl:"credential_env,optional"`
	Zones          []string `hcl:"zones,optional"`
}

type namespaceBlock struct {
	Name         string   `hcl:"name,label"`
	Zones        []string `hcl:"zones,optional"`
	Certificates []string `hcl:"certificates,optional"`
	Issuers      []string `hcl:"issuers,optional"`
	DNSProviders []string `hcl:"dns_providers,optional"`
}

// Parse reads a table. The error is [hcl.Diagnostics].
func Parse(text []byte, name string) (*Table, error) {
	parsed, diags := stack.ParseHCL(text, name)
	if diags.HasErrors() {
		return nil, diags
	}
	var f file
	if diags := gohcl.DecodeBody(parsed.Body, nil, &f); diags.HasErrors() {
		return nil, diags
	}
	t := &Table{providers: map[string]dns.OperatorProvider{}, namespaces: map[string]namespaceBlock{}}
	blocks := map[string][]*hclsyntax.Block{} // by type, in the order of f
	for _, b := range parsed.Body.(*hclsyntax.Body).Blocks {
		blocks[b.Type] = append(blocks[b.Type], b)
	}
	// mistake reports an error at an attribute of a block, or at the block itself.
	mistake := func(b *hclsyntax.Block, attribute, summary, detail string) {
		at := b.DefRange()
		if a := b.Body.Attributes[attribute]; a != nil {
			at = a.SrcRange
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at})
	}
	for i, b := range f.Providers {
		at := blocks["dns_provider"][i]
		if _, twice := t.providers[b.Name]; twice {
			mistake(at, "", fmt.Sprintf("Two DNS providers are called %q", b.Name), "Give each its own name.")
		}
		p := dns.OperatorProvider{Zones: b.Zones, Options: dns.Options{
			Provider: b.Type, Server: b.Server, ServerID: b.ServerID, CAFile: b.CAFile, Command: b.Command,
			KeyName: b.KeyName, KeyAlgorithm: b.KeyAlgorithm, CredentialFile: b.CredentialFile, CredentialEnv: b.CredentialEnv,
		}}
		if !slices.Contains(dns.Providers(), b.Type) {
			mistake(at, "type", fmt.Sprintf("There is no type %q of DNS providers", b.Type), "The types are: "+strings.Join(dns.Providers(), ", ")+".")
		}
		t.providers[b.Name] = p
	}
	for i, b := range f.Namespaces {
		at := blocks["namespace"][i]
		if _, twice := t.namespaces[b.Name]; twice {
			mistake(at, "", fmt.Sprintf("Namespace %q is there twice", b.Name), "Write one block for each namespace.")
		}
		for _, p := range b.DNSProviders {
			if _, is := t.providers[p]; !is {
				mistake(at, "dns_providers", fmt.Sprintf("There is no DNS provider %q", p), "Write a dns_provider block with that name.")
			}
		}
		for _, pattern := range b.Certificates {
			if rest := strings.TrimPrefix(pattern, "*."); pattern != "*" && (rest == "" || strings.Contains(rest, "*")) {
				mistake(at, "certificates", fmt.Sprintf("%q is no pattern for names", pattern), "Write a name, *.NAME for everything below it, or * for all.")
			}
		}
		t.namespaces[b.Name] = b
	}
	if diags.HasErrors() {
		return nil, diags
	}
	return t, nil
}

// Namespaces are those that the table names, sorted; none if it names none.
func (t *Table) Namespaces() []string {
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.namespaces))
}

// DNS is what the stored records of stacks in a namespace may use. getenv returns
// the credentials of the operator's providers.
func (t *Table) DNS(namespace string, getenv func(string) string) dns.Allowed {
	a := dns.Allowed{Getenv: getenv}
	if t == nil {
		a.OwnServers = true
		return a
	}
	names := slices.Sorted(maps.Keys(t.providers))
	if len(t.namespaces) == 0 {
		a.OwnServers = true
	} else {
		b := t.namespaces[namespace]
		names, a.Zones = b.DNSProviders, append([]string{}, b.Zones...)
	}
	for _, n := range names {
		a.Providers = append(a.Providers, t.providers[n])
	}
	return a
}

// Certificate returns an error if a namespace may not have a certificate: for
// one of its names, or from one of its issuers.
func (t *Table) Certificate(namespace string, spec acme.Spec) error {
	if t == nil || len(t.namespaces) == 0 {
		return nil
	}
	b := t.namespaces[namespace]
	for _, name := range spec.Names {
		if !slices.ContainsFunc(b.Certificates, func(pattern string) bool { return Matches(pattern, name) }) {
			return fmt.Errorf("namespace %s may not have a certificate for %s: the operator's table allows %s", namespace, name, orNone(b.Certificates))
		}
	}
	for _, issuer := range spec.Issuers {
		if !slices.Contains(b.Issuers, "*") && !slices.Contains(b.Issuers, issuer) {
			return fmt.Errorf("namespace %s may not use issuer %s: the operator's table allows %s", namespace, issuer, orNone(b.Issuers))
		}
	}
	return nil
}

// Matches reports whether a pattern covers a name: *.NAME covers what is below
// NAME, also the wildcard *.NAME, * covers all, and any other pattern itself.
func Matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(strings.TrimSuffix(name, "."))
	if pattern == "*" || pattern == name {
		return true
	}
	below, wild := strings.CutPrefix(pattern, "*")
	return wild && net.ParseIP(name) == nil && strings.HasSuffix(name, below)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
