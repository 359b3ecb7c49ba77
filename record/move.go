package record

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
)

// A move gives the releases of a stack and environment to another name. It can
// be interrupted anywhere and repeated:
//
//  1. The newest head of the old record says where it moves to. From then on
//     nothing but the same move takes the old lock.
//  2. Everything but the newest head is copied. Until that is there, a deploy
//     under the new name finds the jobs to be the old one's.
//  3. The newest head is copied: the new record owns the jobs.
//  4. The old record is deleted, its newest head last.

// MovedError is returned for a record that is on its way to another name.
type MovedError struct {
	Stack, Environment string
	To                 string // STACK/ENVIRONMENT, each as PathName writes it
}

func (e *MovedError) Error() string {
	name, env, _ := strings.Cut(e.To, "/")
	cmd := fmt.Sprintf("drover move %s -e %s", e.Stack, e.Environment)
	if to := nameOf(env); to != e.Environment {
		cmd += " --to-env " + to
	}
	if to := nameOf(name); to != e.Stack {
		cmd += " --to-name " + to
	}
	return fmt.Sprintf("the move of stack %s (environment %s) to stack %s (environment %s) was interrupted; finish it with `%s`",
		e.Stack, e.Environment, nameOf(name), nameOf(env), cmd)
}

// MoveError returns a *MovedError if a move of the record has begun.
func (r *Release) MoveError() error {
	if r.MovedTo == "" {
		return nil
	}
	return &MovedError{r.Stack, r.Environment, r.MovedTo}
}

// MovePlan is what a move of releases has found.
type MovePlan struct {
	Releases int       // that are moved
	Lines    []Service // of all releases that can be read, the newest first
	Heads    []*Release
	Resumed  bool // an earlier move was interrupted
}

// Move is a move of releases under way. The caller holds the locks of both
// records.
type Move struct {
	MovePlan

	from, to  *Releases
	committed bool // the new record is complete
}

// Plan returns what was found before anything was written.
func (m *Move) Plan() MovePlan { return m.MovePlan }

// MoveName is the name of a record as Release.MovedTo has it.
func MoveName(stackName, env string) string { return PathName(stackName) + "/" + PathName(env) }

func (r *Releases) pathName() string { return MoveName(r.stack, r.env) }

// CheckMove returns an error if a record whose newest release is newest cannot move to
// the name to. It reports whether the same move was interrupted.
func CheckMove(newest *Release, to string) (resumed bool, err error) {
	switch {
	case newest.State == Unreadable:
		return false, errors.New(newest.Detail)
	case newest.MovedTo == to:
		return true, nil
	case newest.MovedTo != "":
		return false, newest.MoveError()
	case newest.State.Open():
		return false, fmt.Errorf("cannot move stack %s (environment %s): release %d is %s; finish it first", newest.Stack, newest.Environment, newest.Number, newest.State)
	}
	return false, nil
}

// InUseError reports that a record cannot move to a name that is in use.
type InUseError struct {
	Stack, Environment string
	Has                string // what is there, such as releases/000001
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("cannot move to stack %s (environment %s): it has %s already; destroy it with --purge secrets,history first, or choose another name",
		e.Stack, e.Environment, e.Has)
}

// paths lists the variables of the record but its lock.
func (r *Releases) paths(ctx context.Context) ([]string, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/", (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, r.client, r.folder)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the variables of stack %s: %w", r.stack, err)
	}
	var out []string
	for _, v := range list {
		if v.Path != r.lockPath() {
			out = append(out, v.Path)
		}
	}
	return out, nil
}

// PlanMove looks whether the releases can move, and writes nothing. The target
// must be empty, unless the same move was interrupted.
func (r *Releases) PlanMove(ctx context.Context, to *Releases) (*Move, error) {
	m := &Move{from: r, to: to}
	var err error
	if m.Heads, err = r.List(ctx); err != nil {
		return nil, err
	}
	m.Releases = len(m.Heads)
	if len(m.Heads) > 0 {
		if m.Resumed, err = CheckMove(m.Heads[0], to.pathName()); err != nil {
			return nil, err
		}
	}
	there, err := to.paths(ctx)
	if err != nil {
		return nil, err
	}
	if !m.Resumed {
		if i := slices.IndexFunc(there, func(p string) bool {
			// Secrets without a release are compared by Secrets.Move.
			return len(m.Heads) > 0 || p != to.folder+"/secrets" && !strings.HasPrefix(p, to.folder+"/schedules/")
		}); i >= 0 {
			return nil, &InUseError{to.stack, to.env, strings.TrimPrefix(there[i], to.folder+"/")}
		}
	}
	if len(m.Heads) > 0 {
		m.committed = slices.Contains(there, to.headPath(m.Heads[0].Number))
	}
	return m, m.readLines(ctx)
}

// readLines reads the lines of all releases: those of the new record once it is
// complete, since the old one may be half deleted.
func (m *Move) readLines(ctx context.Context) error {
	from := m.from
	if m.committed {
		from = m.to
		var err error
		if m.Heads, err = from.List(ctx); err != nil {
			return err
		}
	}
	for i, h := range m.Heads {
		lines, err := from.Services(ctx, h)
		var broken *UnreadableError
		if errors.As(err, &broken) && i > 0 {
			continue // an old release, which is moved as it is
		}
		if err != nil {
			return err
		}
		m.Lines = append(m.Lines, lines...)
	}
	return nil
}

// Copy writes everything of the releases but the newest head to the new record.
func (m *Move) Copy(ctx context.Context) error {
	if m.committed || len(m.Heads) == 0 {
		return nil
	}
	newest := m.Heads[0]
	if newest.MovedTo == "" {
		newest.MovedTo = m.to.pathName()
		if err := m.from.Save(ctx, newest); err != nil {
			return err
		}
	}
	paths, err := m.from.paths(ctx)
	if err != nil {
		return err
	}
	heads := map[string]*Release{}
	for _, h := range m.Heads {
		heads[m.from.headPath(h.Number)] = h
	}
	var copies []string
	for _, p := range paths {
		if !m.elsewhere(p) && heads[p] == nil {
			copies = append(copies, p)
		}
	}
	err = parallel.Each(len(copies), 8, func(i int) error { return m.copyVariable(ctx, copies[i]) })
	if err != nil {
		return err
	}
	older := m.Heads[1:]
	return parallel.Each(len(older), 8, func(i int) error { return m.copyHead(ctx, older[i]) })
}

// elsewhere reports whether a variable of the old record is moved by others:
// Secrets.Move, and package schedule.
func (m *Move) elsewhere(path string) bool {
	rest := strings.TrimPrefix(path, m.from.folder+"/")
	return rest == "secrets" || strings.HasPrefix(rest, "schedules/")
}

// copyVariable copies one variable as it is.
func (m *Move) copyVariable(ctx context.Context, path string) error {
	v, _, err := m.from.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if v == nil {
		return nil
	}
	return m.create(ctx, m.to.folder+strings.TrimPrefix(path, m.from.folder), v.Items)
}

// create writes a variable of the new record, unless it is there already.
func (m *Move) create(ctx context.Context, path string, items map[string]string) error {
	_, err := m.to.put(ctx, path, maps.Clone(items), 0)
	if errors.Is(err, ErrTakenOver) {
		there, _, rerr := m.to.client.Variables().Peek(path, (&api.QueryOptions{}).WithContext(ctx))
		if rerr == nil && there != nil && maps.Equal(map[string]string(there.Items), items) {
			return nil
		}
		err = errors.Join(fmt.Errorf("it has other content"), rerr)
	}
	if err != nil {
		return fmt.Errorf("copying to %s: %w", path, err)
	}
	return nil
}

// copyHead copies a head under the new name. One that cannot be read is copied
// as it is.
func (m *Move) copyHead(ctx context.Context, h *Release) error {
	if h.State == Unreadable {
		return m.copyVariable(ctx, m.from.headPath(h.Number))
	}
	out := *h
	out.Stack, out.Environment, out.MovedTo, out.index = m.to.stack, m.to.env, "", 0
	items, err := headItems(&out)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", m.to.what(h.Number), err)
	}
	return m.create(ctx, m.to.headPath(h.Number), items)
}

// Commit writes the newest head: from then on the new record owns the jobs.
func (m *Move) Commit(ctx context.Context) error {
	if m.committed || len(m.Heads) == 0 {
		return nil
	}
	if err := m.copyHead(ctx, m.Heads[0]); err != nil {
		return err
	}
	m.committed = true
	return nil
}

// Finish deletes what is left of the old record, its newest head last.
func (m *Move) Finish(ctx context.Context) error {
	paths, err := m.from.paths(ctx)
	if err != nil {
		return err
	}
	newest := 0
	for _, p := range paths {
		if n, err := strconv.Atoi(strings.TrimPrefix(p, m.from.folder+"/releases/")); err == nil {
			newest = max(newest, n)
		}
	}
	last := m.from.headPath(newest)
	rest := slices.DeleteFunc(paths, func(p string) bool { return p == last || m.elsewhere(p) })
	remove := func(path string) error {
		if err := variables.Delete(ctx, m.from.client, path, 0, &api.WriteOptions{}); err != nil {
			return fmt.Errorf("deleting %s: %w", path, err)
		}
		return nil
	}
	if err := parallel.Each(len(rest), 8, func(i int) error { return remove(rest[i]) }); err != nil || newest == 0 {
		return err
	}
	return remove(last)
}
