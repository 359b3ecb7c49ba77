package stack

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/jobspec2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"gopkg.in/yaml.v3"
)

// declaration is a `variable` block, merged over the layers that declare it.
type declaration struct {
	name        string
	typ         cty.Type // NilType without type and without default
	typed       bool     // typ was written, not taken from the default
	description string
	def         *hcl.Attribute
	defValue    cty.Value
	validations []validation
	rng         hcl.Range
}

type validation struct {
	condition hcl.Expression
	message   string
	rng       hcl.Range
}

type declarations map[string]*declaration

func (ds declarations) names() []string { return slices.Sorted(maps.Keys(ds)) }

// declare reads the variable blocks of one layer over those of the layers
// below it; the receiver is not changed.
func (ds declarations) declare(f *hcl.File) (declarations, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	out := maps.Clone(ds)
	if out == nil {
		out = declarations{}
	}
	seen := map[string]hcl.Range{}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return out, nil
	}
	for _, b := range body.Blocks {
		switch b.Type {
		case "variable":
			if len(b.Labels) != 1 {
				diags = append(diags, errAt(b.DefRange(), "A variable block has one label", `Write variable "NAME" { … }.`))
				continue
			}
			name := b.Labels[0]
			if first, dup := seen[name]; dup {
				diags = append(diags, errAt(b.DefRange(), "Duplicate variable", fmt.Sprintf("%q is already declared at %s.", name, place(first))))
				continue
			}
			seen[name] = b.DefRange()
			d, ds := declareBlock(out[name], b)
			diags = append(diags, ds...)
			out[name] = d
		case "variables":
			for _, a := range b.Body.Attributes {
				v, ds := a.Expr.Value(nil)
				diags = append(diags, ds...)
				out[a.Name] = &declaration{name: a.Name, typ: v.Type(), def: a.AsHCLAttribute(), defValue: v, rng: a.SrcRange}
			}
		}
	}
	return out, diags
}

func declareBlock(below *declaration, b *hclsyntax.Block) (*declaration, hcl.Diagnostics) {
	d := &declaration{name: b.Labels[0], rng: b.DefRange()}
	if below != nil {
		copied := *below
		d = &copied
	}
	content, diags := b.Body.Content(&hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "description"}, {Name: "default"}, {Name: "type"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "validation"}},
	})
	if !hclsyntax.ValidIdentifier(d.name) {
		diags = append(diags, errAt(b.LabelRanges[0], "Invalid variable name", "A name starts with a letter and holds only letters, digits, underscores and dashes."))
	}
	if a := content.Attributes["description"]; a != nil {
		diags = append(diags, gohcl.DecodeExpression(a.Expr, nil, &d.description)...)
	}
	if a := content.Attributes["type"]; a != nil {
		t, ds := typeexpr.Type(a.Expr)
		diags = append(diags, ds...)
		if !ds.HasErrors() {
			d.typ, d.typed = t, true
		}
	}
	if a := content.Attributes["default"]; a != nil {
		d.def = a
		v, ds := a.Expr.Value(nil)
		diags = append(diags, ds...)
		if ds.HasErrors() {
			v = cty.DynamicVal
		}
		d.defValue = v
	}
	if d.def != nil {
		if d.typed {
			v, err := convert.Convert(d.defValue, d.typ)
			if err != nil {
				diags = append(diags, errAt(d.def.Expr.Range(), "Invalid default value for variable",
					fmt.Sprintf("The default of %q is not a %s: %s.", d.name, typeexpr.TypeString(d.typ), err)))
				v = cty.DynamicVal
			}
			d.defValue = v
		} else {
			d.typ = d.defValue.Type()
		}
	}
	for _, vb := range content.Blocks {
		c, ds := vb.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "condition", Required: true}, {Name: "error_message", Required: true}}})
		diags = append(diags, ds...)
		if ds.HasErrors() {
			continue
		}
		v := validation{condition: c.Attributes["condition"].Expr, rng: vb.DefRange}
		if ds := UnknownFunctions(v.condition); ds.HasErrors() {
			diags = append(diags, ds...)
			continue
		}
		diags = append(diags, gohcl.DecodeExpression(c.Attributes["error_message"].Expr, nil, &v.message)...)
		d.validations = append(d.validations, v)
	}
	return d, diags
}

// given is one value from one source.
type given struct {
	name  string
	value cty.Value
	rng   *hcl.Range // where the operator wrote the value, nil for -var and NOMAD_VAR_x
	at    *hcl.Range // where the name stands
	from  string     // "environment prod", "-var", …
	raw   *string    // text of -var and NOMAD_VAR_x, read by the variable's type
	lax   bool       // NOMAD_VAR_x: a name that is not declared is not ours
}

// resolve applies the given values, lowest precedence first, to the
// declarations and returns one value for each of them.
func (ds declarations) resolve(vals []given) (map[string]cty.Value, hcl.Diagnostics) {
	var diags hcl.Diagnostics
	out := make(map[string]cty.Value, len(ds))
	last := map[string]given{}
	for _, g := range vals {
		d := ds[g.name]
		if d == nil {
			continue // reported by unknownNames
		}
		v, gd := g.eval(d)
		diags = append(diags, gd...)
		if gd.HasErrors() {
			v = cty.DynamicVal
		}
		g.value = v
		last[g.name] = g
	}
	for _, name := range ds.names() {
		d := ds[name]
		g, ok := last[name]
		v := g.value
		if !ok {
			if d.def == nil {
				diags = append(diags, d.missing())
				continue
			}
			v = d.defValue
		}
		out[name] = v
		if v == cty.DynamicVal {
			continue // already reported
		}
		diags = append(diags, d.validate(v, g)...)
	}
	return out, diags
}

func (d *declaration) missing() *hcl.Diagnostic {
	detail := fmt.Sprintf("Give it with -var %s=…, in a -var-file, in the environment's variables block or as %s%s.", d.name, jobspec2.VarEnvPrefix, d.name)
	if d.description != "" {
		detail = strings.TrimSuffix(d.description, ".") + ". " + detail
	}
	diag := errAt(d.rng, fmt.Sprintf("Variable %q has no value", d.name), detail)
	diag.Extra = CodeMissingValue
	return diag
}

func (g given) eval(d *declaration) (cty.Value, hcl.Diagnostics) {
	v := g.value
	if g.raw != nil {
		switch d.typ {
		case cty.String, cty.Number, cty.NilType:
			v = cty.StringVal(*g.raw)
		default:
			expr, diags := ParseHCLExpression([]byte(*g.raw), "<"+g.from+">")
			if !diags.HasErrors() {
				v, diags = expr.Value(nil)
			}
			if diags.HasErrors() {
				hint := ""
				if d.typ == cty.Bool {
					hint = " Write true or false."
				}
				return v, hcl.Diagnostics{g.errorf("Invalid value for variable", "%s, given with %s, is not a %s: %s.%s",
					d.name, g.from, d.typeName(), diags[0].Summary, hint)}
			}
		}
	}
	if d.typ == cty.NilType {
		return v, nil
	}
	conv, err := convert.Convert(v, d.typ)
	if err != nil {
		return v, hcl.Diagnostics{g.errorf("Invalid value for variable", "%s, given with %s, must be a %s (declared at %s): %s.",
			d.name, g.from, d.typeName(), place(d.rng), err)}
	}
	return conv, nil
}

func (d *declaration) typeName() string {
	if d.typ == cty.NilType {
		return "string"
	}
	return typeexpr.TypeString(d.typ)
}

func (g given) errorf(summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: g.rng, Extra: CodeInvalidValue}
}

func (d *declaration) validate(v cty.Value, g given) hcl.Diagnostics {
	var diags hcl.Diagnostics
	ctx := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{d.name: v})},
		Functions: jobspec2.Functions("", false),
	}
	for _, val := range d.validations {
		ok, ds := condition(val.condition, ctx)
		diags = append(diags, ds...)
		if ds.HasErrors() || ok {
			continue
		}
		subject := g.rng
		if subject == nil {
			subject = val.rng.Ptr()
		}
		from := ""
		if g.from != "" {
			from = ", given with " + g.from + ","
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  fmt.Sprintf("Invalid value for variable %q", d.name),
			Detail:   fmt.Sprintf("%s (The value%s breaks the rule at %s.)", val.message, from, place(val.rng)),
			Subject:  subject,
			Extra:    CodeInvalidValue,
		})
	}
	return diags
}

// UnknownFunctions complains about calls of functions that Nomad does not
// have. Evaluation does so too, but not inside can() and try(), where the
// mistake would only make the condition false.
func UnknownFunctions(e hcl.Expression) hcl.Diagnostics {
	node, ok := e.(hclsyntax.Node)
	if !ok {
		return nil
	}
	var diags hcl.Diagnostics
	var known map[string]function
	_ = hclsyntax.VisitAll(node, func(n hclsyntax.Node) hcl.Diagnostics {
		call, ok := n.(*hclsyntax.FunctionCallExpr)
		if !ok {
			return nil
		}
		if known == nil {
			known = jobspec2.Functions("", false)
		}
		if _, ok := known[call.Name]; !ok {
			detail := "Nomad's job specs have no function of that name."
			if near := Nearest(call.Name, slices.Sorted(maps.Keys(known))); near != "" {
				detail += fmt.Sprintf(" Did you mean %s?", near)
			}
			diags = append(diags, errAt(call.NameRange, fmt.Sprintf("Unknown function %q", call.Name), detail))
		}
		return nil
	})
	return diags
}

// condition evaluates the condition of a validation or precondition.
func condition(e hcl.Expression, ctx *hcl.EvalContext) (bool, hcl.Diagnostics) {
	v, diags := e.Value(ctx)
	if diags.HasErrors() {
		return false, diags
	}
	b, err := convert.Convert(v, cty.Bool)
	if err != nil || b.IsNull() || !b.IsKnown() {
		return false, hcl.Diagnostics{errAt(e.Range(), "Invalid condition", "A condition must be true or false.")}
	}
	return b.True(), nil
}

// A Code says which kind of mistake a diagnostic is about; it stands in the
// diagnostic's Extra field. Diagnostics of HCL and Nomad have none.
type Code string

// Codes of diagnostics.
const (
	CodeUnknownVariable Code = "unknown-variable"
	CodeInvalidValue    Code = "invalid-value"
	CodeMissingValue    Code = "missing-value"
	CodeCycle           Code = "dependency-cycle"
	CodeOverlay         Code = "overlay-matches-nothing"
	CodeSchedule        Code = "schedule" // found by package schedule
)

// unknownNames returns an error for each value of an undeclared variable.
func unknownNames(known []string, vals []given) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, g := range vals {
		if g.lax || slices.Contains(known, g.name) {
			continue
		}
		detail := fmt.Sprintf("Given with %s, but nothing declares it; declare it in variables.hcl or remove the value.", g.from)
		if near := Nearest(g.name, known); near != "" {
			detail = fmt.Sprintf("Given with %s, but nothing declares it. Did you mean %q?", g.from, near)
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Unknown variable %q", g.name), Detail: detail, Subject: g.at, Extra: CodeUnknownVariable})
	}
	return diags
}

// environValues returns the NOMAD_VAR_x of the process's environment.
func environValues(environ []string) []given {
	var out []given
	for _, kv := range environ {
		rest, ok := strings.CutPrefix(kv, jobspec2.VarEnvPrefix)
		if !ok {
			continue
		}
		if name, value, ok := strings.Cut(rest, "="); ok {
			out = append(out, given{name: name, raw: &value, from: jobspec2.VarEnvPrefix + name, lax: true})
		}
	}
	return out
}

// ProcessValue is a variable of the stack whose value comes from the environment
// of the process, as NOMAD_VAR_x.
type ProcessValue struct {
	Variable string `json:"variable"`
	From     string `json:"from"` // name of the environment variable
	// Overrides is what would have set the variable otherwise: "environment prod"
	// or "its default"; "" when nothing would.
	Overrides string `json:"overrides,omitempty"`
}

// processValues returns the variables, of those that are declared, whose value
// comes from the environment of the process, ordered by name. A value that a
// file or flag overrides is not among them.
func processValues(declared map[string]bool, vals []given, hasDefault func(string) bool) []ProcessValue {
	before, last := map[string]given{}, map[string]given{}
	for _, g := range vals {
		if declared[g.name] {
			before[g.name], last[g.name] = last[g.name], g
		}
	}
	var out []ProcessValue
	for _, name := range slices.Sorted(maps.Keys(last)) {
		g := last[name]
		if !g.lax {
			continue
		}
		v := ProcessValue{Variable: name, From: g.from, Overrides: before[name].from}
		if v.Overrides == "" && hasDefault(name) {
			v.Overrides = "its default"
		}
		out = append(out, v)
	}
	return out
}

// argValues returns the values of -var k=v.
func argValues(args []string) ([]given, hcl.Diagnostics) {
	var out []given
	var diags hcl.Diagnostics
	for _, kv := range args {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("Cannot read -var %q", kv), Detail: "Write -var NAME=VALUE."})
			continue
		}
		out = append(out, given{name: name, raw: &value, from: "-var"})
	}
	return out, diags
}

// fileValues reads a file of -var-file or -values: HCL, JSON or YAML.
func (s *Stack) fileValues(path string) ([]given, hcl.Diagnostics) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read the file of values", Detail: err.Error() + "."}}
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml":
		return yamlValues(path, src)
	}
	var f *hcl.File
	var diags hcl.Diagnostics
	if trimmed := bytes.TrimLeft(src, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		f, diags = parseJSON(src, path)
	} else {
		f, diags = ParseHCL(src, path)
	}
	if diags.HasErrors() {
		return nil, diags
	}
	if _, native := f.Body.(*hclsyntax.Body); !native {
		return attributeValues(f.Body, path, nil) // with a context, HCL takes strings of JSON for templates
	}
	return attributeValues(f.Body, path, &hcl.EvalContext{Variables: map[string]cty.Value{DroverObject: s.droverObject()}})
}

func attributeValues(body hcl.Body, from string, ctx *hcl.EvalContext) ([]given, hcl.Diagnostics) {
	if b, ok := body.(*hclsyntax.Body); ok && len(b.Blocks) > 0 {
		return nil, hcl.Diagnostics{errAt(b.Blocks[0].DefRange(), "A file of values holds no blocks",
			"Write NAME = VALUE; variables are declared in variables.hcl or in the job file.")}
	}
	attrs, diags := body.JustAttributes()
	if diags.HasErrors() {
		return nil, diags
	}
	var out []given
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		a := attrs[name]
		v, ds := a.Expr.Value(ctx)
		diags = append(diags, ds...)
		rng := a.Expr.Range()
		if rng.Filename == "" {
			rng = a.Range
		}
		out = append(out, given{name: name, value: v, rng: &rng, at: a.NameRange.Ptr(), from: from})
	}
	return out, diags
}

func yamlValues(path string, src []byte) ([]given, hcl.Diagnostics) {
	at := func(n *yaml.Node) *hcl.Range {
		p := hcl.Pos{Line: max(n.Line, 1), Column: max(n.Column, 1)}
		return &hcl.Range{Filename: path, Start: p, End: p}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(src, &doc); err != nil {
		line := 1
		_, _ = fmt.Sscanf(err.Error(), "yaml: line %d:", &line)
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read YAML", Detail: err.Error() + ".", Subject: at(&yaml.Node{Line: line})}}
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "A file of values holds a mapping", Detail: "Write NAME: VALUE.", Subject: at(root)}}
	}
	var out []given
	var diags hcl.Diagnostics
	budget := 1_000_000
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, n := root.Content[i], root.Content[i+1]
		v, err := yamlValue(n, &budget, 0)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Cannot read YAML", Detail: err.Error() + ".", Subject: at(n)})
			continue
		}
		out = append(out, given{name: k.Value, value: v, rng: at(n), at: at(k), from: path})
	}
	return out, diags
}

// yamlValue reads one node. budget bounds how many nodes aliases unfold to,
// depth how deep: an alias may be inside of what it names.
func yamlValue(n *yaml.Node, budget *int, depth int) (cty.Value, error) {
	if *budget--; *budget < 0 {
		return cty.NilVal, errors.New("the file unfolds to too many values")
	}
	if depth++; depth > 100 {
		return cty.NilVal, errors.New("the value is nested too deeply, or an alias is inside of what it names")
	}
	switch n.Kind {
	case yaml.AliasNode:
		return yamlValue(n.Alias, budget, depth)
	case yaml.SequenceNode:
		vals := make([]cty.Value, len(n.Content))
		for i, c := range n.Content {
			v, err := yamlValue(c, budget, depth)
			if err != nil {
				return cty.NilVal, err
			}
			vals[i] = v
		}
		return cty.TupleVal(vals), nil
	case yaml.MappingNode:
		vals := map[string]cty.Value{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := yamlValue(n.Content[i+1], budget, depth)
			if err != nil {
				return cty.NilVal, err
			}
			vals[n.Content[i].Value] = v
		}
		return cty.ObjectVal(vals), nil
	}
	switch n.ShortTag() {
	case "!!null":
		return cty.NullVal(cty.DynamicPseudoType), nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return cty.BoolVal(b), err
	case "!!int", "!!float":
		if v, err := cty.ParseNumberVal(strings.ReplaceAll(n.Value, "_", "")); err == nil {
			return v, nil
		}
		var f float64
		if err := n.Decode(&f); err != nil {
			return cty.NilVal, err
		}
		if f != f { // NaN has no place in a job
			return cty.NilVal, fmt.Errorf("%s is not a number", n.Value)
		}
		return cty.NumberFloatVal(f), nil
	}
	return cty.StringVal(n.Value), nil
}

// Nearest returns the known name most similar to name, "" if none is similar, for "did
// you mean" in messages.
func Nearest(name string, known []string) string {
	best, bestDist := "", max(2, len(name)/3)+1
	for _, k := range known {
		if d := distance(name, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	if best == "" && len(name) > 2 {
		if i := slices.IndexFunc(known, func(k string) bool { return strings.HasPrefix(k, name) || strings.HasPrefix(name, k) && len(k) > 2 }); i >= 0 {
			best = known[i]
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func errAt(rng hcl.Range, summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &rng}
}

// place formats a position for messages: file:line:column.
func place(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}
