// Package monitoring checks the alert rules with promtool.
package monitoring

import (
	"os/exec"
	"testing"
)

// promtool runs promtool, which is in Debian's package prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("promtool is not installed (Debian: apt-get install prometheus): %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func TestRules_AreValid(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "--lint-fatal", "../../jobs/monitoring/rules.yml")
}

// Each alert fires when its cause is there, and none of them without.
func TestRules_Fire(t *testing.T) {
	t.Parallel()
	promtool(t, "test", "rules", "testdata/alerts.yml")
}
