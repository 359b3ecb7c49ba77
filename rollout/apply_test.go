package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
)

// Steps that wait for others take no goroutine, and all of them end when the first one
// fails.
func TestApply_ManySteps(t *testing.T) {
	const many = 2000
	client, err := api.NewClient(&api.Config{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}), make(chan struct{})
	p := &Plan{clients: nomad.Clients{Nomad: client}, opts: Options{Before: func(context.Context, Submission) error {
		close(begun)
		<-release
		return errors.New("refused")
	}}.withDefaults()}
	for i := range many {
		job := service(mockJob(fmt.Sprint("j", i), runs()))
		job.Service = fmt.Sprint("s", i)
		if i > 0 {
			job.DependsOn = []string{fmt.Sprint("s", (i-1)/2)}
		}
		p.steps = append(p.steps, &step{Job: job, spec: specOf(job.Job), plan: &api.JobPlanResponse{Diff: &api.JobDiff{Type: "Added"}}})
	}
	before := runtime.NumGoroutine()
	done := make(chan Result)
	go func() { done <- p.Apply(t.Context(), nil) }()
	<-begun
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+100 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := runtime.NumGoroutine(); got > before+100 {
		t.Errorf("got %d goroutines while %d steps wait, want at most %d", got, many-1, before+100)
	}
	close(release)
	outcomes := map[Outcome]int{}
	for _, s := range (<-done).Services {
		outcomes[s.Outcome]++
	}
	if outcomes[Skipped] != many-1 || len(outcomes) != 2 {
		t.Errorf("got %v, want %d services skipped", outcomes, many-1)
	}
}

// A field that an event does not have is not that of the event before it.
func TestEvents_About(t *testing.T) {
	t.Parallel()
	var batch events
	for _, test := range []struct {
		line, job string
		decides   bool
	}{
		{`{"Index":5,"Events":[{"Topic":"Deployment","Key":"d","Payload":{"Deployment":{"JobID":"web","Status":"successful"}}}]}`, "web", true},
		{`{"Index":6,"Events":[{"Topic":"Allocation","Key":"a","Payload":{"Allocation":{"JobID":"api","ClientStatus":"running"}}}]}`, "api", false},
		{`{"Index":7,"Events":[{"Topic":"Deployment","Payload":{"Deployment":{"JobID":"web","Status":"running"}}}]}`, "web", false},
		{`{"Index":8,"Events":[{"Topic":"Evaluation","Payload":{"Evaluation":{"JobID":"web","Status":"pending"}}}]}`, "", false},
		{`{"Index":9,"Events":[{"Topic":"Evaluation","Payload":{"Evaluation":{"JobID":"web","Status":"complete"}}}]}`, "web", false},
		{`{"Index":10,"Events":[{"Topic":"Job","Type":"JobRegistered","Key":"web"}]}`, "", false},
		{`{"Index":11,"Events":[{"Topic":"Job","Type":"JobDeregistered","Key":"web"}]}`, "web", true},
	} {
		clear(batch.Events)
		if err := json.Unmarshal([]byte(test.line), &batch); err != nil {
			t.Fatal(err)
		}
		if job, decides := batch.Events[0].about(); job != test.job || decides != test.decides {
			t.Errorf("%s: got %q, %t, want %q, %t", test.line, job, decides, test.job, test.decides)
		}
	}
}
