package release

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// FuzzSaved tests that a plan file is read or refused, also with a forged checksum. A
// file that is read is written again unchanged, and the steps of a deploy before its
// first request accept its jobs.
func FuzzSaved(f *testing.F) {
	job := api.NewServiceJob("web", "web", "global", 50)
	job.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "docker")))
	frozen, err := stack.Freeze(&stack.Stack{Name: "s", Services: []*stack.Service{{Name: "web"}}})
	if err != nil {
		f.Fatal(err)
	}
	seed := Saved{Layout: SavedLayout, Stack: frozen, Steps: []SavedStep{{Service: "web", Job: job, Index: 7}}, Stops: []SavedStop{{Service: "old", JobID: "old"}}}
	text, err := json.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"drover_plan":1,"services":[{"service":"a","job":{"ID":"a","TaskGroups":[null,{"Services":[null],"Tasks":[null]}]}}]}`))
	f.Add([]byte(`{"drover_plan":1,"sum":"","stack":{},"services":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = ReadSaved(text) // refused: its checksum does not fit
		var s Saved
		if err := json.Unmarshal(text, &s); err != nil {
			return
		}
		sum, err := s.sum()
		if err != nil {
			return // a RawMessage that is no JSON
		}
		s.Sum = sum
		if text, err = json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		read, err := ReadSaved(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(read)
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("written again it differs (%v)\n%s\n%s", err, text, again)
		}
		_, _ = stack.Thaw(read.Stack)
		jobs := read.Jobs()
		_, _ = Digest(jobs)
		rollout.NeedsConsul(jobs)
		for _, j := range jobs {
			rollout.WaitsForPromotion(j.Job)
		}
	})
}
