package lint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

// undeclaredSecret finds templates that read an item of the job's variable that
// the service does not declare: the item would be empty.
func undeclaredSecret(all []*subject, report reporter) {
	known := map[string]bool{} // to any service of the stack
	for _, s := range all {
		for _, item := range s.Secrets {
			known[item] = true
		}
	}
	for _, s := range all {
		for _, r := range render.SecretReads(s.Job.Job) {
			for _, item := range r.Items {
				// The variable of a job without secrets may be the operator's own.
				if strings.HasPrefix(item, "_") || slices.Contains(s.Secrets, item) || len(s.Secrets) == 0 && !known[item] {
					continue
				}
				report(s, s.template(r), fmt.Sprintf("The template reads the secret %q, which service %q does not declare", item, s.Service),
					fmt.Sprintf("Add %q to the secrets of the service in stack.hcl: it would be empty.", item))
			}
		}
	}
}

// unreadSecret finds declared items that no template of the job reads, and
// templates that do not tell their task of a new value.
func unreadSecret(s *subject) {
	reads := render.SecretReads(s.Job.Job)
	for _, item := range s.Secrets {
		if !slices.ContainsFunc(reads, func(r render.SecretRead) bool { return r.Reads(item) }) {
			s.report(s.at(), fmt.Sprintf("No template reads the secret %q of service %q", item, s.Service),
				"Read it in a template from nomad/jobs/JOB_ID, or remove it from the secrets of the service.")
		}
	}
	if len(s.Secrets) == 0 {
		return
	}
	for _, r := range reads {
		if name(r.Template.ChangeMode) == "noop" {
			s.report(s.template(r), `A template with change_mode = "noop" reads secrets`,
				`The task does not learn of a rotated secret: write change_mode = "restart", or run drover redeploy after a rotation.`)
		}
	}
}

func (s *subject) template(r render.SecretRead) hcl.Range {
	return s.at("group "+r.Group, "task "+r.Task, fmt.Sprintf("template #%d", r.Index))
}

var (
	// serviceName is what Nomad takes as the name of a service (RFC 1123).
	serviceName = regexp.MustCompile(`^(?i:[a-z0-9]|[a-z0-9][a-z0-9\-]{0,61}[a-z0-9])$`)
	// interpolation is what a client fills in. Nomad checks the name without it.
	interpolation = regexp.MustCompile(`\$\{[^}]*\}`)
)

// refusedName finds names that Nomad refuses, at the latest when the job or its
// variable is written.
func refusedName(s *subject) {
	id := name(s.Job.Job.ID)
	switch {
	case strings.ContainsAny(id, " \x00"):
		s.report(s.at("id"), fmt.Sprintf("The job ID %q has a space", id), "Use letters, digits, - and _.")
	default:
		if err := s.CheckSecrets(); err != nil {
			s.report(s.at("id"), fmt.Sprintf("Nomad takes no variable for the secrets of job %q", id),
				"Use letters, digits, - and _ in the job ID, at most 117 characters.")
		}
	}
	// Nomad names a service without a name by its default.
	visit := func(services []*api.Service, byDefault string, path ...string) {
		for i, svc := range services {
			if label := cmp.Or(svc.Name, byDefault); !serviceName.MatchString(interpolation.ReplaceAllString(label, "ENV-VAR")) {
				s.report(s.at(append(slices.Clone(path), fmt.Sprintf("service #%d", i), "name")...), fmt.Sprintf("Nomad refuses the service name %q", label),
					"Use letters, digits and dashes, at most 63 characters (RFC 1123).")
			}
		}
	}
	for _, g := range s.Job.Job.TaskGroups {
		byDefault := cmp.Or(name(s.Job.Job.Name), id) + "-" + name(g.Name)
		visit(g.Services, byDefault, group(g))
		for _, t := range g.Tasks {
			visit(t.Services, byDefault+"-"+t.Name, group(g), "task "+t.Name)
		}
	}
}
