package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// savedPlan reads the file that arg names when that is a saved plan, and
// returns nil when it is not.
func (f *stackFlags) savedPlan(cmd *cobra.Command, arg string) (*release.Saved, error) {
	info, err := os.Stat(arg)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil //nolint:nilerr // then it is a stack, or a mistake that load tells
	}
	text, err := os.ReadFile(arg)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", arg, err)
	}
	if !release.IsSaved(text) {
		return nil, nil
	}
	saved, err := release.ReadSaved(text)
	if err != nil {
		return nil, usagef("%s: %s", arg, err)
	}
	if err := scrubPlan(arg, saved); err != nil {
		return nil, err
	}
	for _, name := range []string{"var", "var-file", "values", "service", "target"} {
		if cmd.Flags().Changed(name) {
			return nil, usagef("--%s does not go with a saved plan: everything in %s is fixed", name, arg)
		}
	}
	return saved, nil
}

// loadOrThaw is load, or what load was when the plan was saved.
func (f *stackFlags) loadOrThaw(ctx context.Context, arg string, saved *release.Saved) (*stack.Stack, []render.Job, error) {
	if saved == nil {
		return f.load(ctx, arg)
	}
	s, err := stack.Thaw(saved.Stack)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", arg, err)
	}
	if f.environment != "" && f.environment != s.Environment {
		return nil, nil, usagef("%s is a plan of stack %s in environment %s, not %s", arg, s.Name, s.Environment, f.environment)
	}
	return s, saved.Jobs(), nil
}

// checkSecrets returns a *release.Moved when a deploy would renew, change or take
// away secrets that a saved plan did not show. What it adds disturbs no task.
func checkSecrets(saved json.RawMessage, now *record.SecretChanges) error {
	if saved == nil || now == nil {
		return nil
	}
	then := &record.SecretChanges{} // "null" when there were none
	if err := json.Unmarshal(saved, then); err != nil {
		return fmt.Errorf("reading the changes of secrets in the plan: %w", err)
	}
	var e release.Moved
	for _, name := range now.Renewed {
		if !slices.Contains(then.Renewed, name) {
			e.What = append(e.What, fmt.Sprintf("certificate %s would be renewed now", name))
		}
	}
	for _, j := range now.Jobs {
		var was record.JobSecrets
		for _, o := range then.Jobs {
			if o.Target == j.Target && o.JobID == j.JobID && o.Namespace == j.Namespace {
				was = o
			}
		}
		for _, item := range j.Changed {
			if !slices.Contains(was.Changed, item) {
				e.What = append(e.What, fmt.Sprintf("job %s would get a new value of secret %s now", j.JobID, item))
			}
		}
		for _, item := range j.Removed {
			if !slices.Contains(was.Removed, item) {
				e.What = append(e.What, fmt.Sprintf("job %s would lose secret %s now", j.JobID, item))
			}
		}
	}
	if len(e.What) == 0 {
		return nil
	}
	return &e
}

// usageOf marks err as something to be mended on the command line: nothing
// was done.
func usageOf(err error) error {
	var needs *rollout.NeedsReplace
	if errors.As(err, &needs) {
		return usagef("%s", err)
	}
	return err
}

// scrubPlan rewrites a plan file in which an older drover wrote secrets in clear.
func scrubPlan(path string, saved *release.Saved) error {
	text, changed, err := saved.Scrub()
	if err != nil || !changed {
		return err
	}
	// In place: the file may be in a directory that is not ours.
	if err := os.WriteFile(path, text, 0o600); err != nil { // #nosec G703 -- the file that the operator names
		return fmt.Errorf("cannot remove the secrets that an older drover wrote into %s: %w", path, err)
	}
	return nil
}
