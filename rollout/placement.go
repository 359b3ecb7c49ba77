package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Placement is why a group found no node.
type Placement struct {
	Group     string         `json:"group"`
	Evaluated int            `json:"nodes_evaluated"`
	Filtered  map[string]int `json:"filtered,omitempty"`  // constraint → nodes
	Exhausted map[string]int `json:"exhausted,omitempty"` // resource → nodes
	Quota     []string       `json:"quota,omitempty"`

	drivers []string // of the group's tasks
}

// placements are the reasons of the latest evaluation that could not place.
func (s spec) placements(evals []*api.Evaluation) []Placement {
	var latest *api.Evaluation
	for _, e := range evals {
		if len(e.FailedTGAllocs) > 0 && (latest == nil || e.CreateIndex > latest.CreateIndex) {
			latest = e
		}
	}
	if latest == nil {
		return nil
	}
	return s.placementsOf(latest.FailedTGAllocs)
}

func (s spec) placementsOf(failed map[string]*api.AllocationMetric) []Placement {
	var out []Placement
	for _, group := range slices.Sorted(maps.Keys(failed)) {
		p := PlacementOf(group, failed[group])
		p.drivers = s.drivers(group)
		out = append(out, p)
	}
	return out
}

// PlacementOf reads what Nomad's scheduler says of a group.
func PlacementOf(group string, m *api.AllocationMetric) Placement {
	p := Placement{Group: group, Evaluated: m.NodesEvaluated, Filtered: map[string]int{}, Exhausted: map[string]int{}, Quota: m.QuotaExhausted}
	maps.Copy(p.Filtered, m.ConstraintFiltered)
	for class, nodes := range m.ClassFiltered {
		p.Filtered["node class "+class] = nodes
	}
	maps.Copy(p.Exhausted, m.DimensionExhausted)
	return p
}

// String is the placement in one line, such as "group web: memory exhausted on
// 1 of 1".
func (p Placement) String() string { return "group " + p.Group + ": " + p.Reason() }

// Reason says why no node takes the group.
func (p Placement) Reason() string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(p.Filtered)) {
		nodes := p.Filtered[c]
		switch {
		case c == "missing drivers" && nodes >= p.Evaluated:
			parts = append(parts, fmt.Sprintf("no node has a healthy %s driver (%d of %d filtered out)", p.driver(), nodes, p.Evaluated))
		case c == "missing drivers":
			parts = append(parts, fmt.Sprintf("%d of %d nodes have no healthy %s driver", nodes, p.Evaluated, p.driver()))
		default:
			parts = append(parts, fmt.Sprintf("%s filtered out %d of %d", c, nodes, p.Evaluated))
		}
	}
	for _, d := range slices.Sorted(maps.Keys(p.Exhausted)) {
		parts = append(parts, fmt.Sprintf("%s exhausted on %d of %d", d, p.Exhausted[d], p.Evaluated))
	}
	for _, q := range p.Quota {
		parts = append(parts, "quota "+q)
	}
	if len(parts) == 0 {
		return "no node in its datacenters and node pool"
	}
	return strings.Join(parts, "; ")
}

func (p Placement) driver() string {
	if len(p.drivers) == 0 {
		return "task"
	}
	return strings.Join(p.drivers, " and ")
}

// reasons joins placements; one that is alone needs no name.
func reasons(list []Placement) string {
	if len(list) == 1 {
		return list[0].Reason()
	}
	var parts []string
	for _, p := range list {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, "; ")
}

// noPlace returns the message that no node can take the missing allocations, with the
// reasons of the evaluations.
func noPlace(s spec, evals []*api.Evaluation) string {
	text := "no node can take it"
	if why := reasons(s.placements(evals)); why != "" {
		text += ": " + why
	}
	return text
}

// Unplaceable is a service for which no node has room.
type Unplaceable struct {
	Name   string // of the service
	Reason string
}

func (e *Unplaceable) Error() string {
	return fmt.Sprintf("%s: no node can take it: %s", e.Name, e.Reason)
}

// Placeable returns an error with an *Unplaceable for each service that starts
// allocations for which no node has room now, by the dry run of Nomad's
// scheduler, which takes into account what the job itself stops and preempts.
// created are volumes that are made before the jobs are submitted. A service is
// not in the error when
//
//   - Options.PlacementTimeout or its own placement_timeout says that it may
//     wait for a node,
//   - it is a system job, which runs where it can,
//   - it mounts a volume that is made, or
//   - it lacks a resource or a port, and another service of the plan gives some
//     back: it stops allocations or starts them anew.
func (p *Plan) Placeable(created []MissingVolume) error {
	var errs []error
	for _, s := range p.steps {
		if p.opts.PlacementTimeout > 0 || s.PlacementTimeout > 0 || s.spec.perNode() {
			continue
		}
		var list []Placement
		for _, pl := range s.spec.placementsOf(s.plan.FailedTGAllocs) {
			if s.starts(pl.Group) && !s.mounts(pl.Group, created) && (!pl.lacksRoom() || !p.frees(s)) {
				list = append(list, pl)
			}
		}
		if len(list) > 0 {
			errs = append(errs, &Unplaceable{Name: s.Name(), Reason: reasons(list)})
		}
	}
	return errors.Join(errs...)
}

// lacksRoom reports whether some node would take the group if other allocations
// made room.
func (p Placement) lacksRoom() bool { return len(p.Exhausted) > 0 || len(p.Quota) > 0 }

// starts reports whether the change itself starts allocations of the group. An
// allocation that waited for a node before is no reason against a change in
// place.
func (s *step) starts(group string) bool {
	switch s.action() {
	case ActionCreate, ActionRecreate:
		return true
	case ActionNone, ActionStop:
		return false
	}
	for _, g := range s.groups() {
		if g.Group == group && g.Replace > 0 {
			return true
		}
	}
	if s.plan.Diff == nil {
		return false
	}
	for _, g := range s.plan.Diff.TaskGroups {
		if g.Name != group {
			continue
		}
		if g.Type == "Added" {
			return true
		}
		for _, f := range g.Fields {
			was, err1 := strconv.Atoi(f.Old)
			is, err2 := strconv.Atoi(f.New)
			if f.Name == "Count" && err1 == nil && err2 == nil && is > was {
				return true
			}
		}
	}
	return false
}

// mounts reports whether the group has one of the volumes.
func (s *step) mounts(group string, created []MissingVolume) bool {
	for _, tg := range s.Job.Job.TaskGroups {
		if nomad.Deref(tg.Name) != group {
			continue
		}
		for name, v := range tg.Volumes {
			source := cmp.Or(v.Source, name)
			if slices.ContainsFunc(created, func(m MissingVolume) bool { return m.Name == source || strings.HasPrefix(m.Name, source+"[") }) {
				return true
			}
		}
	}
	return false
}

// frees reports whether a service of the plan other than s stops allocations.
func (p *Plan) frees(s *step) bool {
	return slices.ContainsFunc(p.steps, func(other *step) bool {
		return other != s && (other.recreate != "" || slices.ContainsFunc(other.groups(), func(g GroupChange) bool { return g.Stop > 0 || g.Replace > 0 }))
	})
}
