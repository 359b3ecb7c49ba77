package compose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/mattn/go-shellwords"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/render/lint"
)

// text returns a value of the project as the input has it: with variables in it, if
// one of the scalars below at interpolates to it.
func (r *reader) text(at nodes, value string) importer.Text {
	if value == "" {
		return nil
	}
	for _, n := range at.scalars() {
		if raw := n.Peek(); strings.Contains(raw, "$") && r.substitute(raw) == value {
			if t, ok := r.interpolated(n, raw); ok {
				return t
			}
		}
	}
	return importer.Lit(value)
}

// words is text for a command, which is a list or a text that compose-go splits.
func (r *reader) words(at nodes, values []string) []importer.Text {
	for _, n := range at {
		if n.Kind != importer.Scalar || !strings.Contains(n.Peek(), "$") {
			continue
		}
		t, ok := r.interpolated(n, n.Peek())
		if !ok {
			continue
		}
		if out := splitWords(t); len(out) == len(values) {
			return out
		}
	}
	out := make([]importer.Text, len(values))
	for i, v := range values {
		out[i] = r.text(at, v)
	}
	return out
}

// splitWords splits a text as a shell does, with a mark in place of each variable.
func splitWords(t importer.Text) []importer.Text {
	var b strings.Builder
	for i, p := range t {
		if p.Variable != "" || p.Secret != "" {
			fmt.Fprintf(&b, "\ue000%d\ue001", i)
		} else {
			b.WriteString(p.Literal)
		}
	}
	parser := shellwords.NewParser()
	parser.ParseEnv, parser.ParseBacktick = false, false
	words, err := parser.Parse(b.String())
	if err != nil {
		return nil
	}
	var out []importer.Text
	for _, w := range words {
		out = append(out, unmark(w, t))
	}
	return out
}

var mark = regexp.MustCompile("\ue000(\\d+)\ue001")

func unmark(word string, t importer.Text) importer.Text {
	var out importer.Text
	last := 0
	for _, at := range mark.FindAllStringSubmatchIndex(word, -1) {
		if at[0] > last {
			out = append(out, importer.Part{Literal: word[last:at[0]]})
		}
		index := 0
		_, _ = fmt.Sscan(word[at[2]:at[3]], &index)
		if index < len(t) {
			out = append(out, t[index])
		}
		last = at[1]
	}
	if last < len(word) {
		out = append(out, importer.Part{Literal: word[last:]})
	}
	return out
}

var reference = regexp.MustCompile(`^\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?])(.*))?\})$`)

// interpolated returns a text of the input with variables of the stack in place of
// ${NAME}. It returns false for a text in which it cannot, such as with ${NAME:+x}, or
// if a variable would need two defaults.
func (r *reader) interpolated(n *importer.Node, raw string) (importer.Text, bool) {
	var out importer.Text
	literal := func(s string) {
		if s == "" {
			return
		}
		if k := len(out); k > 0 && out[k-1].Variable == "" && out[k-1].Secret == "" {
			out[k-1].Literal += s
			return
		}
		out = append(out, importer.Part{Literal: s})
	}
	for raw != "" {
		at := strings.IndexByte(raw, '$')
		if at < 0 {
			literal(raw)
			break
		}
		literal(raw[:at])
		raw = raw[at:]
		if strings.HasPrefix(raw, "$$") {
			literal("$")
			raw = raw[2:]
			continue
		}
		expr := expression(raw)
		if expr == "" {
			literal("$")
			raw = raw[1:]
			continue
		}
		raw = raw[len(expr):]
		m := reference.FindStringSubmatch(expr)
		if m == nil {
			value, err := template.SubstituteWithOptions(expr, r.env.Resolve, template.WithoutLogging)
			if err != nil {
				return nil, false
			}
			literal(value)
			continue
		}
		name := m[1] + m[2]
		value := r.substitute(expr)
		part, ok := r.variable(n, name, value, m[3] != "")
		if !ok {
			literal(value)
			continue
		}
		out = append(out, part)
	}
	return out, true
}

// expression is the ${…} or $NAME at the start of s, "" if there is none.
func expression(s string) string {
	if !strings.HasPrefix(s, "${") {
		return regexp.MustCompile(`^\$[A-Za-z_][A-Za-z0-9_]*`).FindString(s)
	}
	depth := 0
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return s[:i+1]
			}
		}
	}
	return ""
}

// variable returns the variable of the stack for one of the input, or the secret for
// one with the name of a secret. It returns false if the variable exists with another
// value.
func (r *reader) variable(n *importer.Node, name, value string, hasDefault bool) (importer.Part, bool) {
	id := importer.Identifier(name)
	if slices.Contains([]string{"datacenters", "memory", "mhz_per_core"}, id) || strings.HasPrefix(id, "mesh_") {
		id = "compose_" + id
	}
	_, set := r.env[name]
	if r.private[name] || lint.InClear(name, value) || value == "" && lint.InClear(name, "x") {
		return importer.Part{Secret: r.secret(name, value, name+" of the Compose file.")}, true
	}
	if known, ok := r.vars[id]; ok {
		return importer.Part{Variable: id}, known == value
	}
	r.vars[id] = value
	desc := fmt.Sprintf("%s of the Compose file.", name)
	if !set && !hasDefault {
		r.unset(n, name)
		desc = fmt.Sprintf("%s of the Compose file, which has no value and no default.", name)
	}
	r.m.Variables = append(r.m.Variables, importer.Variable{Name: id, Type: "string", Default: importer.Quote(value), Description: desc})
	return importer.Part{Variable: id}, true
}

func (r *reader) unset(n *importer.Node, name string) {
	r.ledger.Warn(n.Pos(), "unset-variable", fmt.Sprintf("the variable %s has no value and no default; it is empty", name),
		fmt.Sprintf("Set %s in environments/default.hcl, or import with it in the environment.", importer.Identifier(name)))
}

// unsetIn reports whether a raw text uses a variable without value and default.
func (r *reader) unsetIn(raw string) bool {
	for {
		at := strings.IndexByte(raw, '$')
		if at < 0 {
			return false
		}
		raw = raw[at:]
		if strings.HasPrefix(raw, "$$") {
			raw = raw[2:]
			continue
		}
		expr := expression(raw)
		if expr == "" {
			raw = raw[1:]
			continue
		}
		raw = raw[len(expr):]
		if m := reference.FindStringSubmatch(expr); m != nil && m[3] == "" {
			if _, set := r.env[m[1]+m[2]]; !set {
				return true
			}
		}
	}
}

// credentials are the user and the password in a URL.
var credentials = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@`)

// password is a variable where a URL has its password.
var password = regexp.MustCompile(`://[^/\s:@]*:\$\{?([A-Za-z_][A-Za-z0-9_]*)[^/\s@]*@`)

// findPrivate notes the variables that must not become variables of the stack: those in
// the value of something with the name of a secret, and those where a URL has its
// password.
func (r *reader) findPrivate() {
	for _, d := range r.docs {
		for _, s := range r.servicesOf(d).Fields() {
			nodes{s}.eachText(func(n *importer.Node) {
				text := n.Peek()
				for _, m := range password.FindAllStringSubmatch(text, -1) {
					r.private[m[1]] = true
				}
				key, value := n.Key, text
				if key == "" {
					key, value, _ = strings.Cut(text, "=")
				}
				if !lint.InClear(key, "x") {
					return
				}
				for value != "" {
					at := strings.IndexByte(value, '$')
					if at < 0 {
						return
					}
					expr := expression(value[at:])
					value = value[at+max(len(expr), 1):]
					if m := reference.FindStringSubmatch(expr); m != nil {
						r.private[m[1]+m[2]] = true
					}
				}
			})
		}
	}
}

// isSecret reports whether a value of the environment must not be in a job spec.
func isSecret(name, value string) bool {
	return lint.InClear(name, value) || credentials.MatchString(value)
}

// secret returns the name of the secret with this value, which it makes if there is
// none.
func (r *reader) secret(hint, value, description string) string {
	return r.m.SharedSecret(hint, value, description)
}
