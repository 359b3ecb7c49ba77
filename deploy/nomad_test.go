package deploy

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables/vartest"
)

// fakeNomad answers requests of a client without a network: Variables are kept in
// memory, lists are empty, and nothing else is found.
type fakeNomad struct {
	variables *vartest.Server
	running   []string // IDs of jobs
	// deny makes requests whose path begins with it fail with 403; "" for none.
	deny string
}

// client returns a client of the server.
func (n *fakeNomad) client(t *testing.T) *api.Client {
	t.Helper()
	return vartest.Client(t, n)
}

func (n *fakeNomad) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body := n.answer(r)
	return n.variables.Response(r, code, body)
}

func (n *fakeNomad) answer(r *http.Request) (int, any) {
	if n.deny != "" && strings.HasPrefix(r.URL.Path, n.deny) {
		return http.StatusForbidden, "Permission denied"
	}
	if code, body, ok := n.variables.Answer(r); ok {
		return code, body
	}
	switch {
	case slices.Contains(n.running, strings.TrimPrefix(r.URL.Path, "/v1/job/")):
		id, status := strings.TrimPrefix(r.URL.Path, "/v1/job/"), "running"
		return http.StatusOK, &api.Job{ID: &id, Status: &status}
	case strings.HasPrefix(r.URL.Path, "/v1/health/service/"): // of Consul
		return http.StatusOK, []any{}
	case slices.Contains([]string{"/v1/jobs", "/v1/jobs/statuses", "/v1/allocations", "/v1/nodes", "/v1/volumes", "/v1/services", "/v1/acl/binding-rules", "/v1/acl/policies"}, r.URL.Path):
		return http.StatusOK, []any{}
	}
	return http.StatusNotFound, "not found"
}
