package deploy

import (
	"context"
	"errors"
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

func TestIssuing_With(t *testing.T) {
	t.Parallel()
	const (
		provider   = "dns {\n  provider = \"powerdns\"\n  server = \"http://127.0.0.1:1\"\n  zones = [\"example.org\"]\n}\n"
		secret     = "secret \"key\" {\n  type = \"given\"\n}\ndns {\n  provider = \"powerdns\"\n  server = \"http://127.0.0.1:1\"\n  zones = [\"example.org\"]\n  credential_secret = \"key\"\n}\n"
		persistent = "certificate \"a\" {\n  names = [\"a.example.org\"]\n  challenge = \"dns-persist-01\"\n}\n"
	)
	done := func(context.Context, *acme.Manager) error { return nil }
	for name, c := range map[string]struct {
		stack   string // "" for none
		environ []string
		change  func(*Issuing)
		f       func(context.Context, *acme.Manager) error
		class   Class
		want    string // in the error, "" for none
	}{
		"without a stack":                                {f: done},
		"a stack without a provider":                     {stack: "\n", f: done},
		"a provider with its credential":                 {stack: provider, environ: []string{"PDNS_API_KEY=key"}, f: done},
		"a provider without its credential":              {stack: provider, f: done, class: ClassInvalid, want: "PDNS_API_KEY"},
		"a credential that dns-persist-01 does not need": {stack: provider + persistent, f: done},
		"a credential that is no secret yet":             {stack: secret, f: done, class: ClassInvalid, want: "drover secrets set shop key"},
		"an address that cannot be listened at":          {f: done, change: func(i *Issuing) { i.Listen = "192.0.2.1:80" }, class: ClassInvalid, want: "--http"},
		"a lock of another process":                      {f: func(context.Context, *acme.Manager) error { return acme.ErrLocked }, class: ClassOther, want: "drover cert status"},
		"the end of the time": {
			change: func(i *Issuing) { i.Timeout = time.Millisecond }, class: ClassOther, want: "--timeout 1ms",
			f: func(ctx context.Context, _ *acme.Manager) error { <-ctx.Done(); return ctx.Err() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.home.Environ = c.environ
			i := Issuing{Home: &w.home, Store: acme.Directory(t.TempDir()), Timeout: time.Minute, Events: func(acme.Event) {}}
			if c.stack != "" {
				w.write("stack.hcl", "stack \"shop\" {}\n"+c.stack)
				source := Source{Path: w.dir}
				var err error
				if i.Stack, err = source.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if c.change != nil {
				c.change(&i)
			}
			called := false
			err := i.With(t.Context(), func(ctx context.Context, m *acme.Manager) error {
				called = true
				return c.f(ctx, m)
			})
			if c.want == "" && (err != nil || !called) {
				t.Errorf("got %v, called %v; want no error and a call", err, called)
			}
			if c.want != "" && (!strings.Contains(message(err), c.want) || ClassOf(err) != c.class) {
				t.Errorf("got %v of class %v, want class %v and %q", err, ClassOf(err), c.class, c.want)
			}
		})
	}
}

func TestUntilIssued_SaysWhyThereIsNone(t *testing.T) {
	t.Parallel()
	store := acme.NewStore(acme.Directory(t.TempDir()))
	m := acme.NewManager(acme.Config{
		Store: store, DefaultIssuer: "gone", Issuers: []acme.Issuer{{Name: "gone", Directory: "https://127.0.0.1:1/dir"}},
		Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: true}},
	})
	t.Cleanup(m.Close)
	if _, err := UntilIssued(t.Context(), store, "a", ""); !errors.Is(err, acme.ErrNotFound) {
		t.Errorf("no certificate: got %v, want acme.ErrNotFound", err)
	}
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := UntilIssued(ended, store, "a", ""); err == nil || !strings.Contains(err.Error(), "no controller runs") {
		t.Errorf("no attempt: got %v, want that no controller runs", err)
	}
	if _, err := m.Reconcile(t.Context(), "a"); err == nil {
		t.Fatal("issued without a CA")
	}
	if _, err := UntilIssued(ended, store, "a", ""); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a failed attempt: got %v, want its failure", err)
	}
}
