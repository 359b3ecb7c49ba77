package acme

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/secrets"
)

// account returns the account of the store, and makes one if there is none.
func (m *Manager) account(ctx context.Context) (*Account, error) {
	a, err := m.c.Store.Account(ctx)
	if errors.Is(err, ErrNotFound) {
		a, err = m.c.Store.updateAccount(ctx, func(*Account) error { return nil })
	}
	return a, err
}

// storedAccount returns the account, or nil if there is none yet.
func (m *Manager) storedAccount(ctx context.Context) (*Account, error) {
	a, err := m.c.Store.Account(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return a, err
}

// ca returns the client for an issuer.
func (m *Manager) ca(ctx context.Context, name string) (*ca, error) {
	i, ok := m.ownIssuer(name)
	if !ok || i.lacksKey() {
		a, err := m.account(ctx)
		if err != nil {
			return nil, err
		}
		if i, err = m.issuer(a, name); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.cas[i.Directory]; c != nil && issuerEqual(c.issuer, i) {
		return c, nil
	}
	c, err := newCA(i, m.c.Transport, m.c.RequestTimeout, m.c.orderTimeout, m.c.Logger, m.c.Requests)
	if err != nil {
		return nil, err
	}
	m.cas[i.Directory] = c
	return c, nil
}

// forget makes the next request of m to a CA the first one.
func (m *Manager) forget(c *ca) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cas[c.issuer.Directory] == c {
		delete(m.cas, c.issuer.Directory)
		c.close()
	}
}

// accountAt is the account at a CA, registered when the store does not know
// of any. lost, when not empty, is the URL of one that the CA has forgotten.
func (m *Manager) accountAt(ctx context.Context, c *ca, lost string) (acme.Account, error) {
	dir := c.issuer.Directory
	stored, key, err := m.registration(ctx, dir)
	if err == nil && stored.Location != "" && stored.Location != lost {
		first, err := m.first(ctx, c, stored)
		if err != nil {
			return acme.Account{}, err
		}
		if !first {
			return acme.Account{Status: acme.StatusValid, Location: stored.Location, PrivateKey: key}, ctx.Err()
		}
		if err := m.updateContact(ctx, c, stored, key); err != nil {
			m.event(Event{Kind: "warning", Issuer: c.issuer.Name, Account: stored.Location, Text: err.Error()})
		}
		return acme.Account{Status: acme.StatusValid, Location: stored.Location, PrivateKey: key}, ctx.Err()
	}
	if err != nil {
		return acme.Account{}, err
	}
	if !stored.Deactivated.IsZero() {
		return acme.Account{}, &IssuerError{Issuer: c.issuer.Name, Step: "registering an account", Kind: KindAccount,
			Err: fmt.Errorf("the account was deactivated at %s: run `drover cert account rollover`, after which another one is registered", stored.Deactivated.Format(time.RFC3339))}
	}
	// If several certificates need the account at the same time, one registers it.
	select {
	case c.registering <- struct{}{}:
		defer func() { <-c.registering }()
	case <-ctx.Done():
		return acme.Account{}, ctx.Err()
	}
	stored, key, err = m.registration(ctx, dir)
	if err != nil || stored.Location != "" && stored.Location != lost {
		return acme.Account{Status: acme.StatusValid, Location: stored.Location, PrivateKey: key}, err
	}
	terms, err := c.terms(ctx)
	if err != nil {
		return acme.Account{}, err
	}
	by := ""
	if terms != "" {
		if by, err = m.agree(ctx, c, terms); err != nil {
			return acme.Account{}, err
		}
	}
	account, err := c.register(ctx, key, terms != "")
	for n := 0; isProblem(err, acme.ProblemTypeBadNonce) && n < maxNonces; n++ {
		account, err = c.register(ctx, key, terms != "")
	}
	if err != nil {
		return account, err
	}
	_, err = m.c.Store.updateAccount(ctx, func(a *Account) error {
		r := a.CAs[dir]
		r.Issuer, r.Location, r.Registered = c.issuer.Name, account.Location, m.now()
		r.Contact, r.Terms, r.TermsBy = c.issuer.Email, terms, by
		a.CAs[dir] = r
		return nil
	})
	if err != nil {
		return account, err
	}
	text := "account at " + dir
	if terms != "" {
		text += "; its terms of service are accepted by " + by + ": " + terms
	}
	m.event(Event{Kind: "registered", Issuer: c.issuer.Name, Account: account.Location, Text: text})
	return account, nil
}

// first reports whether the account at a CA is that of the issuer of c: of several with
// one directory, the one that registered it, as long as it is there. The others use the
// account with its address. It returns an error if they have different external account
// bindings: a CA has one account for a key.
func (m *Manager) first(ctx context.Context, c *ca, r Registration) (bool, error) {
	if r.Issuer == c.issuer.Name {
		return true, nil
	}
	a, err := m.account(ctx)
	if err != nil {
		return false, err
	}
	other, err := m.issuer(a, r.Issuer)
	if err != nil || other.Directory != c.issuer.Directory {
		_, err := m.c.Store.updateAccount(ctx, func(a *Account) error {
			if cur := a.CAs[c.issuer.Directory]; cur.Location == r.Location {
				cur.Issuer = c.issuer.Name
				a.CAs[c.issuer.Directory] = cur
			}
			return nil
		})
		return true, err
	}
	if e := c.issuer.EAB; e != nil && (other.EAB == nil || other.EAB.KeyID != e.KeyID) {
		return false, c.issuer.invalid(fmt.Errorf("issuer %s has the same directory and another external account binding: a CA has one account for the account key, so use one of the two issuers, or another store (--store)", other.Name))
	}
	return false, nil
}

// registration returns the account at a CA, without a Location when there is none, and
// the key that it has or will have.
func (m *Manager) registration(ctx context.Context, directory string) (Registration, crypto.Signer, error) {
	a, err := m.account(ctx)
	if err != nil {
		return Registration{}, nil, err
	}
	r, text := a.CAs[directory], a.Key
	if r.OnNextKey {
		text = a.nextKey
	}
	key, err := pki.ParseKey(text.Reveal())
	return r, key, err
}

// updateContact gives the CA the e-mail address of the issuer if it has another one.
// An issuer without an address changes nothing.
func (m *Manager) updateContact(ctx context.Context, c *ca, r Registration, key crypto.Signer) error {
	email, dir := c.issuer.Email, c.issuer.Directory
	if email == "" || email == r.Contact {
		return nil
	}
	if err := c.updateContact(ctx, r.Location, key); err != nil {
		return err
	}
	_, err := m.c.Store.updateAccount(ctx, func(a *Account) error {
		if cur := a.CAs[dir]; cur.Location == r.Location {
			cur.Contact = email
			a.CAs[dir] = cur
		}
		return nil
	})
	if err == nil {
		m.event(Event{Kind: "contact", Issuer: c.issuer.Name, Account: r.Location, Text: "the CA has the new address " + email})
	}
	return err
}

// updateContacts is updateContact at every CA that knows the account.
func (m *Manager) updateContacts(ctx context.Context) error {
	a, err := m.storedAccount(ctx)
	if err != nil || a == nil {
		return err
	}
	var errs []error
	for _, dir := range slices.Sorted(maps.Keys(a.CAs)) {
		r, id := a.CAs[dir], "contact "+dir
		i, err := m.issuer(a, r.Issuer)
		if err != nil || r.Location == "" || i.Directory != dir || i.Email == "" || i.Email == r.Contact || m.paused(id).After(m.now()) {
			continue
		}
		c, err := m.ca(ctx, r.Issuer)
		var key crypto.Signer
		if err == nil {
			r, key, err = m.registration(ctx, dir)
		}
		if err == nil {
			err = m.updateContact(ctx, c, r, key)
		}
		most := 0
		if err != nil {
			most = mostPause
			errs = append(errs, err)
			m.event(Event{Kind: "warning", Issuer: r.Issuer, Account: r.Location, Text: err.Error()})
		}
		m.pause(id, most)
	}
	return errors.Join(errs...)
}

// maxNonces is how often a request is repeated after the CA refused ten nonces of it.
const maxNonces = 3

// from gets a certificate from one issuer.
func (m *Manager) from(ctx context.Context, o *Object, issuer string, solver Solver) (*Object, *issued, error) {
	c, err := m.ca(ctx, issuer)
	if err != nil {
		return o, nil, err
	}
	account, err := m.accountAt(ctx, c, "")
	if err != nil {
		return o, nil, err
	}
	set, lost, nonces := o.Spec.NameSet(), false, 0
	for {
		p := o.Status.Pending
		if p != nil && (p.Set != set || p.Directory != c.issuer.Directory || o.pendingKey.Reveal() == "") {
			p = nil
		}
		is := issuance{spec: o.Spec, account: account, solver: solver, now: m.now, placed: m.placed(o.Spec.Name), removed: m.removed(o.Spec.Name)}
		if p != nil {
			is.order = p.Order
			if is.key, err = pki.ParseKey(o.pendingKey.Reveal()); err != nil {
				return o, nil, err
			}
		} else {
			var text secrets.Value
			if is.key, text, err = m.newKey(o); err != nil {
				return o, nil, err
			}
			is.replaces = m.replaced(o, c)
			// The CA does not count a replacement, and an operator may force many.
			wanted := o.Status.Forced && is.replaces != nil
			if until, most := o.Status.held(set, is.replaces != nil, m.now()); !until.IsZero() && !wanted {
				return o, nil, &HeldError{o.Spec.Name, until, most}
			}
			if until, most := o.Status.held(set, false, m.now()); !until.IsZero() && !wanted {
				is.plain = &HeldError{o.Spec.Name, until, most}
			}
			// The key is stored before the order is placed: with a store that
			// takes nothing, no order is.
			if o, err = m.c.Store.Update(ctx, o.Spec.Name, func(cur *Object) error { cur.pendingKey = text; return nil }); err != nil {
				return o, nil, err
			}
			is.ordered = func(ctx context.Context, url string, replacing bool) error {
				// A request that was sent is not cancelled: the order exists.
				next, err := m.c.Store.Update(context.WithoutCancel(ctx), o.Spec.Name, func(cur *Object) error {
					if nameSet(cur.Spec.Names) != set {
						return &SpecError{o.Spec.Name, "its names were changed while it was ordered"}
					}
					now := m.now()
					cur.pendingKey = text
					cur.Status.Pending = &Pending{Issuer: issuer, Directory: c.issuer.Directory, Order: url, Set: set, At: now}
					switch count := (Ordered{At: now, Set: set}); {
					case !replacing:
						cur.Status.Orders = append(counted(cur.Status.Orders, now), count)
					case !wanted:
						cur.Status.Replacements = append(counted(cur.Status.Replacements, now), count)
					}
					return nil
				})
				if err != nil {
					return err
				}
				o = next
				m.event(Event{Kind: "ordered", Certificate: o.Spec.Name, Names: o.Spec.Names, Issuer: issuer, Account: account.Location, Text: url})
				return nil
			}
		}
		got, err := c.issue(ctx, is)
		var ie *IssuerError
		if errors.As(err, &ie) && ie.Kind != KindUnproven && ie.Kind != KindConfig {
			m.forget(c) // its directory is read anew
		}
		switch {
		case err == nil:
			return o, got, nil
		case ctx.Err() != nil:
			return o, nil, ctx.Err()
		case errors.As(err, &ie) && ie.Kind == KindAccount && !lost:
			// The CA was set up anew, or has deleted the account.
			lost = true
			m.event(Event{Kind: "warning", Certificate: o.Spec.Name, Issuer: issuer, Account: account.Location, Text: "the CA does not know the account any more: " + ie.Err.Error()})
			if account, err = m.accountAt(ctx, c, account.Location); err != nil {
				return o, nil, err
			}
			if p != nil {
				if o, err = m.dropPending(ctx, o); err != nil {
					return o, nil, err
				}
			}
		case isProblem(err, acme.ProblemTypeBadNonce) && nonces < maxNonces:
			nonces++ // the next attempt continues with the order, if there is one
		case errors.Is(err, errOrderGone) && p != nil:
			if o, err = m.dropPending(ctx, o); err != nil {
				return o, nil, err
			}
		case errors.Is(err, errOrderGone), errors.As(err, &ie) && (ie.Kind == KindInvalid || ie.Kind == KindUnproven && isRefused(err)):
			// The order cannot be used again.
			o, derr := m.dropPending(ctx, o)
			return o, nil, errors.Join(err, derr)
		default:
			return o, nil, err
		}
	}
}

// isRefused reports whether the CA has refused a name after its validation: the order
// cannot be used again then.
func isRefused(err error) bool {
	var p problemError
	return errors.As(err, &p)
}

func (m *Manager) dropPending(ctx context.Context, o *Object) (*Object, error) {
	return m.c.Store.Update(ctx, o.Spec.Name, func(o *Object) error {
		o.Status.Pending, o.pendingKey = nil, secrets.Value{}
		return nil
	})
}

// newKey returns the key of the next certificate. It does not reuse the key of a revoked
// one: a CA treats a key that signed a revocation as compromised, whatever the reason.
func (m *Manager) newKey(o *Object) (crypto.Signer, secrets.Value, error) {
	if o.Spec.ReuseKey && o.Status.Phase != Temporary && o.Status.Phase != Revoked {
		if key, err := pki.ParseKey(o.Key.Reveal()); err == nil {
			return key, o.Key, nil
		}
	}
	key, err := pki.NewKey(o.Spec.KeyType)
	if err != nil {
		return nil, secrets.Value{}, err
	}
	text, err := pki.EncodeKey(key)
	return key, secrets.NewValue(text), err
}

// replaced returns the certificate that a new one from this CA replaces, nil if there
// is none.
func (m *Manager) replaced(o *Object, c *ca) *x509.Certificate {
	leaf := pki.First(o.Chain)
	if leaf == nil || o.Status.Directory != c.issuer.Directory || serialOf(leaf) != o.Status.Serial || o.Status.ARI == nil {
		return nil
	}
	return leaf
}

// Revoke revokes a certificate at its CA (RFC 8555, 7.6). The manager does not
// renew it afterwards unless Force is called. It holds the lock of the certificate: it
// returns ErrLocked while another process issues it.
func (m *Manager) Revoke(ctx context.Context, name string, reason int) (*Object, error) {
	lease, err := m.c.Store.lock(ctx, name, m.c.LockTTL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lease.Release(context.WithoutCancel(ctx)) }()
	o, err := m.c.Store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	leaf := pki.First(o.Chain)
	if leaf == nil || o.Status.Phase == Temporary || o.Status.Issuer == "" {
		return o, &SpecError{name, "no CA has issued it"}
	}
	key, err := pki.ParseKey(o.Key.Reveal())
	if err != nil {
		return o, err
	}
	i, s, err := m.signer(ctx, o.Status.Issuer)
	switch {
	case err != nil:
	case i.place() != o.Status.Directory:
		err = i.invalid(fmt.Errorf("the certificate was issued at %s, and the issuer is now at %s", o.Status.Directory, i.place()))
	case s != nil:
		err = s.revoke(ctx, leaf, reason)
	default:
		var c *ca
		if c, err = m.ca(ctx, o.Status.Issuer); err == nil {
			err = c.revoke(ctx, leaf, key, reason)
		}
	}
	if err != nil {
		return o, err
	}
	serial := serialOf(leaf)
	o, err = m.c.Store.Update(context.WithoutCancel(ctx), name, func(o *Object) error {
		if o.Status.Serial == serial {
			o.Status.Phase, o.Status.Reason = Revoked, "it was revoked; `drover cert renew --force` gets a new one"
			o.Status.ARI = nil
			o.Status.NextAttempt = time.Time{} // see wanted
		}
		if o.pendingKey.Reveal() == o.Key.Reveal() {
			o.Status.Pending, o.pendingKey = nil, secrets.Value{} // an order with the revoked key
		}
		return nil
	})
	m.event(Event{Kind: "revoked", Certificate: name, Issuer: o.Status.Issuer, Serial: serial, Text: fmt.Sprintf("reason %d", reason)})
	return o, err
}

// Force makes the next Reconcile renew a certificate, whatever its age and
// former failures. The circuit breaker stays. An attempt that is under way does
// not answer the request: the next one does.
func (m *Manager) Force(ctx context.Context, name string) (*Object, error) {
	return m.c.Store.Update(ctx, name, func(o *Object) error {
		o.Status.request()
		o.Status.Attempts, o.Status.NextAttempt = 0, time.Time{}
		return nil
	})
}

// request records that a new certificate is requested at once.
func (st *Status) request() { st.Forced, st.Request = true, st.Request+1 }

// answer clears a request, unless it came after the one with this number.
func (st *Status) answer(number int) { st.Forced = st.Forced && st.Request != number }

// Rollover gives the account a new key at every CA that knows it (RFC 8555,
// 7.3.5). It can be repeated after an interruption: the new key is in the store
// before any CA gets it, and the store records which CA has it.
//
// The edge answers for one key, so an unreachable CA must not delay the others:
// its account is given up, and a new one is registered when it is needed. If no
// CA is reachable, Rollover changes nothing.
func (m *Manager) Rollover(ctx context.Context) (*Account, error) {
	lease, err := m.c.Store.b.Lock(ctx, lockFolder+"/_account", m.c.LockTTL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lease.Release(context.WithoutCancel(ctx)) }()
	a, err := m.c.Store.updateAccount(ctx, func(a *Account) error {
		if a.nextKey.Reveal() != "" {
			return nil // resume an interrupted rollover
		}
		key, err := pki.NewKey(pki.P256)
		if err != nil {
			return err
		}
		text, err := pki.EncodeKey(key)
		a.nextKey = secrets.NewValue(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	next, err := pki.ParseKey(a.nextKey.Reveal())
	if err != nil {
		return nil, err
	}
	current, err := pki.ParseKey(a.Key.Reveal())
	if err != nil {
		return nil, err
	}
	var told int
	var untold []error
	for _, dir := range slices.Sorted(maps.Keys(a.CAs)) {
		r := a.CAs[dir]
		if r.Location == "" {
			continue
		}
		if !r.OnNextKey {
			err := m.tellKey(ctx, r, current, next)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			var ie *IssuerError
			if err != nil && !errors.As(err, &ie) {
				return nil, err
			}
			if err != nil {
				m.event(Event{Kind: "warning", Issuer: r.Issuer, Account: r.Location, Text: "it does not get the new account key: " + err.Error()})
				if ie.Kind != KindConfig && ie.Kind != KindAccount { // otherwise there is no account to be lost
					untold = append(untold, err)
				}
				continue
			}
			if _, err := m.c.Store.updateAccount(context.WithoutCancel(ctx), func(a *Account) error {
				r := a.CAs[dir]
				r.OnNextKey = true
				a.CAs[dir] = r
				return nil
			}); err != nil {
				return nil, err
			}
		}
		told++
	}
	if told == 0 && len(untold) > 0 {
		return nil, errors.Join(untold...)
	}
	var lost []Registration
	a, err = m.c.Store.updateAccount(context.WithoutCancel(ctx), func(a *Account) error {
		a.Key, a.nextKey, lost = a.nextKey, secrets.Value{}, nil
		for dir, r := range a.CAs {
			if r.Location != "" && !r.OnNextKey {
				lost = append(lost, r)
				r.Location = ""
			}
			r.OnNextKey, r.Deactivated = false, time.Time{}
			a.CAs[dir] = r
		}
		var err error
		a.Thumbprint, err = thumbprint(next)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := m.c.Store.publish(ctx, a.Thumbprint); err != nil {
		return nil, err
	}
	for _, r := range lost {
		m.event(Event{Kind: "warning", Issuer: r.Issuer, Account: r.Location,
			Text: "the account there still has the old key and is given up; a new one is registered when it is needed"})
	}
	m.event(Event{Kind: "rolled-over", Text: fmt.Sprintf("new account key at %d CAs; thumbprint %s", told, a.Thumbprint)})
	return a, nil
}

// Deactivate deactivates the account at one CA (RFC 8555, 7.3.6), for good. Nothing is
// issued there until Rollover has made another key. It returns an error if there is no
// account at that directory.
func (m *Manager) Deactivate(ctx context.Context, directory string) error {
	lease, err := m.c.Store.b.Lock(ctx, lockFolder+"/_account", m.c.LockTTL)
	if err != nil {
		return err
	}
	defer func() { _ = lease.Release(context.WithoutCancel(ctx)) }()
	r, key, err := m.registration(ctx, directory)
	if err != nil {
		return err
	}
	if r.Location == "" {
		return fmt.Errorf("there is no account at %s", directory)
	}
	c, err := m.ca(ctx, r.Issuer)
	if err != nil {
		return err
	}
	if c.issuer.Directory != directory {
		return c.issuer.invalid(fmt.Errorf("its directory is %s, and the account is at %s", c.issuer.Directory, directory))
	}
	if err := c.deactivate(ctx, r.Location, key); err != nil {
		return err
	}
	_, err = m.c.Store.updateAccount(context.WithoutCancel(ctx), func(a *Account) error {
		r := a.CAs[directory]
		r.Location, r.Deactivated = "", m.now()
		a.CAs[directory] = r
		return nil
	})
	m.event(Event{Kind: "deactivated", Issuer: r.Issuer, Account: r.Location, Text: "the account at " + directory + " is deactivated"})
	return err
}

// deactivate deactivates an account (RFC 8555, 7.3.6). It returns no error for an account
// that the CA does not know or has deactivated before.
func (c *ca) deactivate(ctx context.Context, location string, key crypto.Signer) error {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return c.fail(s, "reading its directory", err)
	}
	_, err := c.client.UpdateAccount(ctx, acme.Account{Location: location, PrivateKey: key, Status: acme.StatusDeactivated})
	if isProblem(err, acme.ProblemTypeAccountDoesNotExist, acme.ProblemTypeUnauthorized) {
		return nil
	}
	return c.fail(s, "deactivating the account", err)
}

// tellKey sends the next key to a CA.
func (m *Manager) tellKey(ctx context.Context, r Registration, current, next crypto.Signer) error {
	c, err := m.ca(ctx, r.Issuer)
	if err != nil {
		return err
	}
	return c.changeKey(ctx, r.Location, current, next)
}

// changeKey changes the key of an account (RFC 8555, 7.3.5). It returns no error if the
// CA has the new key already, from an attempt that was interrupted.
func (c *ca) changeKey(ctx context.Context, location string, current, next crypto.Signer) error {
	ctx, s := listen(ctx, time.Now)
	if err := c.ready(ctx); err != nil {
		return c.fail(s, "reading its directory", err)
	}
	_, err := c.client.AccountKeyRollover(ctx, acme.Account{Location: location, PrivateKey: current}, next)
	if err == nil {
		return nil
	}
	if found, ferr := c.client.GetAccount(ctx, acme.Account{PrivateKey: next}); ferr == nil && found.Location == location {
		return nil
	}
	return c.fail(s, "changing the account key", err)
}
