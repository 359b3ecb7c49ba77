package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/record"
)

// Clock is the time that decisions are made by. How long a CA is waited for
// is measured by the real one.
type Clock interface {
	Now() time.Time
	// After is time.After.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Config of a Manager. Only Store is required.
type Config struct {
	Store *Store
	// Issuers are known by name beside those that the store has, which a spec
	// asked for before, and Let's Encrypt's.
	Issuers []Issuer
	// DefaultIssuer is for specs that name none; letsencrypt when empty.
	DefaultIssuer string
	// Solvers by challenge; Stateless for http-01 when it has none.
	Solvers map[string]Solver
	// FindSolver is asked at each issuance for a challenge that Solvers has
	// not. Its error is what a certificate is held with; see [UnsolvableError].
	FindSolver func(context.Context, Spec) (Solver, error)
	Clock      Clock // the system's when nil
	// Events are told as they happen, from several goroutines.
	Events func(Event)
	// Requests are told one by one, for metrics.
	Requests func(Request)
	// Logger gets the debug output of the protocol; it may be nil.
	Logger *slog.Logger
	// LockTTL is how long a manager that died keeps others out; 15 s when 0.
	LockTTL time.Duration
	// RequestTimeout ends one request to a CA; 30 s when 0.
	RequestTimeout time.Duration
	// OrderTimeout ends the wait for a CA to check names, and the one for it to
	// issue; 3 min when 0. The next attempt goes on with the order.
	OrderTimeout time.Duration
	// Transport replaces HTTPS to the CA, in tests.
	Transport http.RoundTripper
	// Parallel is how many certificates are issued at once; 8 when 0.
	Parallel int
}

// Event is something that was done or that failed.
type Event struct {
	Time        time.Time `json:"time"`
	Kind        string    `json:"kind"` // issuing, ordered, issued, failed, held, renewal-info, temporary, revoked, registered, rolled-over, warning
	Certificate string    `json:"certificate,omitempty"`
	Names       []string  `json:"names,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	Account     string    `json:"account,omitempty"`
	Serial      string    `json:"serial,omitempty"`
	Requests    int       `json:"requests,omitempty"` // to the CA
	Text        string    `json:"text"`
}

// Manager issues and renews what is in a store. Several, also in several
// processes, may work on one store.
type Manager struct {
	c     Config
	clock Clock

	mu  sync.Mutex
	cas map[string]*ca // by directory URL
	// unwritten are the attempts that the store did not take, and those that
	// nothing here can solve, by certificate: the only backoff that a restart
	// ends.
	unwritten map[string]pause
	// locked is since when somebody else holds the lock, by certificate; zero
	// when that was told.
	locked map[string]time.Time
}

type pause struct {
	times int
	until time.Time
}

// NewManager makes no request.
func NewManager(c Config) *Manager {
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.DefaultIssuer == "" {
		c.DefaultIssuer = IssuerLetsEncrypt
	}
	if c.LockTTL == 0 {
		c.LockTTL = 15 * time.Second
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 30 * time.Second
	}
	if c.OrderTimeout == 0 {
		c.OrderTimeout = 3 * time.Minute
	}
	if c.Parallel == 0 {
		c.Parallel = 8
	}
	solvers := map[string]Solver{HTTP01: Stateless{}}
	for k, v := range c.Solvers {
		solvers[k] = v
	}
	c.Solvers = solvers
	return &Manager{c: c, clock: c.Clock, cas: map[string]*ca{}, unwritten: map[string]pause{}, locked: map[string]time.Time{}}
}

// Close drops idle connections.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.cas {
		c.close()
	}
}

func (m *Manager) now() time.Time { return m.clock.Now().UTC().Truncate(time.Millisecond) }

func (m *Manager) event(e Event) {
	if m.c.Events != nil {
		e.Time = m.now()
		m.c.Events(e)
	}
}

// Apply stores what a certificate is wanted to be, with a self-signed
// stand-in until there is one. It asks no CA.
func (m *Manager) Apply(ctx context.Context, spec Spec) (*Object, error) {
	spec, err := spec.Normalize()
	if err != nil {
		return nil, err
	}
	if len(spec.Issuers) == 0 {
		spec.Issuers = []string{m.c.DefaultIssuer}
	}
	if err := m.rememberIssuers(ctx, spec); err != nil {
		return nil, err
	}
	var o *Object
	err = contend(ctx, func() (write func() error, err error) {
		o, err = m.c.Store.Get(ctx, spec.Name)
		if errors.Is(err, ErrNotFound) {
			o = &Object{}
		} else if err != nil {
			return nil, err
		}
		if o.version != "" && specEqual(o.Spec, spec) && o.Chain != "" {
			return nil, nil
		}
		if nameSet(o.Spec.Names) != nameSet(spec.Names) || !slices.Equal(o.Spec.Issuers, spec.Issuers) {
			// Another question: the failures of the former one do not count.
			o.Status.Forced = o.Status.Forced || o.Status.Phase == Revoked && o.Status.wanted()
			o.Status.Attempts, o.Status.NextAttempt, o.Status.LastError = 0, time.Time{}, ""
		}
		if o.Status.Pending != nil && !orderedAlike(o.Spec, spec) {
			o.Status.Pending, o.pendingKey = nil, record.Value{} // an order for something else
		}
		o.Spec = spec
		if o.Chain == "" {
			chain, key, err := SelfSigned(spec.Names, m.now())
			if err != nil {
				return nil, err
			}
			o.Chain, o.Key = chain, record.NewValue(key)
			leaf := pki.First(chain)
			o.Status.Phase, o.Status.Reason = Temporary, "no CA has issued it yet"
			o.Status.Serial, o.Status.NotBefore, o.Status.NotAfter = serialOf(leaf), leaf.NotBefore, leaf.NotAfter
			m.event(Event{Kind: "temporary", Certificate: spec.Name, Names: spec.Names, Serial: o.Status.Serial, Text: "self-signed until a CA has issued"})
		}
		return func() error { return m.c.Store.Put(ctx, o) }, nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// orderedAlike says that an order for a will do for b.
func orderedAlike(a, b Spec) bool {
	a.Window, a.PreferredChain, a.Issuers = b.Window, b.PreferredChain, b.Issuers
	return specEqual(a, b)
}

func specEqual(a, b Spec) bool {
	an, bn := slices.Clone(a.Names), slices.Clone(b.Names)
	slices.Sort(an)
	slices.Sort(bn)
	return slices.Equal(an, bn) && slices.Equal(a.Issuers, b.Issuers) && a.Challenge == b.Challenge && a.KeyType == b.KeyType &&
		a.ReuseKey == b.ReuseKey && a.Profile == b.Profile && a.PreferredChain == b.PreferredChain && a.Window == b.Window
}

// rememberIssuers keeps the settings of a spec's issuers in the store, for
// managers that do not have them.
func (m *Manager) rememberIssuers(ctx context.Context, spec Spec) error {
	a, err := m.c.Store.Account(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if a != nil {
		given, err := m.given(a, spec)
		if err != nil {
			return err
		}
		same := func(i Issuer) bool {
			known, ok := a.Issuers[i.Name]
			return ok && issuerEqual(known, i)
		}
		if !slices.ContainsFunc(given, func(i Issuer) bool { return !same(i) }) {
			return m.knows(a, spec)
		}
	}
	a, err = m.c.Store.updateAccount(ctx, func(a *Account) error {
		given, err := m.given(a, spec)
		for _, i := range given {
			a.Issuers[i.Name] = i
		}
		return err
	})
	if err != nil {
		return err
	}
	return m.knows(a, spec)
}

// given are those issuers of a spec that m was told of.
func (m *Manager) given(a *Account, spec Spec) ([]Issuer, error) {
	var out []Issuer
	for _, name := range spec.Issuers {
		i, ok := m.ownIssuer(name)
		if !ok {
			continue
		}
		i, err := i.withKeyOf(a)
		if err == nil {
			err = i.Validate()
		}
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func (m *Manager) knows(a *Account, spec Spec) error {
	for _, name := range spec.Issuers {
		if _, err := m.issuer(a, name); err != nil {
			return &SpecError{spec.Name, err.Error()}
		}
	}
	return nil
}

func issuerEqual(a, b Issuer) bool {
	if (a.EAB == nil) != (b.EAB == nil) || a.EAB != nil && *a.EAB != *b.EAB {
		return false
	}
	return a.Name == b.Name && a.Directory == b.Directory && a.CA == b.CA && a.Email == b.Email
}

func (m *Manager) ownIssuer(name string) (Issuer, bool) {
	for _, i := range slices.Concat(m.c.Issuers, BuiltinIssuers()) {
		if i.Name == name {
			return i, true
		}
	}
	return Issuer{}, false
}

// issuer finds an issuer by name: ours first, then those of the store.
func (m *Manager) issuer(a *Account, name string) (Issuer, error) {
	if i, ok := m.ownIssuer(name); ok {
		return i.withKeyOf(a)
	}
	if i, ok := a.Issuers[name]; ok {
		return i, nil
	}
	known := slices.Sorted(maps.Keys(a.Issuers))
	return Issuer{}, &IssuerError{Issuer: name, Step: "looking it up", Kind: KindConfig, Err: fmt.Errorf("there is no issuer of that name; known are %s and Let's Encrypt's", strings.Join(known, ", "))}
}

// Result of a reconciliation.
type Result struct {
	Object *Object
	// Next is when there is something to do again.
	Next time.Time
	// Issued says that a new certificate was stored.
	Issued bool
}

// Reconcile does what one certificate needs now. A failed issuance is an
// error here and in the object's status, where the next attempt stands; so
// it is no reason to call again before Next.
func (m *Manager) Reconcile(ctx context.Context, name string) (Result, error) {
	o, err := m.c.Store.Get(ctx, name)
	if err != nil {
		return Result{}, err
	}
	if o.Status.setBack(m.now()) {
		if o, err = m.forgetSkew(ctx, o); err != nil {
			return Result{Object: o, Next: m.now().Add(time.Minute)}, err
		}
	}
	if m.now().After(m.checkAt(o)) {
		if o, err = m.askRenewal(ctx, o); err != nil {
			return Result{Object: o, Next: m.now().Add(time.Minute)}, err
		}
	}
	if todo := m.judge(o); todo.at.After(m.now()) {
		return Result{Object: o, Next: m.nextLook(o, todo)}, nil
	}
	if until := m.paused(name); until.After(m.now()) {
		return Result{Object: o, Next: until}, nil
	}
	lease, err := m.c.Store.lock(ctx, name, m.c.LockTTL)
	m.othersWork(name, errors.Is(err, ErrLocked))
	if errors.Is(err, ErrLocked) {
		return Result{Object: o, Next: m.now().Add(lockedPause)}, ErrLocked
	}
	if err != nil {
		return Result{Object: o, Next: m.now().Add(time.Minute)}, err
	}
	defer func() { _ = lease.Release(context.WithoutCancel(ctx)) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-lease.Lost():
			cancel(errLeaseLost)
		case <-ctx.Done():
		}
	}()
	// Whoever held the lock before may have done it.
	if o, err = m.c.Store.Get(ctx, name); err != nil {
		return Result{}, err
	}
	todo := m.judge(o)
	if todo.at.After(m.now()) {
		return Result{Object: o, Next: m.nextLook(o, todo)}, nil
	}
	o, err = m.issue(ctx, o, todo)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errLeaseLost) {
		err = cause
	}
	var (
		store      *StoreError
		unsolvable *UnsolvableError
	)
	most := 0
	switch {
	case errors.As(err, &unsolvable):
		most = 1
	case errors.As(err, &store):
		most = mostPause // it is ours, so it is asked again soon
	}
	if next := m.pause(name, most); !next.IsZero() {
		return Result{Object: o, Next: next}, err
	}
	res := Result{Object: o, Issued: err == nil, Next: m.now().Add(time.Minute)}
	if o != nil && err == nil {
		res.Next = m.nextLook(o, m.judge(o))
	} else if o != nil && o.Status.NextAttempt.After(m.now()) {
		res.Next = o.Status.NextAttempt
	}
	return res, err
}

// othersWork tells, once, of a lock that is held for longer than the dead can.
func (m *Manager) othersWork(name string, yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, known := m.locked[name]
	switch {
	case !yes:
		delete(m.locked, name)
	case !known:
		m.locked[name] = m.now()
	case !since.IsZero() && m.now().Sub(since) > 2*m.c.LockTTL+time.Second:
		m.locked[name] = time.Time{}
		m.event(Event{Kind: "warning", Certificate: name, Text: fmt.Sprintf("somebody who is alive has held its lock %s/%s since %s: another controller, or a drover cert that waits",
			lockFolder, encodeName(name), since.Format(time.RFC3339))})
	}
}

// pause notes that an attempt came to nothing for want of something that is
// not the CA's, and returns when the next one is: after the backoff of most
// failures at most. With 0 it did not, and there is no pause.
func (m *Manager) pause(name string, most int) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if most == 0 {
		delete(m.unwritten, name)
		return time.Time{}
	}
	p := m.unwritten[name]
	p.times++
	p.until = m.now().Add(backoff(min(p.times, most)))
	m.unwritten[name] = p
	return p.until
}

func (m *Manager) paused(name string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := m.unwritten[name].until
	if until.After(m.now().Add(backoff(mostPause))) {
		return time.Time{} // the clock was ahead
	}
	return until
}

// mostPause is after how many failures a pause gets no longer.
const mostPause = 2

// lockedPause is how often it is looked whether somebody else's work is done,
// or their lock is over because they died.
const lockedPause = 2 * time.Second

var errLeaseLost = errors.New("the lock was lost to another manager, which goes on")

// todo is what a certificate needs, and when.
type todo struct {
	why string // "" when nothing ever
	at  time.Time
	new bool // nothing to replace
}

var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// need is why and when a new certificate is needed, whatever former attempts
// came to.
func (m *Manager) need(o *Object) todo {
	now, st := m.now(), &o.Status
	switch {
	case o.Chain == "":
		return todo{why: "there is none", at: now, new: true}
	case st.Phase == Temporary:
		return todo{why: "there is only a self-signed one", at: now, new: true}
	case st.Phase == Revoked && !st.wanted():
		return todo{at: never}
	case st.Phase == Revoked, st.Forced:
		return todo{why: "the renewal was asked for", at: now}
	}
	key, err := pki.ParseKey(o.Key.Reveal())
	if err == nil {
		err = Validate(o.Chain, key, o.Spec.Names, now.Add(-o.skew(now)))
	}
	var invalid *InvalidError
	if errors.As(err, &invalid) && invalid.early {
		err = nil // of a clock that is behind: another one would be no better
	}
	if err != nil {
		return todo{why: "what is stored cannot be used: " + err.Error(), at: now}
	}
	// The time of a renewal is by the CA's clock.
	leaf, skew := pki.First(o.Chain), o.skew(now)
	if serialOf(leaf) != st.Serial || st.RenewAt.IsZero() { // put there by somebody else
		return todo{why: "less than a third of its life is left", at: o.Spec.Window.next(backstop(leaf, 0)).Add(skew)}
	}
	return todo{why: st.RenewedBy, at: inWindow(o, st.RenewAt, now.Add(-skew)).Add(skew)}
}

// wanted says that somebody has asked for the successor of a revoked
// certificate, and has not got it yet.
func (st *Status) wanted() bool { return st.Forced || !st.NextAttempt.IsZero() }

// inWindow moves a renewal into the maintenance window, unless that would
// leave less than half of the time that is left for it.
func inWindow(o *Object, at, now time.Time) time.Time {
	if at.Before(now) {
		at = now
	}
	moved := o.Spec.Window.next(at)
	if left := o.Status.NotAfter.Sub(o.Status.RenewAt); moved.After(o.Status.RenewAt.Add(left / 2)) {
		return at
	}
	return moved
}

// judge is need after what former attempts came to.
func (m *Manager) judge(o *Object) todo {
	t, st := m.need(o), &o.Status
	if t.at.After(m.now()) {
		return t
	}
	if st.NextAttempt.After(m.now()) && !st.Forced && !st.ahead(m.now()) {
		t.at = st.NextAttempt
	}
	return t
}

// ahead says that the clock was ahead at the last attempt: what it said about
// the next one would put that off until long after the clock is right again.
func (st *Status) ahead(now time.Time) bool { return st.LastAttempt.After(now.Add(time.Minute)) }

// backstop is when a certificate is renewed if its CA says nothing: with a
// third of its life left, a half of a life under ten days. early takes up to
// a twentieth of the life off that.
func backstop(leaf *x509.Certificate, early float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	left := life / 3
	if life < 10*24*time.Hour {
		left = life / 2
	}
	left += time.Duration(early * float64(life) / 20)
	return leaf.NotAfter.Add(-left).UTC().Truncate(time.Second)
}

// plan sets when the stored certificate is renewed.
func (st *Status) plan(leaf *x509.Certificate, early float64) {
	st.RenewAt, st.RenewedBy = backstop(leaf, early), "it has used up its time"
	if a := st.ARI; a != nil && a.Serial == serialOf(leaf) && !a.Selected.IsZero() && a.Selected.Before(st.RenewAt) {
		st.RenewAt, st.RenewedBy = a.Selected, "its CA asks for it"
		if a.Why != "" {
			st.RenewedBy += ", see " + a.Why
		}
	}
}

// setBack says that the clock was ahead when the certificate was issued, and is
// not any more.
func (st *Status) setBack(now time.Time) bool {
	return st.ClockSkew > 0 && now.Add(time.Minute).Before(st.IssuedAt)
}

// forgetSkew makes a clock count that has been set right. It is written down:
// when the time of the issuance has come, nobody can tell any more.
func (m *Manager) forgetSkew(ctx context.Context, o *Object) (*Object, error) {
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		if o.Status.setBack(m.now()) {
			o.Status.ClockSkew = 0
		}
		return nil
	})
	if err != nil {
		return o, err
	}
	return out, nil
}

// checkAt is when the CA is asked about the renewal.
func (m *Manager) checkAt(o *Object) time.Time {
	st := &o.Status
	if st.ARI == nil || st.ARI.Serial != st.Serial || st.Phase == Temporary || st.Phase == Revoked || st.Directory == "" {
		return never
	}
	if st.ARI.CheckAfter.After(m.now().Add(ariAtMost + time.Minute)) {
		return time.Time{} // the clock was ahead
	}
	return st.ARI.CheckAfter
}

func (m *Manager) nextLook(o *Object, t todo) time.Time {
	if check := m.checkAt(o); check.Before(t.at) && check.After(m.now()) {
		return check
	}
	return t.at
}

// askRenewal asks the CA when the certificate should be renewed. That it does
// not answer is no failure of the certificate.
func (m *Manager) askRenewal(ctx context.Context, o *Object) (*Object, error) {
	c, err := m.ca(ctx, o.Status.Issuer)
	leaf := pki.First(o.Chain)
	if leaf == nil {
		return o, nil
	}
	var info *ARI
	if err == nil {
		info, err = c.renewal(ctx, leaf, m.now())
	}
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	asked := serialOf(leaf)
	before := o.Status.RenewAt
	next, uerr := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		st := &o.Status
		if st.ARI == nil || st.Serial != asked {
			return nil
		}
		if info == nil {
			st.ARI.CheckAfter = m.now().Add(ariDefault)
			return nil
		}
		if info.Start.Equal(st.ARI.Start) && info.End.Equal(st.ARI.End) {
			info.Selected = st.ARI.Selected // once per window
		}
		moved := !info.Selected.Equal(st.ARI.Selected)
		st.ARI = info
		if moved {
			st.plan(leaf, early())
		}
		return nil
	})
	if uerr != nil {
		return o, uerr
	}
	o = next
	if err != nil {
		m.event(Event{Kind: "warning", Certificate: o.Spec.Name, Issuer: o.Status.Issuer, Text: err.Error()})
	} else if !o.Status.RenewAt.Equal(before) {
		m.event(Event{Kind: "renewal-info", Certificate: o.Spec.Name, Issuer: o.Status.Issuer, Serial: o.Status.Serial,
			Text: "to be renewed " + o.Status.RenewAt.Format(time.RFC3339) + ": " + o.Status.RenewedBy})
	}
	return o, nil
}

// Backoff after so many failures in a row.
func backoff(failures int) time.Duration {
	switch failures {
	case 0, 1:
		return time.Minute
	case 2:
		return 10 * time.Minute
	case 3:
		return 100 * time.Minute
	}
	return 24 * time.Hour
}

// jitter is d, more or less by a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) // #nosec G404 -- no secret
}

// early spreads renewals that would all be due at once.
func early() float64 { return rand.Float64() } // #nosec G404 -- no secret

// Orders within breakerTime. CAs do not count those that replace a certificate;
// but nobody needs so many.
const (
	breakerOrders       = 3
	breakerReplacements = 10
	breakerTime         = 24 * time.Hour
)

// HeldError says that the circuit breaker is open.
type HeldError struct {
	Certificate string
	Until       time.Time
	Orders      int
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("certificate %s: %d new orders for the same names within a day; the next is placed after %s, because CAs lock out who asks too often",
		e.Certificate, e.Orders, e.Until.UTC().Format(time.RFC3339))
}

// held says until when no new order may be placed, zero when one may.
func (st *Status) held(set string, replacing bool, now time.Time) (until time.Time, most int) {
	orders, most := st.Orders, breakerOrders
	if replacing {
		orders, most = st.Replacements, breakerReplacements
	}
	var recent []time.Time
	for _, x := range orders {
		if x.Set == set && now.Sub(x.At) < breakerTime && !x.At.After(now) {
			recent = append(recent, x.At)
		}
	}
	if len(recent) < most {
		return time.Time{}, most
	}
	slices.SortFunc(recent, time.Time.Compare)
	return recent[len(recent)-most].Add(breakerTime), most
}

// counted are the orders that may still count.
func counted(orders []Ordered, now time.Time) []Ordered {
	return slices.DeleteFunc(orders, func(x Ordered) bool { return now.Sub(x.At) >= breakerTime })
}

// issue asks the spec's issuers one after the other. It holds the lock.
func (m *Manager) issue(ctx context.Context, o *Object, t todo) (*Object, error) {
	name := o.Spec.Name
	solver, err := m.solver(ctx, o.Spec)
	if err != nil {
		return m.hold(ctx, o, err)
	}
	m.event(Event{Kind: "issuing", Certificate: name, Names: o.Spec.Names, Text: "because " + t.why})
	account, err := m.account(ctx)
	if err != nil {
		return o, err
	}
	if err := m.c.Store.publish(ctx, account.Thumbprint); err != nil {
		return o, err
	}
	o = m.tidy(ctx, o, solver)
	left := func(e *LeftoverError) {
		m.event(Event{Kind: "warning", Certificate: name, Text: e.Error()})
		next, err := m.c.Store.Update(context.WithoutCancel(ctx), name, func(o *Object) error {
			o.Status.Leftovers = append(o.Status.Leftovers, e.Leftover)
			return nil
		})
		if err == nil {
			o = next
		}
	}
	if o.Status.Pending == nil {
		if err := solver.Check(ctx, o.Spec.Names, account.Thumbprint); err != nil {
			if ctx.Err() != nil {
				return o, ctx.Err()
			}
			return m.failed(ctx, o, err)
		}
	}
	var errs []error
	issuers := o.Spec.Issuers
	if len(issuers) == 0 {
		issuers = []string{m.c.DefaultIssuer}
	}
	for _, issuer := range issuers {
		if until := o.Status.NotBeforeAt[issuer]; until.After(m.now()) && !o.Status.ahead(m.now()) {
			errs = append(errs, &IssuerError{Issuer: issuer, Step: "waiting as it asked", Kind: KindRateLimited, RetryAfter: until, Err: errors.New("it is not asked before")})
			continue
		}
		next, got, err := m.from(ctx, o, issuer, solver, left)
		if next != nil { // otherwise the store could not be read
			o = next
		}
		if err == nil {
			return m.keep(ctx, o, issuer, got)
		}
		if ctx.Err() != nil {
			return o, ctx.Err()
		}
		errs = append(errs, err)
		var ie *IssuerError
		if !errors.As(err, &ie) || !ie.another() {
			break
		}
		m.event(Event{Kind: "warning", Certificate: name, Issuer: issuer, Text: err.Error()})
	}
	return m.failed(ctx, o, errors.Join(errs...))
}

// UnsolvableError says that nothing here can show the CA what it wants to see.
// The certificate is held: it counts as no attempt, and goes on as soon as
// that has changed.
type UnsolvableError struct {
	Certificate string
	Challenge   string
	Err         error
}

func (e *UnsolvableError) Error() string {
	return fmt.Sprintf("certificate %s: nothing here can solve %s: %s", e.Certificate, e.Challenge, e.Err)
}
func (e *UnsolvableError) Unwrap() error { return e.Err }

// solver is who solves the challenge of a certificate.
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
	}
	return nil, &UnsolvableError{spec.Name, spec.Challenge, err}
}

// hold writes down, once, why a certificate cannot be asked for.
func (m *Manager) hold(ctx context.Context, o *Object, cause error) (*Object, error) {
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	if o.Status.LastError == cause.Error() {
		return o, cause
	}
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		o.Status.Phase, o.Status.Reason = keepUnusable(o.Status.Phase, Held), "it is due, and nothing here can prove its names"
		o.Status.LastError = cause.Error()
		return nil
	})
	m.event(Event{Kind: "held", Certificate: o.Spec.Name, Names: o.Spec.Names, Text: cause.Error()})
	if err != nil {
		return o, errors.Join(cause, err)
	}
	return out, cause
}

// tidy removes what former attempts left behind.
func (m *Manager) tidy(ctx context.Context, o *Object, solver Solver) *Object {
	var gone []Leftover
	for _, l := range o.Status.Leftovers {
		if solver.Remove(ctx, l) == nil {
			gone = append(gone, l)
		}
	}
	if len(gone) == 0 {
		return o
	}
	next, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		o.Status.Leftovers = slices.DeleteFunc(o.Status.Leftovers, func(l Leftover) bool { return slices.Contains(gone, l) })
		return nil
	})
	if err != nil {
		return o
	}
	return next
}

// failed writes a failed attempt down.
func (m *Manager) failed(ctx context.Context, o *Object, cause error) (*Object, error) {
	now := m.now()
	ctx = context.WithoutCancel(ctx)
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		st := &o.Status
		if st.ahead(now) {
			st.NotBeforeAt = nil
		}
		st.LastAttempt, st.LastError, st.Forced = now, cause.Error(), false
		var held *HeldError
		if errors.As(cause, &held) {
			st.Phase, st.Reason, st.NextAttempt = keepUnusable(st.Phase, Held), "too many orders for the same names within a day", held.Until
			return nil
		}
		st.Attempts++
		st.NextAttempt = now.Add(jitter(backoff(st.Attempts))).Truncate(time.Second)
		st.Phase = keepUnusable(st.Phase, Failing)
		st.Reason = fmt.Sprintf("the last %d attempts failed", st.Attempts)
		if st.Attempts == 1 {
			st.Reason = "the last attempt failed"
		}
		// When all issuers want to be left alone, they are, until the first
		// one does not.
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

// keepUnusable leaves what nobody should trust known for what it is.
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

// keep stores a certificate.
func (m *Manager) keep(ctx context.Context, o *Object, issuer string, got *issued) (*Object, error) {
	// From here on the certificate exists: it is stored also when the caller
	// goes away.
	ctx = context.WithoutCancel(ctx)
	now := m.now()
	key := o.pendingKey
	chain := got.chain
	out, err := m.c.Store.Update(ctx, o.Spec.Name, func(cur *Object) error {
		if cur.Status.Pending == nil || o.Status.Pending == nil || cur.Status.Pending.Order != o.Status.Pending.Order {
			return fmt.Errorf("certificate %s: %w", o.Spec.Name, ErrConflict)
		}
		st := &cur.Status
		cur.Chain, cur.Key, cur.pendingKey = chain, key, record.Value{}
		*st = Status{
			Phase: Issued, Reason: "stored; nobody has looked yet whether it is served", Issuer: issuer, Directory: o.Status.Pending.Directory, CertURL: got.url,
			Serial: serialOf(got.leaf), NotBefore: got.leaf.NotBefore.UTC(), NotAfter: got.leaf.NotAfter.UTC(), IssuedAt: now,
			ARI: got.ari, LastAttempt: now, Orders: counted(st.Orders, now), Replacements: counted(st.Replacements, now), Leftovers: st.Leftovers, ServedAs: st.ServedAs, ServedSeen: st.ServedSeen,
		}
		if got.skew.Abs() > time.Hour {
			st.ClockSkew = got.skew
		}
		st.plan(got.leaf, early())
		return nil
	})
	if err != nil {
		return o, fmt.Errorf("storing certificate %s, which its CA keeps meanwhile: %w", o.Spec.Name, err)
	}
	if out.Status.ClockSkew != 0 {
		m.event(Event{Kind: "warning", Certificate: o.Spec.Name, Issuer: issuer,
			Text: fmt.Sprintf("the clock of this host is %s off the CA's", out.Status.ClockSkew)})
	}
	m.event(Event{Kind: "issued", Certificate: o.Spec.Name, Names: o.Spec.Names, Issuer: issuer, Serial: out.Status.Serial, Requests: got.requests,
		Text: "valid until " + out.Status.NotAfter.Format(time.RFC3339)})
	return out, nil
}
