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
	for runs != nil && (runs.State == record.Reverted || runs.State == record.Aborted) {
		numbers, err := d.Releases.Numbers(ctx)
		if err != nil {
			return err
		}
		older := slices.DeleteFunc(numbers, func(n int) bool { return n >= runs.Number })
		if len(older) == 0 {
			return nil
		}
		if runs, err = d.Releases.Read(ctx, slices.Max(older)); err != nil {
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
