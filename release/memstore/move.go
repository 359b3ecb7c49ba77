package memstore

import (
	"context"
	"fmt"
	"maps"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
)

// move is a move of the releases of a store to another one.
type move struct {
	record.MovePlan

	from, to  *Store
	committed bool // the newest release is in the new store
}

// PlanMove implements release.Store.
func (s *Store) PlanMove(ctx context.Context, to release.Store) (release.Move, error) {
	other, ok := to.(*Store)
	if !ok {
		return nil, release.ErrOtherStore
	}
	m := &move{from: s, to: other}
	var err error
	if m.Heads, err = s.List(ctx); err != nil {
		return nil, err
	}
	m.Releases = len(m.Heads)
	if len(m.Heads) > 0 {
		if m.Resumed, err = record.CheckMove(m.Heads[0], record.MoveName(other.stack, other.env)); err != nil {
			return nil, err
		}
	}
	there, err := other.List(ctx)
	if err != nil {
		return nil, err
	}
	if len(there) > 0 && !m.Resumed {
		return nil, &record.InUseError{Stack: other.stack, Environment: other.env, Has: fmt.Sprint("release ", there[0].Number)}
	}
	lines := s
	if m.committed = len(there) > 0 && there[0].Number == m.Heads[0].Number; m.committed {
		m.Heads, lines = there, other
	}
	for _, h := range m.Heads {
		some, err := lines.Services(ctx, h)
		if err != nil {
			return nil, err
		}
		m.Lines = append(m.Lines, some...)
	}
	return m, nil
}

func (m *move) Plan() record.MovePlan { return m.MovePlan }

// Copy implements release.Move.
func (m *move) Copy(ctx context.Context) error {
	if m.committed || len(m.Heads) == 0 {
		return nil
	}
	newest := m.Heads[0]
	if newest.MovedTo == "" {
		newest.MovedTo = record.MoveName(m.to.stack, m.to.env)
		if err := m.from.Save(ctx, newest); err != nil {
			return err
		}
	}
	if err := m.to.intercept(ctx, "Copy"); err != nil {
		return err
	}
	m.from.mu.Lock()
	blobs := maps.Clone(m.from.blobs)
	m.from.mu.Unlock()
	m.to.mu.Lock()
	maps.Copy(m.to.blobs, blobs)
	m.to.mu.Unlock()
	for _, h := range m.Heads[1:] {
		if err := m.copy(h); err != nil {
			return err
		}
	}
	return nil
}

// copy writes a release to the new store, under its name.
func (m *move) copy(h *record.Release) error {
	head := *h
	head.Stack, head.Environment, head.MovedTo = m.to.stack, m.to.env, ""
	m.from.mu.Lock()
	old := m.from.releases[h.Number]
	m.from.mu.Unlock()
	m.to.mu.Lock()
	defer m.to.mu.Unlock()
	st := *old
	st.head, st.revision = encode(&head), m.to.announce()
	m.to.releases[h.Number] = &st
	return nil
}

// Commit implements release.Move.
func (m *move) Commit(ctx context.Context) error {
	if m.committed || len(m.Heads) == 0 {
		return nil
	}
	if err := m.to.intercept(ctx, "Commit"); err != nil {
		return err
	}
	m.committed = true
	return m.copy(m.Heads[0])
}

// Finish implements release.Move.
func (m *move) Finish(ctx context.Context) error { return m.from.Purge(ctx) }

// Any implements release.SecretStore.
func (s *Secrets) Any(context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values) > 0, nil
}

// CheckMove implements release.SecretStore.
func (s *Secrets) CheckMove(_ context.Context, to release.SecretStore, _ []render.Job) error {
	other, ok := to.(*Secrets)
	if !ok {
		return release.ErrOtherStore
	}
	values, _ := s.contents()
	if there, _ := other.contents(); len(values) > 0 && len(there) > 0 && !maps.Equal(values, there) {
		return fmt.Errorf("the new name has other secrets already: nothing was moved")
	}
	return nil
}

// Move implements release.SecretStore.
func (s *Secrets) Move(ctx context.Context, to release.SecretStore, jobs []render.Job) error {
	if err := s.CheckMove(ctx, to, jobs); err != nil {
		return err
	}
	values, items := s.contents()
	other := to.(*Secrets) //nolint:forcetypeassert // CheckMove has looked
	other.mu.Lock()
	maps.Copy(other.values, values)
	maps.Copy(other.jobs, items)
	other.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.values)
	clear(s.jobs)
	return nil
}

// contents returns copies of the values, and of what each job has of them.
func (s *Secrets) contents() (values map[string]string, jobs map[string]map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.values), maps.Clone(s.jobs)
}
