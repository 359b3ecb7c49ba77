package acme

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"
)

// oneObject is a Backend that holds one arbitrary object.
type oneObject struct {
	Backend
	items Items
}

func (*oneObject) Name() string { return "fuzz" }

func (b *oneObject) Get(context.Context, string) (Items, string, error) {
	return maps.Clone(b.items), "1", nil
}

func (b *oneObject) Put(_ context.Context, _ string, items Items, _ string) (string, error) {
	b.items = maps.Clone(items)
	return "2", nil
}

// An object of the store is read or refused, whatever is in it; what was
// read and written again is the same.
func FuzzObject(f *testing.F) {
	chain, key, err := SelfSigned([]string{"example.org", "192.0.2.1"}, time.Unix(1700000000, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("1", `{"name":"public","names":["example.org"]}`, `{"attempts":3}`, chain, key, "")
	f.Add("2", `{}`, `{}`, "", "", key)
	f.Add("1", `{"name":"../x"}`, `null`, "-----BEGIN CERTIFICATE-----\n", "x", "y")
	f.Fuzz(func(t *testing.T, layout, spec, status, chain, key, pending string) {
		b := &oneObject{items: Items{itemLayout: layout, itemSpec: spec, itemStatus: status, ItemChain: chain, ItemKey: key, itemNext: pending}}
		s := NewStore(b)
		o, err := s.Get(t.Context(), "public")
		if err != nil {
			var broken *StoreError
			if !errors.As(err, &broken) {
				t.Errorf("%v is no StoreError", err)
			}
			return
		}
		// Commands and the controller call these first.
		Attention(o, time.Unix(1700000000, 0))
		if err := s.Put(t.Context(), o); err != nil {
			return // what JSON cannot say: a year over 9999
		}
		first := b.items
		o, err = s.Get(t.Context(), "public")
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if err := s.Put(t.Context(), o); err != nil || !maps.Equal(first, b.items) {
			t.Errorf("written again it differs (%v):\n%q\n%q", err, first, b.items)
		}
	})
}
