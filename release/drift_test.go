package release

import (
	"slices"
	"testing"

	"github.com/drover-nomad/drover/rollout"
)

func TestDriftOf(t *testing.T) {
	edited := rollout.FieldChange{Path: "priority", Kind: rollout.FieldEdited, Old: "60", New: "50"}
	added := rollout.FieldChange{Path: "meta.a", Kind: rollout.FieldAdded, New: "1"}
	diff := []rollout.FieldChange{edited, added}
	for _, test := range []struct {
		name   string
		change rollout.Change
		kind   string
		diff   []rollout.FieldChange
	}{
		{"nothing to restore", rollout.Change{Action: rollout.ActionNone}, DriftNone, nil},
		{"a job that was purged", rollout.Change{Action: rollout.ActionCreate}, DriftMissing, nil},
		{"a job that was stopped", rollout.Change{Action: rollout.ActionCreate, Index: 7}, DriftStopped, nil},
		{"a job that was registered again", rollout.Change{Action: rollout.ActionInPlace, Index: 7, Diff: diff}, DriftChanged, []rollout.FieldChange{
			{Path: "priority", Kind: rollout.FieldEdited, Old: "50", New: "60"}, {Path: "meta.a", Kind: rollout.FieldDeleted, Old: "1"},
		}},
		{"a job whose type changed", rollout.Change{Action: rollout.ActionRecreate, Index: 7, Diff: diff[:1]}, DriftChanged, []rollout.FieldChange{
			{Path: "priority", Kind: rollout.FieldEdited, Old: "50", New: "60"},
		}},
		{"an unchanged job that is dead", rollout.Change{Action: rollout.ActionRecreate, Index: 7}, DriftDead, nil},
		{"an unchanged job that failed", rollout.Change{Action: rollout.ActionReplace, Index: 7, Retry: true, Diff: diff}, DriftDead, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := driftOf(Change{Change: test.change})
			if got.Kind != test.kind {
				t.Errorf("Kind = %q, want %q", got.Kind, test.kind)
			}
			if !slices.Equal(got.Diff, test.diff) {
				t.Errorf("Diff = %+v, want %+v", got.Diff, test.diff)
			}
		})
	}
}
