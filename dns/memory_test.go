package dns

import (
	"context"
	"sync"
)

// MemoryStore is a Store in memory. The zero value is empty.
type MemoryStore struct {
	mu   sync.Mutex
	data map[string]Ownership
}

// Load implements [Store].
func (s *MemoryStore) Load(_ context.Context, owner string) (Ownership, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[owner].clone(), nil
}

// Save implements [Store].
func (s *MemoryStore) Save(_ context.Context, owner string, o Ownership) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data[owner].Index != o.Index {
		return 0, ErrChanged
	}
	if s.data == nil {
		s.data = map[string]Ownership{}
	}
	o = o.clone()
	o.Index++
	s.data[owner] = o
	return o.Index, nil
}

// Others implements [Store].
func (s *MemoryStore) Others(_ context.Context, owner, place string) (map[Key]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[Key]string{}
	for name, o := range s.data {
		if name == owner {
			continue
		}
		for key, c := range o.Claims {
			if c.Pending == "" && samePlace(c.Place, place) {
				out[key] = name
			}
		}
	}
	return out, nil
}
