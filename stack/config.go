package stack

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
)

// configSchema is the top level of stack.hcl.
var configSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "stack", LabelNames: []string{"name"}},
	{Type: "service", LabelNames: []string{"name"}},
	{Type: "secret", LabelNames: []string{"name"}},
	{Type: "volume", LabelNames: []string{"name"}},
	{Type: "check", LabelNames: []string{"name"}},
	{Type: "precondition"},
	{Type: "locals"},
	{Type: "dns", LabelNames: []string{"name"}}, // see labelDNS
	{Type: "record", LabelNames: []string{"name"}},
	{Type: "certificate", LabelNames: []string{"name"}},
	{Type: "issuer", LabelNames: []string{"name"}},
	// Reserved: read by later commands, any content.
	{Type: "route", LabelNames: []string{"name"}},
}}

type stackBlock struct {
	Version      string   `hcl:"version,optional"`
	AppVersion   string   `hcl:"app_version,optional"`
	UpgradeFrom  []string `hcl:"upgrade_from,optional"`
	Exclusive    string   `hcl:"exclusive,optional"`
	Description  string   `hcl:"description,optional"`
	RequiresJobs []string `hcl:"requires_jobs,optional"`
}

type serviceBlock struct {
	DependsOn []string `hcl:"depends_on,optional"`
	Secrets   []string `hcl:"secrets,optional"`
	File      string   `hcl:"file,optional"`
	Enabled   *bool    `hcl:"enabled,optional"`
	ID        string   `hcl:"id,optional"`

	Env    hcl.Expression `hcl:"env,optional"`
	Locals hcl.Expression `hcl:"locals,optional"`

	Timeout          string `hcl:"timeout,optional"`
	PlacementTimeout string `hcl:"placement_timeout,optional"`
}

type secretBlock struct {
	Type        string   `hcl:"type,optional"`
	Length      *int     `hcl:"length,optional"`
	DNSNames    []string `hcl:"dns_names,optional"`
	IPAddresses []string `hcl:"ip_addresses,optional"`
	Import      []string `hcl:"import,optional"`
	Description string   `hcl:"description,optional"`
}

type volumeBlock struct {
	PluginID   string            `hcl:"plugin_id,optional"`
	Parameters map[string]string `hcl:"parameters,optional"`
}

type checkBlock struct {
	Method        string            `hcl:"method,optional"`
	URL           string            `hcl:"url"`
	Headers       map[string]string `hcl:"headers,optional"`
	BasicAuth     *basicAuthBlock   `hcl:"basic_auth,block"`
	Body          string            `hcl:"body,optional"`
	Status        []int             `hcl:"status,optional"`
	Contains      string            `hcl:"contains,optional"`
	Timeout       string            `hcl:"timeout,optional"`
	TLSSkipVerify bool              `hcl:"tls_skip_verify,optional"`
}

type basicAuthBlock struct {
	Username string `hcl:"username"`
	Password string `hcl:"password,optional"`
	Secret   string `hcl:"secret,optional"`
}

type preconditionBlock struct {
	Condition    hcl.Expression `hcl:"condition"`
	ErrorMessage string         `hcl:"error_message"`
}

// config reads stack.hcl and its parts into s. Services come in the order of the
// files. It adds the locals of the files to ctx.
func (s *Stack) config(body hcl.Body, ctx *hcl.EvalContext) hcl.Diagnostics {
	if diags := stackLocals(body, ctx); diags.HasErrors() {
		return diags
	}
	content, diags := dynblock.Expand(body, ctx).Content(configSchema)
	seen := map[string]hcl.Range{}
	for _, b := range content.Blocks {
		id := b.Type
		if len(b.Labels) > 0 && b.Type != "stack" && b.Labels[0] != "" {
			id += " " + b.Labels[0]
		}
		if b.Type != "precondition" && b.Type != "record" && b.Type != "locals" { // a name has several types of record
			if first, dup := seen[id]; dup {
				diags = append(diags, errAt(b.DefRange, "Duplicate "+b.Type, fmt.Sprintf("%s is already defined at %s.", id, place(first))))
				continue
			}
			seen[id] = b.DefRange
		}
		if (b.Type == "service" || b.Type == "secret" || b.Type == "volume") && !validName(b.Labels[0]) {
			diags = append(diags, errAt(b.LabelRanges[0], fmt.Sprintf("Invalid name %q of a %s", b.Labels[0], b.Type), "A name holds letters, digits, dots, dashes and underscores, and begins with a letter or digit."))
			continue
		}
		switch b.Type {
		case "stack":
			var v stackBlock
			diags = append(diags, gohcl.DecodeBody(b.Body, ctx, &v)...)
			s.Name, s.Version, s.AppVersion, s.Description, s.RequiresJobs = b.Labels[0], v.Version, v.AppVersion, v.Description, v.RequiresJobs
			s.UpgradeFrom, s.Exclusive = v.UpgradeFrom, v.Exclusive
			for _, pattern := range v.UpgradeFrom {
				if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
					diags = append(diags, errAt(b.Body.MissingItemRange(), fmt.Sprintf("Invalid pattern %q of upgrade_from", pattern), "A pattern is a version, or has * and ? for parts of it: 7.1.*."))
				}
			}
			if len(v.UpgradeFrom) > 0 && v.AppVersion == "" {
				diags = append(diags, errAt(b.Body.MissingItemRange(), "upgrade_from without app_version", "drover compares upgrade_from with the app_version of what runs. Set app_version."))
			}
		case "service":
			var v serviceBlock
			diags = append(diags, gohcl.DecodeBody(b.Body, ctx, &v)...)
			if v.File == "" {
				v.File = b.Labels[0] + jobSuffix
			}
			limits, ds := v.limits(b)
			diags = append(diags, ds...)
			row, ds := v.row(b, ctx)
			diags = append(diags, ds...)
			svc := &Service{Name: b.Labels[0], File: v.File, DependsOn: orNil(v.DependsOn), Secrets: orNil(v.Secrets), Limits: limits, Row: row, ownID: v.ID != "", Range: b.DefRange}
			s.Services = append(s.Services, svc)
			if v.Enabled != nil && !*v.Enabled {
				s.Disabled = append(s.Disabled, svc)
			}
		case "secret":
			diags = append(diags, s.secret(b, ctx)...)
		case "volume":
			var v volumeBlock
			diags = append(diags, gohcl.DecodeBody(b.Body, ctx, &v)...)
			s.Volumes = append(s.Volumes, &Volume{Name: b.Labels[0], PluginID: v.PluginID, Parameters: v.Parameters})
		case "check":
			diags = append(diags, s.check(b, ctx)...)
		case "dns":
			diags = append(diags, s.dns(b, ctx)...)
		case "record":
			diags = append(diags, s.record(b, ctx)...)
		case "certificate":
			diags = append(diags, s.certificate(b, ctx)...)
		case "issuer":
			diags = append(diags, s.issuer(b, ctx)...)
		case "precondition":
			diags = append(diags, precondition(b, ctx)...)
		}
	}
	return diags
}

// orNil returns nil for an empty list, so that a list that a table leaves empty is one
// that is not given.
func orNil(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func (v serviceBlock) limits(b *hcl.Block) (Limits, hcl.Diagnostics) {
	var l Limits
	var diags hcl.Diagnostics
	for _, a := range []struct {
		name, text string
		to         *time.Duration
	}{{"timeout", v.Timeout, &l.Timeout}, {"placement_timeout", v.PlacementTimeout, &l.PlacementTimeout}} {
		if a.text == "" {
			continue
		}
		d, err := time.ParseDuration(a.text)
		if err != nil || d <= 0 {
			diags = append(diags, errAt(attrRange(b, a.name), fmt.Sprintf("Invalid %s %q", a.name, a.text), `Write a duration such as "20m".`))
			continue
		}
		*a.to = d
	}
	if l.Timeout > 0 && l.PlacementTimeout > l.Timeout {
		diags = append(diags, errAt(attrRange(b, "placement_timeout"), fmt.Sprintf("The placement_timeout of service %q is longer than its timeout", b.Labels[0]),
			"The timeout includes the wait for a node. Write a longer timeout."))
	}
	return l, diags
}

func validName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return name != ""
}

func (s *Stack) secret(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v secretBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	sec := &Secret{
		Name: b.Labels[0], Type: v.Type, Length: 32, DNSNames: v.DNSNames, IPAddresses: v.IPAddresses,
		ImportPaths: v.Import, Description: v.Description,
	}
	if sec.Type == "" {
		sec.Type = SecretRandom
	}
	kinds := []string{SecretRandom, SecretUUID, SecretGiven, SecretCertificate}
	if !slices.Contains(kinds, sec.Type) {
		diags = append(diags, errAt(attrRange(b, "type"), fmt.Sprintf("Unknown type of secret %q", sec.Type), "Write one of "+strings.Join(kinds, ", ")+"."))
	}
	if v.Length != nil {
		sec.Length = *v.Length
		if sec.Length < 8 || sec.Length > 4096 {
			diags = append(diags, errAt(attrRange(b, "length"), "Invalid length of a secret", "Write a number from 8 to 4096."))
		}
	}
	for _, other := range s.Secrets {
		for _, item := range sec.stored() {
			if slices.Contains(other.stored(), item) {
				diags = append(diags, errAt(b.DefRange, fmt.Sprintf("Secrets %q and %q both have the item %q", other.Name, sec.Name, item), "Rename one of them."))
			}
		}
	}
	s.Secrets = append(s.Secrets, sec)
	return diags
}

func (s *Stack) check(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v checkBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	c := &Check{
		Name: b.Labels[0], Method: v.Method, URL: v.URL, Headers: v.Headers, Body: v.Body, Status: v.Status,
		Contains: v.Contains, TLSSkipVerify: v.TLSSkipVerify, Range: b.DefRange,
	}
	if v.BasicAuth != nil {
		c.Username, c.Password, c.Secret = v.BasicAuth.Username, v.BasicAuth.Password, v.BasicAuth.Secret
		if auth := childBlock(b, "basic_auth"); (attribute(auth, "password") != nil) == (attribute(auth, "secret") != nil) {
			diags = append(diags, errAt(auth.DefRange, "basic_auth has a secret or a password", "Write secret, with the name of a secret of the stack, or password, which is not kept in the record."))
		}
		s.keepSecret(attrExpr(childBlock(b, "basic_auth"), "password"))
	}
	s.keepSecretHeaders(attrExpr(b, "headers"), ctx)
	if v.Timeout != "" {
		d, err := time.ParseDuration(v.Timeout)
		if err != nil || d <= 0 {
			diags = append(diags, errAt(attrRange(b, "timeout"), fmt.Sprintf("Invalid timeout %q", v.Timeout), `Write a duration such as "10s".`))
		}
		c.Timeout = d
	}
	s.Checks = append(s.Checks, c)
	return diags
}

func precondition(b *hcl.Block, ctx *hcl.EvalContext) hcl.Diagnostics {
	var v preconditionBlock
	diags := gohcl.DecodeBody(b.Body, ctx, &v)
	if diags.HasErrors() {
		return diags
	}
	written := v.Condition
	for { // dynamic wraps the expressions of its blocks
		inner, wrapped := written.(interface{ UnwrapExpression() hcl.Expression })
		if !wrapped {
			break
		}
		written = inner.UnwrapExpression()
	}
	if ds := UnknownFunctions(written); ds.HasErrors() {
		return append(diags, ds...)
	}
	ok, ds := condition(v.Condition, ctx)
	diags = append(diags, ds...)
	if !ds.HasErrors() && !ok {
		diags = append(diags, errAt(b.DefRange, "The stack's precondition does not hold", v.ErrorMessage))
	}
	return diags
}

// attrRange is where an attribute of b is written, or b itself.
func attrRange(b *hcl.Block, name string) hcl.Range {
	if a := attribute(b, name); a != nil {
		return a.Expr.Range()
	}
	return b.DefRange
}

// attrExpr is what an attribute of b is set to, null when it is not there.
func attrExpr(b *hcl.Block, name string) hcl.Expression {
	if a := attribute(b, name); a != nil {
		return a.Expr
	}
	return hcl.StaticExpr(cty.NullVal(cty.DynamicPseudoType), b.DefRange)
}

func attribute(b *hcl.Block, name string) *hcl.Attribute {
	c, _, _ := b.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: name}}})
	return c.Attributes[name]
}

// checkReferences checks the names of services and secrets to which services and the dns
// block refer.
func (s *Stack) checkReferences() hcl.Diagnostics {
	var diags hcl.Diagnostics
	var names, items []string
	for _, svc := range s.Services {
		names = append(names, svc.Name)
	}
	for _, sec := range s.Secrets {
		items = append(items, sec.Items()...)
	}
	unknown := func(svc *Service, what, name string, known []string) {
		hint := "There is none of that name."
		if near := Nearest(name, known); near != "" {
			hint = fmt.Sprintf("Did you mean %q?", near)
		} else if len(known) > 0 && len(known) <= 12 {
			hint = "Known are " + strings.Join(known, ", ") + "."
		}
		diags = append(diags, errAt(svc.Range, fmt.Sprintf("Service %q names the unknown %s %q", svc.Name, what, name), hint))
	}
	for _, svc := range s.Disabled {
		names = append(names, svc.Name)
	}
	for _, svc := range s.Services {
		for _, d := range svc.DependsOn {
			if !slices.Contains(names, d) {
				unknown(svc, "service", d, names)
			}
		}
		svc.DependsOn = orNil(slices.DeleteFunc(slices.Clone(svc.DependsOn), s.isDisabled))
		for _, i := range svc.Secrets {
			if !slices.Contains(items, i) {
				unknown(svc, "secret item", i, items)
			}
		}
	}
	for _, c := range s.Checks {
		if c.Secret != "" && !slices.Contains(items, c.Secret) {
			diags = append(diags, errAt(c.Range, fmt.Sprintf("Check %q names the unknown secret %q", c.Name, c.Secret), "Declare it: secret \""+c.Secret+"\" {}."))
		}
	}
	for _, r := range s.Records {
		for _, d := range s.DNSProviders() {
			if r.Proxied != nil && d.Provider != "cloudflare" && (len(r.DNS) == 0 && len(s.DNS) == 1 || slices.Contains(r.DNS, d.Name)) {
				diags = append(diags, errAt(r.Range, fmt.Sprintf("The DNS provider %s cannot proxy a record", d.Provider), "Remove proxied; only cloudflare has it."))
			}
		}
		for _, name := range r.DNS {
			if !slices.ContainsFunc(s.DNS, func(d *DNS) bool { return d.Name == name }) {
				diags = append(diags, errAt(r.Range, fmt.Sprintf("Record %q is for the unknown dns block %q", r.Name, name), "Write a name of a dns block, or remove dns for all whose zones it is in."))
			}
		}
	}
	diags = append(diags, s.checkDNS()...)
	for _, d := range s.DNS {
		if d.CredentialSecret == "" {
			continue
		}
		at := slices.IndexFunc(s.Secrets, func(sec *Secret) bool { return sec.Name == d.CredentialSecret && sec.Type != SecretCertificate })
		if at < 0 {
			diags = append(diags, errAt(d.Range, fmt.Sprintf("The DNS credential is the unknown secret %q", d.CredentialSecret),
				fmt.Sprintf("Declare it: secret %q { type = %q }. Its value is given with drover secrets set.", d.CredentialSecret, SecretGiven)))
		}
	}
	return diags
}

// longestNames is the limit of the total length of the names of a stack and an
// environment. The longest path of their record in Nomad Variables is
// drover/stacks/STACK/ENVIRONMENT/blobs/DIGEST, and Nomad allows 128 characters.
const longestNames = 128 - len("drover/stacks///blobs/") - 40

// checkNames refuses names that do not fit into the path of a Nomad Variable.
func (s *Stack) checkNames() hcl.Diagnostics {
	length := 0
	for _, b := range []byte(s.Name + s.Environment) {
		length++
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_') {
			length += 2 // it is written as ~ and two hexadecimal digits
		}
	}
	if length <= longestNames {
		return nil
	}
	at := hcl.Range{Filename: s.Path, Start: hcl.InitialPos, End: hcl.InitialPos}
	return hcl.Diagnostics{errAt(at, fmt.Sprintf("The names of stack %q and environment %q are too long together", s.Name, s.Environment),
		fmt.Sprintf("Nomad keeps the record below both names: use at most %d letters, digits, - and _ in all.", longestNames))}
}

// sortServices puts services behind what they depend on, ties by name.
func (s *Stack) sortServices() hcl.Diagnostics {
	slices.SortFunc(s.Services, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })
	byName := make(map[string]*Service, len(s.Services))
	for _, svc := range s.Services {
		byName[svc.Name] = svc
	}
	waits := map[string]int{}           // services that svc still waits for
	dependents := map[string][]string{} // services that wait for it
	for _, svc := range s.Services {
		for _, d := range slices.Compact(slices.Sorted(slices.Values(svc.DependsOn))) {
			waits[svc.Name]++
			dependents[d] = append(dependents[d], svc.Name)
		}
	}
	var ready []string
	for _, svc := range s.Services {
		if waits[svc.Name] == 0 {
			ready = append(ready, svc.Name)
		}
	}
	sorted := make([]*Service, 0, len(s.Services))
	for len(ready) > 0 {
		name := ready[0]
		ready = ready[1:]
		sorted = append(sorted, byName[name])
		for _, d := range dependents[name] {
			if waits[d]--; waits[d] == 0 {
				at, _ := slices.BinarySearch(ready, d)
				ready = slices.Insert(ready, at, d)
			}
		}
	}
	if len(sorted) < len(s.Services) {
		return hcl.Diagnostics{cycle(s.Services, byName, waits)}
	}
	s.Services = sorted
	return nil
}

// cycle describes one dependency cycle among the services that still wait.
func cycle(services []*Service, byName map[string]*Service, waits map[string]int) *hcl.Diagnostic {
	var path []string
	var name string
	for _, svc := range services {
		if waits[svc.Name] > 0 {
			name = svc.Name
			break
		}
	}
	for !slices.Contains(path, name) {
		path = append(path, name)
		for _, d := range byName[name].DependsOn {
			if waits[d] > 0 {
				name = d
				break
			}
		}
	}
	path = append(path[slices.Index(path, name):], name)
	diag := errAt(byName[name].Range, "Services depend on each other in a circle",
		strings.Join(path, " → ")+". Remove one depends_on of these.")
	diag.Extra = CodeCycle
	return diag
}

func (s *Stack) evalContext(vars map[string]cty.Value, funcs map[string]function) *hcl.EvalContext {
	return &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(vars), DroverObject: s.droverObject()}, Functions: funcs}
}
