package rollout

import (
	"strings"
	"testing"
)

func TestGrant(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`planning job "one": Permission denied`:                                                      "plan-job",
		`registering job "one": Permission denied`:                                                   "submit-job",
		`reading the deployment of job "one": Unexpected response code: 403 (Permission denied)`:     "read-job",
		`locking drover/stacks/used/default/lock: Unexpected response code: 403 (Permission denied)`: `path "drover/stacks/used/default/lock" { capabilities = ["read", "write"] }`,
		`reading the secrets of stack used: Unexpected response code: 403 (Permission denied)`:       `path "drover/stacks/used/*" { capabilities = ["read", "list"] }`,
		`writing the services of release 1 of stack shop: Unexpected response code: 403`:             `path "drover/stacks/shop/*" { capabilities = ["write"] }`,
		`writing the variable of job shop-web: 403`:                                                  `path "nomad/jobs/shop-web"`,
		`writing Nomad's policy drover-deployer: Unexpected response code: 403 (Permission denied)`:  "management token",
		`creating host volume "data" for job "web": 403`:                                             "host-volume-create",
		`reading the log of task t in allocation 12345678: 403`:                                      "read-logs",
		`reading the lock of stack a: 403`:                                                           `path "drover/stacks/a/*"`,
		`something else`:                                                                             "",
	} {
		if got := grant(text); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q", text, got)
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
