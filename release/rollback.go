package release

import (
	"github.com/drover-nomad/drover/record"
)

// goodBefore returns the release that a rollback without a number goes back to,
// nil when there is none, and the release whose specs run now, nil when none
// does. heads are all releases, the newest first.
//
// The goal is the newest good release that is older than what runs: after a
// rollback to release 1 that is none from between the two, which were left for
// a reason.
func goodBefore(heads []*record.Release) (to, runs *record.Release) {
	runs, older := running(heads)
	for _, h := range older {
		if h.State == record.Done && !emptied(h) && (runs == nil || h.Inputs != runs.Inputs) {
			return h, runs
		}
	}
	return nil, runs
}

// running returns the release whose specs run, and all that are older. It
// returns nil and the releases before the newest one if that left no complete
// release: it failed and stayed, is open, or removed everything.
func running(heads []*record.Release) (runs *record.Release, older []*record.Release) {
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
		if emptied(h) {
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
func emptied(h *record.Release) bool { return h.Total == 0 }
