package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/parallel"
)

// RankWell is the lowest rank that Attention returns for a certificate in good order.
const RankWell = 7

// Attention returns how urgently an operator should look at a certificate (0 is
// the most urgent) and why; "" if there is no need.
func Attention(o *Object, now time.Time) (int, string) {
	st := &o.Status
	left := st.NotAfter.Sub(now)
	switch {
	case st.Phase != Temporary && left <= 0:
		return 0, "expired"
	case st.Phase == Temporary && st.LastError != "":
		return 1, "no CA has issued it: " + st.LastError
	case st.Phase == Revoked && st.LastError != "":
		return 2, "revoked, and there is no other: " + st.LastError
	case st.Phase == Revoked:
		return 2, "revoked"
	case st.Phase == Held:
		return 3, st.LastError
	case st.Phase == Failing:
		return 4, st.LastError
	case st.Phase == Temporary:
		return 5, st.Reason
	case !st.RenewAt.IsZero() && now.After(st.RenewAt.Add(st.NotAfter.Sub(st.RenewAt)/2)):
		return 6, "should have been renewed " + st.RenewAt.Format(time.RFC3339) + "; is the controller running?"
	case len(st.Leftovers) > 0:
		return RankWell, fmt.Sprintf("%d DNS records of challenges are still to be removed", len(st.Leftovers))
	case st.ClockSkew != 0:
		return RankWell + 1, fmt.Sprintf("the clock of the host that issued it was %s off", st.ClockSkew)
	}
	return RankWell + 2, ""
}

// SortByAttention puts what needs attention first, then what expires first.
func SortByAttention(list []*Object, now time.Time) {
	slices.SortStableFunc(list, func(a, b *Object) int {
		x, _ := Attention(a, now)
		y, _ := Attention(b, now)
		if x != y {
			return x - y
		}
		if c := a.Status.NotAfter.Compare(b.Status.NotAfter); c != 0 {
			return c
		}
		return strings.Compare(a.Spec.Name, b.Spec.Name)
	})
}

// Serial is a certificate's serial number as Status has it.
func Serial(c *x509.Certificate) string { return serialOf(c) }

// Names are what a certificate is for.
func Names(c *x509.Certificate) []string { return certNames(c) }

// Dial returns the chain that the TLS server at address presents for serverName,
// without verifying it. If the server closes the connection, Dial tries again with
// the PROXY protocol, for an edge behind a load balancer.
func Dial(ctx context.Context, address, serverName string, timeout time.Duration) ([]*x509.Certificate, error) {
	if serverName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		serverName = host
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	chain, connected, err := shown(ctx, address, serverName, "")
	if err != nil && connected && ctx.Err() == nil {
		// With PROXY UNKNOWN the server uses the connection's own address.
		if behind, _, perr := shown(ctx, address, serverName, "PROXY UNKNOWN\r\n"); perr == nil {
			return behind, nil
		}
	}
	return chain, err
}

// shown returns the chain that the server presents after the client sent hello.
func shown(ctx context.Context, address, serverName, hello string) (chain []*x509.Certificate, connected bool, err error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = raw.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	if _, err := io.WriteString(raw, hello); err != nil {
		return nil, true, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: serverName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) // #nosec G402 -- looks, trusts nothing
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, true, err
	}
	if chain = conn.ConnectionState().PeerCertificates; len(chain) == 0 {
		return nil, true, errors.New("it shows no certificate")
	}
	return chain, true, nil
}

// Served is what one place serves.
type Served struct {
	Address string    `json:"address"`
	Serial  string    `json:"serial,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Match   bool      `json:"match"` // it is the one that is stored
	Problem string    `json:"problem,omitempty"`
}

// Served asks every address for the certificate by its first name, and
// compares what it shows with what is stored.
func (o *Object) Served(ctx context.Context, addresses []string, timeout time.Duration) []Served {
	out := make([]Served, len(addresses))
	if len(o.Spec.Names) == 0 { // another program has written it
		for i, address := range addresses {
			out[i] = Served{Address: address, Problem: "the stored certificate has no names: issue it again"}
		}
		return out
	}
	server := strings.Replace(o.Spec.Names[0], "*", "drover-probe", 1)
	parallel.Do(len(addresses), 16, func(i int) {
		s := Served{Address: addresses[i]}
		chain, err := Dial(ctx, addresses[i], server, timeout)
		if err != nil {
			s.Problem = err.Error()
		} else {
			s.Serial, s.Expires = serialOf(chain[0]), chain[0].NotAfter.UTC()
			stored := pki.First(o.Chain)
			s.Match = stored != nil && stored.Equal(chain[0])
			switch {
			case s.Match:
			case IsTemporary(chain[0]):
				s.Problem = "serves the self-signed placeholder"
			default:
				s.Problem = "serves a different certificate, for " + strings.Join(certNames(chain[0]), ", ")
			}
		}
		out[i] = s
	})
	return out
}

func allMatch(served []Served) bool {
	return len(served) > 0 && !slices.ContainsFunc(served, func(s Served) bool { return !s.Match })
}

// Verify requests a certificate by its first name from every address, and stores whether
// all serve the stored one. The certificate becomes Ready when they do for the first
// time.
func (m *Manager) Verify(ctx context.Context, name string, addresses []string, timeout time.Duration) ([]Served, *Object, error) {
	o, err := m.c.Store.Get(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	out := o.Served(ctx, addresses, timeout)
	if ctx.Err() != nil {
		return out, o, ctx.Err()
	}
	all := allMatch(out)
	serial := o.Status.Serial
	if all == (o.Status.ServedAs == serial) && (o.Status.Phase != Issued || !all) {
		return out, o, nil // nothing new
	}
	o, err = m.c.Store.Update(ctx, name, func(o *Object) error {
		st := &o.Status
		if st.Serial != serial {
			return nil
		}
		switch {
		case all:
			st.ServedAs, st.ServedSeen = serial, m.now()
			if st.Phase == Issued {
				st.Phase, st.Reason = Ready, "stored and served"
			}
		case st.Phase == Ready || st.Phase == Issued:
			st.Phase, st.ServedAs = Issued, ""
			st.Reason = "stored, but not served everywhere"
		}
		return nil
	})
	return out, o, err
}
