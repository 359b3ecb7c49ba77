package render

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/drover-nomad/drover/stack"
)

// A chunk is a run of bytes of one layer's file, or text of our own that
// stands for such a run.
type chunk struct {
	layer      *stack.Layer
	start, end int
	text       string // own text, when not empty
}

func (c chunk) bytes() []byte {
	if c.text != "" {
		return []byte(c.text)
	}
	return c.layer.Src[c.start:c.end]
}

// A node is an attribute or a block of a layer or of what layers were merged
// to. Nodes are never changed once they are in a tree: merging makes new ones.
type node struct {
	attr   bool
	name   string // of the attribute, or the block's type
	labels []string
	rule   Rule
	key    string      // what blocks of a Keyed rule meet by, "" when they do not
	globs  []hcl.Range // where the patterns stand that this block came from

	lead  []chunk // blank lines and comments above
	text  chunk   // the attribute, or the block's first line
	whole chunk   // the block from its type to its closing brace
	// pristine: whole is exactly this block.
	pristine bool
	expr     hclsyntax.Expression
	refs     []reference // what expr refers to
	body     *body
	rng      hcl.Range
}

func (n *node) isGlob() bool { return n.rule.Glob && stack.IsPattern(n.labels[0]) }

// A body is the content of a block or file.
type body struct {
	items []*node
	tail  []chunk // comments behind the last item
}

// matches reports whether the pattern of a layer matches a label.
func matches(pattern, label string) bool {
	ok, err := stack.Match(pattern, label)
	return err == nil && ok
}

// parser builds trees out of layers.
type parser struct {
	rules ruleSet
	layer *stack.Layer
	diags hcl.Diagnostics
}

// file parses a whole layer.
func (p *parser) file() *body {
	f, diags := p.layer.Parse()
	p.diags = append(p.diags, diags...)
	if diags.HasErrors() {
		return &body{}
	}
	return p.body(f.Body.(*hclsyntax.Body), 0, len(p.layer.Src))
}

// body builds the tree of what stands between two offsets.
func (p *parser) body(b *hclsyntax.Body, start, end int) *body {
	type child struct {
		at    int
		attr  *hclsyntax.Attribute
		block *hclsyntax.Block
	}
	children := make([]child, 0, len(b.Attributes)+len(b.Blocks))
	for _, a := range b.Attributes {
		children = append(children, child{at: a.SrcRange.Start.Byte, attr: a})
	}
	for _, bl := range b.Blocks {
		children = append(children, child{at: bl.TypeRange.Start.Byte, block: bl})
	}
	slices.SortFunc(children, func(a, b child) int { return a.at - b.at })

	out := &body{items: make([]*node, 0, len(children))}
	pos := start
	for _, c := range children {
		var n *node
		if c.attr != nil {
			n = p.attribute(c.attr, end)
		} else {
			n = p.block(c.block, end)
		}
		n.lead = p.trivia(pos, c.at)
		pos = n.end()
		out.items = append(out.items, n)
	}
	out.tail = p.trivia(pos, end)
	return p.normal(out)
}

func (n *node) end() int {
	if n.attr {
		return n.text.end
	}
	return n.whole.end
}

func (p *parser) trivia(start, end int) []chunk {
	if start >= end {
		return nil
	}
	return []chunk{{layer: p.layer, start: start, end: end}}
}

func (p *parser) attribute(a *hclsyntax.Attribute, limit int) *node {
	return &node{
		attr: true, name: a.Name, expr: a.Expr, rng: a.SrcRange, refs: referencesOf(a.Expr),
		text: chunk{layer: p.layer, start: a.SrcRange.Start.Byte, end: p.lineEnd(a.SrcRange.End.Byte, limit)},
	}
}

func (p *parser) block(b *hclsyntax.Block, limit int) *node {
	closing := b.CloseBraceRange.Start.Byte
	open := min(p.lineEnd(b.OpenBraceRange.End.Byte, closing), closing)
	n := &node{
		name: b.Type, labels: b.Labels, rule: p.rules.of(b.Type, len(b.Labels)), rng: b.DefRange(), pristine: true,
		text:  chunk{layer: p.layer, start: b.TypeRange.Start.Byte, end: open},
		whole: chunk{layer: p.layer, start: b.TypeRange.Start.Byte, end: p.lineEnd(b.CloseBraceRange.End.Byte, limit)},
	}
	if n.rule.Glob && len(b.Labels) != 1 {
		p.diags = append(p.diags, diagAt(n.rng, fmt.Sprintf("A %s block has one label", b.Type), fmt.Sprintf("Write %s \"NAME\" { … }.", b.Type)))
		n.rule.Glob, n.rule.Mode = false, Labelled
	}
	if n.rule.Glob && stack.IsPattern(b.Labels[0]) {
		if _, err := stack.Match(b.Labels[0], ""); err != nil {
			p.diags = append(p.diags, diagAt(n.rng, fmt.Sprintf("Invalid pattern %q", b.Labels[0]), "A bracket is not closed."))
		}
		n.globs = []hcl.Range{n.rng}
	}
	n.body = p.body(b.Body, open, closing)
	if n.rule.Mode == Keyed {
		n.key = p.key(n.rule, b.Body)
	}
	return n
}

// key is the source text of the attributes that a Keyed block meets by.
func (p *parser) key(r Rule, b *hclsyntax.Body) string {
	for _, alternative := range r.Keys {
		var key strings.Builder
		for i, name := range alternative {
			if name == "" { // the alternative of having none of the others
				return "\x00"
			}
			presence := strings.HasSuffix(name, "?")
			a := b.Attributes[strings.TrimSuffix(name, "?")]
			if a == nil {
				if i == 0 {
					break
				}
				continue
			}
			key.WriteString(a.Name)
			if !presence {
				key.WriteByte('=')
				key.Write(a.Expr.Range().SliceBytes(p.layer.Src))
			}
			key.WriteByte('\x00')
		}
		if key.Len() > 0 {
			return key.String()
		}
	}
	return ""
}

// normal folds the pattern blocks of one layer in the order they stand.
// Any other two blocks of one layer stay two.
func (p *parser) normal(b *body) *body {
	var first map[string]*node
	folds := false
	for _, n := range b.items {
		if n.attr || n.rule.Mode != Labelled {
			continue
		}
		id := n.name + "\x00" + strings.Join(n.labels, "\x00")
		if f := first[id]; f != nil {
			if n.isGlob() {
				folds = true
				continue
			}
			p.diags = append(p.diags, diagAt(n.rng, fmt.Sprintf("Duplicate %s %q", n.name, strings.Join(n.labels, " ")), "It is already at "+place(f.rng)+"."))
			continue
		}
		if first == nil {
			first = map[string]*node{}
		}
		first[id] = n
	}
	if !folds {
		return b
	}
	m := merger{rules: p.rules}
	out := m.bodies(&body{}, b)
	p.diags = append(p.diags, m.diags...)
	return out
}

// lineEnd moves behind the rest of the line when only a comment stands there.
func (p *parser) lineEnd(pos, limit int) int {
	src := p.layer.Src[:limit]
	for i := pos; i < len(src); {
		switch {
		case src[i] == ' ' || src[i] == '\t' || src[i] == '\r':
			i++
		case src[i] == '\n':
			return i + 1
		case src[i] == '#' || bytes.HasPrefix(src[i:], []byte("//")):
			if nl := bytes.IndexByte(src[i:], '\n'); nl >= 0 {
				return i + nl + 1
			}
			return len(src)
		case bytes.HasPrefix(src[i:], []byte("/*")):
			e := bytes.Index(src[i:], []byte("*/"))
			if e < 0 {
				return pos
			}
			i += e + 2
		default:
			return pos
		}
	}
	if limit < len(p.layer.Src) {
		return pos
	}
	return len(src)
}

func diagAt(rng hcl.Range, summary, detail string) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &rng}
}

// place is how a message names a position: file:line:column.
func place(r hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}
