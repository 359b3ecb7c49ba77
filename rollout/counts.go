package rollout

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

// KeptCount is a group with a scaling block that keeps a count to which it was
// scaled.
type KeptCount struct {
	Group string `json:"group"`
	Spec  int    `json:"spec"` // what the stack says
	Live  int    `json:"live"` // what the deploy registers
	// Scaled is the count of the registered job where that is outside the
	// bounds of the scaling block, 0 where Live is that count.
	Scaled int `json:"scaled,omitempty"`
}

func (k KeptCount) String() string {
	switch {
	case k.Scaled > k.Live:
		return fmt.Sprintf("count of group %s goes from %d, set by scaling, to %d, the max of its scaling block; the stack says %d", k.Group, k.Scaled, k.Live, k.Spec)
	case k.Scaled > 0:
		return fmt.Sprintf("count of group %s goes from %d, set by scaling, to %d, the min of its scaling block; the stack says %d", k.Group, k.Scaled, k.Live, k.Spec)
	}
	return fmt.Sprintf("count of group %s stays %d, set by scaling; the stack says %d", k.Group, k.Live, k.Spec)
}

// ReplacedCount is a group with a scaling block whose count was changed in the
// stack and replaces the count to which the group was scaled.
type ReplacedCount struct {
	Group string `json:"group"`
	Spec  int    `json:"spec"` // what the deploy registers
	Live  int    `json:"live"` // what the registered job has
}

func (r ReplacedCount) String() string {
	return fmt.Sprintf("count %d of group %s replaces %d, set by scaling: the stack has changed it", r.Spec, r.Group, r.Live)
}

// AskedCounts returns the counts that the stack asks for in the groups with a
// scaling block, by group: render.Job.Counts or, where that is nil, the counts
// of the job.
func AskedCounts(j render.Job) map[string]int {
	if j.Counts != nil {
		return j.Counts
	}
	var out map[string]int
	for _, g := range j.Job.TaskGroups {
		if scaled(g) {
			if out == nil {
				out = map[string]int{}
			}
			out[nomad.Deref(g.Name)] = countOf(g)
		}
	}
	return out
}

// countOf is the count that Nomad gives a group.
func countOf(g *api.TaskGroup) int {
	if g.Scaling != nil {
		return nomad.DerefOr(g.Count, int(nomad.DerefOr(g.Scaling.Min, 1)))
	}
	return nomad.DerefOr(g.Count, 1)
}

// scaled reports whether a group has a scaling block that is enabled.
func scaled(g *api.TaskGroup) bool { return g.Scaling != nil && nomad.DerefOr(g.Scaling.Enabled, true) }

// counts are what decides which count a group with a scaling block gets, each
// by group. A group that is missing in asked or released is not known there.
type counts struct {
	asked    map[string]int  // by the stack now
	released map[string]int  // by the stack in the last release
	live     map[string]int  // of the registered job
	scaled   map[string]bool // groups that were scaled at some time
}

// keeps reports whether a group keeps its live count instead of the count of
// its spec. A count that the stack has changed since the last release wins.
// Where the last release is not known, any scaling of the group does.
func (c counts) keeps(group string) bool {
	asked, ok := c.asked[group]
	released, known := c.released[group]
	if ok && known {
		return asked == released
	}
	return c.scaled[group]
}

// unknown reports whether keeps needs to know if a group was scaled.
func (c counts) unknown(job *api.Job) bool {
	return slices.ContainsFunc(job.TaskGroups, func(g *api.TaskGroup) bool {
		name := nomad.Deref(g.Name)
		_, asked := c.asked[name]
		_, released := c.released[name]
		live, there := c.live[name]
		return scaled(g) && there && live != countOf(g) && !(asked && released)
	})
}

// apply returns the job with the counts that it is registered with. The given
// job is not changed.
func (c counts) apply(asked *api.Job) (*api.Job, []KeptCount, []ReplacedCount) {
	var (
		kept     []KeptCount
		replaced []ReplacedCount
	)
	job := *asked
	job.TaskGroups = slices.Clone(job.TaskGroups)
	for i, g := range job.TaskGroups {
		name, spec := nomad.Deref(g.Name), countOf(g)
		live, there := c.live[name]
		if !there || !scaled(g) || live == spec {
			continue
		}
		if !c.keeps(name) {
			// A count that was never scaled is the one of the last release: the diff shows it.
			if released, known := c.released[name]; known && released != live {
				replaced = append(replaced, ReplacedCount{Group: name, Spec: spec, Live: live})
			}
			continue
		}
		// Nomad takes no count outside the bounds, which may be new.
		count := max(live, int(nomad.Deref(g.Scaling.Min)))
		if g.Scaling.Max != nil {
			count = min(count, int(*g.Scaling.Max))
		}
		k := KeptCount{Group: name, Spec: spec, Live: count}
		if count != live {
			k.Scaled = live
		}
		if count != spec || k.Scaled > 0 {
			kept = append(kept, k)
		}
		with := *g
		with.Count = &count
		job.TaskGroups[i] = &with
	}
	return &job, kept, replaced
}

// setCounts gives the groups with a scaling block the counts that they are
// registered with (see counts): Nomad's plan, unlike its registration, cannot
// keep a live count. always keeps it in every group. (GET /v1/job/:id, and
// /v1/job/:id/scale where the record does not know the last release's counts.)
func (s *step) setCounts(ctx context.Context, c nomad.Clients, released func(*api.Job) map[string]int, always bool) error {
	if s.asked == nil {
		s.asked = s.Job.Job
	}
	if !slices.ContainsFunc(s.asked.TaskGroups, scaled) {
		return nil
	}
	live, _, err := c.Nomad.Jobs().Info(s.spec.id, s.spec.query(ctx))
	switch {
	case nomad.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("cannot read job %q: %w", s.spec.id, err)
	case nomad.Deref(live.Stop):
		return nil
	}
	is := counts{asked: s.askedCounts(), live: map[string]int{}}
	if released != nil {
		is.released = released(s.asked)
	}
	for _, g := range live.TaskGroups {
		is.live[nomad.Deref(g.Name)] = nomad.DerefOr(g.Count, 1)
	}
	switch {
	case always:
		is.released, is.scaled = nil, map[string]bool{}
		for name := range is.live {
			is.scaled[name] = true
		}
	case is.unknown(s.asked):
		if is.scaled, err = scaledGroups(ctx, c, s.spec); err != nil {
			return err
		}
	}
	s.Job.Job, s.kept, s.replaced = is.apply(s.asked)
	s.spec = specOf(s.Job.Job)
	return nil
}

func (s *step) askedCounts() map[string]int {
	job := s.Job
	if s.asked != nil {
		job.Job = s.asked
	}
	return AskedCounts(job)
}

// scaledGroups reads which groups of a job were ever scaled (GET
// /v1/job/:id/scale), as far as Nomad remembers: the last events of each group.
func scaledGroups(ctx context.Context, c nomad.Clients, s spec) (map[string]bool, error) {
	status, _, err := c.Nomad.Jobs().ScaleStatus(s.id, s.query(ctx))
	if err != nil && !nomad.IsNotFound(err) {
		return nil, fmt.Errorf("cannot read the scaling events of job %q: %w", s.id, err)
	}
	out := map[string]bool{}
	if status != nil {
		for name, g := range status.TaskGroups {
			out[name] = slices.ContainsFunc(g.Events, func(e api.ScalingEvent) bool { return e.Count != nil && !e.Error })
		}
	}
	return out, nil
}
