package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Secrets keeps the secrets of a stack, and what each job has of them.
type Secrets struct {
	mu     sync.Mutex
	values map[string]string
	jobs   map[string]map[string]string // by target and job ID
}

var _ release.SecretStore = (*Secrets)(nil)

// NewSecrets returns secrets with these values, which may be nil.
func NewSecrets(values map[string]string) *Secrets {
	s := &Secrets{values: map[string]string{}, jobs: map[string]map[string]string{}}
	maps.Copy(s.values, values)
	return s
}

// Set gives a secret another value. Jobs keep theirs.
func (s *Secrets) Set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[name] = value
}

// Items returns the names of the items that a job has, in order.
func (s *Secrets) Items(target, jobID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.jobs[target+"/"+jobID]))
}

func of(j render.Job) string { return j.Target + "/" + *j.Job.ID }

// Reach implements release.SecretStore.
func (s *Secrets) Reach(map[string]release.Cluster) release.SecretStore { return s }

// Item implements release.SecretStore.
func (s *Secrets) Item(_ context.Context, name string) (secrets.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[name]
	if !ok {
		return secrets.Value{}, fmt.Errorf("%w: %q", record.ErrNotFound, name)
	}
	return secrets.NewValue(v), nil
}

// Lookup implements release.SecretStore.
func (s *Secrets) Lookup(_ context.Context, name string) (secrets.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return secrets.NewValue(s.values[name]), nil
}

// Redactor implements release.SecretStore.
func (s *Secrets) Redactor(context.Context) (func(string) string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.redactor(), nil
}

// redactor hides the present values. The caller holds mu.
func (s *Secrets) redactor() func(string) string {
	var values []secrets.Value
	for _, v := range s.values {
		values = append(values, secrets.NewValue(v))
	}
	return secrets.Redactor(values...)
}

// Preview implements release.SecretStore.
func (s *Secrets) Preview(_ context.Context, specs []*stack.Secret, jobs []render.Job) (*record.SecretChanges, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &record.SecretChanges{Redact: s.redactor()}
	for _, spec := range specs {
		switch _, has := s.values[spec.Name]; {
		case has:
		case spec.Type == stack.SecretGiven:
			out.Missing = append(out.Missing, spec.Name)
		default:
			out.Generated = append(out.Generated, spec.Name)
		}
	}
	for _, j := range jobs {
		c := record.JobSecrets{Service: j.Service, Target: j.Target, JobID: *j.Job.ID}
		if j.Job.Namespace != nil {
			c.Namespace = *j.Job.Namespace
		}
		has := s.jobs[of(j)]
		for _, item := range j.Secrets {
			switch value, ok := has[item]; {
			case !ok:
				c.Added = append(c.Added, item)
			case value != s.values[item]:
				c.Changed = append(c.Changed, item)
			}
		}
		for _, item := range slices.Sorted(maps.Keys(has)) {
			if !slices.Contains(j.Secrets, item) {
				c.Removed = append(c.Removed, item)
			}
		}
		if len(c.Added)+len(c.Changed)+len(c.Removed) > 0 {
			out.Jobs = append(out.Jobs, c)
		}
	}
	return out, nil
}

// Generate implements release.SecretStore. The value of a secret is its name.
func (s *Secrets) Generate(_ context.Context, specs []*stack.Secret) (record.Generated, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out record.Generated
	for _, spec := range specs {
		if _, has := s.values[spec.Name]; has {
			continue
		}
		if spec.Type == stack.SecretGiven {
			return record.Generated{}, &record.MissingError{Names: []string{spec.Name}}
		}
		s.values[spec.Name] = spec.Name
		out.Secrets = append(out.Secrets, spec.Name)
	}
	out.Redact = s.redactor()
	return out, nil
}

// Grow implements release.SecretStore.
func (s *Secrets) Grow(_ context.Context, jobs []render.Job) error {
	s.apply(jobs, func(has, reads map[string]string) map[string]string {
		out := maps.Clone(reads)
		maps.Copy(out, has)
		return out
	})
	return nil
}

// Publish implements release.SecretStore.
func (s *Secrets) Publish(_ context.Context, jobs []render.Job) ([]render.Job, error) {
	return s.apply(jobs, func(has, reads map[string]string) map[string]string {
		out := maps.Clone(has)
		maps.Copy(out, reads)
		return out
	}), nil
}

// Trim implements release.SecretStore.
func (s *Secrets) Trim(_ context.Context, jobs []render.Job) error {
	s.apply(jobs, func(_, reads map[string]string) map[string]string { return reads })
	return nil
}

// Purge implements release.SecretStore.
func (s *Secrets) Purge(_ context.Context, jobs []render.Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.values)
	for _, j := range jobs {
		delete(s.jobs, of(j))
	}
	return nil
}

func (s *Secrets) apply(jobs []render.Job, f func(has, reads map[string]string) map[string]string) []render.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var written []render.Job
	for _, j := range jobs {
		reads := map[string]string{}
		for _, item := range j.Secrets {
			reads[item] = s.values[item]
		}
		has := s.jobs[of(j)]
		if has == nil {
			has = map[string]string{}
		}
		if now := f(has, reads); !maps.Equal(now, has) {
			s.jobs[of(j)] = now
			written = append(written, j)
		}
	}
	return written
}
