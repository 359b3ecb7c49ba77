package acme

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// Clock is the time for decisions. Waits for a CA use the real one.
type Clock interface {
	Now() time.Time
	// After is time.After.
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the Clock of the machine.
type SystemClock struct{}

// Now is time.Now.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Config of a Manager. Only Store is required.
type Config struct {
	Store *Store
	// Issuers are used besides those in the store, which earlier specs named, and Let's
	// Encrypt's.
	Issuers []Issuer
	// DefaultIssuer is for specs that name none; letsencrypt when empty.
	DefaultIssuer string
	// AcceptTerms are URLs of terms of service that are accepted, or AnyTerms, beside
	// Issuer.AcceptTerms. AskTerms, which may be nil, asks a person about others; it
	// returns their name, or "" if they refuse.
	AcceptTerms []string
	AskTerms    func(ctx context.Context, issuer, url string) (by string, err error)
	// Vault are the credentials of this process for Vault.
	Vault VaultLogin
	// Permit returns an error for a certificate that may not be issued; it is then
	// held. Nil permits all.
	Permit func(Spec) error
	// Solvers by challenge; Stateless for http-01 when it has none.
	Solvers map[string]Solver
	// FindSolver is called at each issuance for a challenge that Solvers does not have. A
	// certificate is held with its error; see [UnsolvableError].
	FindSolver func(context.Context, Spec) (Solver, error)
	Clock      Clock // the system's when nil
	// Events is called for each event at once, from several goroutines; it may be
	// nil.
	Events func(Event)
	// Requests is called for each request to a CA, for metrics; it may be nil.
	Requests func(Request)
	// Logger gets the debug output of the protocol; it may be nil.
	Logger *slog.Logger
	// LockTTL is how long the lock of a dead manager is held; 15 s when 0.
	LockTTL time.Duration
	// RequestTimeout ends one request to a CA; 30 s when 0.
	RequestTimeout time.Duration
	// Transport replaces HTTPS to the CA, in tests.
	Transport http.RoundTripper

	// orderTimeout ends the wait for a CA to validate names, and the wait for it
	// to issue; 3 min if 0. The next attempt continues the order.
	orderTimeout time.Duration
	// Parallel is how many certificates are issued at once; 8 when 0.
	Parallel int
}

// Event is something that was done or that failed.
type Event struct {
	Time        time.Time `json:"time"`
	Kind        string    `json:"kind"` // issuing, ordered, issued, failed, held, renewal-info, temporary, revoked, registered, contact, rolled-over, deactivated, warning
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
	// unwritten are, by certificate, the attempts that could not be stored and those
	// without a solver. Only this backoff ends with a restart.
	unwritten map[string]pause
	// locked is since when another process holds the lock, by certificate; zero
	// if that was reported.
	locked map[string]time.Time
}

type pause struct {
	times int
	until time.Time
}

// NewManager makes no request.
func NewManager(c Config) *Manager {
	if c.Clock == nil {
		c.Clock = SystemClock{}
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
	if c.orderTimeout == 0 {
		c.orderTimeout = 3 * time.Minute
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

// Apply stores the spec of a certificate, with a self-signed placeholder until one is
// issued. It makes no request to a CA.
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
		switch owner := o.Spec.Owner; {
		case owner == "" || owner == spec.Owner:
		case spec.Owner != "" && !specEqual(o.Spec, spec):
			return nil, &SpecError{spec.Name, fmt.Sprintf("it belongs to stack %s, which asks for other names or settings: give it another name in one of the two, or take it over with `drover cert issue STACK --adopt`", owner)}
		default:
			spec.Owner = owner // shared, or changed by hand
		}
		if o.version != "" && specEqual(o.Spec, spec) && o.Spec.Owner == spec.Owner && o.Chain != "" {
			return nil, nil
		}
		if nameSet(o.Spec.Names) != nameSet(spec.Names) || !slices.Equal(o.Spec.Issuers, spec.Issuers) {
			// Another spec: the failures of the former one do not count.
			if o.Status.Phase == Revoked && o.Status.wanted() {
				o.Status.request()
			}
			o.Status.Attempts, o.Status.NextAttempt, o.Status.LastError = 0, time.Time{}, ""
		}
		if o.Status.Pending != nil && !orderedAlike(o.Spec, spec) {
			o.Status.Pending, o.pendingKey = nil, secrets.Value{} // an order for something else
		}
		o.Spec = spec
		o.Status.skipEdge(spec)
		if o.Chain == "" {
			chain, key, err := SelfSigned(spec.Names, m.now())
			if err != nil {
				return nil, err
			}
			o.Chain, o.Key = chain, secrets.NewValue(key)
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

// Reown gives the certificates of one owner, STACK/ENVIRONMENT, to another, or to
// none if to is empty. With names it is only about these. It leaves out an object that
// cannot be read, whose owner is unknown.
func (s *Store) Reown(ctx context.Context, from, to string, names ...string) error {
	list, errs := s.list(ctx)
	for _, err := range errs {
		var unreadable *unreadableError
		if err != nil && !errors.As(err, &unreadable) {
			return err
		}
	}
	for _, o := range list {
		if o.Spec.Owner != from || len(names) > 0 && !slices.Contains(names, o.Spec.Name) {
			continue
		}
		_, err := s.Update(ctx, o.Spec.Name, func(o *Object) error {
			if o.Spec.Owner == from {
				o.Spec.Owner = to
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// orderedAlike reports whether an order for a can be used for b.
func orderedAlike(a, b Spec) bool {
	a.Window, a.PreferredChain, a.Issuers, a.NoEdge = b.Window, b.PreferredChain, b.Issuers, b.NoEdge
	return specEqual(a, b)
}

func specEqual(a, b Spec) bool {
	an, bn := slices.Clone(a.Names), slices.Clone(b.Names)
	slices.Sort(an)
	slices.Sort(bn)
	return slices.Equal(an, bn) && slices.Equal(a.Issuers, b.Issuers) && a.Challenge == b.Challenge && a.KeyType == b.KeyType &&
		a.ReuseKey == b.ReuseKey && a.Profile == b.Profile && a.PreferredChain == b.PreferredChain && a.Window == b.Window && a.NoEdge == b.NoEdge
}

// rememberIssuers keeps the settings of a spec's issuers in the store, for
// managers that do not have them.
func (m *Manager) rememberIssuers(ctx context.Context, spec Spec) error {
	a, err := m.storedAccount(ctx)
	if err != nil {
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

// given returns the issuers of a spec that are in m's configuration.
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
		// The controller has no other consent than the stored one.
		if len(i.AcceptTerms) == 0 {
			i.AcceptTerms = m.c.AcceptTerms
		}
		if known := a.Issuers[name]; len(i.AcceptTerms) == 0 && known.Directory == i.Directory {
			i.AcceptTerms = known.AcceptTerms
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
	if (a.OwnCA == nil) != (b.OwnCA == nil) || a.OwnCA != nil && *a.OwnCA != *b.OwnCA || (a.Vault == nil) != (b.Vault == nil) || a.Vault != nil && *a.Vault != *b.Vault {
		return false
	}
	return a.Name == b.Name && a.Directory == b.Directory && a.CA == b.CA && a.Email == b.Email && a.Profile == b.Profile && slices.Equal(a.AcceptTerms, b.AcceptTerms)
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
	// Next is when something is due again.
	Next time.Time
	// Issued is true if a new certificate was stored.
	Issued bool
}

// Reconcile does what one certificate needs now. The error of a failed issuance is in the
// object's status too, with the time of the next attempt: do not call Reconcile before
// Next because of it.
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
	// The previous holder of the lock may have issued it.
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
		refused    *PermitError
		terms      *TermsError
	)
	most := 0
	switch {
	case errors.As(err, &unsolvable), errors.As(err, &refused), errors.As(err, &terms):
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

// othersWork reports once a lock that is held for longer than a process that ended could
// hold it.
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
		m.event(Event{Kind: "warning", Certificate: name, Text: fmt.Sprintf("its lock %s/%s is held since %s; the holder is alive: another controller, or a drover cert that waits",
			lockFolder, encodeName(name), since.Format(time.RFC3339))})
	}
}

// pause counts an attempt that failed for a reason other than the CA, and returns
// the time of the next one. The backoff grows for at most most failures. With most
// 0 the attempt did not fail: pause resets the count and returns the zero time.
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

// mostPause is the number of failures after which pauses grow no longer.
const mostPause = 2

// lockedPause is the interval at which a held lock is checked again: its holder
// may have finished or died.
const lockedPause = 2 * time.Second

var errLeaseLost = errors.New("the lock was lost to another manager, which continues")
