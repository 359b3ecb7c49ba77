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

// wantRefused checks that the plan of a request is refused with an error of type T that
// has this text, and that nothing is written. With the text "" it wants a plan.
func wantRefused[T error](w *world, req release.Request, text string) {
	w.Helper()
	w.cluster.ResetLog()
	_, err := w.d.Plan(w.Context(), req)
	switch {
	case text == "" && err != nil:
		w.Errorf("got %v, want a plan", err)
	case text != "" && (!as[T](err) || !strings.Contains(err.Error(), text)):
		var want T
		w.Errorf("got %v, want a %T with %q", err, want, text)
	}
	w.wantLog()
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
			wantRefused[*release.UpgradeError](w, tt.req, tt.refused)
		})
	}
}

// A rollback to a version that does not read the data is refused.
func TestUpgrade_Rollback(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	w.deploy(versioned("8.0.0", "7.1.*", "8.0.*"))
	wantRefused[*release.UpgradeError](w, w.rollback(0), "cannot roll back to 7.1.4 over 8.0.0 of release 2")
}

// After an upgrade that was reverted, the version before it runs.
func TestUpgrade_AfterARevert(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	w.fail("web", "8.0.0", rollout.Failed)
	w.wantState(w.deploy(versioned("8.0.0", "7.1.*", "8.0.*")), record.Reverted, rollout.FailedReverted)
	w.plan(versioned("7.1.5", "7.1.*"))
	wantRefused[*release.UpgradeError](w, versioned("9.0.0", "8.0.*"), "over 7.1.4 of release 1")
}

// Destroyed services have left their data.
func TestUpgrade_AfterADestroy(t *testing.T) {
	w := newWorld(t)
	w.deploy(versioned("7.1.4", "7.1.*"))
	w.destroy(release.Only{})
	wantRefused[*release.UpgradeError](w, versioned("2.0.0", "2.0.*"), "cannot deploy 2.0.0 over 7.1.4")
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
			wantRefused[*release.ExclusiveError](w, tt.req, tt.refused)
		})
	}
}

// A rollback to another layout is refused while its successor runs.
func TestExclusive_Rollback(t *testing.T) {
	w := newWorld(t)
	w.deploy(exclusive("1", "distributed"))
	w.deploy(exclusive("2", ""))
	w.deploy(exclusive("3", "compact"))
	wantRefused[*release.ExclusiveError](w, w.rollback(1), "cannot roll back to distributed over compact of release 3")
}

// A stop that failed has left what ran before it, as has a change that was reverted.
func TestExclusive_AfterAFailure(t *testing.T) {
	w := newWorld(t)
	w.deploy(exclusive("1", "distributed"))
	w.fail("web", "2", rollout.Failed)
	stop := exclusive("2", "")
	stop.OnFailure = release.OnFailureStop
	w.wantState(w.deploy(stop), record.FailedState, rollout.Failed)
	wantRefused[*release.ExclusiveError](w, exclusive("3", "compact"), "over distributed of release 1")
}

// A destroy stops all; that of one service does not.
func TestExclusive_AfterADestroy(t *testing.T) {
	for name, tt := range map[string]struct {
		only    release.Only
		refused string
	}{
		"of the stack":   {release.Only{}, ""},
		"of one service": {release.Only{Services: []string{"web"}}, "cannot deploy compact over distributed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy(exclusive("1", "distributed"))
			w.destroy(tt.only)
			wantRefused[*release.ExclusiveError](w, exclusive("2", "compact"), tt.refused)
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
	wantRefused[*release.ExclusiveError](w, exclusive("3", "compact"), "cannot deploy compact over distributed")
}
