package lint

import (
	"slices"

	"github.com/drover-nomad/drover/autoscale"
)

// scalingPolicy reports what the controller cannot evaluate in scaling blocks.
func scalingPolicy(s *subject) {
	for _, g := range s.Job.Job.TaskGroups {
		if g.Scaling == nil || g.Scaling.Enabled != nil && !*g.Scaling.Enabled {
			continue
		}
		_, problems := autoscale.Parse(g.Scaling)
		for _, p := range problems {
			s.report(s.at(slices.Concat([]string{group(g), "scaling"}, p.Path)...), p.Message, p.Remedy)
		}
	}
}
