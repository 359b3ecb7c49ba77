package release

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/record"
)

// UpgradeError is the error of a release whose application does not read the data of
// the application that runs.
type UpgradeError struct {
	Release  *record.Release // that runs
	Wanted   string          // version of the application
	From     []string        // patterns of the versions that it replaces
	Rollback bool
}

func (e *UpgradeError) Error() string {
	verb := "deploy"
	if e.Rollback {
		verb = "roll back to"
	}
	return fmt.Sprintf("cannot %s %s over %s of release %d: it reads data of %s only (upgrade_from); see the stack's documentation for the steps between",
		verb, e.Wanted, e.Release.AppVersion, e.Release.Number, strings.Join(e.From, ", "))
}

// checkUpgrade refuses a release whose application may not replace the one of p.last.
// Releases that were reverted have left what ran before.
func (d *Deployer) checkUpgrade(ctx context.Context, p *Plan) error {
	if len(p.req.UpgradeFrom) == 0 || p.req.Kind != KindDeploy && p.req.Kind != KindRollback {
		return nil
	}
	runs := p.last
	for runs != nil && isReverted(runs) {
		var err error
		if runs, err = d.before(ctx, runs); err != nil {
			return err
		}
	}
	if runs == nil || runs.AppVersion == "" || runs.AppVersion == p.req.AppVersion {
		return nil
	}
	for _, pattern := range p.req.UpgradeFrom {
		if ok, _ := path.Match(pattern, runs.AppVersion); ok { // package stack has checked the pattern
			return nil
		}
	}
	return &UpgradeError{Release: runs, Wanted: p.req.AppVersion, From: p.req.UpgradeFrom, Rollback: p.req.Kind == KindRollback}
}

// isReverted reports whether a release has left what ran before.
func isReverted(r *record.Release) bool {
	return r.State == record.Reverted || r.State == record.Aborted
}

// before returns the release before another one, nil if none is kept.
func (d *Deployer) before(ctx context.Context, r *record.Release) (*record.Release, error) {
	numbers, err := d.Releases.Numbers(ctx)
	if err != nil {
		return nil, err
	}
	older := slices.DeleteFunc(numbers, func(n int) bool { return n >= r.Number })
	if len(older) == 0 {
		return nil, nil //nolint:nilnil // none is kept
	}
	return d.Releases.Read(ctx, slices.Max(older))
}

// ExclusiveError is the error of a release that must not run beside what runs, because
// both would write the same data.
type ExclusiveError struct {
	Release  *record.Release // that runs
	Wanted   string
	Rollback bool
}

func (e *ExclusiveError) Error() string {
	verb := "deploy"
	if e.Rollback {
		verb = "roll back to"
	}
	return fmt.Sprintf("cannot %s %s over %s of release %d: both would write the same data (exclusive). Stop what runs first: drover destroy %s -e %s, which keeps data and secrets, or as the stack's documentation says",
		verb, e.Wanted, e.Release.Exclusive, e.Release.Number, e.Release.Stack, e.Release.Environment)
}

// checkExclusive refuses a release that must not run beside what runs. Until one is
// deployed, what older releases made may run too.
func (d *Deployer) checkExclusive(ctx context.Context, p *Plan) error {
	if p.req.Exclusive == "" || p.req.Kind != KindDeploy && p.req.Kind != KindRollback {
		return nil
	}
	for runs := p.last; runs != nil && runs.State != record.Destroyed; {
		if !isReverted(runs) {
			if runs.Exclusive != "" && runs.Exclusive != p.req.Exclusive {
				return &ExclusiveError{Release: runs, Wanted: p.req.Exclusive, Rollback: p.req.Kind == KindRollback}
			}
			if runs.State == record.Done {
				return nil
			}
		}
		var err error
		if runs, err = d.before(ctx, runs); err != nil {
			return err
		}
	}
	return nil
}

// exclusive is what the release runs: a part of a stack leaves running what it does not
// name.
func (p *Plan) exclusive() string {
	if p.req.Partial && p.req.Exclusive == "" && p.last != nil {
		return p.last.Exclusive
	}
	return p.req.Exclusive
}
