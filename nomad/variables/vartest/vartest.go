// Package vartest keeps Nomad Variables in memory, for tests without a server.
package vartest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Server answers the requests of a client for Variables (/v1/vars, /v1/var/:path), and
// counts them. It is the transport of the client: there is no network. It ignores
// namespaces.
type Server struct {
	mu        sync.Mutex
	index     uint64
	variables map[string]*api.Variable
	requests  []string
	changed   chan struct{} // closed and renewed after each change
}

// New returns a server without Variables.
func New() *Server {
	return &Server{variables: map[string]*api.Variable{}, changed: make(chan struct{})}
}

// Client returns a client whose requests transport answers: a Server, or what hands it
// the requests for Variables.
func Client(t testing.TB, transport http.RoundTripper) *api.Client {
	t.Helper()
	c, err := api.NewClient(&api.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Put writes a variable as another client does.
func (s *Server) Put(v *api.Variable) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(v)
}

// Delete removes a variable as another client does.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(path)
}

// Paths returns the paths of the Variables that begin with prefix, sorted.
func (s *Server) Paths(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paths(prefix)
}

// TakeRequests returns the requests since the last call, as "GET /v1/vars?prefix=drover".
func (s *Server) TakeRequests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.requests
	s.requests = nil
	return out
}

// RoundTrip implements http.RoundTripper. It answers 404 to requests for anything else.
func (s *Server) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body, ok := s.Answer(r)
	if !ok {
		code, body = http.StatusNotFound, "not found"
	}
	return s.Response(r, code, body)
}

// Response makes an answer of Nomad.
func (s *Server) Response(r *http.Request, code int, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err == nil {
		err = r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	index := s.index + 1
	if v, ok := body.(*api.Variable); ok {
		index = v.ModifyIndex
	}
	header := http.Header{"X-Nomad-Index": {strconv.FormatUint(index, 10)}}
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: header, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
}

// Answer returns the status code and the body of the answer to a request. It reports
// false if the request is not for Variables.
func (s *Server) Answer(r *http.Request) (code int, body any, ok bool) {
	path, isVariable := strings.CutPrefix(r.URL.Path, "/v1/var/")
	if isVariable && r.Method == http.MethodGet {
		s.await(r, path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	isList := r.URL.Path == "/v1/vars"
	if isVariable || isList {
		s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	}
	switch {
	case isList:
		list := []*api.VariableMetadata{}
		for _, p := range s.paths(r.URL.Query().Get("prefix")) {
			list = append(list, s.variables[p].Metadata())
		}
		return http.StatusOK, list, true
	case isVariable:
		code, body = s.answer(r, path)
		return code, body, true
	}
	return 0, nil, false
}

// await returns when the answer to a blocking query is due.
func (s *Server) await(r *http.Request, path string) {
	query := r.URL.Query()
	index, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute // as in Nomad
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	for index > 0 {
		s.mu.Lock()
		v, changed := s.variables[path], s.changed
		s.mu.Unlock()
		if v == nil || v.ModifyIndex > index {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// remove deletes a variable. The caller holds mu.
func (s *Server) remove(path string) {
	delete(s.variables, path)
	s.announce()
}

// announce ends the waits for a change. The caller holds mu.
func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// paths is Paths. The caller holds mu.
func (s *Server) paths(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.variables)), func(p string) bool { return !strings.HasPrefix(p, prefix) })
}

// put writes a variable. The caller holds mu.
func (s *Server) put(v *api.Variable) {
	s.index++
	v.Namespace, v.CreateIndex, v.ModifyIndex = api.DefaultNamespace, s.index, s.index
	if old := s.variables[v.Path]; old != nil {
		v.CreateIndex = old.CreateIndex
	}
	s.variables[v.Path] = v
	s.announce()
}

// answer answers a request for one variable; see nomad/state/state_store_variables.go.
// The caller holds mu.
func (s *Server) answer(r *http.Request, path string) (int, any) {
	old, query := s.variables[path], r.URL.Query()
	held := ""
	var now uint64
	if old != nil {
		held, now = old.LockID(), old.ModifyIndex
	}
	var sent api.Variable
	if r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			return http.StatusBadRequest, err.Error()
		}
	}
	conflict := held != "" && sent.LockID() != held
	if query.Has("cas") && query.Get("cas") != strconv.FormatUint(now, 10) {
		conflict = true
	}
	switch {
	case r.Method == http.MethodGet && old == nil:
		return http.StatusNotFound, "variable not found"
	case r.Method == http.MethodGet:
		return http.StatusOK, old
	case conflict:
		if old == nil {
			old = &api.Variable{Path: path}
		}
		return http.StatusConflict, old
	case r.Method == http.MethodDelete:
		s.remove(path)
		return http.StatusNoContent, nil
	case old == nil && (query.Has("lock-renew") || query.Has("lock-release")):
		return http.StatusBadRequest, "variable doesn't exist"
	case query.Has("lock-renew"):
		return http.StatusOK, old.Metadata()
	}
	sent.Path = path
	if query.Has("lock-release") {
		sent.Items, sent.Lock = old.Items, nil
	}
	s.put(&sent)
	return http.StatusOK, &sent
}
