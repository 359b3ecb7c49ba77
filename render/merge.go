package render

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/drover-nomad/drover/stack"
)

// merger merges layers. Merging is associative, an empty layer is neutral, and merging a
// layer with itself only adds blocks without a key. docs/reference/layers.md has the
// rules.
type merger struct {
	rules ruleSet
	diags hcl.Diagnostics
}

// bodies merges b over a and returns a new body.
func (m *merger) bodies(a, b *body) *body {
	if len(b.items) == 0 && len(b.tail) == 0 {
		return a
	}
	out := &body{items: slices.Clone(a.items), tail: joinTrivia(a.tail, b.tail)}
	var nth map[string]int // how many blocks of b with this key came before
	for _, n := range b.items {
		if n.attr {
			m.attribute(out, n)
			continue
		}
		if i := slices.IndexFunc(out.items, func(o *node) bool { return o.attr && o.name == n.name }); i >= 0 {
			m.mixed(out.items[i], n)
			continue
		}
		at := -1
		switch {
		case n.rule.Mode == Append, n.rule.Mode == Keyed && n.key == "":
		case n.rule.Glob:
			at = lastOverlap(out.items, n)
		default:
			id := n.identity()
			if nth == nil {
				nth = map[string]int{}
			}
			at = nthIdentity(out.items, n, id, nth[id])
			nth[id]++
		}
		if at < 0 {
			out.items = append(out.items, n)
		} else {
			out.items[at] = m.nodes(out.items[at], n)
		}
	}
	return out
}

// attribute replaces an earlier attribute by a later one, with its comments, in the same
// place.
func (m *merger) attribute(out *body, n *node) {
	for i, o := range out.items {
		if o.name != n.name {
			continue
		}
		if !o.attr {
			m.mixed(o, n)
			return
		}
		out.items[i] = n
		return
	}
	out.items = append(out.items, n)
}

func (m *merger) mixed(a, b *node) {
	form := func(n *node) string {
		if n.attr {
			return "an attribute"
		}
		return "a block"
	}
	m.diags = append(m.diags, diagAt(b.rng, fmt.Sprintf("%s is %s here but %s in another layer", b.name, form(b), form(a)),
		fmt.Sprintf("Layers merge only like with like: write it as at %s.", place(a.rng))))
}

// identity returns the key by which blocks without a pattern are merged.
func (n *node) identity() string {
	id := n.name + "\x00" + n.key
	for _, l := range n.labels {
		id += "\x00" + l
	}
	return id
}

func nthIdentity(items []*node, n *node, id string, nth int) int {
	for i, o := range items {
		if o.attr || o.name != n.name || o.rule.Mode != n.rule.Mode || o.identity() != id {
			continue
		}
		if nth == 0 {
			return i
		}
		nth--
	}
	return -1
}

// lastOverlap finds the block that a pattern or label merges into: the last
// one that could match the same label, if it is written the same.
func lastOverlap(items []*node, n *node) int {
	for i := len(items) - 1; i >= 0; i-- {
		o := items[i]
		if o.attr || o.name != n.name || !o.rule.Glob || !stack.PatternsOverlap(o.labels[0], n.labels[0]) {
			continue
		}
		if o.labels[0] == n.labels[0] {
			return i
		}
		return -1
	}
	return -1
}

// nodes merges block b over block a. The first line is that of the first block whose
// label is not a pattern.
func (m *merger) nodes(a, b *node) *node {
	out := *a
	out.pristine = false
	if a.isGlob() && !b.isGlob() {
		out.text, out.labels, out.rng = b.text, b.labels, b.rng
	}
	out.globs = nil
	for _, g := range slices.Concat(a.globs, b.globs) {
		if !slices.Contains(out.globs, g) {
			out.globs = append(out.globs, g)
		}
	}
	out.lead = joinTrivia(a.lead, b.lead)
	out.body = m.bodies(a.body, b.body)
	return &out
}

// joinTrivia returns the comments of both, without duplicates.
func joinTrivia(a, b []chunk) []chunk {
	if len(a) == 0 {
		return b
	}
	out := a
	for _, c := range b {
		text := bytes.TrimSpace(c.bytes())
		if len(text) == 0 || slices.ContainsFunc(a, func(o chunk) bool { return bytes.Equal(bytes.TrimSpace(o.bytes()), text) }) {
			continue
		}
		out = append(slices.Clip(out), c)
	}
	return out
}

// resolve merges pattern blocks into the blocks whose labels they match, in this body and
// below. It records patterns that matched in used, and removes the others.
func (m *merger) resolve(b *body, used map[hcl.Range]bool) *body {
	out := &body{tail: b.tail, items: make([]*node, 0, len(b.items))}
	changed := false
	for i, n := range b.items {
		if n.attr {
			out.items = append(out.items, n)
			continue
		}
		if !n.rule.Glob {
			r := m.resolveBlock(n, used)
			changed = changed || r != n
			out.items = append(out.items, r)
			continue
		}
		if n.isGlob() {
			changed = true
			continue
		}
		label := n.labels[0]
		if slices.ContainsFunc(b.items[:i], func(o *node) bool { return o.concrete(n.name, label) }) {
			changed = true // folded into the first of that label
			continue
		}
		var all *node
		for _, o := range b.items {
			if o.attr || o.name != n.name || !o.rule.Glob || !(o.labels[0] == label || o.isGlob() && matches(o.labels[0], label)) {
				continue
			}
			for _, g := range o.globs {
				used[g] = true
			}
			if all == nil {
				all = o
			} else {
				all = m.nodes(all, o)
			}
		}
		all = m.resolveBlock(all, used)
		changed = changed || all != n
		out.items = append(out.items, all)
	}
	if !changed {
		return b
	}
	return out
}

func (n *node) concrete(typ, label string) bool {
	return !n.attr && n.name == typ && n.rule.Glob && n.labels[0] == label
}

func (m *merger) resolveBlock(n *node, used map[hcl.Range]bool) *node {
	b := m.resolve(n.body, used)
	if b == n.body {
		return n
	}
	out := *n
	out.pristine = false
	out.body = b
	return &out
}
