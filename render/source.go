package render

import (
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/drover-nomad/drover/stack"
)

// Source is the syntax of a merged job spec. Its positions map to the layers.
type Source struct {
	Body *hclsyntax.Body
	m    *sourceMap
	name string
}

// Source parses the merged job spec again. It is nil for a job file in HCL's
// JSON syntax.
func (j Job) Source() *Source {
	f, diags := stack.ParseHCL(j.HCL, j.File)
	if diags.HasErrors() || j.source == nil {
		return nil
	}
	return &Source{Body: f.Body.(*hclsyntax.Body), m: j.source, name: j.File}
}

// Origin is where a range of the merged job spec was written.
func (s *Source) Origin(r hcl.Range) hcl.Range { return s.m.rng(r) }

// Find walks down to a block or attribute and returns where it was written.
// A step is "TYPE LABEL", "TYPE #N" for the N-th block without a label, the
// TYPE of a single block or the name of an attribute. Where the path cannot
// be followed further, as behind a dynamic block, it returns the last place.
func (s *Source) Find(path ...string) hcl.Range {
	body := s.Body
	at := hcl.Range{Filename: s.name, Start: hcl.InitialPos, End: hcl.InitialPos}
	if b := child(body, "job"); b != nil {
		body, at = b.Body, b.DefRange()
	}
	for _, step := range path {
		if a := body.Attributes[step]; a != nil {
			return s.m.rng(a.SrcRange)
		}
		b := child(body, step)
		if b == nil {
			typ, _, _ := strings.Cut(step, " ")
			if b = child(body, "dynamic "+typ); b != nil {
				at = b.DefRange()
			}
			break
		}
		body, at = b.Body, b.DefRange()
	}
	return s.m.rng(at)
}

func child(body *hclsyntax.Body, step string) *hclsyntax.Block {
	typ, rest, _ := strings.Cut(step, " ")
	nth := 0
	label := rest
	if n, ok := strings.CutPrefix(rest, "#"); ok {
		nth, _ = strconv.Atoi(n)
		label = ""
	}
	for _, b := range body.Blocks {
		if b.Type != typ || label != "" && (len(b.Labels) == 0 || b.Labels[0] != label) {
			continue
		}
		if nth == 0 {
			return b
		}
		nth--
	}
	return nil
}
