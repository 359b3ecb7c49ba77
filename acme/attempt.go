package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-nomad/drover/secrets"
)

// issue tries the issuers of the spec one after the other. The caller holds the lock.
func (m *Manager) issue(ctx context.Context, o *Object, t todo) (*Object, error) {
	name, request := o.Spec.Name, o.Status.Request
	spec := o.Spec
	if len(spec.Issuers) == 0 {
		spec.Issuers = []string{m.c.DefaultIssuer}
	}
	if m.c.Permit != nil {
		if err := m.c.Permit(spec); err != nil {
			return m.hold(ctx, o, "it is not permitted", &PermitError{name, err})
		}
	}
	begun := false
	begin := func() {
		if !begun {
			m.event(Event{Kind: "issuing", Certificate: name, Names: o.Spec.Names, Text: "because " + t.why})
		}
		begun = true
	}
	// solver and proof are those of the CAs that speak ACME. proof is why the names
	// cannot be proven.
	var solver Solver
	var proof error
	var errs []error
	refused := false // another CA that speaks ACME would refuse, too
	for _, issuer := range spec.Issuers {
		if until := o.Status.NotBeforeAt[issuer]; until.After(m.now()) && !o.Status.ahead(m.now()) {
			errs = append(errs, &IssuerError{Issuer: issuer, Step: "waiting as it asked", Kind: KindRateLimited, RetryAfter: until, Err: errors.New("it is not asked before")})
			continue
		}
		var next *Object
		var got *issued
		i, s, err := m.signer(ctx, issuer)
		switch {
		case err != nil:
		case s != nil:
			begin()
			next, got, err = m.fromSigner(ctx, o, i, s)
		case proof != nil || refused:
			continue
		default:
			if solver == nil {
				if solver, err = m.solver(ctx, o.Spec); errors.Is(err, ErrElsewhere) {
					return o, fmt.Errorf("certificate %s: %w", name, err)
				}
				if proof = err; err == nil {
					begin()
					if o, proof, err = m.prepare(ctx, o, solver); err != nil {
						return o, err
					}
				}
				if ctx.Err() != nil {
					return o, ctx.Err()
				}
				if proof != nil {
					continue
				}
			}
			next, got, err = m.from(ctx, o, issuer, solver)
		}
		if next != nil { // otherwise the store could not be read
			o = next
		}
		if err == nil {
			return m.keep(ctx, o, request, issuer, got)
		}
		if ctx.Err() != nil {
			return o, ctx.Err()
		}
		errs = append(errs, err)
		var ie *IssuerError
		var terms *TermsError
		if !errors.As(err, &terms) && (!errors.As(err, &ie) || !ie.another()) {
			refused = true
			continue
		}
		if terms == nil || len(spec.Issuers) > 1 { // otherwise hold reports it
			m.event(Event{Kind: "warning", Certificate: name, Issuer: issuer, Text: err.Error()})
		}
	}
	var unsolvable *UnsolvableError
	switch {
	case errors.As(proof, &unsolvable) && len(errs) == 0:
		return m.hold(ctx, o, "it is due, and nothing here can prove its names", proof)
	case proof != nil:
		errs = append(errs, proof)
	case unaccepted(errs):
		return m.hold(ctx, o, "the terms of service of its CA are not accepted", errors.Join(errs...))
	}
	return m.failed(ctx, o, request, errors.Join(errs...))
}

// prepare removes what former attempts left behind, and looks whether the names can be
// proven: proof is why not.
func (m *Manager) prepare(ctx context.Context, o *Object, solver Solver) (_ *Object, proof, err error) {
	account, err := m.account(ctx)
	if err != nil {
		return o, nil, err
	}
	if err := m.c.Store.publish(ctx, account.Thumbprint); err != nil {
		return o, nil, err
	}
	o = m.tidy(ctx, o, solver)
	// The record of dns-persist-01 is known only when the CA has an order.
	if o.Status.Pending == nil && o.Spec.Challenge != DNSPersist01 {
		return o, solver.Check(ctx, o.Spec.Names, account.Thumbprint), nil
	}
	return o, nil, nil
}

// ErrElsewhere means that another process solves the challenge. A FindSolver returns
// it; Reconcile then changes nothing, so that the other process finds the
// request.
var ErrElsewhere = errors.New("the challenge is solved by another process")

// PermitError means that Config.Permit refuses a certificate. The certificate is held:
// no attempt is counted, and the issuance continues as soon as it is permitted.
type PermitError struct {
	Certificate string
	Err         error
}

func (e *PermitError) Error() string {
	return fmt.Sprintf("certificate %s is not permitted: %s", e.Certificate, e.Err)
}
func (e *PermitError) Unwrap() error { return e.Err }

// UnsolvableError means that no solver is configured for any challenge that the
// CA offers. The certificate is held: no attempt is counted, and the issuance
// continues as soon as there is a solver.
type UnsolvableError struct {
	Certificate string
	Challenge   string
	Err         error
}

func (e *UnsolvableError) Error() string {
	return fmt.Sprintf("certificate %s: nothing here can solve %s: %s", e.Certificate, e.Challenge, e.Err)
}
func (e *UnsolvableError) Unwrap() error { return e.Err }

// solver returns the solver of the challenge of a certificate.
func (m *Manager) solver(ctx context.Context, spec Spec) (Solver, error) {
	if s := m.c.Solvers[spec.Challenge]; s != nil {
		return s, nil
	}
	err := errors.New("a DNS provider is needed, from the dns block of a stack")
	if m.c.FindSolver != nil {
		var s Solver
		if s, err = m.c.FindSolver(ctx, spec); err == nil {
			return s, nil
		}
		if errors.Is(err, ErrElsewhere) {
			return nil, err
		}
	}
	return nil, &UnsolvableError{spec.Name, spec.Challenge, err}
}

// hold records, once, why a certificate cannot be ordered.
func (m *Manager) hold(ctx context.Context, o *Object, reason string, cause error) (*Object, error) {
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	if o.Status.LastError == cause.Error() {
		return o, cause
	}
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		o.Status.Phase, o.Status.Reason = keepUnusable(o.Status.Phase, Held), reason
		o.Status.LastError = cause.Error()
		return nil
	})
	m.event(Event{Kind: "held", Certificate: o.Spec.Name, Names: o.Spec.Names, Text: cause.Error()})
	if err != nil {
		return o, errors.Join(cause, err)
	}
	return out, cause
}

// tidy removes the records that former attempts could not remove.
func (m *Manager) tidy(ctx context.Context, o *Object, solver Solver) *Object {
	var gone []Record
	for _, l := range o.Status.Leftovers {
		if solver.Remove(ctx, l) == nil {
			gone = append(gone, l)
		}
	}
	if len(gone) == 0 {
		return o
	}
	if next, err := m.dropRecords(ctx, o.Spec.Name, gone); err == nil {
		return next
	}
	return o
}

// placed returns a function that stores which records are about to be written.
func (m *Manager) placed(name string) func(context.Context, []Record) error {
	return func(ctx context.Context, records []Record) error {
		_, err := m.c.Store.Update(ctx, name, func(o *Object) error {
			for _, r := range records {
				if !slices.Contains(o.Status.Leftovers, r) {
					o.Status.Leftovers = append(o.Status.Leftovers, r)
				}
			}
			return nil
		})
		return err
	}
}

// removed returns a function that forgets records that were removed.
func (m *Manager) removed(name string) func(context.Context, []Record, []error) {
	return func(ctx context.Context, records []Record, failed []error) {
		for _, err := range failed {
			m.event(Event{Kind: "warning", Certificate: name, Text: err.Error()})
		}
		if len(records) > 0 {
			_, _ = m.dropRecords(ctx, name, records) // on an error, tidy removes them before the next attempt
		}
	}
}

func (m *Manager) dropRecords(ctx context.Context, name string, records []Record) (*Object, error) {
	return m.c.Store.Update(ctx, name, func(o *Object) error {
		o.Status.Leftovers = slices.DeleteFunc(o.Status.Leftovers, func(r Record) bool { return slices.Contains(records, r) })
		return nil
	})
}

// failed records a failed attempt. request is the number of the last request when
// the attempt began.
func (m *Manager) failed(ctx context.Context, o *Object, request int, cause error) (*Object, error) {
	now := m.now()
	ctx = context.WithoutCancel(ctx)
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		st := &o.Status
		if st.ahead(now) {
			st.NotBeforeAt = nil
		}
		st.LastAttempt, st.LastError = now, cause.Error()
		st.answer(request)
		var held *HeldError
		if errors.As(cause, &held) {
			st.Phase, st.Reason, st.NextAttempt = keepUnusable(st.Phase, Held), "too many orders for the same names within a day", held.Until
			return nil
		}
		st.Attempts++
		st.NextAttempt = now.Add(jitter(st.retryAfter(st.Attempts, now.Add(-o.skew(now))))).Truncate(time.Second)
		st.Phase = keepUnusable(st.Phase, Failing)
		st.Reason = fmt.Sprintf("the last %d attempts failed", st.Attempts)
		if st.Attempts == 1 {
			st.Reason = "the last attempt failed"
		}
		// If all issuers ask for a pause, the next attempt waits for the shortest.
		var first time.Time
		all := issuerErrors(cause)
		for n, e := range all {
			if !e.RetryAfter.After(now) {
				first = now
				continue
			}
			if st.NotBeforeAt == nil {
				st.NotBeforeAt = map[string]time.Time{}
			}
			st.NotBeforeAt[e.Issuer] = e.RetryAfter
			if n == 0 || e.RetryAfter.Before(first) {
				first = e.RetryAfter
			}
		}
		if first.After(st.NextAttempt) {
			st.NextAttempt = first
		}
		return nil
	})
	kind := "failed"
	if out != nil && out.Status.Phase == Held {
		kind = "held"
	}
	m.event(Event{Kind: kind, Certificate: o.Spec.Name, Names: o.Spec.Names, Text: cause.Error()})
	if err != nil {
		return o, errors.Join(cause, err)
	}
	return out, cause
}

// keepUnusable returns now if it marks a certificate that must not be trusted,
// and next otherwise.
func keepUnusable(now, next Phase) Phase {
	if now == Temporary || now == Revoked {
		return now
	}
	return next
}

func issuerErrors(err error) []*IssuerError {
	var out []*IssuerError
	var visit func(error)
	visit = func(err error) {
		var e *IssuerError
		switch x := err.(type) { //nolint:errorlint // walks the tree itself
		case interface{ Unwrap() []error }:
			for _, sub := range x.Unwrap() {
				visit(sub)
			}
		default:
			if errors.As(err, &e) {
				out = append(out, e)
			}
		}
	}
	visit(err)
	return out
}

// keep stores a certificate. request is as in failed.
func (m *Manager) keep(ctx context.Context, o *Object, request int, issuer string, got *issued) (*Object, error) {
	// The certificate exists now: it is stored even if the caller is cancelled.
	ctx = context.WithoutCancel(ctx)
	now := m.now()
	key := o.pendingKey
	chain := got.chain
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(cur *Object) error {
		if cur.Status.Pending == nil || o.Status.Pending == nil || cur.Status.Pending.Order != o.Status.Pending.Order {
			return fmt.Errorf("certificate %s: %w", o.Spec.Name, ErrConflict)
		}
		st := &cur.Status
		cur.Chain, cur.Key, cur.pendingKey = chain, key, secrets.Value{}
		*st = Status{
			Phase: Issued, Reason: "stored; not yet checked whether it is served", Issuer: issuer, Directory: o.Status.Pending.Directory, CertURL: got.url,
			Serial: serialOf(got.leaf), NotBefore: got.leaf.NotBefore.UTC(), NotAfter: got.leaf.NotAfter.UTC(), IssuedAt: now,
			ARI: got.ari, LastAttempt: now, Orders: counted(st.Orders, now), Replacements: counted(st.Replacements, now), Leftovers: st.Leftovers, ServedAs: st.ServedAs, ServedSeen: st.ServedSeen,
			Forced: st.Forced, Request: st.Request,
		}
		st.answer(request)
		st.skipEdge(cur.Spec)
		if got.skew.Abs() > time.Hour {
			st.ClockSkew = got.skew
		}
		st.plan(got.leaf, early())
		return nil
	})
	if err != nil {
		return o, fmt.Errorf("cannot store certificate %s; the CA still has it and drover will fetch it again: %w", o.Spec.Name, err)
	}
	if out.Status.ClockSkew != 0 {
		m.event(Event{Kind: "warning", Certificate: o.Spec.Name, Issuer: issuer,
			Text: fmt.Sprintf("the clock of this host is %s off the CA's", out.Status.ClockSkew)})
	}
	m.event(Event{Kind: "issued", Certificate: o.Spec.Name, Names: o.Spec.Names, Issuer: issuer, Serial: out.Status.Serial, Requests: got.requests,
		Text: "valid until " + out.Status.NotAfter.Format(time.RFC3339)})
	return out, nil
}
