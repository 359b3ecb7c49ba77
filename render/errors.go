package render

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// translate turns an error of jobspec2 into diagnostics that point into the
// layers. jobspec2 returns some of its diagnostics as plain text, one
// "file:line,column-column: Summary; Detail" after the other.
func (m *sourceMap) translate(err error, file string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		diags = m.parse(err.Error(), file)
	}
	out := make(hcl.Diagnostics, 0, len(diags))
	seen := map[string]bool{}
	for _, d := range diags {
		c := *d
		c.Expression, c.EvalContext, c.Extra = nil, nil, nil
		if c.Subject == nil {
			c.Subject = c.Context
		}
		c.Context = nil
		if c.Subject != nil && c.Subject.Filename == file {
			r := m.rng(*c.Subject)
			c.Subject = &r
		}
		c.Detail = m.positions(c.Detail, file)
		if id := c.Error(); !seen[id] {
			seen[id] = true
			out = append(out, &c)
		}
	}
	return out
}

// parse reads diagnostics back from text.
func (m *sourceMap) parse(text, file string) hcl.Diagnostics {
	head := regexp.MustCompile(`(?m)^(?:(` + regexp.QuoteMeta(file) + `|<[^>\n]*>|[^\s:][^:\n]*):(\d+),(\d+)-(?:(\d+),)?(\d+)|<nil>): `)
	starts := head.FindAllStringSubmatchIndex(text, -1)
	if len(starts) == 0 {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot evaluate the job", Detail: text}}
	}
	var out hcl.Diagnostics
	for i, s := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		summary, detail, _ := strings.Cut(strings.TrimSpace(text[s[1]:end]), "; ")
		d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail}
		group := func(n int) string {
			if s[2*n] < 0 {
				return ""
			}
			return text[s[2*n]:s[2*n+1]]
		}
		if name := group(1); name != "" {
			line, _ := strconv.Atoi(group(2))
			col, _ := strconv.Atoi(group(3))
			endLine, endCol := line, 0
			if l := group(4); l != "" {
				endLine, _ = strconv.Atoi(l)
			}
			endCol, _ = strconv.Atoi(group(5))
			d.Subject = &hcl.Range{Filename: name, Start: hcl.Pos{Line: line, Column: col}, End: hcl.Pos{Line: endLine, Column: endCol}}
			if name == file {
				d.Subject.Start.Byte, d.Subject.End.Byte = m.offset(line, col), m.offset(endLine, endCol)
			}
		}
		out = append(out, d)
	}
	return out
}

// positions maps the positions that a detail text names.
func (m *sourceMap) positions(text, file string) string {
	if !strings.Contains(text, file) {
		return text
	}
	re := regexp.MustCompile(regexp.QuoteMeta(file) + `:(\d+),(\d+)-(?:\d+,)?\d+`)
	return re.ReplaceAllStringFunc(text, func(s string) string {
		sub := re.FindStringSubmatch(s)
		line, _ := strconv.Atoi(sub[1])
		col, _ := strconv.Atoi(sub[2])
		if name, p, ok := m.at(m.offset(line, col)); ok {
			return fmt.Sprintf("%s:%d:%d", name, p.Line, p.Column)
		}
		return s
	})
}
