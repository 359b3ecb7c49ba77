package release_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// versioned asks for an application that reads data of some versions.
func versioned(app string, from ...string) release.Request {
	req := request(app)
	req.AppVersion, req.UpgradeFrom = app, from
	return req
}

func TestUpgrade(t *testing.T) {
	for name, tt := range map[string]struct {
		before, req release.Request
		refused     string
	}{
		"to a version that reads the data":         {versioned("7.1.4", "7.1.*"), versioned("8.0.0", "7.1.*", "8.0.*"), ""},
		"within a line":                            {versioned("7.1.3", "7.1.*"), versioned("7.1.4", "7.1.*"), ""},
		"back within a line":                       {versioned("7.1.4", "7.1.*"), versioned("7.1.3", "7.1.*"), ""},
		"over a version":                           {versioned("2.0.0", "2.0.*"), versioned("8.0.0", "7.1.*", "8.0.*"), "cannot deploy 8.0.0 over 2.0.0 of release 1: it reads data of 7.1.*, 8.0.* only"},
		"back to a line":                           {versioned("8.0.0", "7.1.*", "8.0.*"), versioned("7.1.4", "7.1.*"), "cannot deploy 7.1.4 over 8.0.0"},
		"the same version, without it in the list": {versioned("2.0.0"), versioned("2.0.0", "1.*"), ""},
		"from a record without a version":          {request("1"), versioned("8.0.0", "7.1.*"), ""},
		"a stack that does not say what it reads":  {versioned("2.0.0", "2.0.*"), versioned("8.0.0"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(tt.before)
			w.cluster.ResetLog()
			_, err := w.d.Plan(t.Context(), tt.req)
			if tt.refused == "" {
				if err != nil {
					t.Errorf("got %v, want a plan", err)
				}
				return
			}
			if !as[*release.UpgradeError](err) || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("got %v, want a *release.UpgradeError with %q", err, tt.refused)
			}
			w.wantLog()
		})
	}
}

// A rollback to a version that does not read the data is refused.
func TestUpgrade_Rollback(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	w.deploy(versioned("8.0.0", "7.1.*", "8.0.*"))
	req, err := w.d.Rollback(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Plan(t.Context(), req); !as[*release.UpgradeError](err) || !strings.Contains(err.Error(), "cannot roll back to 7.1.4 over 8.0.0 of release 2") {
		t.Errorf("got %v, want a *release.UpgradeError", err)
	}
}

// After an upgrade that was reverted, the version before it runs.
func TestUpgrade_AfterARevert(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	w.fail("web", "8.0.0", rollout.Failed)
	w.wantState(w.deploy(versioned("8.0.0", "7.1.*", "8.0.*")), record.Reverted, rollout.FailedReverted)
	w.plan(versioned("7.1.5", "7.1.*"))
	if _, err := w.d.Plan(t.Context(), versioned("9.0.0", "8.0.*")); !as[*release.UpgradeError](err) || !strings.Contains(err.Error(), "over 7.1.4 of release 1") {
		t.Errorf("got %v, want a *release.UpgradeError over release 1", err)
	}
}

// Destroyed services have left their data.
func TestUpgrade_AfterADestroy(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	p, err := w.d.PlanDestroy(t.Context(), release.Only{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Deploy(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Plan(t.Context(), versioned("2.0.0", "2.0.*")); !as[*release.UpgradeError](err) {
		t.Errorf("got %v, want a *release.UpgradeError", err)
	}
}
