package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// ReadSavedPlan reads a plan that PlanResult.Save made. It returns nil if the path
// is that of something else, such as a stack. It removes secrets that an older
// drover wrote into the file in clear.
func ReadSavedPlan(path string) (*release.Saved, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil //nolint:nilerr // then it is a stack, or a mistake that Source.Load reports
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if !release.IsSaved(text) {
		return nil, nil
	}
	saved, err := release.ReadSaved(text)
	if err != nil {
		return nil, invalidf("%s: %w", path, err)
	}
	scrubbed, changed, err := saved.Scrub()
	if err != nil || !changed {
		return saved, err
	}
	// In place: the file may be in a directory that is not ours.
	if err := os.WriteFile(path, scrubbed, 0o600); err != nil { // #nosec G703 -- the file that the operator names
		return nil, fmt.Errorf("cannot remove the secrets that an older drover wrote into %s: %w", path, err)
	}
	return saved, nil
}

// checkSecrets returns a *release.StalePlanError when a deploy would renew, change or take
// away secrets that a saved plan did not show. An added one disturbs no task.
func checkSecrets(saved json.RawMessage, now *record.SecretChanges) error {
	if saved == nil || now == nil {
		return nil
	}
	then := &record.SecretChanges{} // "null" when there were none
	if err := json.Unmarshal(saved, then); err != nil {
		return fmt.Errorf("reading the changes of secrets in the plan: %w", err)
	}
	var e release.StalePlanError
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
