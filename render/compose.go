package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/drover-nomad/drover/stack"
)

// compose merges the layers of one service in one target to a plain job spec: the
// variables and locals that the job refers to, then the job.
func (r *renderer) compose(u unit) (*sourceMap, hcl.Diagnostics) {
	svc := u.service
	own, diags := r.parse(svc.Layer, "variable", "variables", "locals", "job")
	if diags.HasErrors() {
		return nil, diags
	}
	row := &body{}
	if svc.Row != nil {
		var ds hcl.Diagnostics
		if row, ds = r.parse(svc.Row, "locals", "job"); ds.HasErrors() {
			return nil, ds
		}
	}
	m := &merger{rules: r.rules}
	job, ds := r.job(m, u, own, row)
	if ds.HasErrors() {
		return nil, ds
	}
	vars, locals := r.declarations(m, u, own, row)
	if m.diags.HasErrors() {
		return nil, m.diags
	}

	refs := references{vars: map[string]hcl.Range{}, locals: map[string]hcl.Range{}, drover: map[string]hcl.Range{}}
	refs.body(job.body)
	// Locals refer to locals: follow them until nothing new is named.
	carried := &body{}
	for done := map[string]bool{}; ; {
		var next []string
		for name := range refs.locals {
			if !done[name] {
				next = append(next, name)
			}
		}
		if len(next) == 0 {
			break
		}
		slices.Sort(next)
		for _, name := range next {
			done[name] = true
			at := slices.IndexFunc(locals.items, func(n *node) bool { return n.name == name })
			if at < 0 {
				diags = append(diags, unknownReference("local", name, refs.locals[name], names(locals)))
				continue
			}
			refs.add(locals.items[at].refs)
		}
	}
	for _, n := range locals.items {
		if _, ok := refs.locals[n.name]; ok {
			carried.items = append(carried.items, n)
		}
	}

	e := &emitter{}
	known := names(vars)
	for _, name := range slices.Sorted(maps.Keys(refs.vars)) {
		if !slices.Contains(known, name) {
			diags = append(diags, unknownReference("var", name, refs.vars[name], known))
		}
	}
	diags = append(diags, r.checkDrover(refs.drover, locals)...)
	if diags.HasErrors() {
		return nil, diags
	}
	for i, n := range vars.items {
		name := known[i]
		if _, ok := refs.vars[name]; !ok {
			continue
		}
		valued := r.valued[n]
		if valued == nil { // the service's own declaration
			valued = withValue(n, name, svc.Values[name])
		}
		e.node(valued, 0)
	}
	if len(carried.items)+len(refs.drover) > 0 {
		e.newline()
		if e.buf.Len() > 0 {
			e.buf.WriteByte('\n')
		}
		e.buf.WriteString("locals {\n")
		e.buf.WriteString(r.droverLocals(refs.drover))
		e.body(carried, 1)
		e.buf.WriteString("}\n\n")
	}
	e.node(job, 0)
	if len(refs.drover) > 0 {
		return substituteDrover(e.sourceMap()), nil
	}
	return e.sourceMap(), nil
}

func names(b *body) []string {
	var out []string
	for _, n := range b.items {
		if n.attr {
			out = append(out, n.name)
		} else {
			out = append(out, n.labels[0])
		}
	}
	return out
}

// job merges the job blocks of all layers that apply to the service.
func (r *renderer) job(m *merger, u unit, own, row *body) (*node, hcl.Diagnostics) {
	svc := u.service
	var job *node
	for _, n := range own.items {
		if n.name != "job" {
			continue
		}
		if job != nil {
			return nil, hcl.Diagnostics{diagAt(n.rng, "A job file holds one job", "Another one is at "+place(job.rng)+"; move it to a file of its own.")}
		}
		job = n
	}
	if job == nil {
		start := hcl.Range{Filename: svc.Layer.File, Start: hcl.InitialPos, End: hcl.InitialPos}
		return nil, hcl.Diagnostics{diagAt(start, "No job block", fmt.Sprintf("Write job %q { … }.", svc.Name))}
	}
	if job.isGlob() {
		return nil, hcl.Diagnostics{diagAt(job.rng, "A service's job needs a name", "Patterns belong to "+stack.BaseFile+" and to environments.")}
	}
	used := map[hcl.Range]bool{}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		maps.Copy(r.used, used)
		r.labels = append(r.labels, svc.Name, job.labels[0])
	}()
	merged := *job
	first := true
	lay := func(n *node) {
		if first {
			merged.body, first = n.body, false
			return
		}
		merged.body = m.bodies(merged.body, n.body)
	}
	concerns := func(n *node) bool {
		return n.name == "job" && !n.attr && len(n.labels) == 1 &&
			(n.labels[0] == svc.Name || n.labels[0] == job.labels[0] || matches(n.labels[0], svc.Name) || matches(n.labels[0], job.labels[0]))
	}
	if r.base != nil {
		for _, n := range r.base.items {
			if concerns(n) {
				lay(n)
			}
		}
	}
	lay(job)
	for _, n := range row.items {
		if n.name == "job" {
			lay(n)
		}
	}
	for _, layer := range []*body{r.overlay, r.targets[u.target.Name]} {
		if layer == nil {
			continue
		}
		for _, n := range layer.items {
			if concerns(n) {
				used[n.rng] = true
				for _, g := range n.globs {
					used[g] = true
				}
				lay(n)
			}
		}
	}
	merged.body = m.bodies(merged.body, r.placement(u))
	if m.diags.HasErrors() {
		return nil, m.diags
	}
	merged.body = m.resolve(merged.body, used)
	merged.body = r.suffixed(u.target, &merged)
	merged.pristine = merged.body == job.body
	return &merged, m.diags
}

// declarations merges the variable blocks and locals of all layers.
func (r *renderer) declarations(m *merger, u unit, own, row *body) (vars, locals *body) {
	vars, locals = r.vars, r.locals
	ov, ol := declared(m, own)
	_, rl := declared(m, row)
	vars, locals = m.bodies(vars, ov), m.bodies(m.bodies(locals, ol), rl)
	for _, layer := range []*body{r.overlay, r.targets[u.target.Name]} {
		if layer != nil {
			_, ll := declared(m, layer) // the variables block of an environment holds values
			locals = m.bodies(locals, ll)
		}
	}
	return vars, locals
}

// share merges what the layers that all services share declare, and writes
// the values into it.
func (r *renderer) share() {
	m := &merger{rules: r.rules}
	r.vars, r.locals = &body{}, &body{}
	for _, layer := range []*body{r.variables, r.base} {
		if layer != nil {
			lv, ll := declared(m, layer)
			r.vars, r.locals = m.bodies(r.vars, lv), m.bodies(r.locals, ll)
		}
	}
	r.valued = map[*node]*node{}
	for i, name := range names(r.vars) {
		if v, ok := r.s.Values[name]; ok {
			r.valued[r.vars.items[i]] = withValue(r.vars.items[i], name, v)
		}
	}
	r.diags = append(r.diags, m.diags...)
}

func declared(m *merger, layer *body) (vars, locals *body) {
	vars, locals = &body{}, &body{}
	for _, n := range layer.items {
		switch n.name {
		case "variable":
			vars.items = append(vars.items, n)
		case "variables":
			vars.items = append(vars.items, n.body.items...)
		case "locals":
			locals = m.bodies(locals, n.body)
		}
	}
	return vars, locals
}

// withValue returns a variable block with the resolved value as its default.
func withValue(n *node, name string, v cty.Value) *node {
	if n.attr { // from a block of the form variables { NAME = DEFAULT }
		out := *n
		out.lead = nil
		out.text = chunk{layer: n.text.layer, start: n.text.start, text: fmt.Sprintf("variable %q {\n  default = %s\n}\n", name, literal(v))}
		return &out
	}
	at := slices.IndexFunc(n.body.items, func(i *node) bool { return i.attr && i.name == "default" })
	if at >= 0 && sameValue(n.body.items[at].expr, v) {
		return n
	}
	def := &node{attr: true, name: "default", text: chunk{layer: n.text.layer, start: n.text.start, text: "default = " + literal(v) + "\n"}}
	out := *n
	out.pristine = false
	b := *n.body
	b.items = slices.Clone(b.items)
	if at >= 0 {
		def.lead = b.items[at].lead
		def.text.layer, def.text.start = b.items[at].text.layer, b.items[at].text.start
		b.items[at] = def
	} else {
		b.items = append(b.items, def)
	}
	out.body = &b
	return &out
}

// literal writes a value as HCL.
func literal(v cty.Value) string {
	return string(hclwrite.Format(hclwrite.TokensForValue(v).Bytes()))
}

// sameValue reports whether a default expression has the value v.
func sameValue(e hclsyntax.Expression, v cty.Value) bool {
	d, diags := e.Value(nil)
	if diags.HasErrors() {
		return false
	}
	d, err := convert.Convert(d, v.Type())
	return err == nil && d.RawEquals(v)
}

// references collects the names that expressions refer to, each with the
// place of its first use.
type references struct{ vars, locals, drover map[string]hcl.Range }

// A reference is a use of var.NAME, local.NAME or drover.NAME.
type reference struct {
	root string // var, local or drover
	name string
	rng  hcl.Range
}

func (r references) body(b *body) {
	for _, n := range b.items {
		if n.attr {
			r.add(n.refs)
		} else {
			r.body(n.body)
		}
	}
}

func (r references) add(refs []reference) {
	for _, ref := range refs {
		into := map[string]map[string]hcl.Range{"var": r.vars, "local": r.locals, droverRoot: r.drover}[ref.root]
		if _, known := into[ref.name]; !known {
			into[ref.name] = ref.rng
		}
	}
}

func referencesOf(e hclsyntax.Expression) []reference {
	var out []reference
	for _, t := range e.Variables() {
		root := t.RootName()
		if root == droverRoot {
			out = append(out, droverReference(t))
			continue
		}
		if len(t) < 2 || root != "var" && root != "local" {
			continue
		}
		if a, ok := t[1].(hcl.TraverseAttr); ok {
			out = append(out, reference{root: root, name: a.Name, rng: t.SourceRange()})
		}
	}
	return out
}

func unknownReference(root, name string, rng hcl.Range, known []string) *hcl.Diagnostic {
	detail := fmt.Sprintf("Nothing declares %s.%s.", root, name)
	if near := stack.Nearest(name, known); near != "" {
		detail += fmt.Sprintf(" Did you mean %s.%s?", root, near)
	} else if root == "var" {
		detail += fmt.Sprintf(" Declare it with variable %q { … } in %s.", name, stack.VariablesFile)
	}
	what := map[string]string{"var": "variable", "local": "local"}[root]
	diag := diagAt(rng, fmt.Sprintf("Unknown %s %q", what, name), detail)
	diag.Extra = stack.CodeUnknownVariable
	return diag
}

// unmatched returns a diagnostic for each block of the environment that changes nothing,
// because its label matches nothing in the stack.
func (r *renderer) unmatched() hcl.Diagnostics {
	var diags hcl.Diagnostics
	layers := []*body{r.overlay}
	for _, t := range r.s.Targets {
		layers = append(layers, r.targets[t.Name])
	}
	for _, layer := range layers {
		if layer == nil {
			continue
		}
		for _, n := range layer.items {
			if n.name != "job" {
				continue
			}
			if r.used[n.rng] {
				diags = append(diags, r.unmatchedBelow(n.body)...)
				continue
			}
			if r.concernsDisabled(n) {
				continue
			}
			detail := "No service and no job of the stack has that name."
			if near := stack.Nearest(n.labels[0], slices.Sorted(slices.Values(r.labels))); near != "" {
				detail += fmt.Sprintf(" Did you mean %q?", near)
			}
			diags = append(diags, unmatchedAt(n, detail))
		}
	}
	return diags
}

// concernsDisabled reports whether a job block of an environment is for services that
// are disabled: they may be enabled by a variable.
func (r *renderer) concernsDisabled(n *node) bool {
	for _, svc := range r.s.Disabled {
		labels := []string{svc.Name}
		if own, diags := r.parse(svc.Layer, "variable", "variables", "locals", "job"); !diags.HasErrors() {
			for _, item := range own.items {
				if item.name == "job" {
					labels = append(labels, item.labels...)
				}
			}
		}
		if slices.ContainsFunc(labels, func(l string) bool { return n.labels[0] == l || matches(n.labels[0], l) }) {
			return true
		}
	}
	return false
}

func (r *renderer) unmatchedBelow(b *body) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, n := range b.items {
		if n.attr {
			continue
		}
		if n.isGlob() && !r.used[n.rng] {
			diags = append(diags, unmatchedAt(n, fmt.Sprintf("No %s of the jobs that this overlay reaches has such a name.", n.name)))
			continue
		}
		diags = append(diags, r.unmatchedBelow(n.body)...)
	}
	return diags
}

func unmatchedAt(n *node, detail string) *hcl.Diagnostic {
	diag := diagAt(n.rng, fmt.Sprintf("Overlay %s %q matches nothing", n.name, strings.Join(n.labels, " ")), detail)
	diag.Extra = stack.CodeOverlay
	return diag
}
