package lint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/render"
)

const (
	parentID  = `"NOMAD_JOB_PARENT_ID"`
	variables = "nomad/jobs/"
)

var (
	// runID is what a run has of its own: its name is its ID.
	runID = regexp.MustCompile(`"NOMAD_JOB_(ID|NAME)"`)
	// assigned is the variable of an assignment in a template.
	assigned = regexp.MustCompile(`(\$\w+)\s*:?=`)
)

// jobIDs reports whether a template makes the path of a job's variable of the ID of its
// job, and of the ID of its parent. left and right are the delimiters of its actions.
func jobIDs(text, left, right string) (id, parent bool) {
	names := map[string][2]bool{} // what a variable of the template holds
	for text != "" {
		_, after, ok := strings.Cut(text, left)
		if !ok {
			break
		}
		var action string
		action, text, _ = strings.Cut(after, right)
		has := [2]bool{runID.MatchString(action), strings.Contains(action, parentID)}
		for name, of := range names {
			if slices.Contains(strings.FieldsFunc(action, func(r rune) bool { return strings.ContainsRune(" ()|,\t\n", r) }), name) {
				has[0], has[1] = has[0] || of[0], has[1] || of[1]
			}
		}
		if m := assigned.FindStringSubmatch(action); m != nil {
			names[m[1]] = has
		}
		if strings.Contains(action, variables) {
			id, parent = id || has[0] && !has[1], parent || has[1] && !has[0]
		}
	}
	return id, parent
}

// runVariable finds templates that read a variable which their task may not read: a run of
// a periodic or parameterized job has an ID of its own, and other jobs have no parent.
func runVariable(s *subject) {
	hasRuns := render.HasRuns(s.Job.Job)
	for _, g := range s.Job.Job.TaskGroups {
		for _, t := range g.Tasks {
			for i, tmpl := range t.Templates {
				if tmpl.EmbeddedTmpl == nil {
					continue
				}
				id, parent := jobIDs(*tmpl.EmbeddedTmpl, cmp.Or(name(tmpl.LeftDelim), "{{"), cmp.Or(name(tmpl.RightDelim), "}}"))
				problem := ""
				switch {
				case hasRuns && id:
					problem = "The template reads the variable of its run, which does not exist"
				case !hasRuns && parent:
					problem = "The template reads the variable of a parent, which the job does not have"
				}
				if problem != "" { // the place needs the syntax tree, which takes a third of all rules together
					s.report(s.at(group(g), "task "+t.Name, fmt.Sprintf("template #%d", i)), problem, "Write nomadVar "+render.OwnVariable(hasRuns)+", or the name of the job.")
				}
			}
		}
	}
}
