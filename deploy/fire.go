package deploy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
)

// Fire does what a schedule says, or does not and records why. Stack is the name of
// the stack: a schedule has no files.
type Fire struct {
	Recorded
	Name   string // of the schedule
	JobID  string // of the job that Nomad made for this run, "" outside of Nomad
	Unable error  // what keeps it from doing anything, mostly nil
}

// Run fires. The error reports that not even the run could be recorded; whether it
// did what it should is record.Run.OK.
func (v *Fire) Run(ctx context.Context) (record.Run, error) {
	var did record.Run
	_, err := run(ctx, v.Events, v.Limits.Unreachable, func(ctx context.Context, s *stream, end *End) error {
		clients, err := v.Home.Connect(ctx, false)
		if err != nil {
			return err
		}
		name, env := v.Stack, EnvironmentName(v.Environment)
		store := record.OpenSchedules(clients.Nomad, name, env)
		m := s.newMaker(&v.Home, &v.Limits, v.Person, clients, name, env)
		s.resolved(&Resolved{Stack: name, Environment: env})
		m.names(end)
		if err := m.d.HideSecrets(ctx); err != nil {
			return err
		}
		if did, err = schedule.Fire(ctx, m.d, store, v.Name, v.JobID, time.Now, v.Unable); err != nil {
			return ScheduleError(ctx, store, err)
		}
		end.Schedule, end.Run, end.Outcome = v.Name, &did, rollout.Outcome(did.Outcome)
		return nil
	})
	return did, err
}

// ScheduleError names the schedules that there are where err reports that one is
// not there.
func ScheduleError(ctx context.Context, store *record.Schedules, err error) error {
	if !errors.Is(err, record.ErrNoSchedule) {
		return err
	}
	var names []string
	all, _ := store.List(ctx) // it is only a hint
	for _, s := range all {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return invalidf("%w; there is none: drover schedule apply makes those of an environment", err)
	}
	return invalidf("%w; there is %s", err, strings.Join(names, ", "))
}
