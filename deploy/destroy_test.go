package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

func TestEvent_Object(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, e := range map[string]Event{
		`{"time":"2026-01-02T03:04:05Z","event":"removed","what":"schedule","name":"nightly"}`:                             {Time: at, Kind: KindRemoved, Object: &Object{What: ObjectSchedule, Name: "nightly"}},
		`{"time":"2026-01-02T03:04:05Z","event":"kept","what":"volume","name":"data on node a (1)","id":"1","reason":"x"}`: {Time: at, Kind: KindKept, Object: &Object{What: ObjectVolume, Name: "data on node a (1)", ID: "1", Reason: "x"}},
	} {
		got, err := json.Marshal(e)
		if err != nil || string(got) != want {
			t.Errorf("Marshal() = %s, %v, want %s", got, err, want)
		}
	}
}

func TestDestroyer_Confirm(t *testing.T) {
	broken := errors.New("no terminal")
	for _, test := range []struct {
		name    string
		confirm func(context.Context, DestroyPlan) (bool, error)
		want    error
	}{
		{"nil means yes", nil, nil},
		{"yes", func(context.Context, DestroyPlan) (bool, error) { return true, nil }, nil},
		{"no", func(context.Context, DestroyPlan) (bool, error) { return false, nil }, ErrDeclined},
		{"an error", func(context.Context, DestroyPlan) (bool, error) { return false, broken }, broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := destroyer{Destroy: Destroy{Confirm: test.confirm}}
			if got := d.confirm(t.Context(), DestroyPlan{}); !errors.Is(got, test.want) {
				t.Errorf("confirm() = %v, want %v", got, test.want)
			}
		})
	}
}

func TestDestroy_PurgeNeedsTheWholeStack(t *testing.T) {
	var events []Event
	v := Destroy{PurgeSecrets: true, Only: release.Only{Services: []string{"web"}}, Events: func(e Event) { events = append(events, e) }}
	_, err := v.Run(t.Context())
	if got := ClassOf(err); got != ClassInvalid {
		t.Errorf("Run() = %v of class %v, want class %v", err, got, ClassInvalid)
	}
	if len(events) != 1 || events[0].Kind != KindEnd || !errors.Is(events[0].End.Err, err) {
		t.Errorf("events = %+v, want one end with the error", events)
	}
}

func TestRawExec(t *testing.T) {
	job := func(service, driver string) render.Job {
		return render.Job{Service: service, Job: &api.Job{TaskGroups: []*api.TaskGroup{{Tasks: []*api.Task{{Driver: "docker"}, {Driver: driver}}}}}}
	}
	if got, want := rawExec([]render.Job{job("web", "docker"), job("db", "raw_exec")}), []string{"db"}; !slices.Equal(got, want) {
		t.Errorf("rawExec() = %q, want %q", got, want)
	}
}
