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

// exclusive asks for something that must not run beside another layout.
func exclusive(version, layout string) release.Request {
	req := request(version)
	req.Exclusive = layout
	return req
}

func TestExclusive(t *testing.T) {
	for name, tt := range map[string]struct {
		before  []release.Request
		req     release.Request
		refused string
	}{
		"the same layout":                  {[]release.Request{exclusive("1", "compact")}, exclusive("2", "compact"), ""},
		"another layout":                   {[]release.Request{exclusive("1", "distributed")}, exclusive("2", "compact"), "cannot deploy compact over distributed of release 1: both would write the same data (exclusive). Stop what runs first: drover destroy shop -e prod, which"},
		"after what runs has been stopped": {[]release.Request{exclusive("1", "distributed"), exclusive("2", "")}, exclusive("3", "compact"), ""},
		"stopped, in the other layout":     {[]release.Request{exclusive("1", "distributed")}, exclusive("2", ""), ""},
		"over an older record":             {[]release.Request{request("1")}, exclusive("2", "compact"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, req := range tt.before {
				w.deploy(req)
			}
			w.cluster.ResetLog()
			_, err := w.d.Plan(t.Context(), tt.req)
			if tt.refused == "" {
				if err != nil {
					t.Errorf("got %v, want a plan", err)
				}
				return
			}
			if !as[*release.ExclusiveError](err) || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("got %v, want a *release.ExclusiveError with %q", err, tt.refused)
			}
			w.wantLog()
		})
	}
}

// A rollback to another layout is refused while its successor runs.
func TestExclusive_Rollback(t *testing.T) {
	w := newWorld(t)
	w.deploy(exclusive("1", "distributed"))
	w.deploy(exclusive("2", ""))
	w.deploy(exclusive("3", "compact"))
	req, err := w.d.Rollback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.d.Plan(t.Context(), req); !as[*release.ExclusiveError](err) || !strings.Contains(err.Error(), "cannot roll back to distributed over compact of release 3") {
		t.Errorf("got %v, want a *release.ExclusiveError", err)
	}
}

// A stop that failed has left what ran before it, as has a change that was reverted.
func TestExclusive_AfterAFailure(t *testing.T) {
	w := newWorld(t)
	w.deploy(exclusive("1", "distributed"))
	w.fail("web", "2", rollout.Failed)
	stop := exclusive("2", "")
	stop.OnFailure = release.OnFailureStop
	w.wantState(w.deploy(stop), record.FailedState, rollout.Failed)
	if _, err := w.d.Plan(t.Context(), exclusive("3", "compact")); !as[*release.ExclusiveError](err) || !strings.Contains(err.Error(), "over distributed of release 1") {
		t.Errorf("got %v, want a *release.ExclusiveError over release 1", err)
	}
}

// A destroy stops all; that of one service does not.
func TestExclusive_AfterADestroy(t *testing.T) {
	for name, tt := range map[string]struct {
		only    release.Only
		refused bool
	}{
		"of the stack":   {release.Only{}, false},
		"of one service": {release.Only{Services: []string{"web"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(exclusive("1", "distributed"))
			p, err := w.d.PlanDestroy(t.Context(), tt.only, "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.d.Deploy(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, err := w.d.Plan(t.Context(), exclusive("2", "compact")); as[*release.ExclusiveError](err) != tt.refused {
				t.Errorf("got %v, want a *release.ExclusiveError: %t", err, tt.refused)
			}
		})
	}
}

// A part of the stack that runs nothing leaves the others running.
func TestExclusive_AfterAPart(t *testing.T) {
	w := newWorld(t)
	w.deploy(exclusive("1", "distributed"))
	part := exclusive("2", "")
	part.Partial = true
	part.Jobs = part.Jobs[:1]
	w.deploy(part)
	if _, err := w.d.Plan(t.Context(), exclusive("3", "compact")); !as[*release.ExclusiveError](err) {
		t.Errorf("got %v, want a *release.ExclusiveError", err)
	}
}
