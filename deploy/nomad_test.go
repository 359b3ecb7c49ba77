package deploy

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

	"github.com/hashicorp/nomad/api"
)

// fakeNomad answers requests of a client without a network: Variables are kept in
// memory, lists are empty, and nothing else is found.
type fakeNomad struct {
	mu        sync.Mutex
	index     uint64
	variables map[string]*api.Variable
	running   []string // IDs of jobs
	// deny makes requests whose path begins with it fail with 403; "" for none.
	deny string
}

// client returns a client of the server.
func (n *fakeNomad) client(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient(&api.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: n}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *fakeNomad) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	code, body := n.answer(r)
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	header := http.Header{"X-Nomad-Index": {strconv.FormatUint(n.index+1, 10)}}
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: header, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
}

func (n *fakeNomad) answer(r *http.Request) (int, any) {
	path, isVariable := strings.CutPrefix(r.URL.Path, "/v1/var/")
	switch {
	case n.deny != "" && strings.HasPrefix(r.URL.Path, n.deny):
		return http.StatusForbidden, "Permission denied"
	case r.URL.Path == "/v1/vars":
		list := []*api.VariableMetadata{}
		for _, p := range slices.Sorted(maps.Keys(n.variables)) {
			if strings.HasPrefix(p, r.URL.Query().Get("prefix")) {
				list = append(list, n.variables[p].Metadata())
			}
		}
		return http.StatusOK, list
	case slices.Contains(n.running, strings.TrimPrefix(r.URL.Path, "/v1/job/")):
		id, status := strings.TrimPrefix(r.URL.Path, "/v1/job/"), "running"
		return http.StatusOK, &api.Job{ID: &id, Status: &status}
	case strings.HasPrefix(r.URL.Path, "/v1/health/service/"): // of Consul
		return http.StatusOK, []any{}
	case isVariable:
		return n.variable(r, path)
	case slices.Contains([]string{"/v1/jobs", "/v1/jobs/statuses", "/v1/allocations", "/v1/nodes", "/v1/volumes", "/v1/services", "/v1/acl/binding-rules", "/v1/acl/policies"}, r.URL.Path):
		return http.StatusOK, []any{}
	}
	return http.StatusNotFound, "not found"
}

// variable answers requests of one variable; see nomad/state/state_store_variables.go.
func (n *fakeNomad) variable(r *http.Request, path string) (int, any) {
	old, query := n.variables[path], r.URL.Query()
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
		delete(n.variables, path)
		return http.StatusNoContent, nil
	case query.Has("lock-renew"):
		return http.StatusOK, old.Metadata()
	}
	n.index++
	sent.Path, sent.Namespace, sent.CreateIndex, sent.ModifyIndex = path, api.DefaultNamespace, n.index, n.index
	if old != nil {
		sent.CreateIndex = old.CreateIndex
	}
	if query.Has("lock-release") {
		sent.Items, sent.Lock = old.Items, nil
	}
	n.variables[path] = &sent
	return http.StatusOK, &sent
}
