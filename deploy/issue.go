package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Environment variables that name a CA: a dev cluster has one of its own, see
// `drover dev env`.
const (
	DirectoryEnv = "DROVER_ACME_DIRECTORY"
	CAEnv        = "DROVER_ACME_CA"
	ChallengeEnv = "DROVER_ACME_HTTP_PORT"
)

// TermsEnv has the URLs of terms of service of CAs that are accepted, separated by
// spaces, or [acme.AnyTerms].
const TermsEnv = "DROVER_ACME_TERMS"

// AcceptedTerms returns the terms of service that are accepted: given, or those of
// TermsEnv if there are none.
func AcceptedTerms(given []string, getenv func(string) string) ([]string, error) {
	if len(given) == 0 {
		given = strings.Fields(getenv(TermsEnv))
	}
	for _, terms := range given {
		if err := acme.CheckTerms(terms); err != nil {
			return nil, invalidf("--accept-terms or $%s: %w", TermsEnv, err)
		}
	}
	return given, nil
}

// CA names a CA to ask instead of the issuers of certificates.
type CA struct {
	Directory string // URL of its ACME directory; that of DirectoryEnv by default
	File      string // with the CA certificate of the directory's own HTTPS; that of CAEnv by default
	Email     string // contact of the account
	Staging   bool   // Let's Encrypt's staging environment
}

// Issuer returns the CA as an issuer, nil when it names none.
func (c CA) Issuer(getenv func(string) string) (*acme.Issuer, error) {
	if !c.Staging {
		c.Directory = cmp.Or(c.Directory, getenv(DirectoryEnv))
	}
	if c.Directory != "" {
		c.File = cmp.Or(c.File, getenv(CAEnv))
	}
	if c.Directory == "" {
		if c.File != "" {
			return nil, invalidf("--ca goes with --directory")
		}
		if c.Staging {
			return &acme.Issuer{Name: acme.IssuerStaging, Directory: acme.LetsEncryptStaging, Email: c.Email}, nil
		}
		return nil, nil
	}
	if c.Staging {
		return nil, invalidf("--staging and --directory name two different CAs")
	}
	u, err := url.Parse(c.Directory)
	if err != nil || u.Host == "" {
		return nil, invalidf("--directory: %q is no URL", c.Directory)
	}
	i := &acme.Issuer{Name: u.Host, Directory: c.Directory, Email: c.Email}
	if c.File != "" {
		text, err := os.ReadFile(c.File)
		if err != nil {
			return nil, invalidf("--ca: %w", err)
		}
		i.CA = string(text)
	}
	return i, CertError(i.Validate())
}

// ChallengePort returns the port at which CAs ask for HTTP-01: port, or that of
// ChallengeEnv; 0 is the default.
func ChallengePort(port int, getenv func(string) string) (int, error) {
	text := getenv(ChallengeEnv)
	if port != 0 || text == "" {
		return port, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, invalidf("$%s is no port: %q", ChallengeEnv, text)
	}
	return int(n), nil
}

// Issuing asks CAs for certificates.
type Issuing struct {
	Home      *Home
	Store     acme.Backend
	Stack     *stack.Stack // whose DNS provider answers DNS-01; may be nil
	Issuers   []acme.Issuer
	NoCheck   bool          // ask the CA without looking first whether the names can be proven
	Resolvers []string      // that must show a record of DNS-01, instead of those of the stack
	Port      int           // at which the CA asks for HTTP-01, 80 when 0
	Listen    string        // HOST:PORT to answer HTTP-01 at, instead of the edge
	Timeout   time.Duration // of all that is done with the manager

	AcceptTerms []string // see [AcceptedTerms]
	// AskTerms asks a person about other terms of service, and returns their name, or
	// "" if they refuse; it may be nil.
	AskTerms func(ctx context.Context, issuer, url string) (by string, err error)

	Events func(acme.Event)
	Warn   func(string) // what does not keep it from its work; may be nil
}

// With calls f with a manager, and with a context that ends with Timeout.
func (i *Issuing) With(ctx context.Context, f func(context.Context, *acme.Manager) error) error {
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	accepted, err := AcceptedTerms(i.AcceptTerms, i.Home.Getenv)
	if err != nil {
		return err
	}
	store := acme.NewStore(i.Store)
	http := acme.Stateless{SkipCheck: i.NoCheck, Port: i.Port}
	solvers := map[string]acme.Solver{}
	if i.Listen != "" {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", i.Listen)
		if err != nil {
			return invalidf("--http: %w", err)
		}
		// Behind another port, only who forwards to it knows how it is reached.
		http.SkipCheck = http.SkipCheck || l.Addr().(*net.TCPAddr).Port != max(i.Port, 80)
		served := make(chan error, 1)
		sctx, stop := context.WithCancel(ctx)
		defer func() {
			stop()
			if err := <-served; err != nil && i.Warn != nil {
				i.Warn(fmt.Sprintf("Answering HTTP-01 on %s: %s", i.Listen, err))
			}
		}()
		go func() { served <- acme.Respond(sctx, l, acme.Responder{Thumbprint: store.Thumbprint}) }()
	}
	solvers[acme.HTTP01] = http
	d := &acme.DNS{Resolvers: i.Resolvers, SkipCheck: i.NoCheck}
	solvers[acme.DNSPersist01] = d // without a zone it looks for the record, and writes none
	if s := i.Stack; s != nil {
		for _, block := range s.DNSProviders() {
			if block.NoChallenges {
				continue
			}
			if len(i.Resolvers) == 0 {
				d.Resolvers = append(d.Resolvers, block.Resolvers...)
			}
			provider, err := i.provider(ctx, block)
			switch {
			case err != nil && !onlyPersistent(s):
				return err
			case err == nil:
				for _, z := range block.Zones {
					d.Zones = append(d.Zones, acme.Zone{Name: z, Provider: provider})
				}
				solvers[acme.DNS01] = d
			}
		}
	}
	// The stored records of other stacks are not used: this process would send its
	// own credentials to the servers that they name.
	find := func(context.Context, acme.Spec) (acme.Solver, error) {
		return nil, errByController
	}
	var mu sync.Mutex
	m := acme.NewManager(acme.Config{Store: store, Vault: VaultLogin(i.Home.Getenv), Issuers: i.Issuers, Solvers: solvers, FindSolver: find, AcceptTerms: accepted, AskTerms: i.AskTerms, Events: func(e acme.Event) {
		mu.Lock()
		defer mu.Unlock()
		i.Events(e)
	}})
	defer m.Close()
	err = f(ctx, m)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = fmt.Errorf("not done within --timeout %s; the CA keeps the order, and the next attempt continues it", i.Timeout)
	}
	return CertError(err)
}

// provider opens the DNS provider of a dns block of the stack.
func (i *Issuing) provider(ctx context.Context, d *stack.DNS) (acme.DNSProvider, error) {
	var clients nomad.Clients
	if d.CredentialSecret != "" {
		var err error
		if clients, err = i.Home.Connect(ctx, false); err != nil {
			return nil, err
		}
	}
	provider, _, err := i.Home.openProvider(ctx, i.Stack, d, clients, i.Home.Getenv)
	if err != nil {
		return nil, err
	}
	return provider, nil
}

// onlyPersistent reports whether the stack has certificates by dns-persist-01, which
// needs no provider, and none by dns-01.
func onlyPersistent(s *stack.Stack) bool {
	specs, _, _ := acme.FromStack(s)
	has := func(challenge string) bool {
		return slices.ContainsFunc(specs, func(spec acme.Spec) bool { return spec.Challenge == challenge })
	}
	return has(acme.DNSPersist01) && !has(acme.DNS01)
}

var errByController = fmt.Errorf("%w: the controller, with the zones of the stacks that are deployed; --stack names a stack whose dns block is used here", acme.ErrElsewhere)

// Environment variables with the credentials of the process for Vault. They are sent
// only to the Vault of $VAULT_ADDR.
const (
	VaultAddressEnv = "VAULT_ADDR"
	VaultTokenEnv   = "VAULT_TOKEN"
	VaultJWTEnv     = "DROVER_VAULT_JWT_FILE" // file with the JWT of a workload
)

// VaultLogin returns the credentials of the process for Vault.
func VaultLogin(getenv func(string) string) acme.VaultLogin {
	l := acme.VaultLogin{Address: getenv(VaultAddressEnv), Token: secrets.NewValue(getenv(VaultTokenEnv))}
	if file := getenv(VaultJWTEnv); file != "" {
		l.JWT = func() (string, error) {
			text, err := os.ReadFile(file)
			return string(text), err
		}
	}
	return l
}

// Revoke revokes a certificate, and waits for another process that works on it.
func Revoke(ctx context.Context, m *acme.Manager, name string, reason int) (*acme.Object, error) {
	for {
		o, err := m.Revoke(ctx, name, reason)
		if !errors.Is(err, acme.ErrLocked) {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// UntilIssued waits until another process has replaced the certificate with this
// serial, and returns the new one. It returns the error of ctx with why the
// certificate was not issued yet.
func UntilIssued(ctx context.Context, store *acme.Store, name, serial string) (*acme.Object, error) {
	for {
		o, err := store.Get(ctx, name)
		if err == nil && o.Status.Serial != serial && o.Usable(time.Now()) == nil {
			return o, nil
		}
		if errors.Is(err, acme.ErrNotFound) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			why := "no controller runs, or it has not come to it"
			if err == nil && o.Status.LastError != "" {
				why = o.Status.LastError
			}
			return nil, fmt.Errorf("certificate %s is requested from the controller, which has not issued it yet: %s", name, why)
		case <-time.After(time.Second):
		}
	}
}

// CertError gives errors of package acme their class: a mistake in a spec or an
// issuer is an *InvalidError, and a CA that cannot be reached is not the cluster.
func CertError(err error) error {
	var issuer *acme.IssuerError
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case is[*acme.SpecError](err), errors.As(err, &issuer) && issuer.Kind == acme.KindConfig, is[*acme.UnsolvableError](err), is[*acme.PermitError](err), is[*acme.TermsError](err):
		return &InvalidError{errors.New(err.Error())}
	case errors.As(err, &issuer), is[*acme.ReachError](err):
		return errors.New(err.Error()) // a CA out of reach is not the cluster
	case errors.Is(err, acme.ErrLocked):
		return errors.New("another process works on it; look at `drover cert status` in a minute")
	}
	return err
}

// Renew requests a new certificate and waits for it. It returns an error if there is
// none at the end, also if another process made the attempt.
func Renew(ctx context.Context, m *acme.Manager, name string) (acme.Result, error) {
	before, err := m.Force(ctx, name)
	if err != nil {
		return acme.Result{}, err
	}
	r, err := Reconcile(ctx, m, name)
	if err != nil || r.Issued {
		return r, err
	}
	st := &r.Object.Status
	if st.Serial != before.Status.Serial {
		r.Issued = true // by another process
		return r, nil
	}
	return r, fmt.Errorf("certificate %s is not renewed: the attempt of another process failed; the next one is at %s: %s",
		name, r.Next.UTC().Format(time.RFC3339), st.LastError)
}

// Reconcile brings one certificate to what it is to be, and waits for another
// process that works on it.
func Reconcile(ctx context.Context, m *acme.Manager, name string) (acme.Result, error) {
	for {
		r, err := m.Reconcile(ctx, name)
		if !errors.Is(err, acme.ErrLocked) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}
