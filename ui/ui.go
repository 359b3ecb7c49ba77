// Package ui is the web page of drover. It shows what the verbs of package deploy
// return and starts verbs on request; it has no logic of its own. Pages are rendered on
// the server, and a page that is open is kept up to date by server-sent events.
//
// The page is for one operator on loopback: it acts with the credentials of the process.
package ui

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/deploy"
)

//go:embed static
var static embed.FS

// Options are what a Server needs.
type Options struct {
	// Source reads the cluster and carries out actions: a Cluster, or a substitute in
	// tests.
	Source Source
	// Address is the HOST:PORT that the server listens at. Requests for another host
	// are refused, so that a foreign page cannot reach it by a name of its own (DNS
	// rebinding). localhost with the same port is allowed too.
	Address string
	// ReadOnly refuses all actions.
	ReadOnly bool
	// Operator is named on the pages, as USER@HOST.
	Operator string
	// Interval is the time between two reads of what an open page shows; 2 s when 0.
	Interval time.Duration
	// Opened is called with the next sign-in URL when the last one was used; may be nil.
	Opened func(url string)
}

// Server serves the page. Close ends what it has started.
type Server struct {
	opts   Options
	guard  *guard
	source *shared
	hub    *hub
	runs   *runs
	mux    *http.ServeMux

	ctx    context.Context
	cancel context.CancelFunc
}

// New returns a server. It makes no request.
func New(o Options) *Server {
	if o.Interval <= 0 {
		o.Interval = 2 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{opts: o, guard: newGuard(o.Address), ctx: ctx, cancel: cancel, mux: http.NewServeMux()}
	s.source = &shared{Source: o.Source, memo: &memo{base: ctx, entries: map[string]*entry{}}, interval: o.Interval, usage: &usageLog{byAlloc: map[string]*samples{}}, requests: &requestLog{}}
	s.hub = &hub{base: ctx, topics: map[string]*topic{}}
	s.runs = &runs{base: ctx, byID: map[string]*run{}}
	s.routes()
	return s
}

// Close ends the streams of open pages, cancels the verbs that run, which leaves their
// releases interrupted, and waits for all of them.
func (s *Server) Close() {
	s.cancel()
	s.runs.end()
	s.hub.end()
}

// URL returns the sign-in URL: it opens a session once. path is where it leads to; ""
// is the first page.
func (s *Server) URL(path string) string {
	q := url.Values{"token": {s.guard.token()}}
	if path != "" && path != "/" {
		q.Set("next", path)
	}
	return "http://" + s.opts.Address + "/?" + q.Encode()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	headers(w.Header())
	if !s.guard.knowsHost(r.Host) {
		s.fail(w, r, http.StatusMisdirectedRequest, "This server does not answer for the host "+r.Host+".")
		return
	}
	if strings.HasPrefix(r.URL.Path, "/static/") {
		w.Header().Set("Cache-Control", "max-age=3600")
		http.FileServerFS(static).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if token := r.URL.Query().Get("token"); token != "" && r.URL.Path == "/" && r.Method == http.MethodGet {
		s.signIn(w, r, token)
		return
	}
	session := s.guard.session(r)
	if session == nil {
		s.fail(w, r, http.StatusUnauthorized, "Open the URL that `drover ui` has printed. It opens one session.")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if err := s.guard.checkPost(w, r, session); err != nil {
			s.fail(w, r, http.StatusForbidden, "The form was not sent from a page of this session. Load the page again.")
			return
		}
	}
	s.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, session)))
}

type sessionKey struct{}

// signIn opens a session. The answer is a page that leads on, and no redirect: a browser
// does not send a SameSite=Strict cookie along a redirect that began elsewhere.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request, token string) {
	session := s.guard.open(token)
	if session == nil {
		s.fail(w, r, http.StatusUnauthorized, "This URL was used before, or is not of this `drover ui`. Open the newest URL that it has printed.")
		return
	}
	http.SetCookie(w, &http.Cookie{Name: s.guard.cookie, Value: session.id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(sessionTime / time.Second)}) //nolint:gosec // loopback has no TLS
	next := r.URL.Query().Get("next")
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, "\\") {
		next = "/"
	}
	s.render(w, r, http.StatusOK, page{Title: "Signed in", Name: "signedin", Data: next, refresh: next})
	if s.opts.Opened != nil {
		s.opts.Opened(s.URL(""))
	}
}

// random returns 128 random bits as text.
func random() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// href returns the path of the parts, each escaped.
func href(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// StackPath returns the path of the page of a stack, for Server.URL.
func StackPath(name, env string) string { return stackHref(name, env) }

// stackHref returns the path of the page of a stack.
func stackHref(name, env string, more ...string) string {
	return href(append([]string{"s", name, deploy.EnvironmentName(env)}, more...)...)
}

// workers waits for the goroutines of a part of the server.
type workers struct{ wg sync.WaitGroup }

func (w *workers) wait() { w.wg.Wait() }
