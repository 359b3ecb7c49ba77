package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// History lists the releases of a stack. It changes nothing.
type History struct {
	Home Home
	// Stack is the name of a stack or the path of its source. Environment is given
	// as in Source.
	Stack, Environment string
}

// HistoryResult has the releases of a stack, the newest first.
type HistoryResult struct {
	Stack, Environment string
	Releases           []*record.Release // a release that cannot be read has the state record.Unreadable
	// Holder holds the lock of the stack; nil if it is not locked. It is read only
	// if a release is open.
	Holder *record.Holder
}

// StateOf returns the state of a release: record.Interrupted if it is in
// progress by its record, and the stack is not locked.
func (r HistoryResult) StateOf(h *record.Release) record.State {
	if r.Holder == nil && (h.State == record.Running || h.State == record.Reverting) {
		return record.Interrupted
	}
	return h.State
}

// Run returns the releases. If there is none it returns a *NoReleaseError and a
// result whose Releases are empty, and not nil.
func (v History) Run(ctx context.Context) (HistoryResult, error) {
	home, r, err := v.Home.openStore(ctx, v.Stack, v.Environment)
	if err != nil {
		return HistoryResult{}, err
	}
	out := HistoryResult{Stack: r.Stack(), Environment: r.Environment(), Releases: []*record.Release{}}
	list, err := r.List(ctx)
	if err != nil {
		return out, err
	}
	if len(list) == 0 {
		return out, NoRelease(ctx, home.Nomad, r)
	}
	out.Releases = list
	if slices.ContainsFunc(list, func(h *record.Release) bool { return h.State.Open() }) {
		out.Holder, err = r.Holder(ctx)
	}
	return out, err
}

// Show reads one release. It changes nothing.
type Show struct {
	Home               Home
	Stack, Environment string // as in History
	Release            int    // its number; 0 for the newest
}

// ShowResult is a release with its services. The values of variables are a JSON
// object, nil if none were recorded.
type ShowResult struct {
	Release  *record.Release  `json:"release"`
	Services []record.Service `json:"services"`
	Values   json.RawMessage  `json:"values"`
}

// Run returns the release, an error that wraps record.ErrNoRelease if there is no
// such release.
func (v Show) Run(ctx context.Context) (ShowResult, error) {
	var out ShowResult
	r, err := v.read(ctx, &out)
	if err != nil || out.Release.Values == "" {
		return out, err
	}
	b, err := r.Blob(ctx, out.Release.Values)
	out.Values = b.Values
	return out, err
}

// read reads a release without its values.
func (v Show) read(ctx context.Context, out *ShowResult) (release.Store, error) {
	home, r, err := v.Home.openStore(ctx, v.Stack, v.Environment)
	if err != nil {
		return nil, err
	}
	c := &reader{home: home, releases: r}
	number := v.Release
	if number == 0 {
		if number, err = c.newestNumber(ctx); err != nil {
			return nil, err
		}
	}
	if out.Release, err = r.Read(ctx, number); err != nil {
		return nil, c.withKept(ctx, err)
	}
	out.Services, err = r.Services(ctx, out.Release)
	return r, err
}

// JobSpec returns the job spec of one service as a release submitted it: a JSON
// object with the field Job, which `nomad job run -json` takes. An unknown service
// is an *InvalidError.
func (v Show) JobSpec(ctx context.Context, service string) (json.RawMessage, error) {
	var of ShowResult
	r, err := v.read(ctx, &of)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range of.Services {
		if l.Name != service || l.Spec == "" {
			names = append(names, l.Name)
			continue
		}
		b, err := r.Blob(ctx, l.Spec)
		if err != nil {
			return nil, err
		}
		return b.Job, nil
	}
	return nil, invalidf("release %d has no service %q; it has %s", of.Release.Number, service, strings.Join(names, ", "))
}

// newestNumber returns the number of the newest release, whether it can be read
// or not. It returns a *NoReleaseError if there is none.
func (r *reader) newestNumber(ctx context.Context) (int, error) {
	kept, err := r.releases.Numbers(ctx)
	switch {
	case err != nil:
		return 0, err
	case len(kept) == 0:
		return 0, NoRelease(ctx, r.home.Nomad, r.releases)
	}
	return kept[len(kept)-1], nil
}

// withKept adds the numbers that exist to an error that wraps
// record.ErrNoRelease. It returns any other error as it is.
func (r *reader) withKept(ctx context.Context, err error) error {
	if !errors.Is(err, record.ErrNoRelease) {
		return err
	}
	kept, kerr := r.releases.Numbers(ctx)
	switch {
	case kerr != nil:
		return kerr
	case len(kept) == 0:
		return NoRelease(ctx, r.home.Nomad, r.releases)
	}
	return fmt.Errorf("%w; there are %d to %d", err, kept[0], kept[len(kept)-1])
}

// Diff compares the job specs of two releases of a stack. It changes nothing.
type Diff struct {
	Home               Home
	Stack, Environment string // as in History
	From, To           int    // numbers; To may be 0 for the newest release
}

// DiffResult is what differs. Defaults that Nomad fills in do not differ.
type DiffResult struct {
	Environment string                `json:"environment"`
	From        int                   `json:"from"`
	Services    []release.ServiceDiff `json:"services"`
	Stack       string                `json:"stack"`
	To          int                   `json:"to"`
}

// Run compares, and returns an error that wraps record.ErrNoRelease if one of the
// releases does not exist.
func (v Diff) Run(ctx context.Context) (DiffResult, error) {
	home, r, err := v.Home.openStore(ctx, v.Stack, v.Environment)
	if err != nil {
		return DiffResult{}, err
	}
	out := DiffResult{Stack: r.Stack(), Environment: r.Environment(), From: v.From, To: v.To}
	c := &reader{home: home, releases: r}
	if out.To == 0 {
		if out.To, err = c.newestNumber(ctx); err != nil {
			return out, err
		}
	}
	out.Services, err = release.Diff(ctx, r, out.From, out.To)
	return out, c.withKept(ctx, err)
}
