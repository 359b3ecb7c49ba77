package ui

import (
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// sessionTime is how long a session lasts.
const sessionTime = 12 * time.Hour

// maxSessions is the number of sessions; the oldest ends when another is opened.
const maxSessions = 16

// maxForm is the size of a form in bytes.
const maxForm = 64 << 10

// contentPolicy allows nothing but our own files: no inline script or style, no other
// host.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func headers(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin")
}

// guard holds the sessions and checks requests.
type guard struct {
	hosts  map[string]bool
	cookie string
	origin *http.CrossOriginProtection

	mu       sync.Mutex
	once     string // the token that opens the next session
	sessions []*session
}

// session is a browser that has used a sign-in URL.
type session struct {
	id, csrf string
	until    time.Time
}

func newGuard(address string) *guard {
	host, port, _ := net.SplitHostPort(address)
	g := &guard{cookie: "drover_" + port, once: random(), hosts: map[string]bool{}, origin: http.NewCrossOriginProtection()}
	for _, name := range []string{host, "localhost"} {
		g.hosts[net.JoinHostPort(name, port)] = true
	}
	return g
}

func (g *guard) knowsHost(host string) bool { return g.hosts[host] }

func (g *guard) token() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.once
}

// open opens a session if token is the one that was printed last, and replaces that.
// Otherwise it returns nil.
func (g *guard) open(token string) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !equal(token, g.once) {
		return nil
	}
	g.once = random()
	s := &session{id: random(), csrf: random(), until: time.Now().Add(sessionTime)}
	g.sessions = append(g.sessions, s)
	g.sessions = g.sessions[max(0, len(g.sessions)-maxSessions):]
	return s
}

// session returns the session of a request, nil if it has none.
func (g *guard) session(r *http.Request) *session {
	c, err := r.Cookie(g.cookie)
	if err != nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if equal(c.Value, s.id) && time.Now().Before(s.until) {
			return s
		}
	}
	return nil
}

// errForged means that a form does not come from a page of the session.
var errForged = errors.New("the form is not of this session")

// checkPost returns errForged if a form was not sent from a page of the session: by what
// the browser says of its origin, and by the token in the form.
func (g *guard) checkPost(w http.ResponseWriter, r *http.Request, s *session) error {
	if g.origin.Check(r) != nil {
		return errForged
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil || !equal(r.PostForm.Get("csrf"), s.csrf) {
		return errForged
	}
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
