// Package schedule runs drover at given times: a periodic Nomad job starts drover inside
// the cluster, which works from the record of the last release.
package schedule

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// taskName is short: the path of the API socket ends with it and may have 107
// bytes altogether.
const taskName = "d"

// JobID returns the ID of a schedule's periodic job. It is unique for stack, environment
// and name: dashes within them are doubled, and none of them begins with a dash.
func JobID(stackName, env, name string) string {
	id := "drover"
	for _, part := range []string{stackName, env, name} {
		id += "-" + strings.ReplaceAll(part, "-", "--")
	}
	return id
}

// fires reports whether a job runs the schedule of that name of a stack in an
// environment.
func fires(job *api.Job, stackName, env, name string) bool {
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			if t.Name != taskName {
				continue
			}
			var args []string
			switch list := t.Config["args"].(type) {
			case []string:
				args = list
			case []any: // from Nomad
				for _, a := range list {
					args = append(args, fmt.Sprint(a))
				}
			}
			if slices.Equal(args, fireArgs(stackName, env, name)) {
				return true
			}
		}
	}
	return false
}

func fireArgs(stackName, env, name string) []string {
	return []string{"schedule", "fire", stackName, name, "-e", env}
}

// Job returns the periodic job of a schedule. It uses the API socket of its task with its
// workload identity, so that the job has no token. With consul it also gets a token of
// Consul.
func Job(stackName, env string, s *stack.Schedule, d *stack.Driver, consul bool) *api.Job {
	id := JobID(stackName, env, s.Name)
	task := &api.Task{
		Name: taskName, Driver: d.Name, Config: map[string]any{"args": fireArgs(stackName, env, s.Name)},
		Identity:   &api.WorkloadIdentity{Env: true},
		Identities: []*api.WorkloadIdentity{{Name: acl.LoginIdentity, Audience: []string{acl.LoginAudience}, File: true, TTL: time.Hour}},
		Env:        map[string]string{"NOMAD_ADDR": "unix://${NOMAD_SECRETS_DIR}/api.sock"},
		// drover marks the release as interrupted; drover resume finishes it.
		KillSignal: "SIGINT",
		Resources:  &api.Resources{CPU: ptr(cmp.Or(d.CPU, 50)), MemoryMB: ptr(cmp.Or(d.MemoryMB, 96))},
	}
	if d.MemoryMaxMB > 0 {
		task.Resources.MemoryMaxMB = &d.MemoryMaxMB
	}
	for name, value := range d.Env {
		task.Env[name] = value
	}
	if consul {
		task.Consul = &api.Consul{}
	}
	switch {
	case d.Name == "docker":
		task.Config["image"], task.Config["network_mode"] = d.Image, "host"
	case d.Artifact != "":
		task.Config["command"] = "${NOMAD_TASK_DIR}/drover"
		artifact := &api.TaskArtifact{GetterSource: &d.Artifact, RelativeDest: ptr("local/")}
		if d.Checksum != "" {
			artifact.GetterOptions = map[string]string{"checksum": d.Checksum}
		}
		task.Artifacts = []*api.TaskArtifact{artifact}
	default:
		task.Config["command"] = d.Path
	}
	group := &api.TaskGroup{
		Name: ptr("drover"), Count: ptr(1),
		RestartPolicy:    &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail")},
		ReschedulePolicy: &api.ReschedulePolicy{Attempts: ptr(0), Unlimited: ptr(false)},
		Tasks:            []*api.Task{task},
	}
	if d.ConsulVolume != "" {
		const name = "consul"
		group.Volumes = map[string]*api.VolumeRequest{name: {Name: name, Type: "host", Source: d.ConsulVolume, ReadOnly: true}}
		socket := strings.TrimPrefix(d.Env["CONSUL_HTTP_ADDR"], "unix://")
		task.VolumeMounts = []*api.VolumeMount{{Volume: ptr(name), Destination: ptr(path.Dir(socket)), ReadOnly: ptr(true)}}
	}
	job := &api.Job{
		ID: &id, Name: &id, Type: ptr(api.JobTypeBatch), Datacenters: []string{"*"},
		Periodic:   &api.PeriodicConfig{Enabled: ptr(true), Specs: s.Crons, SpecType: ptr(api.PeriodicSpecCron), TimeZone: &s.TimeZone, ProhibitOverlap: ptr(true)},
		TaskGroups: []*api.TaskGroup{group},
	}
	if d.NodePool != "" {
		job.NodePool = &d.NodePool
	}
	for _, c := range d.Constraints {
		job.Constraints = append(job.Constraints, api.NewConstraint(c.Attribute, cmp.Or(c.Operator, "="), c.Value))
	}
	return job
}

func ptr[T any](v T) *T { return &v }

// Applied is what Apply did.
type Applied struct {
	Registered []string // names of schedules, new or changed
	Unchanged  []string
	Removed    []string // not in the environment any more
	Policies   []string // ACL policies that were written
	Left       []string // ACL policies that the token may not remove
}

// NeedsPolicyError means that the token may not write the ACL policy that the
// schedule's job needs.
type NeedsPolicyError struct {
	Policy acl.Policy
	Err    error
}

func (e *NeedsPolicyError) Error() string {
	p := e.Policy
	return fmt.Sprintf("the token may not write ACL policies (%s): run the same command with a token that may, or\n\n"+
		"nomad acl policy apply -namespace %s -job %s %s - <<'EOF'\n%sEOF\n"+
		"nomad acl binding-rule create -auth-method %s -bind-type policy -bind-name %s \\\n  -selector 'value.job == %q and value.namespace == %q'\n\n"+
		"then apply again with --no-policy",
		e.Err, p.Namespace, p.Job, p.Name, p.Rules, acl.LoginMethod, p.Name, p.Job, p.Namespace)
}

// Apply creates and updates the periodic jobs of an environment's schedules, and removes
// those of deleted schedules. jobs are those of the stack, home is the namespace of the
// client. With policy, and if Nomad has ACLs, each job gets its ACL policy. If a schedule
// cannot work, Apply writes nothing and returns the diagnostics of Check.
func Apply(ctx context.Context, c *api.Client, home string, s *stack.Stack, jobs []render.Job, policy bool) (Applied, error) {
	var out Applied
	if diags := Check(s, jobs); diags.HasErrors() {
		return out, diags
	}
	scope := acl.Scope{Namespace: home, Stacks: []string{record.PathName(s.Name) + "/" + record.PathName(s.Environment)}}
	for _, j := range jobs {
		ns := home
		if j.Job.Namespace != nil && *j.Job.Namespace != "" {
			ns = *j.Job.Namespace
		}
		scope.Jobs = append(scope.Jobs, ns)
	}
	store := record.OpenSchedules(c, s.Name, s.Environment)
	there, err := store.List(ctx)
	if err != nil {
		return out, err
	}
	remove := func(old *record.Schedule) error {
		free, err := removeJob(ctx, c, s.Name, s.Environment, old)
		if err != nil || !free || !policy {
			return err
		}
		name := scope.OfSchedule(old.JobID).Name
		err = rollout.Persist(ctx, 0, func(ctx context.Context) error { return acl.RemoveNomadPolicy(ctx, c, name) })
		switch {
		case nomad.IsForbidden(err):
			out.Left = append(out.Left, name)
		case err != nil && !noACLs(err):
			return err
		}
		return nil
	}
	for _, sc := range s.Schedules {
		job := Job(s.Name, s.Environment, sc, s.Driver, rollout.NeedsConsul(jobs))
		now, _, err := c.Jobs().Info(*job.ID, (&api.QueryOptions{}).WithContext(ctx))
		switch {
		case nomad.IsNotFound(err):
		case err != nil:
			return out, fmt.Errorf("reading job %q: %w", *job.ID, err)
		case !fires(now, s.Name, s.Environment, sc.Name):
			return out, fmt.Errorf("cannot register the job of schedule %s: %w", sc.Name, &ForeignJobError{*job.ID})
		}
		// An older drover used another ID, which another schedule may have
		// too.
		for _, old := range there {
			if old.Name == sc.Name && old.JobID != "" && old.JobID != *job.ID {
				if err := remove(old); err != nil {
					return out, err
				}
			}
		}
		if policy {
			p := scope.OfSchedule(*job.ID)
			var written bool
			err := rollout.Persist(ctx, 0, func(ctx context.Context) (err error) {
				written, err = grant(ctx, c, p)
				return err
			})
			if err != nil {
				return out, err
			}
			if written {
				out.Policies = append(out.Policies, p.Name)
			}
		}
		// Store the schedule before its job can fire.
		if _, err := store.Change(ctx, sc.Name, func(r *record.Schedule) { r.Schedule, r.JobID = *sc, *job.ID }); err != nil {
			return out, err
		}
		changed, err := register(ctx, c, job)
		if err != nil {
			return out, err
		}
		if !changed {
			out.Unchanged = append(out.Unchanged, sc.Name)
			continue
		}
		out.Registered = append(out.Registered, sc.Name)
	}
	for _, old := range there {
		if slices.ContainsFunc(s.Schedules, func(sc *stack.Schedule) bool { return sc.Name == old.Name }) {
			continue
		}
		if err := remove(old); err != nil {
			return out, err
		}
		if err := store.Remove(ctx, old.Name); err != nil {
			return out, err
		}
		out.Removed = append(out.Removed, old.Name)
	}
	return out, nil
}

// register registers a job unless Nomad has the same, and reports whether it did. It
// retries while Nomad does not answer: a request whose answer was lost may have arrived.
func register(ctx context.Context, c *api.Client, job *api.Job) (changed bool, err error) {
	err = rollout.Persist(ctx, 0, func(ctx context.Context) error {
		plan, _, err := c.Jobs().Plan(job, true, (&api.WriteOptions{}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("planning job %q: %w", *job.ID, err)
		}
		if plan.Diff != nil && plan.Diff.Type == "None" {
			return nil
		}
		changed = true
		opts := &api.RegisterOptions{EnforceIndex: true, ModifyIndex: plan.JobModifyIndex}
		if _, _, err := c.Jobs().RegisterOpts(job, opts, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
			return fmt.Errorf("registering job %q: %w", *job.ID, err)
		}
		return nil
	})
	return changed, err
}

// ForeignJobError means that the ID of the schedule's job belongs to a job that
// drover did not make for a schedule.
type ForeignJobError struct{ JobID string }

func (e *ForeignJobError) Error() string {
	return fmt.Sprintf("job %q is not of this schedule; stop it with `nomad job stop -purge %s`, or give the schedule another name", e.JobID, e.JobID)
}

// removeJob purges the job of a schedule, unless the job under that ID is of
// another schedule: older drovers gave the same ID to shop/prod-eu and
// shop-prod/eu. It reports whether there is no job under that ID now.
func removeJob(ctx context.Context, c *api.Client, stackName, env string, s *record.Schedule) (free bool, err error) {
	err = rollout.Persist(ctx, 0, func(ctx context.Context) error {
		job, _, err := c.Jobs().Info(s.JobID, (&api.QueryOptions{}).WithContext(ctx))
		switch {
		case nomad.IsNotFound(err):
			free = true
			return nil
		case err != nil:
			return fmt.Errorf("reading job %q: %w", s.JobID, err)
		case !fires(job, stackName, env, s.Name):
			return nil
		}
		if _, _, err := c.Jobs().Deregister(s.JobID, true, (&api.WriteOptions{}).WithContext(ctx)); err != nil && !nomad.IsNotFound(err) {
			return fmt.Errorf("removing job %q: %w", s.JobID, err)
		}
		free = true
		return nil
	})
	return free, err
}

// grant attaches a policy to the workload identity of its job and to logins with that
// identity. It reports false if Nomad has no ACLs.
func grant(ctx context.Context, c *api.Client, p acl.Policy) (bool, error) {
	err := acl.PutNomadPolicy(ctx, c, p)
	if err == nil {
		err = acl.BindLogin(ctx, c, p)
	}
	switch {
	case noACLs(err):
		return false, nil
	case nomad.IsForbidden(err):
		return false, &NeedsPolicyError{p, err}
	}
	return err == nil, err
}

func noACLs(err error) bool {
	return err != nil && strings.Contains(err.Error(), "ACL support disabled")
}
