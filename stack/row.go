package stack

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// stackLocals evaluates the locals blocks of stack.hcl and its parts, and adds
// them to ctx as local.NAME. Their order does not matter.
func stackLocals(body hcl.Body, ctx *hcl.EvalContext) hcl.Diagnostics {
	content, _, diags := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "locals"}}})
	attrs := map[string]*hcl.Attribute{}
	for _, b := range content.Blocks {
		own, ds := b.Body.JustAttributes()
		diags = append(diags, ds...)
		for name, a := range own {
			if first := attrs[name]; first != nil {
				diags = append(diags, errAt(a.NameRange, fmt.Sprintf("Local %q is defined twice", name), "It is already defined at "+place(first.NameRange)+"."))
				continue
			}
			attrs[name] = a
		}
	}
	if diags.HasErrors() {
		return diags
	}
	values := map[string]cty.Value{}
	const started, done = 1, 2
	state := map[string]int{}
	var evaluate func(a *hcl.Attribute) hcl.Diagnostics
	evaluate = func(a *hcl.Attribute) hcl.Diagnostics {
		switch state[a.Name] {
		case done:
			return nil
		case started:
			return hcl.Diagnostics{errAt(a.NameRange, fmt.Sprintf("Local %q refers to itself", a.Name), "Remove one reference of the circle.")}
		}
		state[a.Name] = started
		for _, t := range a.Expr.Variables() {
			if t.RootName() != "local" || len(t) < 2 {
				continue
			}
			if step, ok := t[1].(hcl.TraverseAttr); ok && attrs[step.Name] != nil {
				if ds := evaluate(attrs[step.Name]); ds.HasErrors() {
					return ds
				}
			}
		}
		ctx.Variables["local"] = cty.ObjectVal(values)
		v, ds := a.Expr.Value(ctx)
		if ds.HasErrors() {
			return ds
		}
		values[a.Name], state[a.Name] = v, done
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if ds := evaluate(attrs[name]); ds.HasErrors() {
			return append(diags, ds...)
		}
	}
	ctx.Variables["local"] = cty.ObjectVal(values)
	return diags
}

// row writes id, env and locals of a service block as a layer, nil when all are empty.
func (v serviceBlock) row(b *hcl.Block, ctx *hcl.EvalContext) (*Layer, hcl.Diagnostics) {
	env, diags := entries(b, "env", v.Env, ctx)
	locals, ds := entries(b, "locals", v.Locals, ctx)
	if diags = append(diags, ds...); diags.HasErrors() || len(env)+len(locals) == 0 && v.ID == "" {
		return nil, diags
	}
	f := hclwrite.NewEmptyFile()
	if len(locals) > 0 {
		to := f.Body().AppendNewBlock("locals", nil).Body()
		for _, name := range slices.Sorted(maps.Keys(locals)) {
			to.SetAttributeValue(name, locals[name])
		}
	}
	if v.ID != "" {
		job := f.Body().AppendNewBlock("job", []string{"*"}).Body()
		job.SetAttributeValue("id", cty.StringVal(v.ID))
		job.SetAttributeValue("name", cty.StringVal(v.ID))
	}
	if len(env) > 0 {
		to := f.Body()
		for _, block := range []struct {
			name   string
			labels []string
		}{{"job", []string{"*"}}, {"group", []string{"*"}}, {"task", []string{"*"}}, {"env", nil}} {
			to = to.AppendNewBlock(block.name, block.labels).Body()
		}
		for _, name := range slices.Sorted(maps.Keys(env)) {
			text, err := convert.Convert(env[name], cty.String)
			if err != nil {
				diags = append(diags, errAt(attrRange(b, "env"), fmt.Sprintf("The environment variable %s of service %q is not a text", name, b.Labels[0]), "Write a string, a number or a bool; null leaves the variable out."))
				continue
			}
			to.SetAttributeValue(name, text)
		}
	}
	var text bytes.Buffer
	if _, err := f.WriteTo(&text); err != nil {
		return nil, append(diags, errAt(b.DefRange, "Cannot write the row of a service", err.Error()+"."))
	}
	return &Layer{File: fmt.Sprintf("%s (service %q)", b.DefRange.Filename, b.Labels[0]), Src: text.Bytes()}, diags
}

// entries evaluates a map of a service block. It leaves out what is null.
func entries(b *hcl.Block, attr string, e hcl.Expression, ctx *hcl.EvalContext) (map[string]cty.Value, hcl.Diagnostics) {
	if e == nil {
		return nil, nil
	}
	v, diags := e.Value(ctx)
	if diags.HasErrors() || v.IsNull() {
		return nil, diags
	}
	if !v.IsWhollyKnown() || !v.CanIterateElements() || !(v.Type().IsObjectType() || v.Type().IsMapType()) {
		return nil, append(diags, errAt(attrRange(b, attr), fmt.Sprintf("%s of service %q is not a map", attr, b.Labels[0]), "Write "+attr+" = { NAME = VALUE }."))
	}
	out := map[string]cty.Value{}
	for name, value := range v.AsValueMap() {
		if value.IsNull() {
			continue
		}
		if !hclsyntax.ValidIdentifier(name) {
			diags = append(diags, errAt(attrRange(b, attr), fmt.Sprintf("%q cannot be a name in %s of service %q", name, attr, b.Labels[0]), "Use letters, digits, - and _, and begin with a letter or _."))
			continue
		}
		out[name] = value
	}
	return out, diags
}

// isDisabled reports whether a service of that name has enabled = false.
func (s *Stack) isDisabled(name string) bool {
	return slices.ContainsFunc(s.Disabled, func(svc *Service) bool { return svc.Name == name })
}
