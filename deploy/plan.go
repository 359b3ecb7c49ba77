package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Plan finds what a deploy would change. It writes nothing.
type Plan struct {
	Home   Home
	Source Source
	Forget []string // see Deploy.Forget

	message string // of the release that Adopt makes
}

// PlanResult is what a deploy would change, and what it was found from.
type PlanResult struct {
	Stack   *stack.Stack
	Jobs    []render.Job
	Partial bool
	Address string // of Nomad
	Inputs  string // digest of the jobs
	Plan    *release.Plan
	Changes []release.Change
	Volumes []rollout.MissingVolume // that a deploy needs or creates

	// SecretsHidden reports that the token may not read the secrets: no value is
	// shown, and what would change in them is not known.
	SecretsHidden bool
}

// Run plans. A reason for which a deploy would not begin, such as a release that is
// open, is in the result and is no error.
func (v *Plan) Run(ctx context.Context) (*PlanResult, error) {
	source := v.Home.source(v.Source)
	s, jobs, err := source.Render(ctx)
	if err != nil {
		return nil, err
	}
	clients, err := v.Home.Connect(ctx, rollout.NeedsConsul(jobs))
	if err != nil {
		return nil, err
	}
	d := v.Home.Deployer(&Limits{}, clients, s.Name, s.Environment)
	d.Dial = v.Home.dialer(map[string]nomad.Clients{"": clients})
	p := &PlanResult{Stack: s, Jobs: jobs, Partial: v.Source.Partial(), Address: clients.Nomad.Address()}
	if len(s.Secrets) > 0 {
		err = d.HideSecrets(ctx)
		switch {
		case nomad.IsForbidden(err): // which values are secret cannot be known: show none
			d.Rollout.Redact, d.Secrets, p.SecretsHidden = HideAll, nil, true
		case err != nil && !errors.Is(err, record.ErrNotFound):
			return nil, err
		}
	}
	if p.Inputs, err = release.Digest(jobs); err != nil {
		return nil, err
	}
	req := release.RequestFor(s, jobs, nil)
	req.Partial, req.TakeOver, req.Adopt, req.Forget, req.Message = p.Partial, true, true, v.Forget, v.message
	if p.Plan, err = d.Plan(ctx, req); err != nil {
		return nil, err
	}
	p.Changes = p.Plan.Changes()
	p.Volumes, err = v.missingVolumes(ctx, s, jobs)
	return p, err
}

func (v *Plan) missingVolumes(ctx context.Context, s *stack.Stack, jobs []render.Job) ([]rollout.MissingVolume, error) {
	if len(rollout.AskedVolumes(jobs)) == 0 {
		return nil, nil
	}
	targets, err := v.Home.Targets(ctx, s.Targets, jobs, false)
	if err != nil {
		return nil, err
	}
	var out []rollout.MissingVolume
	for _, name := range TargetNames(jobs) {
		missing, err := rollout.MissingVolumes(ctx, targets[name], JobsIn(jobs, name), s.Volumes)
		if err != nil {
			return nil, err
		}
		out = append(out, missing...)
	}
	return out, nil
}

// HideAll is a redactor that shows no value.
func HideAll(s string) string {
	if s == "" {
		return ""
	}
	return "(hidden)"
}

// Changed reports whether a deploy would do anything.
func (p *PlanResult) Changed() bool {
	return len(p.Plan.Forgotten()) > 0 || p.Plan.Secrets() != nil || slices.ContainsFunc(p.Changes, func(c release.Change) bool { return c.Action != rollout.ActionNone })
}

// Save returns the text of a file from which Deploy does exactly this; see
// ReadSavedPlan. version is that of drover.
func (p *PlanResult) Save(version string) ([]byte, error) {
	secrets, err := json.Marshal(p.Plan.Secrets())
	if err != nil {
		return nil, fmt.Errorf("encoding the changes of secrets: %w", err)
	}
	return release.Save(p.Plan, p.Stack, p.Jobs, p.Partial, p.Address, version, secrets)
}
