package acme_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/drover-nomad/drover/acme"
)

// network is a DNS of its own: authoritative servers on loopback addresses with
// one port, and a recursive resolver that counts what it is asked.
type network struct {
	t        *testing.T
	port     string
	address  string // of the recursive resolver
	resolver *net.Resolver

	mu      sync.Mutex
	records []dns.RR
	asked   map[string]int // of the resolver, by name
	replace answer
}

// answer replaces the answer of an authoritative server, unless it is nil or returns
// false.
type answer = func(server, network string, q dns.Question, m *dns.Msg) (replaced, silent bool)

func (n *network) answers(f answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.replace = f
}

// listenOn listens at one port of all the addresses, which another test may take for
// TCP when it is free for UDP.
func listenOn(t *testing.T, addresses []string) (port string, udp []net.PacketConn, tcp []net.Listener) {
	t.Helper()
	var err error
	for range 20 {
		port = "0"
		udp, tcp = nil, nil
		for _, a := range addresses {
			var u net.PacketConn
			if u, err = net.ListenPacket("udp", net.JoinHostPort(a, port)); err != nil {
				break
			}
			udp = append(udp, u)
			_, port, _ = net.SplitHostPort(u.LocalAddr().String())
			var l net.Listener
			if l, err = net.Listen("tcp", net.JoinHostPort(a, port)); err != nil {
				break
			}
			tcp = append(tcp, l)
		}
		if err == nil {
			return port, udp, tcp
		}
		for _, u := range udp {
			_ = u.Close()
		}
		for _, l := range tcp {
			_ = l.Close()
		}
	}
	t.Fatal(err)
	return "", nil, nil
}

// newNetwork starts a server for each zone, which is "ZONE SERVER…".
func newNetwork(t *testing.T, zones ...string) *network {
	t.Helper()
	n := &network{t: t, asked: map[string]int{}}
	servers := map[string][]string{}
	for _, z := range zones {
		f := strings.Fields(z)
		for _, ip := range f[1:] {
			servers[ip] = append(servers[ip], f[0]+".")
			ns := "ns" + strings.ReplaceAll(ip, ".", "-") + "." + f[0] + "."
			n.add(f[0]+". 60 NS "+ns, ns+" 60 A "+ip)
		}
	}
	ips := slices.Sorted(maps.Keys(servers))
	port, udp, tcp := listenOn(t, append([]string{"127.0.0.1"}, ips...))
	n.port, n.address = port, udp[0].LocalAddr().String()
	n.serve(&dns.Server{PacketConn: udp[0], Handler: dns.HandlerFunc(n.recursive)})
	n.serve(&dns.Server{Listener: tcp[0], Handler: dns.HandlerFunc(n.recursive)})
	n.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", n.address)
	}}
	for i, ip := range ips {
		h := n.authoritative(ip, servers[ip])
		n.serve(&dns.Server{PacketConn: udp[i+1], Handler: h("udp")})
		n.serve(&dns.Server{Listener: tcp[i+1], Handler: h("tcp")})
	}
	return n
}

func (n *network) serve(s *dns.Server) {
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() { _ = s.ActivateAndServe() }()
	<-started
	n.t.Cleanup(func() { _ = s.Shutdown() })
}

func (n *network) add(records ...string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			n.t.Fatal(err)
		}
		n.records = append(n.records, rr)
	}
}

// find answers a question, and reports whether the name exists.
func (n *network) find(q dns.Question) (answer []dns.RR, exists bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rr := range n.records {
		h := rr.Header()
		if h.Name != q.Name {
			continue
		}
		exists = true
		if h.Rrtype == q.Qtype || h.Rrtype == dns.TypeCNAME {
			answer = append(answer, rr)
		}
	}
	return answer, exists
}

func (n *network) recursive(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	q := r.Question[0]
	n.mu.Lock()
	n.asked[q.Name]++
	n.mu.Unlock()
	var exists bool
	if m.Answer, exists = n.find(q); !exists {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

func (n *network) authoritative(ip string, zones []string) func(network string) dns.HandlerFunc {
	return func(network string) dns.HandlerFunc {
		return func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(r)
			q := r.Question[0]
			n.mu.Lock()
			f := n.replace
			n.mu.Unlock()
			if f != nil {
				if replaced, silent := f(ip, network, q, m); replaced || silent {
					if !silent {
						_ = w.WriteMsg(m)
					}
					return
				}
			}
			m.Rcode = dns.RcodeRefused
			for _, z := range zones {
				if dns.IsSubDomain(z, q.Name) {
					var exists bool
					m.Rcode, m.Authoritative = dns.RcodeSuccess, true
					if m.Answer, exists = n.find(q); !exists {
						m.Rcode = dns.RcodeNameError
					}
				}
			}
			_ = w.WriteMsg(m)
		}
	}
}

// AppendRecords makes the network a provider of all its zones.
func (n *network) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	for _, r := range recs {
		n.add(fmt.Sprintf("%s 60 TXT %q", libdns.AbsoluteName(r.RR().Name, zone), r.RR().Data))
	}
	return recs, nil
}

// DeleteRecords deletes all TXT records of the names.
func (n *network) DeleteRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range recs {
		n.records = slices.DeleteFunc(n.records, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeTXT && rr.Header().Name == libdns.AbsoluteName(r.RR().Name, zone)
		})
	}
	return recs, nil
}

// solver writes to the zones of the network that are named.
func (n *network) solver(zones ...string) *acme.DNS {
	d := &acme.DNS{Resolver: n.resolver, Timeout: 5 * time.Second}
	d.SetPort(n.port)
	for _, z := range zones {
		d.Zones = append(d.Zones, acme.Zone{Name: z, Provider: n})
	}
	return d
}

func challenge(name string) acme.Challenge {
	return acme.Challenge{Type: acme.DNS01, Name: name, TXT: "proof"}
}

// TestDNS_AsksAuthoritativeServers: all servers of the zone have to return the
// record, and the resolver of the host is not asked for it, because it would cache
// that there is none.
func TestDNS_AsksAuthoritativeServers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "example.com 127.9.1.1 127.9.1.2 127.9.1.3")
	const name = "_acme-challenge.example.com."
	var mu sync.Mutex
	late, overTCP := 0, 0
	n.answers(func(server, network string, q dns.Question, m *dns.Msg) (bool, bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case server == "127.9.1.1" && network == "udp":
			m.Truncated, m.Authoritative = true, true
			return true, false
		case server == "127.9.1.1":
			overTCP++
		case server == "127.9.1.2" && q.Qtype == dns.TypeTXT && late < 3: // a secondary that has the record later
			late++
			m.Rcode, m.Authoritative = dns.RcodeNameError, true
			return true, false
		case server == "127.9.1.3": // and one that is gone
			m.Rcode = dns.RcodeServerFailure
			return true, false
		}
		return false, false
	})
	d := n.solver("example.com")
	if err := d.Check(t.Context(), []string{"example.com", "*.example.com"}, ""); err != nil {
		t.Fatal(err)
	}
	at, err := d.Place(t.Context(), challenge("example.com"))
	if want := (acme.Record{Zone: "example.com", Name: "_acme-challenge.example.com", Text: "proof"}); err != nil || at != want {
		t.Fatalf("got %+v, %v, want %+v", at, err, want)
	}
	if err := d.Present(t.Context(), challenge("example.com"), at); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(t.Context(), challenge("example.com"), at); err != nil {
		t.Fatal(err)
	}
	if late != 3 || overTCP == 0 {
		t.Errorf("the late server was asked %d times, want 3 times in vain; the truncated answers were asked for over TCP %d times", late, overTCP)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if got := n.asked[name]; got != 0 {
		t.Errorf("the resolver was asked for the record %d times", got)
	}
}

// TestDNS_UnknownIsNotNone: a lookup that fails does not mean that there is no
// alias.
func TestDNS_UnknownIsNotNone(t *testing.T) {
	t.Parallel()
	rcode := func(code int) func(string, string, dns.Question, *dns.Msg) (bool, bool) {
		return func(server, _ string, q dns.Question, m *dns.Msg) (bool, bool) {
			m.Rcode = code
			return strings.HasPrefix(q.Name, "_acme") && server != "127.9.2.3", false
		}
	}
	for _, c := range []struct {
		name   string
		answer func(server, network string, q dns.Question, m *dns.Msg) (replaced, silent bool)
		zone   string
		says   []string // of the error, nil for none
	}{
		{"SERVFAIL", rcode(dns.RcodeServerFailure), "example.com 127.9.2.1 127.9.2.2", []string{"_acme-challenge.example.com is an alias", "127.9.2.1", "127.9.2.2", "SERVFAIL"}},
		{"REFUSED", rcode(dns.RcodeRefused), "example.com 127.9.2.1", []string{"REFUSED"}},
		{"no answer", func(string, string, dns.Question, *dns.Msg) (bool, bool) { return false, true }, "example.com 127.9.2.1", []string{"no answer within 2s"}},
		{"one server of two answers", rcode(dns.RcodeServerFailure), "example.com 127.9.2.1 127.9.2.3", nil},
		{"two servers differ", func(server, _ string, q dns.Question, m *dns.Msg) (bool, bool) {
			if server == "127.9.2.1" || !strings.HasPrefix(q.Name, "_acme") {
				return false, false
			}
			rr, _ := dns.NewRR(q.Name + " 60 CNAME elsewhere.example.net.")
			m.Authoritative, m.Answer = true, []dns.RR{rr}
			return true, false
		}, "example.com 127.9.2.1 127.9.2.2", []string{`says "elsewhere.example.net"`, `says ""`}},
		{"no name server", nil, "example.org 127.9.2.1", []string{"no NS record names a server for example.com"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, c.zone)
			n.answers(c.answer)
			d := n.solver("example.com")
			at, err := d.Place(t.Context(), challenge("example.com"))
			if len(c.says) == 0 {
				if err != nil || at.Name != "_acme-challenge.example.com" {
					t.Errorf("got %+v, %v", at, err)
				}
				return
			}
			var unknown *acme.UnknownError
			if !errors.As(err, &unknown) || at != (acme.Record{}) {
				t.Fatalf("got %+v, %v, want an UnknownError", at, err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("got %q, want %q in it", err, s)
				}
			}
			if err := d.Check(t.Context(), []string{"example.com"}, ""); err == nil || strings.Contains(err.Error(), "in none of the zones") {
				t.Errorf("before the order: %v", err)
			}
		})
	}
}

// TestDNS_FollowsAliases: aliases lead from zone to zone, also where a zone is
// delegated to other servers.
func TestDNS_FollowsAliases(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "example.org 127.9.3.1", "example.net 127.9.3.2", "example.com 127.9.3.3", "acme.example.com 127.9.3.4")
	n.add("_acme-challenge.shop.example.org. 60 CNAME shop.hop.example.net.", "shop.hop.example.net. 60 CNAME shop.acme.example.com.",
		"_acme-challenge.circle.example.org. 60 CNAME circle.example.net.", "circle.example.net. 60 CNAME _acme-challenge.circle.example.org.")
	n.answers(func(server, _ string, q dns.Question, m *dns.Msg) (bool, bool) {
		if server != "127.9.3.3" || !strings.HasSuffix(q.Name, "acme.example.com.") {
			return false, false
		}
		ns, _ := dns.NewRR("acme.example.com. 60 NS ns127-9-3-4.acme.example.com.")
		glue, _ := dns.NewRR("ns127-9-3-4.acme.example.com. 60 A 127.9.3.4")
		m.Ns, m.Extra = []dns.RR{ns}, []dns.RR{glue}
		return true, false
	})
	for _, zone := range []string{"acme.example.com", "example.com"} { // the second is the parent of the zone
		d := n.solver(zone)
		at, err := d.Place(t.Context(), challenge("shop.example.org"))
		if err != nil || at.Name != "shop.acme.example.com" || at.Zone != zone {
			t.Errorf("got %+v, %v, want the end of two aliases", at, err)
		}
		if err := d.Check(t.Context(), []string{"*.shop.example.org"}, ""); err != nil {
			t.Error(err)
		}
	}
	if _, err := n.solver("example.net").Place(t.Context(), challenge("circle.example.org")); err == nil || !strings.Contains(err.Error(), "is the first of more than 8 aliases") {
		t.Errorf("a circle: %v", err)
	}
}
