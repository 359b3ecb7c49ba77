package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/secrets"
)

// Paths in a Backend. An edge needs to read CertFolder and PublicPath; only an
// issuer needs the account.
const (
	CertFolder  = "drover/certs"
	PublicPath  = "drover/acme/public"  // item "thumbprint"
	AccountPath = "drover/acme/account" // the account key and the issuers
	lockFolder  = "drover/acme/locks"
	caFolder    = "drover/acme/ca" // keys and certificates of own CAs
	TrustFolder = "drover/trust"   // what jobs trust: items "ca" and "crl" for each issuer that signs
)

// Items of a certificate's object.
const (
	ItemBundle = "bundle" // chain and key
	ItemChain  = "chain"
	ItemKey    = "key"
	itemSpec   = "spec"
	itemStatus = "status"
	itemNext   = "pending_key"
	itemLayout = variables.LayoutItem

	// ItemThumbprint, at PublicPath, is what an edge answers HTTP-01 with:
	// TOKEN.THUMBPRINT for every token.
	ItemThumbprint = "thumbprint"
)

// Store keeps certificates, the ACME account and the locks in a Backend.
type Store struct{ b Backend }

// NewStore makes no request.
func NewStore(b Backend) *Store { return &Store{b} }

// Path is where the object of a certificate is. Nomad allows neither dots nor
// stars in the path of a variable.
func Path(name string) string { return CertFolder + "/" + encodeName(name) }

func encodeName(name string) string {
	return strings.NewReplacer(".", "~", "*", "~wild").Replace(name)
}

func checkLayout(items Items, what string) error {
	return variables.CheckLayout(items[itemLayout], what, Layout)
}

// Get reads a certificate. It returns ErrNotFound if there is none of that name.
func (s *Store) Get(ctx context.Context, name string) (*Object, error) {
	if !namePattern.MatchString(name) {
		return nil, &SpecError{name, "that is no name of a certificate"}
	}
	return s.get(ctx, Path(name))
}

func (s *Store) get(ctx context.Context, path string) (*Object, error) {
	items, version, err := s.b.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := checkLayout(items, "the certificate at "+path); err != nil {
		return nil, storeError(s.b, &unreadableError{err}, "reading")
	}
	o := &Object{
		Key: secrets.NewValue(items[ItemKey]), Chain: items[ItemChain],
		pendingKey: secrets.NewValue(items[itemNext]), version: version,
	}
	for item, to := range map[string]any{itemSpec: &o.Spec, itemStatus: &o.Status} {
		if err := json.Unmarshal([]byte(items[item]), to); err != nil {
			return nil, storeError(s.b, &unreadableError{fmt.Errorf("item %s is not readable: %w", item, err)}, "reading %s", path)
		}
	}
	return o, nil
}

// unreadableError means that the store has an object whose content is not that of a
// certificate, or is of a newer drover.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

// Put writes a whole certificate that was read or is new. It returns ErrConflict
// if another process wrote it since it was read.
func (s *Store) Put(ctx context.Context, o *Object) error {
	items := Items{itemLayout: strconv.Itoa(Layout)}
	for item, from := range map[string]any{itemSpec: o.Spec, itemStatus: o.Status} {
		text, err := json.Marshal(from)
		if err != nil {
			return fmt.Errorf("encoding certificate %s: %w", o.Spec.Name, err)
		}
		items[item] = string(text)
	}
	if o.Chain != "" {
		items[ItemChain], items[ItemKey], items[ItemBundle] = o.Chain, o.Key.Reveal(), o.Bundle().Reveal()
	}
	if k := o.pendingKey.Reveal(); k != "" {
		items[itemNext] = k
	}
	version, err := s.b.Put(ctx, Path(o.Spec.Name), items, o.version)
	if err != nil {
		return err
	}
	o.version = version
	return nil
}

// List reads all certificates, sorted by name. An object that cannot be read
// is left out and its error is among those returned beside the rest.
func (s *Store) List(ctx context.Context) ([]*Object, error) {
	found, errs := s.list(ctx)
	return found, errors.Join(errs...)
}

// list is List with the errors of single objects.
func (s *Store) list(ctx context.Context) ([]*Object, []error) {
	paths, err := s.b.List(ctx, CertFolder)
	if err != nil {
		return nil, []error{err}
	}
	found, errs := make([]*Object, len(paths)), make([]error, len(paths))
	parallel.Do(len(paths), 8, func(i int) {
		found[i], errs[i] = s.get(ctx, paths[i])
		if errors.Is(errs[i], ErrNotFound) {
			errs[i] = nil // deleted since
		}
	})
	found = slices.DeleteFunc(found, func(o *Object) bool { return o == nil })
	slices.SortFunc(found, func(a, b *Object) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	return found, errs
}

// Reseal writes every object again as it is. In Consul, all are then encrypted with
// the first key of the SealKey. It returns how many it wrote.
func (s *Store) Reseal(ctx context.Context) (int, error) {
	paths, err := s.b.List(ctx, CertFolder)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, path := range append(paths, AccountPath, PublicPath) {
		items, version, err := s.b.Get(ctx, path)
		for err == nil {
			if _, err = s.b.Put(ctx, path, items, version); err == nil {
				n++
				break
			}
			if errors.Is(err, ErrConflict) { // it was written meanwhile
				items, version, err = s.b.Get(ctx, path)
			}
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return n, err
		}
	}
	return n, nil
}

// Update applies f to a certificate and writes it. After a conflict it reads the
// certificate again and applies f to it.
func (s *Store) Update(ctx context.Context, name string, f func(*Object) error) (*Object, error) {
	var o *Object
	err := contend(ctx, func() (write func() error, err error) {
		if o, err = s.Get(ctx, name); err != nil {
			return nil, err
		}
		return func() error { return s.Put(ctx, o) }, f(o)
	})
	return o, err
}

// contend calls ready, and the write that ready returns, until there is no
// conflict. One writer wins each round; the others retry with jitter.
func contend(ctx context.Context, ready func() (write func() error, err error)) error {
	return nomad.RetryConflict(ctx, func() error {
		write, err := ready()
		if err != nil || write == nil {
			return err
		}
		return write()
	})
}

// lock takes the lock of a certificate, or ErrLocked.
func (s *Store) lock(ctx context.Context, name string, ttl time.Duration) (Lease, error) {
	return s.b.Lock(ctx, lockFolder+"/"+encodeName(name), ttl)
}

// Registration is the account at one CA.
type Registration struct {
	Issuer     string    `json:"issuer"`             // name of the one it was made for
	Location   string    `json:"location,omitempty"` // "" before the CA was asked
	Registered time.Time `json:"registered,omitzero"`
	Contact    string    `json:"contact,omitempty"`  // e-mail address that the CA has
	Terms      string    `json:"terms,omitempty"`    // URL of the terms of service that were accepted
	TermsBy    string    `json:"terms_by,omitempty"` // by what or whom
	// Deactivated is when the account was deactivated. The CA takes no other account
	// with the same key.
	Deactivated time.Time `json:"deactivated,omitzero"`
	// OnNextKey is true if the CA has accepted the next key in a rollover that is
	// not finished.
	OnNextKey bool `json:"on_next_key,omitempty"`
}

// Account is the one account key of a store and the CAs that know it. There
// is one for all, because the edge answers HTTP-01 for every CA with the same
// thumbprint.
type Account struct {
	Key        secrets.Value           `json:"-"`
	Thumbprint string                  `json:"thumbprint"`
	Issuers    map[string]Issuer       `json:"issuers"` // by name
	CAs        map[string]Registration `json:"cas"`     // by directory URL

	nextKey secrets.Value
	version string
}

// Account reads the account. It returns ErrNotFound before the first issuance.
func (s *Store) Account(ctx context.Context) (*Account, error) {
	items, version, err := s.b.Get(ctx, AccountPath)
	if err != nil {
		return nil, err
	}
	if err := checkLayout(items, "the account at "+AccountPath); err != nil {
		return nil, storeError(s.b, err, "reading")
	}
	a := &Account{Key: secrets.NewValue(items["key"]), nextKey: secrets.NewValue(items["next_key"]), version: version}
	var issuers map[string]storedIssuer
	a.CAs, a.Issuers = map[string]Registration{}, map[string]Issuer{}
	for item, to := range map[string]any{"cas": &a.CAs, "issuers": &issuers} {
		if json.Unmarshal([]byte(items[item]), to) != nil { // the error may quote a secret
			return nil, storeError(s.b, errors.New("item "+item+" is not readable"), "reading %s", AccountPath)
		}
	}
	for name, i := range issuers {
		if i.EAB != nil {
			i.EAB.MACKey = secrets.NewValue(i.MACKey)
		}
		if i.Vault != nil {
			i.Vault.Secret = secrets.NewValue(i.VaultSecret)
		}
		a.Issuers[name] = i.Issuer
	}
	key, err := pki.ParseKey(a.Key.Reveal())
	if err != nil {
		return nil, storeError(s.b, err, "reading the account key at %s", AccountPath)
	}
	a.Thumbprint, err = thumbprint(key)
	return a, err
}

// storedIssuer has the secrets that Issuer does not show.
type storedIssuer struct {
	Issuer
	MACKey      string `json:"mac_key,omitempty"`
	VaultSecret string `json:"vault_secret,omitempty"`
}

func (s *Store) putAccount(ctx context.Context, a *Account) error {
	issuers := map[string]storedIssuer{}
	for name, i := range a.Issuers {
		st := storedIssuer{Issuer: i}
		if i.EAB != nil {
			st.MACKey = i.EAB.MACKey.Reveal()
		}
		if i.Vault != nil {
			st.VaultSecret = i.Vault.Secret.Reveal()
		}
		issuers[name] = st
	}
	items := Items{itemLayout: strconv.Itoa(Layout), "key": a.Key.Reveal()}
	for item, from := range map[string]any{"cas": a.CAs, "issuers": issuers} {
		text, err := json.Marshal(from)
		if err != nil {
			return fmt.Errorf("encoding the account: %w", err)
		}
		items[item] = string(text)
	}
	if k := a.nextKey.Reveal(); k != "" {
		items["next_key"] = k
	}
	version, err := s.b.Put(ctx, AccountPath, items, a.version)
	if err == nil {
		a.version = version
	}
	return err
}

// updateAccount applies f to the account, which it makes when there is none.
func (s *Store) updateAccount(ctx context.Context, f func(*Account) error) (*Account, error) {
	var a *Account
	err := contend(ctx, func() (write func() error, err error) {
		if a, err = s.Account(ctx); errors.Is(err, ErrNotFound) {
			a, err = newAccount()
		}
		if err != nil {
			return nil, err
		}
		return func() error { return s.putAccount(ctx, a) }, f(a)
	})
	return a, err
}

func newAccount() (*Account, error) {
	key, err := pki.NewKey(pki.P256)
	if err != nil {
		return nil, err
	}
	text, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	a := &Account{Key: secrets.NewValue(text), CAs: map[string]Registration{}, Issuers: map[string]Issuer{}}
	a.Thumbprint, err = thumbprint(key)
	return a, err
}

// Thumbprint returns the published thumbprint, with which edges answer HTTP-01; "" if
// none is published.
func (s *Store) Thumbprint(ctx context.Context) (string, error) {
	items, _, err := s.b.Get(ctx, PublicPath)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return items[ItemThumbprint], err
}

// publish makes sure that the thumbprint is published.
func (s *Store) publish(ctx context.Context, thumbprint string) error {
	return contend(ctx, func() (write func() error, err error) {
		items, version, err := s.b.Get(ctx, PublicPath)
		if err != nil && !errors.Is(err, ErrNotFound) || items[ItemThumbprint] == thumbprint {
			return nil, err
		}
		return func() error {
			_, err := s.b.Put(ctx, PublicPath, Items{itemLayout: strconv.Itoa(Layout), ItemThumbprint: thumbprint}, version)
			return err
		}, nil
	})
}

// thumbprint is RFC 7638's of an ECDSA P-256 key, which account keys are.
func thumbprint(key crypto.Signer) (string, error) {
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return "", errors.New("the account key is not ECDSA P-256")
	}
	raw, err := public.Bytes() // 4, x, y
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding.EncodeToString
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + enc(raw[1:33]) + `","y":"` + enc(raw[33:]) + `"}`))
	return enc(sum[:]), nil
}
