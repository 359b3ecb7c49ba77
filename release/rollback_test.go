package release

import (
	"fmt"
	"testing"

	"github.com/drover-nomad/drover/record"
)

func TestRollbackTarget(t *testing.T) {
	// The oldest first: a release with specs of its own unless it names others.
	type rel struct {
		state record.State
		kind  string
		of    int
		same  int // number of the release whose specs are the same
		none  bool
	}
	good, bad := rel{state: record.Done}, rel{state: record.Reverted}
	back := func(of int) rel { return rel{state: record.Done, kind: KindRollback, of: of} }
	for name, test := range map[string]struct {
		releases []rel
		to, runs int
	}{
		"after two deploys":                           {[]rel{good, good}, 1, 2},
		"a single release has nothing before it":      {[]rel{good}, 0, 1},
		"after a reverted release":                    {[]rel{good, good, bad}, 1, 2},
		"after an aborted release":                    {[]rel{good, good, {state: record.Aborted}}, 1, 2},
		"after a first release that was reverted":     {[]rel{good, bad}, 0, 1},
		"after a rollback":                            {[]rel{good, good, good, back(2)}, 1, 2},
		"after a rollback to the first":               {[]rel{good, good, back(1)}, 0, 1},
		"after a rollback and a reverted release":     {[]rel{good, good, good, back(2), bad}, 1, 2},
		"after a rollback of a rollback":              {[]rel{good, good, good, back(2), good, back(4)}, 1, 2},
		"after a deploy that followed a rollback":     {[]rel{good, good, back(1), good}, 3, 4},
		"after a failed release that stayed":          {[]rel{good, good, {state: record.FailedState}}, 2, 0},
		"after a release that failed on its way back": {[]rel{good, good, {state: record.RevertFailed}}, 1, 2},
		"after an abandoned release":                  {[]rel{good, {state: record.Abandoned}}, 1, 0},
		"after a redeploy":                            {[]rel{good, good, {state: record.Done, kind: KindRedeploy, of: 2}}, 1, 2},
		"after a destroy":                             {[]rel{good, good, {state: record.Destroyed, kind: KindDestroy, none: true}}, 2, 0},
		"past a destroy":                              {[]rel{good, {state: record.Destroyed, kind: KindDestroy, none: true}, good}, 1, 3},
		"past a release with the same specs":          {[]rel{good, good, {state: record.Done, same: 2}}, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var heads []*record.Release
			for i, r := range test.releases {
				h := &record.Release{Number: i + 1, State: r.state, Kind: r.kind, Of: r.of, Total: 1, Inputs: fmt.Sprint(i + 1)}
				for _, n := range []int{r.of, r.same} {
					if n > 0 {
						h.Inputs = heads[len(heads)-n].Inputs
					}
				}
				if r.none {
					h.Total = 0
				}
				heads = append([]*record.Release{h}, heads...)
			}
			to, runs := rollbackTarget(heads)
			if number(to) != test.to || number(runs) != test.runs {
				t.Errorf("got release %d before %d, want %d before %d", number(to), number(runs), test.to, test.runs)
			}
		})
	}
}

// A rollback to a release that is not kept any more leaves no goal: what is
// older is not kept either.
func TestRollbackTarget_GoalNotKept(t *testing.T) {
	heads := []*record.Release{
		{Number: 9, State: record.Done, Kind: KindRollback, Of: 3, Total: 1, Inputs: "3"},
		{Number: 8, State: record.Done, Total: 1, Inputs: "8"},
	}
	if to, _ := rollbackTarget(heads); to != nil {
		t.Errorf("got release %d, want none: 8 is what the rollback left", to.Number)
	}
}
