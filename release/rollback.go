package release

import (
	"fmt"

	"github.com/drover-nomad/drover/record"
)

// chooseRollback returns the release to roll back to: the one of that number, or
// with 0 the newest good one before what runs. heads are all releases, the newest
// first. It returns an error for a release that cannot be restored as a whole.
func chooseRollback(heads []*record.Release, number int) (*record.Release, error) {
	if len(heads) == 0 {
		return nil, record.ErrNoRelease
	}
	if number == 0 {
		to, runs := rollbackTarget(heads)
		if to == nil {
			if runs == nil {
				runs = heads[0]
			}
			return nil, fmt.Errorf("there is no good release before release %d to go back to", runs.Number)
		}
		return to, nil
	}
	for _, h := range heads {
		switch {
		case h.Number != number:
		case h.State == record.Unreadable:
			return nil, fmt.Errorf("cannot go back to release %d: %s", h.Number, h.Detail)
		case h.State != record.Done:
			return nil, fmt.Errorf("release %d is %s and was never complete; go back to one that is deployed", h.Number, h.State)
		default:
			return h, nil
		}
	}
	return nil, fmt.Errorf("there is %w: %d; there are %s", record.ErrNoRelease, number, numbers(heads))
}

// goodBefore returns the release that a rollback without a number goes back to,
// nil when there is none, and the release whose specs run now, nil when none
// does. heads are all releases, the newest first.
//
// The goal is the newest good release that is older than what runs: after a
// rollback to release 1 that is none from between the two, which were left for
// a reason.
func rollbackTarget(heads []*record.Release) (to, runs *record.Release) {
	runs, older := runningRelease(heads)
	for _, h := range older {
		if h.State == record.Done && !isEmpty(h) && (runs == nil || h.Inputs != runs.Inputs) {
			return h, runs
		}
	}
	return nil, runs
}

// running returns the release whose specs run, and all that are older. It
// returns nil and the releases before the newest one if that left no complete
// release: it failed and stayed, is open, or removed everything.
func runningRelease(heads []*record.Release) (runs *record.Release, older []*record.Release) {
	for i := 0; i < len(heads); {
		h := heads[i]
		switch h.State {
		case record.Reverted, record.Aborted, record.RevertFailed:
			i++ // everything is as before
			continue
		case record.Done:
		default:
			return nil, heads[i+1:]
		}
		if isEmpty(h) {
			return nil, heads[i+1:]
		}
		if h.Of == 0 || h.Kind != KindRollback && h.Kind != KindRedeploy {
			return h, heads[i+1:]
		}
		// It has the specs of release Of; if that is not kept, neither is an older one.
		for i++; i < len(heads) && heads[i].Number > h.Of; i++ {
		}
		if i == len(heads) || heads[i].Number != h.Of {
			return h, nil
		}
	}
	return nil, nil
}

// emptied reports whether a release left nothing that runs.
func isEmpty(h *record.Release) bool { return h.Total == 0 }
