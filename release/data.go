package release

import (
	"cmp"
	"context"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
)

// WithData returns the jobs whose volumes a destroy may delete: those that it
// selects and, of a whole stack, all that a recorded release has made in a
// target of the plan. A service that left the stack left its data.
func (p *Plan) WithData(ctx context.Context, d *Deployer) ([]render.Job, error) {
	jobs, err := p.Recorded(ctx, d)
	if err != nil || !p.req.Only.all() {
		return jobs, err
	}
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return nil, err
	}
	type version struct{ target, digest string }
	seen := map[version]bool{}
	for _, l := range p.lines {
		seen[version{l.Target, cmp.Or(l.Spec, l.Before)}] = true
	}
	var older []record.Service
	for _, head := range heads {
		lines, err := d.Releases.Readable(ctx, head)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			_, dialled := p.clusters[l.Target]
			if v := (version{l.Target, cmp.Or(l.Spec, l.Before)}); dialled && v.digest != "" && !seen[v] {
				seen[v], l.Spec = true, v.digest
				older = append(older, l)
			}
		}
	}
	specs, err := readSpecs(ctx, d.Releases, older, func(l record.Service) []string { return []string{l.Spec} })
	if err != nil {
		return nil, err
	}
	for _, l := range older {
		jobs = append(jobs, ofLine(specs[l.Spec], l, nil))
	}
	return jobs, nil
}
