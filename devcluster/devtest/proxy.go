package devtest

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// Proxy stands before Nomad's API, so that a test can count, delay and refuse
// what a program asks.
type Proxy struct {
	// URL is what the program gets as NOMAD_ADDR.
	URL string

	mu     sync.Mutex
	writes []string
	wrote  func(n int)
	answer func(n int) int
	before func(http.ResponseWriter, *http.Request) bool
}

// LoseAnswer is what the function of Answer returns for an answer that is lost.
const LoseAnswer = -1

// answered replaces the answer to a request that Nomad has done.
type answered int

func (answered) Error() string { return "the answer is replaced" }

// NewProxy starts a proxy for the API that cfg leads to; it ends with the
// test. It is spoken to in clear whatever cfg says of TLS, and adds no token.
func NewProxy(t testing.TB, cfg *api.Config) *Proxy {
	t.Helper()
	to, err := url.Parse(cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	if err := api.ConfigureTLS(client, cfg.TLSConfig); err != nil {
		t.Fatal(err)
	}
	p := &Proxy{}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = client.Transport
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		var status answered
		switch {
		case !errors.As(err, &status):
			w.WriteHeader(http.StatusBadGateway)
		case status == LoseAnswer:
			panic(http.ErrAbortHandler) // the connection ends without an answer
		default:
			http.Error(w, http.StatusText(int(status)), int(status))
		}
	}
	proxy.ModifyResponse = func(r *http.Response) error {
		req := r.Request
		if req.Method == http.MethodGet || strings.HasSuffix(req.URL.Path, "/plan") {
			return nil
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.writes = append(p.writes, req.Method+" "+req.URL.Path)
		if p.wrote != nil {
			p.wrote(len(p.writes))
		}
		if p.answer != nil {
			if status := p.answer(len(p.writes)); status != 0 {
				return answered(status)
			}
		}
		return nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		before := p.before
		p.mu.Unlock()
		if before == nil || before(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	p.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return p
}

// Wrote has f called with the number of each write that Nomad has answered,
// before the program knows; f must not wait. Plans are no writes.
func (p *Proxy) Wrote(f func(n int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrote = f
}

// Answer has f called with the number of each write that Nomad has done. The
// program gets Nomad's answer if f returns 0, none if f returns LoseAnswer, and
// an error with this HTTP status otherwise. f must not wait.
func (p *Proxy) Answer(f func(n int) int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Before has f called with each request from now on; when f says false, it has
// answered itself. nil ends that.
func (p *Proxy) Before(f func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = f
}

// Writes lists what Nomad was asked to change, as METHOD PATH.
func (p *Proxy) Writes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.writes...)
}
