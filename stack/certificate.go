package stack

import (
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// Certificate is a certificate that the stack asks a CA for.
type Certificate struct {
	Name           string
	Names          []string // domains and IP addresses
	Issuers        []string // in the order in which they are tried; empty for the default
	Challenge      string   // "" for the default
	KeyType        string
	ReuseKey       bool
	Profile        string
	PreferredChain string
	NoEdge         bool          // jobs read it, and the edge does not serve it
	WindowFrom     time.Duration // maintenance window in UTC: since midnight
	WindowFor      time.Duration // 0 for any time
	Range          hcl.Range
}

// Issuer is a CA that certificates name.
type Issuer struct {
	Name         string
	DirectoryURL string
	CA           string // PEM; "" for the system's roots
	Email        string
	Profile      string
	EABKeyID     string
	EABMACKey    string // secret
	OwnCA        *OwnCA // nil for one that speaks ACME
	Vault        *Vault // nil for one that speaks ACME
	AcceptTerms  string // URL of its terms of service, or "any"; "" if they are not accepted here
	Range        hcl.Range
}

// OwnCA is a CA whose keys drover keeps. Lifetimes are 0 for the default.
type OwnCA struct {
	CommonName                                   string
	Lifetime, IntermediateLifetime, RootLifetime time.Duration
	CRLURL                                       string
}

// Vault is a PKI secrets engine of Vault or OpenBao.
type Vault struct {
	Address, Namespace, Mount, Role string
	Lifetime                        time.Duration // 0 for that of the role
	Auth                            string        // token, approle, jwt, or process for the token of the process
	AuthMount, AuthRole             string
	Secret                          string // secret ID or token
}

// Values of challenge and key_type in a certificate block.
var (
	certificateChallenges = []string{"http-01", "dns-01", "dns-persist-01"}
	certificateKeyTypes   = []string{"p256", "p384", "rsa2048", "rsa4096"}
)

type certificateBlock struct {
	Names          []string `hcl:"names"`
	Issuer         string   `hcl:"issuer,optional"`
	Issuers        []string `hcl:"issuers,optional"`
	Challenge      string   `hcl:"challenge,optional"`
	KeyType        string   `hcl:"key_type,optional"`
	ReuseKey       bool     `hcl:"reuse_key,optional"`
	Profile        string   `hcl:"profile,optional"`
	PreferredChain string   `hcl:"preferred_chain,optional"`
	Window         string   `hcl:"window,optional"`
	Edge           *bool    `hcl:"edge,optional"`
}

// builtinIssuers have no directory_url in their block: it is this one.
var builtinIssuers = map[string]string{
	"letsencrypt":         "https://acme-v02.api.letsencrypt.org/directory",
	"letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}

type issuerBlock struct {
	DirectoryURL string      `hcl:"directory_url,optional"`
	AcceptTerms  string      `hcl:"accept_terms,optional"`
	CAFile       string      `hcl:"ca_file,optional"`
	CAPEM        string      `hcl:"ca_pem,optional"`
	Email        string      `hcl:"email,optional"`
	Profile      string      `hcl:"profile,optional"`
	EAB          *eabBlock   `hcl:"eab,block"`
	OwnCA        *ownBlock   `hcl:"own_ca,block"`
	Vault        *vaultBlock `hcl:"vault,block"`
}

type ownBlock struct {
	CommonName           string `hcl:"common_name,optional"`
	Lifetime             string `hcl:"lifetime,optional"`
	IntermediateLifetime string `hcl:"intermediate_lifetime,optional"`
	RootLifetime         string `hcl:"root_lifetime,optional"`
	CRLURL               string `hcl:"crl_url,optional"`
}

type vaultBlock struct {
	Address   string        `hcl:"address"`
	Namespace string        `hcl:"namespace,optional"`
	Mount     string        `hcl:"mount,optional"`
	Role      string        `hcl:"role"`
	Lifetime  string        `hcl:"lifetime,optional"`
	Token     string        `hcl:"token,optional"`
	AppRole   *appRoleBlock `hcl:"approle,block"`
	JWT       *jwtBlock     `hcl:"jwt,block"`
}

type appRoleBlock struct {
	RoleID   string `hcl:"role_id"`
	SecretID string `hcl:"secret_id"`
	Mount    string `hcl:"mount,optional"`
}

type jwtBlock struct {
	Role  string `hcl:"role"`
	Mount string `hcl:"mount,optional"`
}

type eabBlock struct {
	KeyID  string `hcl:"key_id"`
	MACKey string `hcl:"mac_key"`
}

func (s *Stack) certificate(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v certificateBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	if diags.HasErrors() {
		return diags
	}
	c := &Certificate{
		Name: b.Labels[0], Names: v.Names, Issuers: v.Issuers, Challenge: v.Challenge, KeyType: v.KeyType, ReuseKey: v.ReuseKey,
		Profile: v.Profile, PreferredChain: v.PreferredChain, NoEdge: v.Edge != nil && !*v.Edge, Range: b.DefRange,
	}
	bad := func(attr, summary, detail string) {
		diags = append(diags, errAt(attrRange(b, attr), summary, detail))
	}
	if len(v.Names) == 0 {
		bad("names", "A certificate without names", "Write the domains that it is for.")
	}
	for _, name := range v.Names {
		if problem := certificateNameProblem(name); problem != "" {
			bad("names", fmt.Sprintf("Invalid name %q of a certificate: %s", name, problem), "Write a domain such as \"www.example.org\" or \"*.example.org\", or an IP address.")
		}
	}
	if v.Issuer != "" {
		if len(v.Issuers) > 0 {
			bad("issuers", "A certificate with issuer and issuers", "Write one of the two.")
		}
		c.Issuers = []string{v.Issuer}
	}
	if v.Challenge != "" && !slices.Contains(certificateChallenges, v.Challenge) {
		bad("challenge", fmt.Sprintf("Unknown challenge %q", v.Challenge), "Write one of "+strings.Join(certificateChallenges, ", ")+".")
	}
	if v.KeyType != "" && !slices.Contains(certificateKeyTypes, v.KeyType) {
		bad("key_type", fmt.Sprintf("Unknown type of key %q", v.KeyType), "Write one of "+strings.Join(certificateKeyTypes, ", ")+".")
	}
	if v.Window != "" {
		var ok bool
		if c.WindowFrom, c.WindowFor, ok = parseWindow(v.Window); !ok {
			bad("window", fmt.Sprintf("Invalid maintenance window %q", v.Window), `Write hours in UTC, such as "02:00-05:00".`)
		}
	}
	s.Certificates = append(s.Certificates, c)
	return diags
}

// certificateNameProblem returns why no CA issues a certificate for name, a domain
// or IP address as in RFC 8555, sections 7.1.4 and RFC 8738; "" when one may.
func certificateNameProblem(name string) string {
	if net.ParseIP(name) != nil {
		return ""
	}
	if strings.Contains(name, "://") {
		return "it is a URL"
	}
	if _, _, err := net.SplitHostPort(name); err == nil {
		return "it has a port"
	}
	if strings.ContainsAny(name, ":/@[] \t\n") || len(name) > 253 {
		return "it is not a domain"
	}
	labels := strings.Split(name, ".")
	for i, label := range labels {
		switch {
		case label == "" || len(label) > 63:
			return "it is not a domain"
		case strings.Contains(label, "*") && (label != "*" || i > 0 || len(labels) < 3):
			return "a wildcard stands alone in the first label"
		}
	}
	return ""
}

func (s *Stack) issuer(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v issuerBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	if diags.HasErrors() {
		return diags
	}
	i := &Issuer{Name: b.Labels[0], DirectoryURL: v.DirectoryURL, CA: v.CAPEM, Email: v.Email, Profile: v.Profile, AcceptTerms: v.AcceptTerms, Range: b.DefRange}
	if i.DirectoryURL == "" {
		i.DirectoryURL = builtinIssuers[i.Name]
	}
	if v.EAB != nil {
		i.EABKeyID, i.EABMACKey = v.EAB.KeyID, v.EAB.MACKey
		s.keepSecret(attrExpr(childBlock(b, "eab"), "mac_key"))
	}
	if u, err := url.Parse(v.AcceptTerms); v.AcceptTerms != "" && v.AcceptTerms != "any" && (err != nil || u.Scheme == "") {
		diags = append(diags, errAt(attrRange(b, "accept_terms"), fmt.Sprintf("Invalid accept_terms %q", v.AcceptTerms), "Write the URL of the terms of service of the CA that you accept, or \"any\" for those of now and later."))
	}
	switch {
	case v.OwnCA != nil && v.Vault != nil, (v.OwnCA != nil || v.Vault != nil) && v.DirectoryURL != "":
		diags = append(diags, errAt(b.DefRange, fmt.Sprintf("Issuer %q is two CAs", i.Name), "Write one of directory_url, own_ca and vault."))
	case (v.OwnCA != nil || v.Vault != nil) && (v.EAB != nil || v.AcceptTerms != "" || v.Email != "" || v.Profile != "" || builtinIssuers[i.Name] != ""):
		diags = append(diags, errAt(b.DefRange, fmt.Sprintf("Issuer %q has settings of ACME", i.Name), "eab, accept_terms, email, profile and the names of Let's Encrypt go with directory_url only."))
	case v.OwnCA != nil:
		diags = append(diags, i.readOwnCA(v.OwnCA, childBlock(b, "own_ca"))...)
	case v.Vault != nil:
		diags = append(diags, i.readVault(v.Vault, childBlock(b, "vault"))...)
		at := childBlock(b, "vault")
		s.keepSecret(attrExpr(at, "token"))
		s.keepSecret(attrExpr(childBlock(at, "approle"), "secret_id"))
	case !strings.HasPrefix(i.DirectoryURL, "https://"):
		diags = append(diags, errAt(attrRange(b, "directory_url"), "An issuer is reached by https", "Write the URL of its ACME directory."))
	}
	if v.CAFile != "" {
		text, err := fs.ReadFile(s.FS, path.Clean(v.CAFile))
		if err != nil {
			diags = append(diags, errAt(attrRange(b, "ca_file"), fmt.Sprintf("The CA of issuer %q cannot be read", i.Name), "ca_file is a file in the stack's directory; or give its text as ca_pem. "+err.Error()+"."))
		}
		i.CA = string(text)
	}
	s.Issuers = append(s.Issuers, i)
	return diags
}

// lifetimes reads durations of at least an hour; "" is 0.
func lifetimes(b *hcl.Block, texts map[string]string, to map[string]*time.Duration) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if texts[name] == "" {
			continue
		}
		d, err := time.ParseDuration(texts[name])
		if err != nil || d < time.Hour {
			diags = append(diags, errAt(attrRange(b, name), fmt.Sprintf("Invalid %s %q", name, texts[name]), "Write a duration of at least an hour, such as \"720h\"."))
		}
		*to[name] = d
	}
	return diags
}

func (i *Issuer) readOwnCA(v *ownBlock, b *hcl.Block) hcl.Diagnostics {
	i.OwnCA = &OwnCA{CommonName: v.CommonName, CRLURL: v.CRLURL}
	return lifetimes(b,
		map[string]string{"lifetime": v.Lifetime, "intermediate_lifetime": v.IntermediateLifetime, "root_lifetime": v.RootLifetime},
		map[string]*time.Duration{"lifetime": &i.OwnCA.Lifetime, "intermediate_lifetime": &i.OwnCA.IntermediateLifetime, "root_lifetime": &i.OwnCA.RootLifetime})
}

func (i *Issuer) readVault(v *vaultBlock, b *hcl.Block) hcl.Diagnostics {
	i.Vault = &Vault{Address: v.Address, Namespace: v.Namespace, Mount: v.Mount, Role: v.Role, Auth: "process"}
	diags := lifetimes(b, map[string]string{"lifetime": v.Lifetime}, map[string]*time.Duration{"lifetime": &i.Vault.Lifetime})
	ways := 0
	if v.Token != "" {
		i.Vault.Auth, i.Vault.Secret = "token", v.Token
		ways++
	}
	if a := v.AppRole; a != nil {
		i.Vault.Auth, i.Vault.AuthRole, i.Vault.AuthMount, i.Vault.Secret = "approle", a.RoleID, a.Mount, a.SecretID
		ways++
	}
	if j := v.JWT; j != nil {
		i.Vault.Auth, i.Vault.AuthRole, i.Vault.AuthMount = "jwt", j.Role, j.Mount
		ways++
	}
	if ways > 1 {
		diags = append(diags, errAt(b.DefRange, "Several ways to log in to Vault", "Write one of token, approle and jwt, or none for the token of the process ($VAULT_TOKEN)."))
	}
	return diags
}

// checkIssuers returns a diagnostic for each unknown issuer of a certificate. Known are
// those of the stack and Let's Encrypt's.
func (s *Stack) checkIssuers() hcl.Diagnostics {
	known := slices.Sorted(maps.Keys(builtinIssuers))
	for _, i := range s.Issuers {
		known = append(known, i.Name)
	}
	var diags hcl.Diagnostics
	for _, c := range s.Certificates {
		for _, name := range c.Issuers {
			if !slices.Contains(known, name) {
				hint := "Known are " + strings.Join(known, ", ") + "."
				if near := Nearest(name, known); near != "" {
					hint = fmt.Sprintf("Did you mean %q?", near)
				}
				diags = append(diags, errAt(c.Range, fmt.Sprintf("Certificate %q names the unknown issuer %q", c.Name, name), hint))
			}
		}
	}
	return diags
}
