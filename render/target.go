package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/drover-nomad/drover/stack"
)

// readTargets finds the layers that target blocks hold.
func (r *renderer) readTargets() {
	r.targets = map[string]*body{}
	if r.overlay == nil {
		return
	}
	for _, n := range r.overlay.items {
		if n.name == "target" && len(n.labels) == 1 {
			r.targets[n.labels[0]] = n.body
		}
	}
}

// placement returns the last layer, which has the region, namespace and datacenters of a
// target.
func (r *renderer) placement(u unit) *body {
	t, out := u.target, &body{}
	add := func(name string, v cty.Value) { out.items = append(out.items, r.attribute(t, name, literal(v))) }
	if t.Region != "" {
		add("region", cty.StringVal(t.Region))
	}
	if t.Namespace != "" {
		add("namespace", cty.StringVal(t.Namespace))
	}
	if len(t.Datacenters) > 0 {
		var dcs []cty.Value
		for _, dc := range t.Datacenters {
			dcs = append(dcs, cty.StringVal(dc))
		}
		add("datacenters", cty.TupleVal(dcs))
	}
	if n, ok := t.Counts[u.service.Name]; ok {
		out.items = append(out.items, &node{
			name: "group", labels: []string{"*"}, rule: r.rules.of("group", 1), rng: t.Range,
			text: r.own(t, "group \"*\" {\n"),
			body: &body{items: []*node{r.attribute(t, "count", fmt.Sprint(n))}},
		})
	}
	return out
}

// own is text that stands for a target block.
func (r *renderer) own(t *stack.Target, text string) chunk {
	return chunk{layer: r.s.Overlay, start: t.Range.Start.Byte, text: text}
}

func (r *renderer) attribute(t *stack.Target, name, value string) *node {
	return &node{attr: true, name: name, rng: t.Range, text: r.own(t, name+" = "+value+"\n")}
}

// suffixed sets the job ID that distinguishes the job from those of the same service in
// other targets. The job name is not changed, so that names in Consul and in templates of
// other jobs stay valid.
func (r *renderer) suffixed(t *stack.Target, job *node) *body {
	if t.JobSuffix == "" {
		return job.body
	}
	out := *job.body
	out.items = slices.Clone(out.items)
	at := slices.IndexFunc(out.items, func(n *node) bool { return n.attr && n.name == "id" })
	if at < 0 {
		out.items = slices.Insert(out.items, 0, r.attribute(t, "id", literal(cty.StringVal(job.labels[0]+t.JobSuffix))))
		return &out
	}
	old := out.items[at]
	id := *old
	src := string(old.expr.Range().SliceBytes(old.text.layer.Src))
	quoted, isQuoted := strings.CutSuffix(src, `"`)
	switch old.expr.(type) {
	case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr:
	default:
		isQuoted = false
	}
	if isQuoted {
		src = quoted + t.JobSuffix + `"`
	} else {
		src = fmt.Sprintf("\"${%s}%s\"", src, t.JobSuffix)
	}
	id.text = chunk{layer: old.text.layer, start: old.text.start, text: "id = " + src + "\n"}
	out.items[at] = &id
	return &out
}

// foreignVariables finds templates that name the Nomad Variable of a job by an
// ID that the job does not have in this target: its workload identity could
// not read it, and the task would wait forever.
func foreignVariables(t *stack.Target, j Job) hcl.Diagnostics {
	if t.JobSuffix == "" || len(j.Secrets) == 0 {
		return nil
	}
	var diags hcl.Diagnostics
	path := "nomad/jobs/" + strings.TrimSuffix(*j.Job.ID, t.JobSuffix)
	for _, tg := range j.Job.TaskGroups {
		for _, task := range tg.Tasks {
			for i, tmpl := range task.Templates {
				if tmpl.EmbeddedTmpl == nil || !strings.Contains(*tmpl.EmbeddedTmpl, path) || strings.Contains(*tmpl.EmbeddedTmpl, path+t.JobSuffix) {
					continue
				}
				at := hcl.Range{Filename: j.File, Start: hcl.InitialPos, End: hcl.InitialPos}
				if src := j.Source(); src != nil {
					at = src.Find("group "+*tg.Name, "task "+task.Name, fmt.Sprintf("template #%d", i), "data")
				}
				diags = append(diags, diagAt(at, fmt.Sprintf("The template reads %s, but in target %q the job is %q", path, t.Name, *j.Job.ID),
					fmt.Sprintf("Write nomadVar %s, which is right in every target.", OwnVariable(HasRuns(j.Job)))))
			}
		}
	}
	return diags
}
