package deploy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
)

// taken is a store whose lock another process holds the first time that it is
// asked for: meanwhile that process makes its own attempt.
type taken struct {
	acme.Backend
	attempt func()
}

func (b *taken) Lock(ctx context.Context, path string, ttl time.Duration) (acme.Lease, error) {
	if attempt := b.attempt; attempt != nil {
		b.attempt = nil
		attempt()
		return nil, acme.ErrLocked
	}
	return b.Backend.Lock(ctx, path, ttl)
}

// TestRenew_ByAnotherProcess: the CA is unreachable, and another process makes the
// attempt that was requested.
func TestRenew_ByAnotherProcess(t *testing.T) {
	t.Parallel()
	b := acme.Directory(t.TempDir())
	manager := func(b acme.Backend) *acme.Manager {
		m := acme.NewManager(acme.Config{
			Store: acme.NewStore(b), DefaultIssuer: "gone",
			Issuers: []acme.Issuer{{Name: "gone", Directory: "https://127.0.0.1:1/dir"}},
			Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: true}},
		})
		t.Cleanup(m.Close)
		return m
	}
	other := manager(b)
	if _, err := other.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	m := manager(&taken{Backend: b, attempt: func() {
		attempts++
		if _, err := other.Reconcile(t.Context(), "a"); err == nil {
			t.Error("issued without a CA")
		}
	}})
	r, err := Renew(t.Context(), m, "a")
	if attempts != 1 || r.Issued {
		t.Fatalf("got %d attempts of the other process, issued %v", attempts, r.Issued)
	}
	if err == nil || !strings.Contains(err.Error(), "a is not renewed") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want the failure of the other process", err)
	}
}
