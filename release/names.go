package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/consul"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// SharedName is a name in Consul or at the edge that a job of the plan would
// share with a job of another environment of the stack.
type SharedName struct {
	Kind        string `json:"kind"` // "service" or "route"
	Name        string `json:"name"`
	JobID       string `json:"job_id"`
	OtherJobID  string `json:"other_job_id"`
	Environment string `json:"environment"` // of the other job
	Release     int    `json:"release"`
}

func (s SharedName) String() string {
	what := "registers Consul service " + s.Name
	if s.Kind == consul.ClaimRoute {
		what = "asks for route " + s.Name
	}
	return fmt.Sprintf("job %s %s, and so does job %s of environment %s (release %d)", s.JobID, what, s.OtherJobID, s.Environment, s.Release)
}

// SharedNameError is returned for names that two environments of a stack would
// share: each would get a part of the other's requests.
type SharedNameError struct{ Names []SharedName }

func (e *SharedNameError) Error() string {
	lines := make([]string, len(e.Names))
	for i, s := range e.Names {
		lines[i] = s.String()
	}
	return strings.Join(lines, "\n") + "\ngive each environment its own names, as `name = \"web-${drover.environment}\"` and a host of its own"
}

// SharedNames returns the names that the plan would share with another
// environment of the stack.
func (p *Plan) SharedNames() []SharedName { return p.shared }

// claimedName is a name that a job claims, in the cluster and region of its
// target.
type claimedName struct{ kind, name, cluster, region string }

// overlaps reports whether two names are the same one; an unknown region is any.
func (n claimedName) overlaps(other claimedName) bool {
	return n.kind == other.kind && n.name == other.name && n.cluster == other.cluster &&
		(n.region == other.region || n.region == "" || other.region == "")
}

// namesOf returns what a job claims in the Consul of its target.
func namesOf(job *api.Job, t *stack.Target) []claimedName {
	at := claimedName{region: nomad.Deref(job.Region)}
	if t != nil {
		at.cluster, at.region = strings.TrimSuffix(cluster(t), "/"), cmp.Or(at.region, t.Region)
	}
	var out []claimedName
	for _, c := range consul.Claims(job) {
		n := at
		n.kind, n.name = c.Kind, c.Name
		out = append(out, n)
	}
	return out
}

// claimsNames reports whether a change gives a job names that it did not have.
func claimsNames(c rollout.Change) bool {
	switch c.Action {
	case rollout.ActionCreate, rollout.ActionRecreate:
		return true
	case rollout.ActionNone, rollout.ActionStop:
		return false
	}
	return slices.ContainsFunc(c.Diff, func(f rollout.FieldChange) bool { return strings.Contains(f.Path, "service") })
}

// findShared compares the names that the plan's jobs newly claim with those of
// the other environments of the stack, by their newest releases. A plan that
// claims none asks for nothing.
func (d *Deployer) findShared(ctx context.Context, p *Plan) error {
	type claim struct {
		claimedName
		job string
	}
	var claims []claim
	for _, part := range p.Parts {
		t := targetNamed(p.req.Targets, part.Target)
		for i, j := range part.Jobs {
			if !claimsNames(part.changes[i]) {
				continue
			}
			for _, n := range namesOf(j.Job, t) {
				claims = append(claims, claim{n, nomad.Deref(j.Job.ID)})
			}
		}
	}
	if len(claims) == 0 {
		return nil
	}
	others, err := d.Releases.OtherEnvironments(ctx)
	if err != nil {
		return err
	}
	for _, other := range others {
		head, names, err := d.namesIn(ctx, other)
		var broken *record.UnreadableError
		if errors.As(err, &broken) || errors.Is(err, record.ErrNoRelease) {
			continue // it must not block this one
		}
		if err != nil {
			return err
		}
		for _, c := range claims {
			for job, theirs := range names {
				// The same job is a matter of who owns it: see own.
				if job != c.job && slices.ContainsFunc(theirs, c.overlaps) {
					p.shared = append(p.shared, SharedName{Kind: c.kind, Name: c.name, JobID: c.job, OtherJobID: job, Environment: head.Environment, Release: head.Number})
				}
			}
		}
	}
	slices.SortFunc(p.shared, func(a, b SharedName) int {
		return cmp.Or(cmp.Compare(a.JobID, b.JobID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.OtherJobID, b.OtherJobID))
	})
	return nil
}

// namesIn returns the names that the newest release of a record leaves claimed,
// by job ID.
func (d *Deployer) namesIn(ctx context.Context, releases Reader) (*record.Release, map[string][]claimedName, error) {
	head, err := releases.Last(ctx)
	if err != nil || head == nil {
		return head, nil, cmp.Or(err, record.ErrNoRelease)
	}
	lines, err := releases.Services(ctx, head)
	if err != nil {
		return nil, nil, err
	}
	lines = slices.DeleteFunc(lines, func(l record.Service) bool { return !l.Leftover().Runs })
	specs, err := readSpecs(ctx, releases, lines, func(l record.Service) []string { return []string{l.Leftover().Digest} })
	if err != nil {
		return nil, nil, err
	}
	req, err := requestOf(head)
	if err != nil {
		return nil, nil, err
	}
	out := map[string][]claimedName{}
	for _, l := range lines {
		if job := specs[l.Leftover().Digest].Job; job != nil {
			out[l.JobID] = append(out[l.JobID], namesOf(job, targetNamed(req.Targets, l.Target))...)
		}
	}
	return head, out, nil
}

func targetNamed(targets []*stack.Target, name string) *stack.Target {
	i := slices.IndexFunc(targets, func(t *stack.Target) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return targets[i]
}
