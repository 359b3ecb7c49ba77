package release

import (
	"context"
	"fmt"
	"slices"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// ServiceDiff is what differs of one service between two releases.
type ServiceDiff struct {
	Service string `json:"service"`
	Target  string `json:"target,omitempty"`
	Kind    string `json:"kind"` // added, removed or changed
	// Fields lead from the older release (Old) to the newer one (New).
	Fields []rollout.FieldChange `json:"fields,omitempty"`
}

// Diff compares what two releases deploy, service by service. A service whose
// specs differ only in defaults, as one that was adopted and then deployed, is
// the same in both.
func Diff(ctx context.Context, releases Reader, from, to int) ([]ServiceDiff, error) {
	var sides [2]map[key]record.Service
	var order []key
	for i, n := range []int{from, to} {
		h, err := releases.Read(ctx, n)
		if err != nil {
			return nil, err
		}
		lines, err := releases.Services(ctx, h)
		if err != nil {
			return nil, err
		}
		sides[i] = map[key]record.Service{}
		for _, l := range lines {
			if l.Spec == "" {
				continue
			}
			k := key{l.Target, l.Name}
			if _, taken := sides[i][k]; taken { // another job of the service, which a partial deploy has kept
				k.service = fmt.Sprintf("%s (job %s)", l.Name, l.JobID)
			}
			sides[i][k] = l
			if !slices.Contains(order, k) {
				order = append(order, k)
			}
		}
	}
	var out []ServiceDiff
	for _, k := range order {
		old, had := sides[0][k]
		now, has := sides[1][k]
		d := ServiceDiff{Service: k.service, Target: k.target}
		switch {
		case !had:
			d.Kind = "added"
		case !has:
			d.Kind = "removed"
		case old.Spec == now.Spec:
			continue
		default:
			d.Kind = "changed"
			a, err := readSpec(ctx, releases, old.Spec)
			if err != nil {
				return nil, err
			}
			b, err := readSpec(ctx, releases, now.Spec)
			if err != nil {
				return nil, err
			}
			if d.Fields, err = rollout.SpecChanges(a.Job, b.Job); err != nil {
				return nil, err
			}
			if len(d.Fields) == 0 {
				continue
			}
		}
		out = append(out, d)
	}
	return out, nil
}
