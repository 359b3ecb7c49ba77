// Package schedule lets drover do something at certain times: a periodic job
// in Nomad, whose own clock starts a drover inside the cluster, which works
// from the record of the last release.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// taskName is short: the path of the API socket ends with it and may have 107
// bytes altogether.
const taskName = "d"

// JobID of a schedule.
func JobID(stackName, env, name string) string {
	return "drover-" + stackName + "-" + env + "-" + name
}

// Job is the periodic job of a schedule. It talks to Nomad through the API
// socket of its task, with its workload identity: there is no token in it.
func Job(stackName, env string, s *stack.Schedule, d *stack.Driver) *api.Job {
	id := JobID(stackName, env, s.Name)
	args := []string{"schedule", "fire", stackName, s.Name, "-e", env}
	task := &api.Task{
		Name: taskName, Driver: d.Name, Config: map[string]any{"args": args},
		Identity: &api.WorkloadIdentity{Env: true},
		Env:      map[string]string{"NOMAD_ADDR": "unix://${NOMAD_SECRETS_DIR}/api.sock"},
		// What is being made is interrupted, and drover resume goes on with it.
		KillSignal: "SIGINT",
		Resources:  &api.Resources{CPU: ptr(50), MemoryMB: ptr(96)},
	}
	for name, value := range d.Env {
		task.Env[name] = value
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
	never := api.ReschedulePolicy{Attempts: ptr(0), Unlimited: ptr(false)}
	return &api.Job{
		ID: &id, Name: &id, Type: ptr(api.JobTypeBatch), Datacenters: []string{"*"},
		Periodic: &api.PeriodicConfig{Enabled: ptr(true), Specs: s.Crons, SpecType: ptr(api.PeriodicSpecCron), TimeZone: &s.TimeZone, ProhibitOverlap: ptr(true)},
		TaskGroups: []*api.TaskGroup{{
			Name: ptr("drover"), Count: ptr(1),
			RestartPolicy:    &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail")},
			ReschedulePolicy: &never,
			Tasks:            []*api.Task{task},
		}},
	}
}

func ptr[T any](v T) *T { return &v }

// Policy is the ACL policy of a schedule's job: what it needs to make
// releases of one stack whose jobs are in the given namespaces, and nothing
// else. home is the namespace of the record.
func Policy(stackName, env, home string, namespaces []string) string {
	var b strings.Builder
	all := slices.Compact(slices.Sorted(slices.Values(append([]string{home}, namespaces...))))
	for _, ns := range all {
		fmt.Fprintf(&b, "namespace %q {\n", ns)
		if slices.Contains(namespaces, ns) {
			fmt.Fprintf(&b, "  capabilities = [\"list-jobs\", \"read-job\", \"submit-job\", \"parse-job\", \"read-logs\", \"read-job-scaling\"]\n")
		}
		if ns == home {
			fmt.Fprintf(&b, "  variables {\n    path \"drover/stacks/%s/%s/*\" {\n      capabilities = [\"read\", \"write\", \"list\", \"destroy\"]\n    }\n  }\n", stackName, env)
		}
		fmt.Fprintf(&b, "}\n")
	}
	// Versions of agents, and why a job found no node.
	fmt.Fprintf(&b, "agent {\n  policy = \"read\"\n}\nnode {\n  policy = \"read\"\n}\n")
	return b.String()
}

// Applied is what Apply did.
type Applied struct {
	Registered []string // names of schedules, new or changed
	Unchanged  []string
	Removed    []string // not in the environment any more
	Policies   []string // ACL policies that were written
}

// ErrNoDriver says that an environment has schedules and does not say how
// drover runs in the cluster.
var ErrNoDriver = errors.New("the environment has schedules and no drover_driver block, which says how drover gets to the nodes")

// NeedsPolicyError says that the token may not write the ACL policy that the
// schedule's job needs.
type NeedsPolicyError struct {
	Name, JobID, Namespace, Rules string
	Err                           error
}

func (e *NeedsPolicyError) Error() string {
	return fmt.Sprintf("the token may not write ACL policies (%s); somebody who may does it with\n\nnomad acl policy apply -namespace %s -job %s %s - <<'EOF'\n%sEOF\n\nthen apply again with --no-policy",
		e.Err, e.Namespace, e.JobID, e.Name, e.Rules)
}

func (e *NeedsPolicyError) Unwrap() error { return e.Err }

// Apply makes the periodic jobs of an environment's schedules what the
// environment says, and removes those that it does not have any more. jobs are
// those of the stack, home is the namespace of the client. With policy, and
// where Nomad has ACLs, each gets its ACL policy.
func Apply(ctx context.Context, c *api.Client, home string, s *stack.Stack, jobs []render.Job, policy bool) (Applied, error) {
	var out Applied
	if len(s.Schedules) > 0 && s.Driver == nil {
		return out, ErrNoDriver
	}
	namespaces := []string{}
	for _, j := range jobs {
		ns := home
		if j.Job.Namespace != nil && *j.Job.Namespace != "" {
			ns = *j.Job.Namespace
		}
		namespaces = append(namespaces, ns)
	}
	store := record.OpenSchedules(c, s.Name, s.Environment)
	for _, sc := range s.Schedules {
		job := Job(s.Name, s.Environment, sc, s.Driver)
		if policy {
			name, err := grant(ctx, c, *job.ID, home, Policy(s.Name, s.Environment, home, namespaces))
			if err != nil {
				return out, err
			}
			if name != "" {
				out.Policies = append(out.Policies, name)
			}
		}
		// The job never fires without its schedule: that is there first.
		if _, err := store.Change(ctx, sc.Name, func(r *record.Schedule) { r.Schedule, r.JobID = *sc, *job.ID }); err != nil {
			return out, err
		}
		plan, _, err := c.Jobs().Plan(job, true, (&api.WriteOptions{}).WithContext(ctx))
		if err != nil {
			return out, fmt.Errorf("planning job %q: %w", *job.ID, err)
		}
		if plan.Diff != nil && plan.Diff.Type == "None" {
			out.Unchanged = append(out.Unchanged, sc.Name)
			continue
		}
		opts := &api.RegisterOptions{EnforceIndex: true, ModifyIndex: plan.JobModifyIndex}
		if _, _, err := c.Jobs().RegisterOpts(job, opts, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
			return out, fmt.Errorf("registering job %q: %w", *job.ID, err)
		}
		out.Registered = append(out.Registered, sc.Name)
	}
	there, err := store.List(ctx)
	if err != nil {
		return out, err
	}
	for _, old := range there {
		if slices.ContainsFunc(s.Schedules, func(sc *stack.Schedule) bool { return sc.Name == old.Name }) {
			continue
		}
		if err := Remove(ctx, c, store, old); err != nil {
			return out, err
		}
		out.Removed = append(out.Removed, old.Name)
	}
	return out, nil
}

// Remove purges the job of a schedule and forgets it. A run that is under way
// goes on.
func Remove(ctx context.Context, c *api.Client, store *record.Schedules, s *record.Schedule) error {
	if _, _, err := c.Jobs().Deregister(s.JobID, true, (&api.WriteOptions{}).WithContext(ctx)); err != nil && !hasStatus(err, 404) {
		return fmt.Errorf("removing job %q: %w", s.JobID, err)
	}
	return store.Remove(ctx, s.Name)
}

// grant writes the policy of a job (PUT /v1/acl/policy/:name) and returns its
// name, "" where Nomad has no ACLs.
func grant(ctx context.Context, c *api.Client, jobID, namespace, rules string) (string, error) {
	p := &api.ACLPolicy{Name: jobID, Description: "drover schedule", Rules: rules, JobACL: &api.JobACL{Namespace: namespace, JobID: jobID}}
	_, err := c.ACLPolicies().Upsert(p, (&api.WriteOptions{}).WithContext(ctx))
	switch {
	case err == nil:
		return p.Name, nil
	case strings.Contains(err.Error(), "ACL support disabled"):
		return "", nil
	case hasStatus(err, 403):
		return "", &NeedsPolicyError{p.Name, jobID, namespace, rules, err}
	}
	return "", fmt.Errorf("writing the ACL policy %s: %w", p.Name, err)
}

func hasStatus(err error, code int) bool {
	var resp api.UnexpectedResponseError
	return errors.As(err, &resp) && resp.StatusCode() == code
}
