package record

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestOwnerOf(t *testing.T) {
	claims := func(cs ...claim) []claim { return cs }
	by := func(env string, j LiveJob) claim { return claim{Owner{Stack: "shop", Environment: env, Release: 4}, j} }
	web := LiveJob{Namespace: "default", ID: "web", Region: "global", Index: 7}
	for name, test := range map[string]struct {
		claims []claim
		env    string // of the owner, "" for none
		exact  bool
	}{
		"no record runs it":                          {claims(by("dev", LiveJob{Namespace: "default", ID: "api", Index: 7})), "", false},
		"another namespace is another job":           {claims(by("dev", LiveJob{Namespace: "team", ID: "web", Index: 7})), "", false},
		"another cluster is another job":             {claims(by("dev", LiveJob{Cluster: "http://a:4646", Namespace: "default", ID: "web", Index: 7})), "", false},
		"another region is another job":              {claims(by("dev", LiveJob{Region: "eu", Namespace: "default", ID: "web", Index: 7})), "", false},
		"a record without a region is of any":        {claims(by("dev", LiveJob{Namespace: "default", ID: "web", Index: 7})), "dev", true},
		"changed by hand since":                      {claims(by("dev", LiveJob{Namespace: "default", ID: "web", Index: 5})), "dev", false},
		"the index decides between two":              {claims(by("dev", LiveJob{Namespace: "default", ID: "web", Index: 5}), by("qa", LiveJob{Namespace: "default", ID: "web", Index: 7})), "qa", true},
		"a record that does not know its index":      {claims(by("dev", LiveJob{Namespace: "default", ID: "web"})), "dev", false},
		"without an index the first record is named": {claims(by("dev", LiveJob{Namespace: "default", ID: "web"}), by("qa", LiveJob{Namespace: "default", ID: "web"})), "dev", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := ownerOf(web, test.claims)
			if got == nil {
				got = &Owner{}
			}
			if got.Environment != test.env || got.Exact != test.exact {
				t.Errorf("got %q (exact %v), want %q (exact %v)", got.Environment, got.Exact, test.env, test.exact)
			}
		})
	}
}

func TestClaimsOf_ResolvesPlaces(t *testing.T) {
	targets, _ := json.Marshal([]map[string]any{
		{"Name": "near", "Region": "eu"},
		{"Name": "far", "Region": "us", "Cluster": map[string]any{"Name": "far", "Address": "https://far:4646/"}},
	})
	head := &Release{Number: 3, Stack: "shop", Environment: "prod", Targets: targets}
	done := func(target, id string) Service {
		return Service{Target: target, Name: id, JobID: id, Spec: "d", Step: StepDone, Index: 9}
	}
	pruned := done("near", "gone")
	pruned.Step = StepPruned
	reverted := Service{Target: "near", JobID: "fresh", Spec: "d", Step: StepReverted} // was not there before
	written := done("near", "written")
	written.Namespace, written.Region = "own", "asia"
	got := claimsOf(head, []Service{done("near", "web"), done("far", "web"), pruned, reverted, written}, "team")
	want := []LiveJob{
		{Region: "eu", Namespace: "team", ID: "web", Index: 9},
		{Cluster: "https://far:4646/", Region: "us", Namespace: api.DefaultNamespace, ID: "web", Index: 9},
		{Region: "asia", Namespace: "own", ID: "written", Index: 9},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d claims, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i].job != want[i] {
			t.Errorf("claim %d: got %+v, want %+v", i, got[i].job, want[i])
		}
	}
}
