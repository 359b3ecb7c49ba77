package acme

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/drover-nomad/drover/parallel"
)

// Challenge is the proof that a CA asks for.
type Challenge struct {
	Type       string // http-01, …
	Name       string // the domain without "*.", or the IP address
	Wildcard   bool
	Token      string
	Thumbprint string // of the account key
	// TXT is the content of the record that dns-01 and dns-persist-01 need.
	TXT string
}

func challengeOf(authz acme.Authorization, ch acme.Challenge, account acme.Account) (Challenge, error) {
	print, err := thumbprint(account.PrivateKey)
	if err != nil {
		return Challenge{}, err
	}
	out := Challenge{Type: ch.Type, Name: authz.Identifier.Value, Wildcard: authz.Wildcard, Token: ch.Token, Thumbprint: print}
	switch ch.Type {
	case DNS01:
		sum := sha256.Sum256([]byte(ch.Token + "." + print))
		out.TXT = base64.RawURLEncoding.EncodeToString(sum[:])
	case DNSPersist01:
		if len(ch.IssuerDomainNames) == 0 {
			return out, errors.New("the CA offers dns-persist-01 without its own name")
		}
		out.TXT = ch.DNSPersist01TXTRecordValue(account, ch.IssuerDomainNames[0], authz.Wildcard)
	}
	return out, nil
}

// Solver provides the proofs of challenges. It is used for many certificates at the
// same time.
type Solver interface {
	// Check returns an error that names what would make the validation of names
	// fail. It is called before an order is placed.
	Check(ctx context.Context, names []string, thumbprint string) error
	// Place decides where the answer to a challenge goes. It is the zero Record if
	// the answer is no record. It is stored before Present is called, so that it
	// can be removed without asking any name server.
	Place(ctx context.Context, ch Challenge) (Record, error)
	// Present puts up the answer to a challenge.
	Present(ctx context.Context, ch Challenge, at Record) error
	// Wait returns when the CA can see the answer.
	Wait(ctx context.Context, ch Challenge, at Record) error
	// Remove removes a record of dns-01, also if Present failed. It is called
	// again before the next order if it fails.
	Remove(ctx context.Context, at Record) error
}

// challengePath is the path from which CAs request the answer to HTTP-01.
const challengePath = "/.well-known/acme-challenge/"

var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,256}$`)

// Responder answers HTTP-01 for every token, as the edge does. Only the holder of the
// account key can use the answer.
type Responder struct {
	// Thumbprint is called for each request.
	Thumbprint func(ctx context.Context) (string, error)
}

func (r Responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	token, ok := strings.CutPrefix(req.URL.Path, challengePath)
	if !ok || !tokenPattern.MatchString(token) {
		http.NotFound(w, req)
		return
	}
	print, err := r.Thumbprint(req.Context())
	if err != nil || print == "" {
		http.Error(w, "the account is not known here yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, token+"."+print) // #nosec G705 -- letters, digits, dash, underscore
}

// Respond answers HTTP-01 on l until ctx ends.
func Respond(ctx context.Context, l net.Listener, r Responder) error {
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Stateless solves HTTP-01 with an edge that answers for every token. It only checks that
// the edge does.
type Stateless struct {
	// SkipCheck omits the request to the domain, for networks in which the domain leads
	// elsewhere than from outside.
	SkipCheck bool
	// Port that CAs connect to; 80 when 0.
	Port int
	// Resolver finds the domain; net.DefaultResolver when nil.
	Resolver *net.Resolver
	// Timeout of the requests to one domain, which includes the wait for an edge to read
	// the thumbprint; 10 s when 0.
	Timeout time.Duration
}

// ReachError means that our edge does not answer for a domain.
type ReachError struct {
	Name      string
	Addresses []string // what it resolves to
	Problem   string
}

func (e *ReachError) Error() string {
	s := e.Name
	if len(e.Addresses) > 0 {
		s += " (" + strings.Join(e.Addresses, ", ") + ")"
	}
	return s + ": " + e.Problem
}

// Check requests from each name the answer to a token that no CA made.
func (s Stateless) Check(ctx context.Context, names []string, thumbprint string) error {
	if s.SkipCheck {
		return nil
	}
	return parallel.Each(len(names), 8, func(i int) error { return s.check(ctx, names[i], thumbprint) })
}

func (s Stateless) check(ctx context.Context, name, thumbprint string) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	port := s.Port
	if port == 0 {
		port = 80
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resolver, asked := s.Resolver, "the resolver of this host"
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	e := &ReachError{Name: name}
	e.Addresses = []string{name}
	if net.ParseIP(name) == nil {
		addrs, err := resolver.LookupHost(ctx, name)
		if err != nil {
			var dns *net.DNSError
			if errors.As(err, &dns) && dns.Server != "" {
				asked = dns.Server
			}
			e.Addresses = nil
			e.Problem = "does not resolve: " + asked + " was asked and said " + dnsProblem(err)
			return e
		}
		e.Addresses = addrs
	}
	// A CA may connect to any of the addresses. One that cannot be reached from here may
	// be an IPv6 address, on a host without IPv6. All at once: one that does not answer
	// takes no time from the others.
	problems, errs := make([]string, len(e.Addresses)), make([]error, len(e.Addresses))
	parallel.Do(len(e.Addresses), len(e.Addresses), func(i int) {
		problems[i], errs[i] = s.probe(ctx, name, e.Addresses[i], port, thumbprint)
		if errs[i] != nil && ctx.Err() != nil {
			errs[i] = fmt.Errorf("no answer within %s", timeout)
		}
	})
	var answered bool
	var unreachable error
	for i, address := range e.Addresses {
		switch {
		case errs[i] != nil:
			unreachable = errs[i]
		case problems[i] != "":
			return &ReachError{Name: name, Addresses: []string{address}, Problem: problems[i]}
		default:
			answered = true
		}
	}
	if !answered {
		e.Problem = fmt.Sprintf("port %d cannot be connected to from here: %s", port, unreachable)
		return e
	}
	return nil
}

// settle is the interval at which an edge without our thumbprint is checked again: edges
// read a new thumbprint with a delay.
const settle = 500 * time.Millisecond

// probe requests the answer to a token of our own from one address. It returns
// the problem with the answer, or "" if the answer is right.
func (s Stateless) probe(ctx context.Context, name, address string, port int, thumbprint string) (problem string, err error) {
	const token = "drover-self-check" // #nosec G101 -- public
	host := name
	if strings.Contains(name, ":") {
		host = "[" + name + "]"
	}
	dialer := net.Dialer{}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, net.JoinHostPort(address, strconv.Itoa(port)))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+challengePath+token, nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if err != nil {
			if problem != "" {
				return problem, nil // of the last answer before the timeout
			}
			var u *url.Error
			if errors.As(err, &u) {
				err = u.Err
			}
			return "", err
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		_ = resp.Body.Close()
		got := strings.TrimSpace(string(body))
		switch {
		case resp.StatusCode == http.StatusOK && got == token+"."+thumbprint:
			return "", nil
		case resp.StatusCode == http.StatusServiceUnavailable:
			problem = "the edge there does not know the ACME account yet"
		case resp.StatusCode != http.StatusOK:
			return fmt.Sprintf("another server answers there, or an edge without the ACME route: GET %s%s gave %s", challengePath, token, resp.Status), nil
		case strings.HasPrefix(got, token+"."):
			problem = "the edge there answers for a different ACME account"
		default:
			return fmt.Sprintf("another server answers there: GET %s%s returned a body that is not drover's", challengePath, token), nil
		}
		t := time.NewTimer(settle)
		select {
		case <-ctx.Done():
			t.Stop()
			return problem, nil
		case <-t.C:
		}
	}
}

func dnsProblem(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	return err.Error()
}

// Place returns the zero Record.
func (Stateless) Place(context.Context, Challenge) (Record, error) { return Record{}, nil }

// Present does nothing: the thumbprint is published before a CA is asked.
func (Stateless) Present(context.Context, Challenge, Record) error { return nil }

// Wait does nothing, see Check.
func (Stateless) Wait(context.Context, Challenge, Record) error { return nil }

// Remove does nothing.
func (Stateless) Remove(context.Context, Record) error { return nil }
