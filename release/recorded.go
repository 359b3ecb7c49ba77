package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// Recorded is what the newest release of a stack left in the cluster, by its
// record alone.
type Recorded struct {
	Head    *record.Release
	Targets []*stack.Target
	Jobs    []render.Job // with their specs, in the order of the release
	// Unreadable has, by index into Jobs, why the spec of a job cannot be read. Such
	// a job has its ID only.
	Unreadable map[int]error
}

// Inventory reads what runs from the record of a stack, without its source. It
// keeps the job specs that it has read, which never change. It is for one
// goroutine at a time.
type Inventory struct {
	releases Reader
	specs    map[string]render.Job // by digest
}

// NewInventory makes no request.
func NewInventory(releases Reader) *Inventory {
	return &Inventory{releases: releases, specs: map[string]render.Job{}}
}

// Read returns what the release head left of the jobs that only selects. A job
// that the release has still to create is part of it. Read returns a
// *NotRecordedError if head has no such service or target.
func (inv *Inventory) Read(ctx context.Context, head *record.Release, only Only) (*Recorded, error) {
	return inv.ReadOutlines(ctx, head, only, nil)
}

// ReadOutlines is Read for rollout.Status and MarkCompleted: a job has only what
// these need of its spec, if the record has that as an outline. blobs are the
// digests of the specs that are stored; one that is missing is in Unreadable. Nil
// stands for not known, and then all specs are read.
func (inv *Inventory) ReadOutlines(ctx context.Context, head *record.Release, only Only, blobs map[string]bool) (*Recorded, error) {
	req, err := requestOf(head)
	if err != nil {
		return nil, err
	}
	lines, err := inv.releases.Services(ctx, head)
	if err != nil {
		return nil, err
	}
	if err := only.check(head, lines); err != nil {
		return nil, err
	}
	lines = slices.DeleteFunc(lines, func(l record.Service) bool { return !only.has(l) })
	var expected []record.Service
	var digests []string
	for _, l := range lines {
		runs, digest := isExpected(head, l)
		if !runs {
			continue
		}
		expected, digests = append(expected, l), append(digests, digest)
	}
	outlines := make([]*api.Job, len(expected))
	var missing []string
	for i, d := range digests {
		if blobs[d] {
			outlines[i] = rollout.FromOutline(expected[i].OutlineOf(d))
		}
		if _, read := inv.specs[d]; !read && d != "" && outlines[i] == nil && !slices.Contains(missing, d) {
			missing = append(missing, d)
		}
	}
	read, broken := make([]render.Job, len(missing)), make([]*record.UnreadableError, len(missing))
	err = parallel.Each(len(missing), 8, func(i int) (err error) {
		if read[i], err = readSpec(ctx, inv.releases, missing[i]); errors.As(err, &broken[i]) {
			err = nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	unreadable := map[string]error{}
	for i, d := range missing {
		if broken[i] != nil {
			unreadable[d] = broken[i]
			continue
		}
		inv.specs[d] = read[i]
	}
	out := &Recorded{Head: head, Targets: req.Targets, Unreadable: map[int]error{}}
	for i, l := range expected {
		if outlines[i] != nil {
			out.Jobs = append(out.Jobs, ofLine(render.Job{Job: outlines[i]}, l, l.Counts))
			continue
		}
		if spec, known := inv.specs[digests[i]]; known {
			out.Jobs = append(out.Jobs, ofLine(spec, l, l.Counts))
			continue
		}
		out.Jobs = append(out.Jobs, named(l))
		if err := unreadable[digests[i]]; err != nil {
			out.Unreadable[i] = err
		}
	}
	return out, nil
}

// expects reports whether there should be a job after a release, and the digest
// of its spec, "" when that is not known.
func isExpected(h *record.Release, l record.Service) (runs bool, digest string) {
	if lo := l.Leftover(); lo.Runs {
		return true, lo.Digest
	}
	// A job that the release has not created yet, or failed to create.
	pending := l.Change == record.ChangeCreate && l.Spec != "" && l.Step == record.StepPending
	return pending && h.State != record.Reverted && h.State != record.Aborted && h.State != record.RevertFailed && h.State != record.Reverting, l.Spec
}

// Checks returns the checks of the stack as a release recorded them. It reports
// false for a stack without checks, and for a release that an older drover made or
// tidied.
func Checks(ctx context.Context, releases Reader, head *record.Release) ([]*stack.Check, bool, error) {
	if head.Checks == "" {
		return nil, false, nil
	}
	b, err := releases.Blob(ctx, head.Checks)
	if errors.Is(err, record.ErrMissing) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var checks []*stack.Check
	if err := json.Unmarshal(b.Values, &checks); err != nil {
		return nil, false, fmt.Errorf("the checks of release %d are not readable: %w", head.Number, err)
	}
	return checks, true, nil
}
