package rollout

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// NoNamespaceError is the error of a Nomad namespace that does not exist.
type NoNamespaceError struct {
	Namespace string
	Region    string // "" for that of the client
	JobID     string // that names it, "" for the namespace of the client
	Target    string
}

func (e *NoNamespaceError) Error() string {
	who, hint := fmt.Sprintf("job %q", e.JobID), "or name another one in its job spec"
	if e.JobID == "" {
		who, hint = "NOMAD_NAMESPACE", "or set it to another one"
	}
	at := ""
	if e.Region != "" {
		at += " in region " + e.Region
	}
	if e.Target != "" {
		at += " of target " + e.Target
	}
	return fmt.Sprintf("%s names namespace %q, which does not exist%s; create it with `nomad namespace apply %s`, %s", who, e.Namespace, at, e.Namespace, hint)
}

// CheckNamespaces returns a *NoNamespaceError if the namespace of a job, or that
// in which drover keeps its record, does not exist (GET /v1/namespace/:name). A
// token that may do anything in a namespace may look at it, so that a refusal is
// an error for the namespace of a job. A token may have no more than variables in
// that of the record, which Nomad refuses to show it then.
func CheckNamespaces(ctx context.Context, c nomad.Clients, jobs []render.Job) error {
	list := []NoNamespaceError{{Namespace: c.Defaults.Namespace}}
	used := map[place]bool{} // by a job
	for _, j := range jobs {
		e := NoNamespaceError{Namespace: nomad.Deref(j.Job.Namespace), Region: nomad.Deref(j.Job.Region), JobID: nomad.Deref(j.Job.ID)}
		if e.Namespace == "" {
			e.Namespace, e.JobID = c.Defaults.Namespace, ""
		}
		used[place{e.Region, e.Namespace}] = true
		list = append(list, e)
	}
	seen := map[place]bool{}
	list = slices.DeleteFunc(list, func(e NoNamespaceError) bool {
		at := place{e.Region, e.Namespace}
		dup := e.Namespace == "" || e.Namespace == api.DefaultNamespace || seen[at]
		seen[at] = true
		return dup
	})
	return parallel.Each(len(list), 8, func(i int) error {
		e := list[i]
		_, _, err := c.Nomad.Namespaces().Info(e.Namespace, (&api.QueryOptions{Region: cmp.Or(e.Region, c.Defaults.Region)}).WithContext(ctx))
		switch {
		case err == nil, nomad.IsRefused(err) && !used[place{e.Region, e.Namespace}]:
			return nil
		case nomad.IsNotFound(err):
			if c.Target != nil {
				e.Target = c.Target.Name
			}
			return &e
		}
		return c.Explain(fmt.Errorf("reading namespace %s: %w", e.Namespace, err))
	})
}
