package nomad

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// Each request that is refused names what allows it, whatever the error says
// around it.
func TestGrant(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Permission denied", http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	c, err := NewClient(&api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	v, lock := &api.Variable{Path: "drover/stacks/shop/prod/lock"}, "drover/stacks/shop/prod/lock"
	for name, try := range map[string]struct {
		ask  func() error
		want string
	}{
		"plan":           {func() error { return plan(c) }, `capabilities = ["plan-job"] (before Nomad 1.11, "submit-job") in the block of namespace "default"`},
		"register":       {func() error { return write(c) }, `capabilities = ["submit-job"], and host_volume "*"`},
		"read job":       {func() error { return read(c) }, `capabilities = ["list-jobs", "read-job"] in the block of namespace "default"`},
		"jobs elsewhere": {func() error { _, _, err := c.Jobs().List(&api.QueryOptions{Namespace: "shop"}); return err }, `in the block of namespace "shop"`},
		"stop":           {func() error { _, _, err := c.Jobs().Deregister("one", true, nil); return err }, `capabilities = ["submit-job"] in the`},
		"promote":        {func() error { _, _, err := c.Deployments().PromoteAll("d", nil); return err }, `capabilities = ["submit-job"] in the`},
		"dispatch":       {func() error { _, _, err := c.Jobs().Dispatch("one", nil, nil, "", nil); return err }, `["dispatch-job"]`},
		"scale":          {func() error { _, _, err := c.Jobs().Scale("one", "g", new(int), "", false, nil, nil); return err }, `["scale-job"]`},
		"force":          {func() error { _, _, err := c.Jobs().PeriodicForce("one", nil); return err }, `["submit-job"]`},
		"stop allocation": {func() error {
			_, err := c.Allocations().Stop(&api.Allocation{ID: "a"}, nil)
			return err
		}, `["alloc-lifecycle"]`},
		"events":  {func() error { _, err := c.Raw().Response("/v1/event/stream", nil); return err }, `["list-jobs", "read-job"]`},
		"volumes": {func() error { _, _, err := c.HostVolumes().List(nil, nil); return err }, `["host-volume-read"]`},
		"make volume": {func() error {
			_, _, err := c.HostVolumes().Create(&api.HostVolumeCreateRequest{Volume: &api.HostVolume{}}, nil)
			return err
		}, `["host-volume-create"]`},
		"remove volume": {func() error {
			_, _, err := c.HostVolumes().Delete(&api.HostVolumeDeleteRequest{ID: "v"}, nil)
			return err
		}, `["host-volume-delete"]`},
		"node":           {func() error { _, _, err := c.Nodes().Info("n", nil); return err }, `node { policy = "read" }`},
		"nodes":          {func() error { _, _, err := c.Nodes().List(nil); return err }, `node { policy = "read" }`},
		"policies":       {func() error { _, _, err := c.ACLPolicies().List(nil); return err }, "a management token"},
		"variable":       {func() error { _, _, err := c.Variables().Peek(lock, nil); return err }, `variables { path "` + lock + `" { capabilities = ["read"] } } in the block of namespace "default"`},
		"write variable": {func() error { _, _, err := c.Variables().Update(v, nil); return err }, `variables { path "` + lock + `" { capabilities = ["write"] } }`},
		"lock":           {func() error { _, _, err := c.Variables().AcquireLock(v, nil); return err }, `variables { path "` + lock + `" { capabilities = ["write"] } }`},
		"delete":         {func() error { _, err := c.Variables().CheckedDelete(lock, 7, nil); return err }, `variables { path "` + lock + `" { capabilities = ["destroy"] } }`},
		"list":           {func() error { _, _, err := c.Variables().PrefixList("drover/certs/", nil); return err }, `variables { path "drover/certs/*" { capabilities = ["list"] } }`},
		"something else": {func() error { _, err := c.Raw().Response("/v1/operator/raft/configuration", nil); return err }, ""},
	} {
		var resp api.UnexpectedResponseError
		if err := try.ask(); !errors.As(err, &resp) {
			t.Errorf("%s: %v", name, err)
			continue
		} else if strings.Contains(err.Error(), "/v1/") {
			t.Errorf("%s shows what it carries: %s", name, err)
		}
		if got := grant(resp.StatusText()); !strings.Contains(got, try.want) || try.want == "" && got != "" {
			t.Errorf("%s (%s): %q", name, resp.StatusText(), got)
		}
	}
	for text, want := range map[string]string{
		`Permission denied: token with AccessorID 'c98c' lacks permission 'service:read' on "web"`: `service "web" { policy = "read" }`,
		`Permission denied: token with AccessorID 'c98c' lacks permission 'acl:write'`:             `acl = "write"`,
		`ACL not found`: "",
	} {
		if got := consulGrant(text); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
