package record

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// SecretOwner is the stack and the environment that own the variable of a job.
type SecretOwner struct{ Stack, Environment string }

func (o SecretOwner) String() string {
	return fmt.Sprintf("stack %s (environment %s)", o.Stack, o.Environment)
}

// item is the owner as the item _owner holds it.
func (o SecretOwner) item() string { return PathName(o.Stack) + "/" + PathName(o.Environment) }

// parseOwner undoes SecretOwner.item. It reports false for a text that drover did not
// write.
func parseOwner(text string) (SecretOwner, bool) {
	name, env, ok := strings.Cut(text, "/")
	return SecretOwner{nameOf(name), nameOf(env)}, ok && name != "" && env != "" && !strings.Contains(env, "/")
}

// OwnerError is returned for a job whose secrets belong to another stack or
// another environment. Nothing was written.
type OwnerError struct {
	JobID       string
	Owner, Want SecretOwner
}

func (e *OwnerError) Error() string {
	move := fmt.Sprintf("drover move %s -e %s", e.Owner.Stack, e.Owner.Environment)
	if e.Owner.Stack != e.Want.Stack {
		move += " --to-name " + e.Want.Stack
	}
	if e.Owner.Environment != e.Want.Environment {
		move += " --to-env " + e.Want.Environment
	}
	mean := ""
	if e.Owner.Stack == e.Want.Stack {
		mean = "use `-e " + e.Owner.Environment + "`, "
	}
	return fmt.Sprintf("the secrets of job %s belong to %s, not to %s; %smove them with `%s`, or choose another job ID",
		e.JobID, e.Owner, e.Want, mean, move)
}

func (s *Secrets) owner() SecretOwner { return SecretOwner{s.stack, s.env} }

// checkOwner returns an *OwnerError for a variable of another stack or
// environment.
func (s *Secrets) checkOwner(v *jobVariable) error {
	if v.owner == s.owner() {
		return nil
	}
	return &OwnerError{JobID: v.id, Owner: v.owner, Want: s.owner()}
}

// findOwner reads the owner of a variable that drover made. The variables of
// older drovers do not name it: such a variable is ours when one of our releases
// names the job or no release of another stack does.
func (s *Secrets) findOwner(ctx context.Context, v *jobVariable) (SecretOwner, error) {
	if text := v.items[ownerItem]; text != "" {
		o, ok := parseOwner(text)
		if !ok {
			return o, fmt.Errorf("item %s of %s is not readable: %q", ownerItem, v.path(), text)
		}
		return o, nil
	}
	lines, err := s.recorded(ctx)
	if err != nil {
		return s.owner(), err
	}
	if slices.ContainsFunc(lines, func(l Service) bool {
		return l.JobID == v.id && (l.Namespace == "" || l.Namespace == v.namespace)
	}) {
		return s.owner(), nil
	}
	live := LiveJob{Namespace: v.namespace, ID: v.id}
	if c := s.of(v.job); c.Address() != s.client.Address() {
		live.Cluster = c.Address()
	}
	others, err := OpenReleases(s.client, s.stack, s.env).Owners(ctx, []LiveJob{live})
	if err != nil || others[0] == nil {
		return s.owner(), err
	}
	return SecretOwner{others[0].Stack, others[0].Environment}, nil
}

// ownLines are the lines of the stack's own releases, read at most once.
type ownLines struct {
	mu    sync.Mutex
	read  bool
	lines []Service
}

// recorded returns the lines of all releases of the stack that are kept.
func (s *Secrets) recorded(ctx context.Context) ([]Service, error) {
	s.own.mu.Lock()
	defer s.own.mu.Unlock()
	if s.own.read {
		return s.own.lines, nil
	}
	r := OpenReleases(s.client, s.stack, s.env)
	heads, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	var lines []Service
	for _, h := range heads {
		if h.State == Unreadable {
			continue
		}
		some, err := r.Services(ctx, h)
		if err != nil {
			return nil, err
		}
		lines = append(lines, some...)
	}
	s.own.read, s.own.lines = true, lines
	return lines, nil
}

// Move gives the secrets to another stack or environment: it copies the master,
// rewrites the owner in the variables of jobs, without touching what tasks read,
// and deletes the old master last. Jobs without a variable and variables that
// drover did not make are left alone. Move can be repeated after it was
// interrupted. The caller holds the locks of both stacks.
func (s *Secrets) Move(ctx context.Context, to *Secrets, jobs []render.Job) error {
	if to.owner() == s.owner() {
		return nil
	}
	vars, old, there, err := s.movable(ctx, to, jobs)
	if err != nil {
		return err
	}
	if old.index > 0 && there.index == 0 {
		there.items, there.info = old.items, old.info
		if err := to.write(ctx, there); err != nil {
			return err
		}
	}
	err = parallel.Each(len(vars), 8, func(i int) error {
		return s.rewrite(ctx, vars[i], func(items map[string]string) error {
			items[ownerItem] = to.owner().item()
			return nil
		})
	})
	if err != nil || old.index == 0 {
		return err
	}
	return s.deleteMaster(ctx, old)
}

// CheckMove returns the error with which Move would refuse to begin. It writes
// nothing.
func (s *Secrets) CheckMove(ctx context.Context, to *Secrets, jobs []render.Job) error {
	_, _, _, err := s.movable(ctx, to, jobs)
	return err
}

// movable returns the variables of jobs that a move changes, and both masters.
func (s *Secrets) movable(ctx context.Context, to *Secrets, jobs []render.Job) (vars []*jobVariable, old, there *master, err error) {
	if vars, err = s.peekJobs(ctx, jobs); err != nil {
		return nil, nil, nil, err
	}
	vars = slices.DeleteFunc(vars, func(v *jobVariable) bool {
		return v.items[markerItem] == "" || v.owner == to.owner()
	})
	for _, v := range vars {
		if err := s.checkOwner(v); err != nil {
			return nil, nil, nil, err
		}
	}
	if old, err = s.read(ctx); err != nil {
		return nil, nil, nil, err
	}
	if there, err = to.read(ctx); err != nil {
		return nil, nil, nil, err
	}
	if old.index > 0 && there.index > 0 && !maps.Equal(there.items, old.items) {
		return nil, nil, nil, fmt.Errorf("%s has other secrets already: nothing was moved; look at them with `drover secrets list %s -e %s`", to.owner(), to.stack, to.env)
	}
	return vars, old, there, nil
}
