package render

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/drover-nomad/drover/stack"
)

// layerOf parses text as a layer.
func layerOf(t testing.TB, name, text string) *body {
	t.Helper()
	p := &parser{rules: newRuleSet(), layer: &stack.Layer{File: name, Src: []byte(text)}}
	b := p.file()
	if p.diags.HasErrors() {
		t.Fatalf("%v\n%s", p.diags, text)
	}
	return b
}

func laid(t testing.TB, layers ...*body) *body {
	t.Helper()
	m := &merger{rules: newRuleSet()}
	out := &body{}
	for _, l := range layers {
		out = m.bodies(out, l)
	}
	if m.diags.HasErrors() {
		t.Fatal(m.diags)
	}
	return out
}

func resolved(b *body) *body {
	m := &merger{rules: newRuleSet()}
	return m.resolve(b, map[hcl.Range]bool{})
}

func text(b *body) string {
	e := &emitter{}
	e.body(b, 0)
	return e.buf.String()
}

// meaning is a body without blank space; keyless drops the blocks that are
// always appended.
func meaning(b *body, keyless bool) string {
	var out strings.Builder
	for _, n := range b.items {
		if !keyless && !n.attr && (n.rule.Mode == Append || n.rule.Mode == Keyed && n.key == "") {
			continue
		}
		for _, c := range n.lead {
			out.WriteString(strings.Join(strings.Fields(string(c.bytes())), " "))
		}
		if n.attr {
			out.Write(n.text.bytes())
			continue
		}
		fmt.Fprintf(&out, "%s %q {%s}\n", n.name, n.labels, meaning(n.body, keyless))
	}
	return out.String()
}

// gen writes random layers.
type gen struct{ *rand.Rand }

func (g gen) pick(s ...string) string { return s[g.Intn(len(s))] }

func (g gen) body(depth int, in string) string {
	var b strings.Builder
	indent := strings.Repeat("  ", depth)
	comment := func() {
		if g.Intn(4) == 0 {
			fmt.Fprintf(&b, "%s# %s\n", indent, g.pick("why", "because", "so"))
		}
	}
	for _, name := range []string{"count", "driver", "user", "priority"} {
		if g.Intn(3) > 0 {
			continue
		}
		comment()
		switch g.Intn(3) {
		case 0:
			fmt.Fprintf(&b, "%s%s = <<EOT\nline %d ${var.x}\n  }\nEOT\n", indent, name, g.Intn(3))
		default:
			fmt.Fprintf(&b, "%s%s = %d%s\n", indent, name, g.Intn(9), g.pick("", " # here", " // there"))
		}
	}
	if depth > 3 {
		return b.String()
	}
	open := func(head string) {
		comment()
		if g.Intn(4) == 0 {
			fmt.Fprintf(&b, "%s%s { z = %d }\n", indent, head, g.Intn(9))
			return
		}
		fmt.Fprintf(&b, "%s%s {%s\n%s%s}\n", indent, head, g.pick("", " # open"), g.body(depth+1, head), indent)
	}
	updated := false
	for range g.Intn(3) {
		switch g.Intn(6) {
		case 0:
			if !updated {
				open("update")
			}
			updated = true
		case 1:
			fmt.Fprintf(&b, "%stemplate {\n%s  destination = %q\n%s  data = %d\n%s}\n", indent, indent, g.pick("a", "b"), indent, g.Intn(9), indent)
		case 2:
			fmt.Fprintf(&b, "%sservice {\n%s  %s = %q\n%s  tags = %d\n%s}\n", indent, indent, g.pick("name", "port", "x"), g.pick("a", "b"), indent, g.Intn(9), indent)
		case 3:
			fmt.Fprintf(&b, "%sdynamic \"x\" { for_each = [%d] }\n", indent, g.Intn(9))
		default:
			typ := map[bool]string{true: "task", false: "group"}[strings.HasPrefix(in, "group")]
			for _, l := range g.Perm(6)[:1+g.Intn(3)] {
				open(fmt.Sprintf("%s %q", typ, []string{"*", "web", "w*", "db", "?b", "{db,we?}"}[l]))
			}
			return b.String() // each label once in a layer
		}
	}
	return b.String()
}

func (g gen) layer(t testing.TB, name string) *body { return layerOf(t, name, g.body(0, "")) }

func TestLayersAreAnAlgebra(t *testing.T) {
	for seed := range int64(3000) {
		g := gen{rand.New(rand.NewSource(seed))}
		a, b, c := g.layer(t, "a"), g.layer(t, "b"), g.layer(t, "c")

		left, right := laid(t, laid(t, a, b), c), laid(t, a, laid(t, b, c))
		if l, r := text(left), text(right); l != r {
			t.Fatalf("seed %d: not associative\n--- (a b) c\n%s\n--- a (b c)\n%s", seed, l, r)
		}
		if l, r := text(resolved(left)), text(resolved(right)); l != r {
			t.Fatalf("seed %d: not associative once patterns are resolved\n%s\n---\n%s", seed, l, r)
		}
		if got, want := text(laid(t, &body{}, a, &body{})), text(a); got != want {
			t.Fatalf("seed %d: the empty layer is not neutral\n%s\n---\n%s", seed, got, want)
		}
		once, twice := resolved(a), resolved(laid(t, a, a))
		if o, w := meaning(once, false), meaning(twice, false); o != w {
			t.Fatalf("seed %d: applied twice it changes\n--- once\n%s\n--- twice\n%s\n--- layer\n%s", seed, o, w, text(a))
		}
		mergedTwice, again := resolved(laid(t, a, b)), resolved(laid(t, a, b, b))
		if o, w := meaning(mergedTwice, false), meaning(again, false); o != w {
			t.Fatalf("seed %d: an overlay applied twice changes\n--- once\n%s\n--- twice\n%s", seed, o, w)
		}

		out := resolved(left)
		merged := text(out)
		if _, diags := hclsyntax.ParseConfig([]byte(merged), "merged", hcl.InitialPos); diags.HasErrors() {
			t.Fatalf("seed %d: %v\n%s", seed, diags, merged)
		}
		// Each place has the value of the last layer that sets it.
		if diff := disagree([]*body{a, b, c}, layerOf(t, "merged", merged), ""); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, merged)
		}
	}
}

// disagree compares a merged body with the layers, place by place: it knows
// nothing of how layers merge, only that the last one wins.
func disagree(layers []*body, merged *body, at string) string {
	for _, n := range merged.items {
		if n.attr {
			var want string
			for _, l := range layers {
				for _, o := range l.items {
					if o.attr && o.name == n.name {
						want = strings.TrimSpace(string(o.text.bytes()))
					}
				}
			}
			if got := strings.TrimSpace(string(n.text.bytes())); got != want {
				return fmt.Sprintf("%s/%s is %q, the layers say %q", at, n.name, got, want)
			}
			continue
		}
		if !n.rule.Glob && n.name != "update" {
			continue
		}
		var below []*body
		attrs := map[string]bool{}
		for _, l := range layers {
			for _, o := range l.items {
				if !o.attr && o.name == n.name && (slices.Equal(o.labels, n.labels) || o.isGlob() && matches(o.labels[0], n.labels[0])) {
					below = append(below, o.body)
					for _, a := range o.body.items {
						if a.attr {
							attrs[a.name] = true
						}
					}
				}
			}
		}
		for name := range attrs {
			if !slices.ContainsFunc(n.body.items, func(o *node) bool { return o.attr && o.name == name }) {
				return fmt.Sprintf("%s/%s%v has lost %s", at, n.name, n.labels, name)
			}
		}
		if diff := disagree(below, n.body, fmt.Sprintf("%s/%s%v", at, n.name, n.labels)); diff != "" {
			return diff
		}
	}
	return ""
}

func FuzzMerge(f *testing.F) {
	for seed := range int64(20) {
		g := gen{rand.New(rand.NewSource(seed))}
		f.Add(g.body(0, ""), g.body(0, ""))
	}
	f.Add("a = <<E\nx\nE\n", "b { c = 1 } # d")
	f.Add("b { c = 1 /* x\n*/ }", "b { c = 2 }")
	f.Fuzz(func(t *testing.T, a, b string) {
		rules := newRuleSet()
		m := &merger{rules: rules}
		out := &body{}
		for i, src := range []string{a, b} {
			p := &parser{rules: rules, layer: &stack.Layer{File: fmt.Sprint(i), Src: []byte(src)}}
			l := p.file()
			if p.diags.HasErrors() {
				return
			}
			out = m.bodies(out, l)
		}
		if m.diags.HasErrors() {
			return
		}
		merged := text(m.resolve(out, map[hcl.Range]bool{}))
		if _, diags := hclsyntax.ParseConfig([]byte(merged), "merged", hcl.InitialPos); diags.HasErrors() {
			t.Fatalf("%v\n--- a\n%s\n--- b\n%s\n--- merged\n%s", diags, a, b, merged)
		}
	})
}
