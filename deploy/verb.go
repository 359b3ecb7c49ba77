package deploy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// Result is what a verb has done with a release.
type Result = release.Result

// stream sends the events of one run of a verb, one at a time.
type stream struct {
	mu   sync.Mutex
	sink func(Event) // may be nil
}

func (s *stream) emit(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.sink(e)
}

// release sends an event of package release or rollout.
func (s *stream) release(e release.Event) {
	switch e.Kind {
	case release.EventVolume:
		s.emit(Event{Time: e.Time, Kind: KindVolume, Volume: &Volume{Name: e.Volume, Target: e.Target}})
		return
	case release.EventSecrets:
		if made := secretsOf(e.Secrets); made != nil {
			s.emit(Event{Time: e.Time, Kind: KindSecrets, Secrets: made})
		}
		return
	}
	s.emit(Event{Time: e.Time, Kind: Kind(e.Kind), Release: &e})
}

// secretsOf returns what an event says of secrets, nil if none was made or published.
func secretsOf(e *release.SecretsMade) *Secrets {
	out := &Secrets{Made: e.Made, Changes: e.Changes}
	if e.Changes != nil {
		for _, j := range e.Changes.Jobs {
			out.Jobs = append(out.Jobs, j.JobID)
		}
		slices.Sort(out.Jobs)
		out.Jobs = slices.Compact(out.Jobs)
	}
	if len(e.Made.Secrets)+len(e.Made.Renewed)+len(out.Jobs) == 0 {
		return nil
	}
	return out
}

// warn sends what does not keep the verb from its work.
func (s *stream) warn(text string) {
	s.release(release.Event{Event: rollout.Event{Time: time.Now(), Kind: release.EventWarning}, Text: text})
}

// run calls f, in which a Nomad that does not answer is asked again for as long as
// unreachable, and sends the end. f completes end; its error is that of the verb.
func run(ctx context.Context, events func(Event), unreachable time.Duration, f func(ctx context.Context, s *stream, end *End) error) (Result, error) {
	s, end := &stream{sink: events}, &End{}
	unreachable = cmp.Or(unreachable, rollout.DefaultSilence)
	ctx = nomad.WithPatience(ctx, unreachable, func(err error) {
		s.emit(Event{Kind: KindRetry, Text: err.Error(), Limit: unreachable})
	})
	err := f(ctx, s, end)
	var outcome *OutcomeError
	switch {
	case err == nil:
	case errors.As(err, &outcome):
		end.Outcome = outcome.Outcome
		if _, bare := err.(*OutcomeError); !bare { //nolint:errorlint // one that is wrapped says more
			end.Err = err
		}
	default:
		end.Err = err
	}
	s.emit(Event{Kind: KindEnd, End: end})
	if end.Result == nil {
		return Result{}, err
	}
	return *end.Result, err
}

// outcome ends a verb with the outcome of its release.
func (e *End) outcome(r Result) error {
	e.Result, e.Outcome = &r, r.Outcome()
	if !e.Outcome.OK() {
		return &OutcomeError{e.Outcome}
	}
	return nil
}
