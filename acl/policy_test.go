package acl_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/record"
)

// The package below others cannot name their paths by their constants.
func TestPathsOfOthers(t *testing.T) {
	t.Parallel()
	for use, paths := range map[acl.Use][]string{
		acl.Edge:       append(templates(t), acme.CertFolder+"/*", acme.PublicPath),
		acl.Controller: {acme.CertFolder + "/*", acme.PublicPath, acme.AccountPath, acme.TrustFolder + "/*", controller.LeaderPath, "drover/stacks/*/*/releases/*", "drover/stacks/*/*/schedules/*"},
		acl.Deployer:   {acme.CertFolder + "/*", acme.AccountPath, acme.TrustFolder + "/*"},
	} {
		text := acl.Scope{}.Nomad(use).Rules
		for _, p := range paths {
			folder := p[:strings.LastIndexByte(p, '/')] + "/*"
			if !strings.Contains(text, `path "`+p+`"`) && !strings.Contains(text, `path "`+folder+`"`) {
				t.Errorf("%s may not read %s:\n%s", use, p, text)
			}
		}
	}
	// A folder's name comes from the stack's and the environment's.
	text := acl.Scope{Stacks: []string{record.PathName("my.shop") + "/prod"}}.OfSchedule("drover-my.shop-prod-nightly").Rules
	if path := record.OpenSecrets(nil, "my.shop", "prod", nil).Path(); !strings.Contains(text, `path "`+strings.TrimSuffix(path, "secrets")+`*"`) {
		t.Errorf("a schedule may not read %s:\n%s", path, text)
	}
}

// templates are the variables that the edge's templates name.
func templates(t *testing.T) []string {
	t.Helper()
	var out []string
	for stack, file := range map[string]string{"edge": "haproxy.nomad.hcl", "edge-nginx": "nginx.nomad.hcl"} {
		files, err := jobs.Stack(stack)
		if err != nil {
			t.Fatal(err)
		}
		text, err := fs.ReadFile(files, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`nomadVar(?:Exists)? \\?"([^"$]+)(\$\{)?`).FindAllStringSubmatch(string(text), -1) {
			if m[2] != "" {
				m[1] += "*"
			}
			out = append(out, m[1])
		}
	}
	if len(out) < 6 {
		t.Fatalf("only %q", out)
	}
	return out
}

// Policies are the same in all namespaces.
func TestPolicyNames(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, of := range [][2]string{
		{"default", "drover-a-b-c"}, {"other", "drover-a-b-c"}, {"default", "drover-a.b-c"}, {"default", "drover-a_b-c"},
		{"default", strings.Repeat("x", 200)}, {"default", strings.Repeat("x", 201)},
	} {
		name := acl.Scope{Namespace: of[0]}.OfSchedule(of[1]).Name
		if seen[name] != "" || len(name) > 128 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("the policy of %v is %s, as that of %s", of, name, seen[name])
		}
		seen[name] = of[1]
	}
	// A schedule of the stack deployer has a job of which the name is as that of a policy.
	for _, ns := range []string{"default", "evil-nightly", "evil-nightly-" + strings.Repeat("x", 100), strings.Repeat("y", 128)} {
		for _, u := range acl.Uses() {
			name := acl.Scope{Namespace: ns}.Nomad(u).Name
			if job := (acl.Scope{}).OfSchedule(name).Name; seen[name] != "" || len(name) > 128 || job == name || len(job) > 128 {
				t.Errorf("the policy of %s in %s is %s, as that of %s; that of a job of this name is %s", u, ns, name, seen[name], job)
			}
			seen[name] = ns
		}
	}
	if seen["drover-a-b-c"] == "" {
		t.Error("the plain name is not used")
	}
}

// Another edge has the rights of the job edge, by a policy of its own.
func TestPolicies_OfAnotherEdge(t *testing.T) {
	t.Parallel()
	s := acl.Scope{Namespace: "infra"}
	first, second := s.Nomad(acl.Edge), s.OfEdge("edge-internal")
	if second.Rules != first.Rules || second.Job != "edge-internal" || second.Namespace != "infra" || second.Name == first.Name || second.Name == s.OfEdge("edge-other").Name {
		t.Errorf("got %+v, want the rights of %+v for another job", second, first)
	}
}

// The configuration and the logs of agents are read by a deployer's doctor only.
func TestPolicies_ReadNoAgents(t *testing.T) {
	t.Parallel()
	for _, use := range []acl.Use{acl.CI, acl.Reader, acl.Controller, acl.Schedule, acl.Edge} {
		if rules := (acl.Scope{Stacks: []string{"shop/prod"}}).Nomad(use).Rules; strings.Contains(rules, "agent {") {
			t.Errorf("%s may read agents:\n%s", use, rules)
		}
	}
	if rules := (acl.Scope{}).Nomad(acl.Deployer).Rules; !strings.Contains(rules, "agent {") {
		t.Errorf("the deployer may not read agents, so that this test finds nothing:\n%s", rules)
	}
}

// The controller may scale jobs only if it is to, and only where it serves jobs.
func TestController_ScalesOnlyIfAsked(t *testing.T) {
	t.Parallel()
	scope := acl.Scope{Jobs: []string{"default", "shop"}, Tenants: []string{"other"}}
	if text := scope.Nomad(acl.Controller).Rules; strings.Contains(text, "scale-job") {
		t.Errorf("got %s\nwant no scale-job", text)
	}
	scope.Autoscale = true
	for use, want := range map[acl.Use]int{acl.Controller: 2, acl.Reader: 0, acl.Schedule: 0} {
		if text := scope.Nomad(use).Rules; strings.Count(text, "scale-job") != want {
			t.Errorf("%s: got %s\nwant scale-job in %d namespaces", use, text, want)
		}
	}
}
