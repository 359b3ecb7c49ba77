package schedule

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
)

// Move moves the schedules of a stack and environment to another name. The command line
// of a job has both names, so that Move replaces each periodic job by a new one. It keeps
// the recorded runs, and whether the schedule is paused.
type Move struct {
	Client *api.Client
	// Home is the namespace of the client, Jobs are those of the stack's jobs.
	Home string
	Jobs []string

	FromStack, FromEnv string
	ToStack, ToEnv     string

	Policy bool // write ACL policies
}

// scope is the scope of the policies of the new jobs.
func (m Move) scope(stackName, env string) acl.Scope {
	return acl.Scope{Namespace: m.Home, Jobs: m.Jobs, Stacks: []string{record.PathName(stackName) + "/" + record.PathName(env)}}
}

// Check returns an error if another job has a new ID, and writes the ACL policies of the
// new jobs, which needs a token that may. It changes no schedule.
func (m Move) Check(ctx context.Context) error {
	list, err := record.OpenSchedules(m.Client, m.FromStack, m.FromEnv).List(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		id := JobID(m.ToStack, m.ToEnv, s.Name)
		job, err := m.read(ctx, id)
		if err != nil {
			return err
		}
		if job != nil && !fires(job, m.ToStack, m.ToEnv, s.Name) {
			return fmt.Errorf("cannot register the job of schedule %s: %w", s.Name, &ForeignJobError{id})
		}
		if m.Policy {
			if _, err := grant(ctx, m.Client, m.scope(m.ToStack, m.ToEnv).OfSchedule(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// read returns a job, nil if there is none.
func (m Move) read(ctx context.Context, id string) (*api.Job, error) {
	job, _, err := m.Client.Jobs().Info(id, (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case nomad.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading job %q: %w", id, err)
	}
	return job, nil
}

// Run moves the schedules and returns their names. It can be repeated after it
// was interrupted.
func (m Move) Run(ctx context.Context) ([]string, error) {
	from := record.OpenSchedules(m.Client, m.FromStack, m.FromEnv)
	to := record.OpenSchedules(m.Client, m.ToStack, m.ToEnv)
	list, err := from.List(ctx)
	if err != nil {
		return nil, err
	}
	var moved []string
	for _, s := range list {
		if err := m.one(ctx, from, to, s); err != nil {
			return moved, fmt.Errorf("moving schedule %s: %w", s.Name, err)
		}
		moved = append(moved, s.Name)
	}
	return moved, nil
}

func (m Move) one(ctx context.Context, from, to *record.Schedules, s *record.Schedule) error {
	id := JobID(m.ToStack, m.ToEnv, s.Name)
	job, err := m.read(ctx, s.JobID)
	if err != nil {
		return err
	}
	// Store the schedule before its job can fire.
	_, err = to.Change(ctx, s.Name, func(r *record.Schedule) {
		r.Schedule, r.JobID, r.Paused, r.Runs = s.Schedule, id, s.Paused, s.Runs
	})
	if err != nil {
		return err
	}
	if job != nil && fires(job, m.FromStack, m.FromEnv, s.Name) {
		if err := m.register(ctx, job, id, s.Name); err != nil {
			return err
		}
		free, err := removeJob(ctx, m.Client, m.FromStack, m.FromEnv, s)
		if err != nil {
			return err
		}
		if free && m.Policy {
			err := acl.RemoveNomadPolicy(ctx, m.Client, m.scope(m.FromStack, m.FromEnv).OfSchedule(s.JobID).Name)
			if err != nil && !noACLs(err) && !nomad.IsForbidden(err) && !nomad.IsNotFound(err) {
				return err
			}
		}
	}
	return from.Remove(ctx, s.Name)
}

// register registers the job of a schedule under its new ID and command line.
func (m Move) register(ctx context.Context, old *api.Job, id, name string) error {
	job := *old
	job.ID, job.Name = &id, &id
	job.Stop, job.ParentID, job.Payload = nil, nil, nil
	job.NomadTokenID, job.Status, job.StatusDescription, job.Stable, job.Version, job.SubmitTime = nil, nil, nil, nil, nil, nil
	job.CreateIndex, job.ModifyIndex, job.JobModifyIndex, job.VersionTag = nil, nil, nil, nil
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			if t.Name == taskName {
				t.Config["args"] = fireArgs(m.ToStack, m.ToEnv, name)
			}
		}
	}
	there, err := m.read(ctx, id)
	if err != nil {
		return err
	}
	opts := &api.RegisterOptions{EnforceIndex: true}
	if there != nil {
		if fires(there, m.ToStack, m.ToEnv, name) && (there.Stop == nil || !*there.Stop) {
			return nil // by the move that was interrupted
		}
		if there.JobModifyIndex == nil {
			return errors.New("Nomad does not say at which index the job is")
		}
		opts.ModifyIndex = *there.JobModifyIndex
	}
	if _, _, err := m.Client.Jobs().RegisterOpts(&job, opts, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("registering job %q: %w", id, err)
	}
	return nil
}
