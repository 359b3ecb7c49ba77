package deploy

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

var storedRead = regexp.MustCompile(`\bnomadVar\s+"(` + acme.CertFolder + `/[^"/]+|` + acme.PublicPath + `)"`)

// storedReads returns the variables of certificates that templates of a job read, each
// with the task that does. It leaves out those that a template guards with
// nomadVarExists.
func storedReads(job *api.Job) map[string]string {
	out := map[string]string{}
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			for _, tmpl := range t.Templates {
				text := nomad.Deref(tmpl.EmbeddedTmpl)
				for _, m := range storedRead.FindAllStringSubmatch(text, -1) {
					if !strings.Contains(text, `nomadVarExists "`+m[1]+`"`) {
						out[m[1]] = t.Name
					}
				}
			}
		}
	}
	return out
}

// checkStored returns an error if a template reads a certificate that does not exist:
// Nomad would wait for it without a message, until the deadline of the deployment.
// It takes a certificate as existing if the token may not list it.
func checkStored(ctx context.Context, c nomad.Clients, jobs []render.Job) error {
	for _, j := range jobs {
		reads := storedReads(j.Job)
		var lacks, tasks []string
		for _, path := range slices.Sorted(maps.Keys(reads)) {
			opts := &api.QueryOptions{Namespace: nomad.Deref(j.Job.Namespace)}
			found, _, err := c.Nomad.Variables().PrefixList(path, opts.WithContext(ctx))
			if nomad.IsForbidden(err) {
				continue
			}
			if err != nil {
				return fmt.Errorf("cannot look for the variable %s: %w", path, err)
			}
			if slices.ContainsFunc(found, func(v *api.VariableMetadata) bool { return v.Path == path }) {
				continue
			}
			lacks = append(lacks, storedName(path))
			if !slices.Contains(tasks, reads[path]) {
				tasks = append(tasks, reads[path])
			}
		}
		if len(lacks) > 0 {
			return fmt.Errorf("task %s of job %s reads %s, and Nomad starts it only when that exists: run `drover cert prepare STACK` with the stack that has the certificate",
				strings.Join(tasks, ", "), nomad.Deref(j.Job.ID), strings.Join(lacks, ", "))
		}
	}
	return nil
}

// storedName is what a variable holds, in words.
func storedName(path string) string {
	name, ok := strings.CutPrefix(path, acme.CertFolder+"/")
	if !ok {
		return "the ACME account's thumbprint"
	}
	return "certificate " + strings.NewReplacer("~wild", "*", "~", ".").Replace(name)
}
