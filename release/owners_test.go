package release

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/record"
)

func TestForeignError_NamesTheOwner(t *testing.T) {
	dev := &record.Owner{Stack: "shop", Environment: "dev", Namespace: "default", Release: 3}
	e := &ForeignError{Stack: "shop", Environment: "prod", Namespace: "default", Movable: true, Jobs: []ForeignJob{
		{JobID: "shop-web", Service: "web", Owner: dev}, {JobID: "by-hand", Service: "api"},
	}}
	got := e.Error()
	for _, want := range []string{
		"job shop-web belongs to release 3 of stack shop, environment dev", "`drover move shop -e dev --to-env prod`", "`id = \"web-${drover.environment}\"`",
		"job by-hand runs and is not of this stack; take over with `drover adopt`",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want it to contain %q", got, want)
		}
	}
	for name, change := range map[string]func(*ForeignError){
		"an environment that has releases": func(e *ForeignError) { e.Movable = false },
		"a record in another namespace":    func(e *ForeignError) { e.Namespace = "team" },
	} {
		other := *e
		change(&other)
		if got := other.Error(); strings.Contains(got, "drover move") {
			t.Errorf("%s: got %q, want no offer to move", name, got)
		}
	}
}

func TestPruneError_NamesJobsAndFlag(t *testing.T) {
	one := Change{}
	one.JobID, one.Service, one.RenamedTo = "shop-one", "web", "shop-two"
	got := (&PruneError{[]Change{one}}).Error()
	for _, want := range []string{"shop-one", "did a variable rename it?", "--prune"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want it to contain %q", got, want)
		}
	}
}
