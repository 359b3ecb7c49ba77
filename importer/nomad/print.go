package nomad

import (
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// printer writes a tree as HCL2.
type printer struct {
	lines  []string
	source []int // line of the input for each line
}

// print returns the formatted text, and the line of the input for each of its lines.
func print(b *body) ([]byte, []int) {
	p := &printer{}
	p.body(b)
	return hclwrite.Format([]byte(strings.Join(p.lines, "\n") + "\n")), p.source
}

// add writes a text whose first line is the line at of the input.
func (p *printer) add(at int, text string) {
	for n, line := range strings.Split(text, "\n") {
		p.lines = append(p.lines, line)
		p.source = append(p.source, at+n)
	}
}

func (p *printer) gap(at int) {
	if n := len(p.lines); n > 0 && p.lines[n-1] != "" && !strings.HasSuffix(p.lines[n-1], "{") {
		p.add(at, "")
	}
}

func (p *printer) body(b *body) {
	for _, i := range b.items {
		p.item(i)
	}
	p.comments(b.tail)
}

func (p *printer) comments(all []token) {
	for _, c := range all {
		if c.gap == "\n" {
			p.gap(c.line)
		}
		p.add(c.line, c.text)
	}
}

func behind(all []token) string {
	text := ""
	for _, c := range all {
		text += " " + c.text
	}
	return text
}

func (p *printer) item(i *item) {
	if i.blank && len(i.lead) == 0 {
		p.gap(i.name.line)
	}
	p.comments(i.lead)
	if i.blank && len(i.lead) > 0 && i.name.line > i.lead[len(i.lead)-1].line+1 {
		p.gap(i.name.line)
	}
	name := i.key()
	if !hclsyntax.ValidIdentifier(name) {
		name = `"` + name + `"`
	}
	if i.value != nil {
		p.add(i.name.line, name+" = "+i.value.String()+behind(i.trail))
		return
	}
	for _, l := range i.labels {
		if l.kind == tokIdent {
			l.text = `"` + l.text + `"`
		}
		name += " " + l.text
	}
	if i.assign {
		name += " ="
	}
	if len(i.body.items)+len(i.body.tail)+len(i.opened) == 0 {
		p.add(i.name.line, name+" {}"+behind(i.trail))
		return
	}
	p.add(i.name.line, name+" {"+behind(i.opened))
	p.body(i.body)
	p.add(p.source[len(p.source)-1], "}"+behind(i.trail))
}

// String returns the text of the value, with the blanks of the input.
func (e *expr) String() string {
	var b strings.Builder
	for n, t := range e.tokens {
		if n > 0 {
			b.WriteString(t.gap)
		}
		b.WriteString(t.text)
	}
	return b.String()
}
