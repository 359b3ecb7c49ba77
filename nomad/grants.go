package nomad

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// grants lists the part of a Nomad policy that allows a request, which is "ACL Required"
// in its API (developer.hashicorp.com/nomad/api-docs). The first that matches counts.
var grants = []struct {
	asked *regexp.Regexp
	takes string
}{
	{regexp.MustCompile(`^\w+ /v1/acl/`), "a management token"},
	{regexp.MustCompile(`^PUT /v1/job/.+/plan$`), `capabilities = ["plan-job"] (before Nomad 1.11, "submit-job")`},
	{regexp.MustCompile(`^PUT /v1/jobs$`), `capabilities = ["submit-job"], and host_volume "*" { policy = "write" } when it mounts host volumes,`},
	{regexp.MustCompile(`^PUT /v1/job/.+/dispatch$`), `capabilities = ["dispatch-job"]`},
	{regexp.MustCompile(`^PUT /v1/job/.+/scale$`), `capabilities = ["scale-job"]`},
	{regexp.MustCompile(`^(?:PUT|DELETE) /v1/(?:job|deployment)/`), `capabilities = ["submit-job"]`},
	{regexp.MustCompile(`^PUT /v1/(?:client/)?allocation/`), `capabilities = ["alloc-lifecycle"]`},
	{regexp.MustCompile(`^GET /v1/client/fs/logs/`), `capabilities = ["read-logs"]`},
	{regexp.MustCompile(`^GET /v1/client/fs/`), `capabilities = ["read-fs"]`},
	{regexp.MustCompile(`^PUT /v1/volume/host/`), `capabilities = ["host-volume-create"]`},
	{regexp.MustCompile(`^DELETE /v1/volume/host/`), `capabilities = ["host-volume-delete"]`},
	{regexp.MustCompile(`^GET /v1/volumes?\b`), `capabilities = ["host-volume-read"]`},
	{regexp.MustCompile(`^GET /v1/vars (.*)$`), `variables { path "$1*" { capabilities = ["list"] } }`},
	{regexp.MustCompile(`^GET /v1/var/(.+)$`), `variables { path "$1" { capabilities = ["read"] } }`},
	{regexp.MustCompile(`^PUT /v1/var/(.+)$`), `variables { path "$1" { capabilities = ["write"] } }`},
	{regexp.MustCompile(`^DELETE /v1/var/(.+)$`), `variables { path "$1" { capabilities = ["destroy"] } }`},
	{regexp.MustCompile(`^GET /v1/nodes?\b`), `node { policy = "read" }`},
	{regexp.MustCompile(`^GET /v1/agent/`), `agent { policy = "read" }`},
	{regexp.MustCompile(`^GET /v1/(?:jobs?|allocations?|deployments?|evaluations?|event/stream|client/allocation)\b`), `capabilities = ["list-jobs", "read-job"]`},
}

// grant is what the token lacks for a request as RefusedRequest returns it, ""
// when that is not known.
func grant(asked string) string {
	method, uri, _ := strings.Cut(asked, " ")
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return ""
	}
	if method == http.MethodPost { // Nomad takes both
		method = http.MethodPut
	}
	request := method + " " + u.Path
	if u.Path == "/v1/vars" {
		request += " " + u.Query().Get("prefix")
	}
	for _, g := range grants {
		at := g.asked.FindStringSubmatchIndex(request)
		if at == nil {
			continue
		}
		takes := string(g.asked.ExpandString(nil, g.takes, request, at))
		if strings.HasPrefix(takes, "capabilities") || strings.HasPrefix(takes, "variables") {
			namespace := u.Query().Get("namespace")
			if namespace == "" {
				namespace = "default"
			}
			takes += fmt.Sprintf(" in the block of namespace %q", namespace)
		}
		return takes
	}
	return ""
}

// lacks matches the permission in the text with which Consul refuses a request.
var lacks = regexp.MustCompile(`lacks permission '(\w+):(\w+)'(?: on "([^"]*)")?`)

// consulGrant returns the line of a Consul policy that allows what Consul refused.
func consulGrant(text string) string {
	m := lacks.FindStringSubmatch(text)
	switch {
	case m == nil:
		return ""
	case m[3] == "":
		return m[1] + ` = "` + m[2] + `"`
	}
	return m[1] + ` "` + m[3] + `" { policy = "` + m[2] + `" }`
}
