package importer

import (
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Part is a piece of a Text. Exactly one of its fields is set.
type Part struct {
	Literal  string
	Variable string // name of a variable of the stack
	Runtime  string // what the Nomad client fills in: NOMAD_PORT_http, attr.kernel.name
	Secret   string // name of a secret of the stack; in environments and files only
	Consul   Target // a service whose name in Consul is meant; in tags only
}

// Text is a value of the model: literal text with variables, runtime values and
// secrets in it. The zero Text is empty.
type Text []Part

// Lit returns a literal text.
func Lit(s string) Text {
	if s == "" {
		return nil
	}
	return Text{{Literal: s}}
}

// Lits returns a literal text for each string.
func Lits(all []string) []Text {
	var out []Text
	for _, s := range all {
		out = append(out, Lit(s))
	}
	return out
}

// Var returns the value of a variable of the stack.
func Var(name string) Text { return Text{{Variable: name}} }

// Runtime returns a value that the Nomad client fills in when the task starts.
func Runtime(name string) Text { return Text{{Runtime: name}} }

// SecretText returns the value of a secret of the stack.
func SecretText(name string) Text { return Text{{Secret: name}} }

// Literal returns the text, and whether it is literal.
func (t Text) Literal() (string, bool) {
	var b strings.Builder
	for _, p := range t {
		if p.Variable != "" || p.Runtime != "" || p.Secret != "" || p.Consul.Service != "" {
			return "", false
		}
		b.WriteString(p.Literal)
	}
	return b.String(), true
}

// Empty reports whether the text is the empty literal.
func (t Text) Empty() bool {
	s, literal := t.Literal()
	return literal && s == ""
}

// plain is the text for a message, with var.NAME for a variable.
func (t Text) plain() string {
	var b strings.Builder
	for _, p := range t {
		if p.Variable != "" {
			b.WriteString("${var." + p.Variable + "}")
		}
		b.WriteString(p.Literal)
	}
	return b.String()
}

// Secrets returns the names of the secrets in the text, in order.
func (t Text) Secrets() []string {
	var out []string
	for _, p := range t {
		if p.Secret != "" {
			out = append(out, p.Secret)
		}
	}
	return out
}

// HCL returns the text as an expression of a job spec. Secrets have no place in one
// and are left out.
func (t Text) HCL() string {
	if len(t) == 1 && t[0].Variable != "" {
		return "var." + t[0].Variable
	}
	var b strings.Builder
	var literal strings.Builder
	flush := func(before bool) {
		s := literal.String()
		literal.Reset()
		tail := ""
		// A $ or % directly before a template sequence would escape it.
		if before && (strings.HasSuffix(s, "$") || strings.HasSuffix(s, "%")) {
			s, tail = s[:len(s)-1], `${"`+s[len(s)-1:]+`"}`
		}
		b.WriteString(inner(s) + tail)
	}
	for _, p := range t {
		switch {
		case p.Variable != "":
			flush(true)
			b.WriteString("${var." + p.Variable + "}")
		case p.Runtime != "":
			flush(true)
			b.WriteString("$${" + p.Runtime + "}")
		default:
			literal.WriteString(p.Literal)
		}
	}
	flush(false)
	return `"` + b.String() + `"`
}

// inner returns a text as it stands between the quotes of HCL.
func inner(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c >= ' ' && c < 0x7f && c != '"' && c != '\\' && c != '$' && c != '%'
	}
	if plain {
		return s // most texts: the tokens of hclwrite cost a third of an import
	}
	quoted := string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(quoted), `"`), `"`)
}

// Quote returns a literal string of HCL.
func Quote(s string) string { return `"` + inner(s) + `"` }
