package importer

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// document is HCL text under construction.
type document struct{ b strings.Builder }

func (d *document) line(format string, args ...any) {
	fmt.Fprintf(&d.b, format+"\n", args...)
}

// comment writes a text as comment lines of at most 90 characters.
func (d *document) comment(text string) {
	for _, paragraph := range strings.Split(text, "\n") {
		line := "#"
		for _, word := range strings.Fields(paragraph) {
			if len(line) > 1 && len(line)+1+len(word) > 90 {
				d.line("%s", line)
				line = "#"
			}
			line += " " + word
		}
		d.line("%s", line)
	}
}

func (d *document) gap() {
	if s := d.b.String(); s != "" && !strings.HasSuffix(s, "{\n") && !strings.HasSuffix(s, "\n\n") {
		d.line("")
	}
}

// attr writes an attribute with an HCL expression as its value.
func (d *document) attr(name, expr string) { d.line("%s = %s", name, expr) }

// block writes a block. Labels are literal.
func (d *document) block(typ string, labels []string, body func()) {
	d.gap()
	head := typ
	for _, l := range labels {
		head += " " + Quote(l)
	}
	d.line("%s {", head)
	body()
	d.line("}")
}

var emptyBlock = regexp.MustCompile(`\{\n\s*\}`)

// bytes returns the formatted text. Empty blocks are on one line.
func (d *document) bytes() []byte {
	return hclwrite.Format([]byte(emptyBlock.ReplaceAllString(d.b.String(), "{}")))
}

// list returns a list of texts, on one line if it is short.
func list(all []Text) string {
	exprs := make([]string, len(all))
	length := 0
	for i, t := range all {
		exprs[i] = t.HCL()
		length += len(exprs[i]) + 2
	}
	if length > 80 && len(all) > 1 {
		return "[\n" + strings.Join(exprs, ",\n") + ",\n]"
	}
	return "[" + strings.Join(exprs, ", ") + "]"
}

func quotes(all []string) string { return list(Lits(all)) }

func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return Quote(s)
}

// pairs writes a block of texts by name, env or meta. Names that are no identifiers
// need the form of an attribute.
func (d *document) pairs(name string, all []EnvVar) {
	if len(all) == 0 {
		return
	}
	plain := true
	for _, v := range all {
		plain = plain && hclsyntax.ValidIdentifier(v.Name)
	}
	d.gap()
	if plain {
		d.line("%s {", name)
	} else {
		d.line("%s = {", name)
	}
	for _, v := range all {
		key := v.Name
		if !plain {
			key = Quote(key)
		}
		d.attr(key, v.Value.HCL())
	}
	d.line("}")
}
