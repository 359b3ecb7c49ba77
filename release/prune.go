package release

import (
	"fmt"
	"strings"

	"github.com/drover-nomad/drover/rollout"
)

// PruneError is returned for running jobs that a release would stop because
// they are not in the stack any more, without having been allowed to.
type PruneError struct{ Jobs []Change }

func (e *PruneError) Error() string {
	ids := make([]string, len(e.Jobs))
	hint := ""
	for i, c := range e.Jobs {
		ids[i] = c.JobID
		if c.RenamedTo != "" && hint == "" {
			hint = fmt.Sprintf("; service %s becomes job %s: did a variable rename it?", c.Service, c.RenamedTo)
		}
	}
	what := "job " + ids[0] + ": it is"
	if len(ids) > 1 {
		what = "jobs " + strings.Join(ids, ", ") + ": they are"
	}
	return "cannot prune " + what + " running and not in the stack any more" + hint + "; nothing was done; read the plan, then allow it with --prune"
}

// Prunes returns the running jobs that the release would stop because they are
// not in the stack any more.
func (p *Plan) Prunes() []Change {
	var out []Change
	for _, c := range p.Changes() {
		if c.Action == rollout.ActionStop && c.Running {
			out = append(out, c)
		}
	}
	return out
}

// AllowPrune allows the release to stop the jobs that Prunes returns.
func (p *Plan) AllowPrune() { p.prune = true }

// PruneAllowed returns a *PruneError if the release would stop running jobs
// without having been allowed to. Jobs that are dead are pruned without asking.
func (p *Plan) PruneAllowed() error {
	if jobs := p.Prunes(); len(jobs) > 0 && !p.prune && !p.req.Prune {
		return &PruneError{jobs}
	}
	return nil
}
