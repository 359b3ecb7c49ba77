package render

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/drover-nomad/drover/stack"
)

// Specs may name drover.stack and drover.environment, which Nomad does not know:
// it would leave them in the job as text. The merged spec has them as locals, so
// that `nomad job run` takes it.
const (
	droverRoot  = stack.DroverObject
	localPrefix = droverRoot + "_"
)

// droverReference returns the use of drover.NAME; its name is "" for any other
// use of the object.
func droverReference(t hcl.Traversal) reference {
	ref := reference{root: droverRoot, rng: t.SourceRange()}
	if len(t) == 2 {
		if a, ok := t[1].(hcl.TraverseAttr); ok {
			ref.name = a.Name
		}
	}
	return ref
}

// checkDrover returns a diagnostic for each use of drover that has no value.
func (r *renderer) checkDrover(used map[string]hcl.Range, locals *body) hcl.Diagnostics {
	var diags hcl.Diagnostics
	values := r.s.DroverValues()
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if _, ok := values[name]; !ok {
			diags = append(diags, unknownDrover(name, used[name], slices.Sorted(maps.Keys(values))))
			continue
		}
		if at := slices.IndexFunc(locals.items, func(n *node) bool { return n.name == localPrefix+name }); at >= 0 {
			diags = append(diags, diagAt(locals.items[at].rng, fmt.Sprintf("Local %q is reserved", localPrefix+name),
				fmt.Sprintf("drover.%s becomes a local of that name. Give this one another name.", name)))
		}
	}
	return diags
}

func unknownDrover(name string, rng hcl.Range, known []string) *hcl.Diagnostic {
	if name == "" {
		return diagAt(rng, "Invalid use of drover", "Write drover.stack or drover.environment.")
	}
	detail := "There are drover.stack and drover.environment."
	if near := stack.Nearest(name, known); near != "" {
		detail += fmt.Sprintf(" Did you mean drover.%s?", near)
	}
	return diagAt(rng, fmt.Sprintf("Unknown value drover.%s", name), detail)
}

// droverLocals returns the locals that stand for what is used of drover.
func (r *renderer) droverLocals(used map[string]hcl.Range) string {
	var b bytes.Buffer
	values := r.s.DroverValues()
	for _, name := range slices.Sorted(maps.Keys(used)) {
		fmt.Fprintf(&b, "  %s%s = %s\n", localPrefix, name, literal(cty.StringVal(values[name])))
	}
	return b.String()
}

// substituteDrover writes local.drover_NAME for drover.NAME.
func substituteDrover(m *sourceMap) *sourceMap {
	f, diags := stack.ParseHCL(m.text, "")
	if diags.HasErrors() {
		return m // the evaluation reports it
	}
	type use struct {
		rng  hcl.Range
		name string
	}
	var uses []use
	_ = hclsyntax.VisitAll(f.Body.(*hclsyntax.Body), func(n hclsyntax.Node) hcl.Diagnostics {
		if t, ok := n.(*hclsyntax.ScopeTraversalExpr); ok && t.Traversal.RootName() == droverRoot {
			uses = append(uses, use{t.Traversal.SourceRange(), droverReference(t.Traversal).name})
		}
		return nil
	})
	slices.SortFunc(uses, func(a, b use) int { return cmp.Compare(a.rng.Start.Byte, b.rng.Start.Byte) })
	out := &emitter{}
	pos := 0
	// copy writes the text up to an offset, with the places that it comes from.
	copyTo := func(end int) {
		for pos < end {
			i := segmentAt(m.segs, pos)
			stop := end
			if i+1 < len(m.segs) {
				stop = min(stop, m.segs[i+1].out)
			}
			if i >= 0 {
				s := m.segs[i]
				if !s.own {
					s.src += pos - s.out
				}
				s.out = out.buf.Len()
				out.segs = append(out.segs, s)
			}
			out.buf.Write(m.text[pos:stop])
			pos = stop
		}
	}
	for _, u := range uses {
		copyTo(u.rng.Start.Byte)
		if i := segmentAt(m.segs, pos); i >= 0 {
			s := m.segs[i]
			if !s.own {
				s.src += pos - s.out
			}
			out.segs = append(out.segs, segment{out: out.buf.Len(), layer: s.layer, src: s.src, own: true})
		}
		fmt.Fprintf(&out.buf, "local.%s%s", localPrefix, u.name)
		pos = u.rng.End.Byte
	}
	copyTo(len(m.text))
	return out.sourceMap()
}
