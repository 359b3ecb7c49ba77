package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// asInvalid returns err as an *InvalidError if it is a *release.NotRecordedError.
func asInvalid(err error) error {
	if is[*release.NotRecordedError](err) {
		return &InvalidError{err}
	}
	return err
}

// NoReleaseError reports a stack without a release in an environment.
type NoReleaseError struct {
	Stack, Environment string
	Others             []string // STACK/ENVIRONMENT of the releases in the same cluster, if they are known
}

func (e *NoReleaseError) Error() string {
	msg := fmt.Sprintf("stack %s has no releases in environment %s", e.Stack, e.Environment)
	if len(e.Others) > 0 {
		msg += "; there are releases of " + strings.Join(e.Others, ", ")
	}
	return msg
}

func (e *NoReleaseError) Unwrap() error { return record.ErrNoRelease }

// named is a record, such as a *record.Releases or a release.Store.
type named interface {
	Stack() string
	Environment() string
}

// NoRelease returns a *NoReleaseError for the stack of r. It lists the other
// stacks of the cluster.
func NoRelease(ctx context.Context, c *api.Client, r named) error {
	others, _ := record.Stacks(ctx, c) // only a hint
	return &NoReleaseError{Stack: r.Stack(), Environment: r.Environment(), Others: others}
}

// reader reads the record of a stack. It keeps job specs, which never change.
type reader struct {
	home      nomad.Clients
	releases  release.Store
	inventory *release.Inventory
	byName    bool // there is no source: see Home.ByName
}

// newReader opens the record of the stack that source leads to.
func newReader(ctx context.Context, h *Home, source *Source) (*reader, error) {
	home, releases, err := h.openStore(ctx, source.Path, source.Environment)
	if err != nil {
		return nil, err
	}
	return &reader{home: home, releases: releases, inventory: release.NewInventory(releases), byName: h.ByName}, nil
}

// newest returns the newest release that can be read, nil if there is no
// release.
func (r *reader) newest(ctx context.Context) (*record.Release, error) {
	heads, err := r.releases.List(ctx)
	if err != nil {
		return nil, err
	}
	return newestReadable(heads)
}

// newestReadable returns the first of heads that can be read, nil if heads is
// empty.
func newestReadable(heads []*record.Release) (*record.Release, error) {
	for _, h := range heads {
		if h.State != record.Unreadable {
			return h, nil
		}
	}
	if len(heads) == 0 {
		return nil, nil
	}
	return nil, fmt.Errorf("%s; run `drover record check %s`", heads[0].Detail, release.StackArgs(heads[0].Stack, heads[0].Environment))
}

// jobs returns the jobs that the release head left, as far as source selects
// them by service and target. If head is nil it returns the jobs of the source,
// or a *NoReleaseError if there is no source.
func (r *reader) jobs(ctx context.Context, head *record.Release, source *Source) (*release.Recorded, error) {
	return r.outlines(ctx, head, source, nil)
}

// outlines is jobs with what Status needs of the specs; see
// [release.Inventory.ReadOutlines].
func (r *reader) outlines(ctx context.Context, head *record.Release, source *Source, blobs map[string]bool) (*release.Recorded, error) {
	if head != nil {
		out, err := r.inventory.ReadOutlines(ctx, head, release.Only{Services: source.Services, Targets: source.Targets}, blobs)
		return out, asInvalid(err)
	}
	if r.byName || !source.Exists() {
		return nil, NoRelease(ctx, r.home.Nomad, r.releases)
	}
	s, jobs, err := source.Render(ctx)
	if err != nil {
		return nil, readInstead(r.releases, err)
	}
	return &release.Recorded{Jobs: jobs, Targets: s.Targets}, nil
}

// readInstead explains diagnostics of a source that is read because there is no
// release.
func readInstead(r named, err error) error {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	why := &hcl.Diagnostic{
		Severity: hcl.DiagWarning, Summary: fmt.Sprintf("Stack %s has no release in environment %s", r.Stack(), r.Environment()),
		Detail: "Its source is read instead.",
	}
	return append(hcl.Diagnostics{why}, diags...)
}

// Exists reports whether there is something at Path, or a stack of this name
// ships with drover. A record outlives its source.
func (s *Source) Exists() bool {
	if _, err := os.Stat(s.Path); err == nil {
		return true
	}
	_, err := jobs.Stack(s.Path)
	return err == nil
}
