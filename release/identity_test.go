package release

import (
	"errors"
	"maps"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// jobAt is a job of service in the target, with that namespace and region, ""
// for none.
func jobAt(service, target, id, namespace, region string) render.Job {
	job := &api.Job{ID: &id}
	if namespace != "" {
		job.Namespace = &namespace
	}
	if region != "" {
		job.Region = &region
	}
	return render.Job{Service: service, Target: target, Job: job}
}

func TestAddFormer_SameJobWrittenOtherwise(t *testing.T) {
	t.Parallel()
	defaults := nomad.Defaults{Region: "global", Namespace: "team"}
	for name, tt := range map[string]struct {
		recorded, planned [2]string // namespace and region
		stops             bool
	}{
		"the namespace of the client is written down": {[2]string{"", ""}, [2]string{"team", ""}, false},
		"the namespace of the client is left out":     {[2]string{"team", ""}, [2]string{"", ""}, false},
		"the region of the client is written down":    {[2]string{"", ""}, [2]string{"", "global"}, false},
		"the region of the client is left out":        {[2]string{"", "global"}, [2]string{"", ""}, false},
		"the job moves to another namespace":          {[2]string{"", ""}, [2]string{"default", ""}, true},
		"the job moves to another region":             {[2]string{"", ""}, [2]string{"", "west"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &Plan{
				defaults: map[string]nomad.Defaults{"": defaults},
				Parts:    []*Part{{Jobs: []render.Job{jobAt("api", "", "api", tt.planned[0], tt.planned[1])}}},
				lines: []record.Service{{Name: "api", JobID: "api", Namespace: tt.recorded[0], Region: tt.recorded[1],
					Step: record.StepDone, Spec: "digest"}},
			}
			p.addFormer()
			if got := len(p.Parts[0].former) > 0; got != tt.stops {
				t.Errorf("the recorded job stops: got %t, want %t", got, tt.stops)
			}
		})
	}
}

func TestDistinct(t *testing.T) {
	t.Parallel()
	far := &stack.Target{Name: "far", Cluster: &stack.Cluster{Access: stack.Access{Address: "http://far:4646"}}}
	for name, tt := range map[string]struct {
		jobs []render.Job
		ok   bool
	}{
		"two services, one of which names the client's namespace": {[]render.Job{
			jobAt("a", "home", "web", "", ""), jobAt("b", "home", "web", "team", ""),
		}, false},
		"two targets of one cluster": {[]render.Job{
			jobAt("a", "home", "web", "", ""), jobAt("a", "also", "web", "team", "global"),
		}, false},
		"two namespaces": {[]render.Job{
			jobAt("a", "home", "web", "", ""), jobAt("b", "home", "web", "default", ""),
		}, true},
		"two clusters": {[]render.Job{
			jobAt("a", "home", "web", "team", ""), jobAt("a", "far", "web", "team", ""),
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := nomad.Defaults{Region: "global", Namespace: "team"}
			p := &Plan{
				req:      Request{Targets: []*stack.Target{{Name: "home"}, {Name: "also"}, far}},
				defaults: map[string]nomad.Defaults{"home": home, "also": home, "far": {Region: "global"}},
			}
			for _, j := range tt.jobs {
				p.Parts = append(p.Parts, &Part{Target: j.Target, Jobs: []render.Job{j}})
			}
			var same *SameJobError
			if got := !errors.As(p.checkDistinct(), &same); got != tt.ok {
				t.Errorf("distinct: got %t, want %t", got, tt.ok)
			}
		})
	}
}

func TestNoteDefaults_OfTargetsThatAreNotDialled(t *testing.T) {
	t.Setenv("NOMAD_NAMESPACE", "of-the-process") // the home cluster may be reached in another way
	p := &Plan{}
	p.noteDefaults(nomad.Defaults{Region: "global", Namespace: "team"}, []*stack.Target{
		{Name: "home"}, {Name: "west", Region: "west"}, {Name: "far", Region: "north", Cluster: &stack.Cluster{}}, {Name: "unknown", Cluster: &stack.Cluster{}},
	})
	want := map[string]nomad.Defaults{
		"home": {Region: "global", Namespace: "team"}, "west": {Region: "west", Namespace: "team"}, "far": {Region: "north"}, "unknown": {},
	}
	if !maps.Equal(p.defaults, want) {
		t.Errorf("got %+v, want %+v", p.defaults, want)
	}
}
