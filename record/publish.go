package record

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// SecretChanges are what a release would change in secrets, by name, never by
// value.
type SecretChanges struct {
	Generated []string     `json:"generated,omitempty"` // secrets that get their first value
	Renewed   []string     `json:"renewed,omitempty"`   // certificates that get a new leaf
	Missing   []string     `json:"missing,omitempty"`   // secrets without a value that only the operator can give
	Jobs      []JobSecrets `json:"jobs,omitempty"`      // jobs whose variable changes

	Redact func(string) string `json:"-"` // hides the present values
}

// JobSecrets are the items that change in the variable of a job.
type JobSecrets struct {
	Service   string   `json:"service"`
	Target    string   `json:"target,omitempty"`
	JobID     string   `json:"job_id"`
	Namespace string   `json:"namespace,omitempty"` // as the job names it
	Added     []string `json:"added,omitempty"`
	Changed   []string `json:"changed,omitempty"` // a running task sees a new value
	Removed   []string `json:"removed,omitempty"` // when the release is deployed
}

// Empty reports whether nothing would be written.
func (c *SecretChanges) Empty() bool {
	return c == nil || len(c.Generated)+len(c.Renewed)+len(c.Missing)+len(c.Jobs) == 0
}

// Of returns the changes of one job, nil when there are none.
func (c *SecretChanges) Of(target string, job *api.Job) *JobSecrets {
	if c == nil {
		return nil
	}
	namespace := ""
	if job.Namespace != nil {
		namespace = *job.Namespace
	}
	i := slices.IndexFunc(c.Jobs, func(j JobSecrets) bool {
		return j.Target == target && j.JobID == *job.ID && j.Namespace == namespace
	})
	if i < 0 {
		return nil
	}
	return &c.Jobs[i]
}

// MissingError is returned where secrets have no value and drover cannot make
// one.
type MissingError struct {
	Stack, Environment string
	Names              []string
	Job                string // that reads them; "" for a secret of type given
}

func (e *MissingError) Error() string {
	if e.Job != "" {
		return fmt.Sprintf("job %s reads %s of stack %s (environment %s), which has no value any more; declare it as a secret of the stack and run `drover secrets set %s %s -e %s`",
			e.Job, strings.Join(e.Names, ", "), e.Stack, e.Environment, e.Stack, e.Names[0], e.Environment)
	}
	return fmt.Sprintf("stack %s needs secrets that only you can give: %s; run `drover secrets set %s %s -e %s` for each",
		e.Stack, strings.Join(e.Names, ", "), e.Stack, e.Names[0], e.Environment)
}

// RefusedError is returned for secrets that Nomad would not take.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// Generated is what Generate made.
type Generated struct {
	Secrets []string // secrets that got their first value
	Renewed []string // certificates with a new leaf
	Redact  func(string) string
}

// Preview returns what Generate, Publish and Trim would write, and writes
// nothing: one request for the master and one per job. A job without secrets
// loses its variable, if it is ours. specs is nil where secrets are published
// from the master as they are.
//
// It refuses what Nomad would refuse later: an *OwnerError, a *MissingError for a
// job that reads an item without a value, and what is too large for a variable.
// Secrets of type given that have no value are in SecretChanges.Missing.
func (s *Secrets) Preview(ctx context.Context, specs []*stack.Secret, jobs []render.Job) (*SecretChanges, error) {
	vars, err := s.readJobs(ctx, jobs)
	if err != nil {
		return nil, err
	}
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	old := maps.Clone(m.items)
	made, missing, err := s.complete(specs, m)
	if err != nil {
		return nil, err
	}
	if !maps.Equal(old, m.items) {
		if err := checkSize("the secrets of "+s.owner().String(), m.items); err != nil {
			return nil, err
		}
	}
	c := &SecretChanges{Generated: made.Secrets, Renewed: made.Renewed, Missing: missing, Redact: m.redactor()}
	for _, v := range vars {
		want, lost := v.want(m)
		lost = slices.DeleteFunc(lost, func(name string) bool { return slices.Contains(missing, name) })
		if len(lost) > 0 {
			return nil, s.missing(v.job.Name(), lost)
		}
		if err := checkSize("the secrets of job "+v.id, joined(v.items, want)); err != nil {
			return nil, err
		}
		j := JobSecrets{Service: v.job.Service, Target: v.job.Target, JobID: v.id}
		j.Namespace, _ = v.places()
		for _, name := range sorted(want) {
			switch value, ok := v.items[name]; {
			case !ok:
				j.Added = append(j.Added, name)
			case value != want[name]:
				j.Changed = append(j.Changed, name)
			}
		}
		for _, name := range sorted(v.items) {
			if _, ok := want[name]; !ok && !bookkeeping(name) {
				j.Removed = append(j.Removed, name)
			}
		}
		if len(j.Added)+len(j.Changed)+len(j.Removed) > 0 {
			c.Jobs = append(c.Jobs, j)
		}
	}
	return c, nil
}

// Generate makes the secrets that are missing and renews certificates that are
// in the last third of their life. It returns a *MissingError for secrets that
// the operator has to give, and writes nothing then.
func (s *Secrets) Generate(ctx context.Context, specs []*stack.Secret) (Generated, error) {
	var made Generated
	m, err := s.update(ctx, func(m *master) error {
		var missing []string
		var err error
		if made, missing, err = s.complete(specs, m); err == nil && len(missing) > 0 {
			err = s.missing("", missing)
		}
		return err
	})
	if err != nil {
		return Generated{}, err
	}
	made.Redact = m.redactor()
	return made, nil
}

func (s *Secrets) missing(job string, names []string) error {
	return &MissingError{Stack: s.stack, Environment: s.env, Names: names, Job: job}
}

// Grow adds the items that the variables of jobs lack. It changes no value and
// removes nothing, so that no task that runs is disturbed.
func (s *Secrets) Grow(ctx context.Context, jobs []render.Job) error {
	_, err := s.apply(ctx, jobs, func(have, want map[string]string) map[string]string { return joined(want, have) })
	return err
}

// Publish gives the variables of jobs the items that the jobs read, with the
// values of the master, and returns the jobs whose variable was written. Items
// of the versions that still run stay.
func (s *Secrets) Publish(ctx context.Context, jobs []render.Job) ([]render.Job, error) {
	return s.apply(ctx, jobs, joined)
}

// Trim leaves in the variables of jobs just the items that the jobs read. It
// deletes the variables of jobs that read none.
func (s *Secrets) Trim(ctx context.Context, jobs []render.Job) error {
	_, err := s.apply(ctx, jobs, func(_, want map[string]string) map[string]string { return want })
	return err
}

// apply writes the variables of jobs: what f makes of the items that a variable
// has and of those that the job reads. It returns the jobs whose variable was
// written.
func (s *Secrets) apply(ctx context.Context, jobs []render.Job, f func(have, want map[string]string) map[string]string) ([]render.Job, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	vars, err := s.readJobs(ctx, jobs)
	if err != nil {
		return nil, err
	}
	m, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range vars {
		if _, lost := v.want(m); len(lost) > 0 {
			return nil, s.missing(v.job.Name(), lost)
		}
	}
	was := make([]uint64, len(vars))
	err = parallel.Each(len(vars), 8, func(i int) error {
		v := vars[i]
		was[i] = v.index
		return s.rewrite(ctx, v, func(items map[string]string) error {
			want, _ := v.want(m)
			have := maps.Clone(items)
			maps.DeleteFunc(have, func(name, _ string) bool { return bookkeeping(name) })
			now := f(have, want)
			switch {
			case maps.Equal(have, now):
				return nil
			case len(now) == 0:
				clear(items)
				return nil
			}
			clear(items)
			maps.Copy(items, now)
			items[markerItem], items[ownerItem] = strconv.Itoa(Layout), s.owner().item()
			return checkSize("the secrets of job "+v.id, items)
		})
	})
	var written []render.Job
	for i, v := range vars {
		if v.index != was[i] {
			written = append(written, v.job)
		}
	}
	return written, err
}

// joined is a with the items of b, whose values win.
func joined(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

// bookkeeping reports whether an item of a job's variable is drover's own.
func bookkeeping(item string) bool { return item == markerItem || item == ownerItem }

// pick returns the items of the names, each an item or a certificate with all
// of its items, and the names without a value.
func (m *master) pick(names []string) (items map[string]string, lost []string) {
	items = map[string]string{}
	for _, name := range names {
		switch {
		case m.items[name] != "":
			items[name] = m.items[name]
		case m.items[secrets.CertItem(name)] != "":
			for _, item := range []string{secrets.CAItem(name), secrets.CertItem(name), secrets.KeyItem(name)} {
				items[item] = m.items[item]
			}
		default:
			lost = append(lost, name)
		}
	}
	return items, lost
}

// want returns the items that the job of v reads, and the names that have a
// value neither in the master nor in the variable.
func (v *jobVariable) want(m *master) (items map[string]string, lost []string) {
	items, lost = m.pick(v.job.Secrets)
	lost = slices.DeleteFunc(lost, func(name string) bool {
		value := v.items[name]
		if value != "" {
			items[name] = value
		}
		return value != ""
	})
	return items, lost
}

// variableLimit is what a Nomad Variable takes: the sum of its names and values
// in bytes.
const variableLimit = 64 << 10

// checkSize reports what a Nomad Variable does not take.
func checkSize(what string, items map[string]string) error {
	size := 0
	for name, value := range items {
		size += len(name) + len(value)
	}
	if size > variableLimit {
		return &RefusedError{fmt.Sprintf("%s are too large: %d KiB, and a Nomad Variable takes %d", what, (size+1023)>>10, variableLimit>>10)}
	}
	return nil
}

// jobVariable is the variable of a job as it is now.
type jobVariable struct {
	job   render.Job
	id    string
	items map[string]string // nil when there is none
	index uint64
	owner SecretOwner

	namespace string // where the variable is, as Nomad names it
}

func (v *jobVariable) path() string { return "nomad/jobs/" + v.id }

func (v *jobVariable) places() (namespace, region string) {
	if p := v.job.Job.Namespace; p != nil {
		namespace = *p
	}
	if p := v.job.Job.Region; p != nil {
		region = *p
	}
	return namespace, region
}

// readJobs reads the variables of jobs. It returns an error where a job reads
// secrets and its variable was not made by drover or belongs to another stack.
// The variable of a job without secrets is left out unless it is ours.
func (s *Secrets) readJobs(ctx context.Context, jobs []render.Job) ([]*jobVariable, error) {
	vars, err := s.peekJobs(ctx, jobs)
	if err != nil {
		return nil, err
	}
	for _, v := range vars {
		if len(v.job.Secrets) == 0 {
			continue
		}
		if v.index > 0 && v.items[markerItem] == "" {
			return nil, fmt.Errorf("the Nomad Variable %s was not made by drover and would be overwritten; move its items elsewhere and delete it with `nomad var purge %s`", v.path(), v.path())
		}
		if err := s.checkOwner(v); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(vars, func(v *jobVariable) bool { return len(v.job.Secrets) == 0 && !s.owns(v) }), nil
}

// owns reports whether drover made the variable for this stack and environment.
func (s *Secrets) owns(v *jobVariable) bool { return v.items[markerItem] != "" && v.owner == s.owner() }

// peekJobs reads the variables of jobs, also those that another client wrote.
func (s *Secrets) peekJobs(ctx context.Context, jobs []render.Job) ([]*jobVariable, error) {
	for _, j := range jobs {
		if err := j.CheckSecrets(); err != nil {
			return nil, &RefusedError{err.Error()}
		}
	}
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j render.Job) bool { return !render.IsVariablePath(j.VariablePath()) })
	vars := make([]*jobVariable, len(jobs))
	return vars, parallel.Each(len(jobs), 8, func(i int) error {
		vars[i] = &jobVariable{job: jobs[i], id: *jobs[i].Job.ID}
		return s.peekJob(ctx, vars[i])
	})
}

// peekJob reads one variable and its owner.
func (s *Secrets) peekJob(ctx context.Context, v *jobVariable) error {
	namespace, region := v.places()
	got, _, err := s.of(v.job).Variables().Peek(v.path(), (&api.QueryOptions{Namespace: namespace, Region: region}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading the variable of job %s: %w", v.id, err)
	}
	v.items, v.index, v.owner = nil, 0, s.owner()
	if got == nil {
		return nil
	}
	v.items, v.index, v.namespace = got.Items, got.ModifyIndex, got.Namespace
	if v.items[markerItem] == "" {
		return nil
	}
	if err := checkLayout(v.items[markerItem], "the items of "+v.path()); err != nil {
		return err
	}
	v.owner, err = s.findOwner(ctx, v)
	return err
}

// rewrite changes the items of a job's variable and writes it if f changed
// anything; it deletes a variable in which f leaves nothing. When another client
// writes in between, it reads the variable and calls f again.
func (s *Secrets) rewrite(ctx context.Context, v *jobVariable, f func(items map[string]string) error) error {
	for attempt := 0; ; attempt++ {
		items := joined(v.items, nil)
		if err := f(items); err != nil {
			return err
		}
		if len(items) == len(v.items) && maps.Equal(items, v.items) {
			return nil
		}
		index, err := s.writeJob(ctx, v, items)
		switch {
		case err == nil:
			v.items, v.index = items, index
			return nil
		case !nomad.IsConflict(err) || attempt == 4:
			return fmt.Errorf("writing the variable of job %s: %w", v.id, err)
		}
		if perr := s.peekJob(ctx, v); perr != nil {
			return perr
		}
		if v.index > 0 && !s.owns(v) {
			return fmt.Errorf("writing the variable of job %s: %w", v.id, err)
		}
	}
}

// writeJob replaces the version of a job's variable that was read, or deletes it
// when there are no items, and returns its new index.
func (s *Secrets) writeJob(ctx context.Context, v *jobVariable, items map[string]string) (uint64, error) {
	namespace, region := v.places()
	w := &api.WriteOptions{Namespace: namespace, Region: region}
	if len(items) == 0 {
		return 0, variables.Delete(ctx, s.of(v.job), v.path(), v.index, w)
	}
	out, err := variables.Write(ctx, s.of(v.job), &api.Variable{Path: v.path(), Items: items, ModifyIndex: v.index}, w)
	if err != nil {
		return 0, err
	}
	return out.ModifyIndex, nil
}

// held reads the variables that jobs have and that are ours, also those of jobs
// that declare no secrets any more. It returns an error, before anything is
// written, for a job whose declared secrets another stack owns.
func (s *Secrets) held(ctx context.Context, jobs []render.Job) ([]*jobVariable, error) {
	vars, err := s.peekJobs(ctx, jobs)
	if err != nil {
		return nil, err
	}
	for _, v := range vars {
		if len(v.job.Secrets) > 0 && v.items[markerItem] != "" {
			if err := s.checkOwner(v); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(vars, func(v *jobVariable) bool { return !s.owns(v) }), nil
}

// refreshed is what refresh makes of the items of a variable.
func (m *master) refreshed(items map[string]string) map[string]string {
	out := maps.Clone(items)
	for name := range items {
		if value := m.items[name]; value != "" {
			out[name] = value
		}
	}
	return out
}

// fits returns an error where the values of m do not fit into the variables of
// jobs.
func (m *master) fits(vars []*jobVariable) error {
	for _, v := range vars {
		if err := checkSize("the secrets of job "+v.id, m.refreshed(v.items)); err != nil {
			return err
		}
	}
	return nil
}

// refresh gives the items that the variables of jobs have the values of the
// master and returns the IDs of the jobs whose variable was written. It adds and
// removes no items: the versions that run need them, whatever the stack's files
// declare by now.
func (s *Secrets) refresh(ctx context.Context, vars []*jobVariable, m *master) ([]string, error) {
	var mu sync.Mutex
	var written []string
	err := parallel.Each(len(vars), 8, func(i int) error {
		v, index := vars[i], vars[i].index
		err := s.rewrite(ctx, v, func(items map[string]string) error {
			if now := m.refreshed(items); !maps.Equal(items, now) {
				maps.Copy(items, now)
				items[ownerItem] = s.owner().item()
			}
			return nil
		})
		if err == nil && v.index != index {
			mu.Lock()
			written = append(written, v.id)
			mu.Unlock()
		}
		return err
	})
	slices.Sort(written)
	return written, err
}
