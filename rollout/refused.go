package rollout

import "regexp"

// grants are what in a policy of Nomad allows what an error says was tried.
// Nomad itself says no more than "Permission denied".
var grants = []struct {
	tried *regexp.Regexp
	takes string
}{
	{regexp.MustCompile(`writing Nomad's|removing Nomad's|reading Nomad's binding`), "a management token"},
	{regexp.MustCompile(`planning job`), `capabilities = ["plan-job"] in its namespace's block (before Nomad 1.11, "submit-job")`},
	{regexp.MustCompile(`registering (?:the )?(?:stopped )?job`), `capabilities = ["submit-job"] in its namespace's block, and host_volume "*" { policy = "write" } when it mounts host volumes`},
	{regexp.MustCompile(`(?:stopping|removing|purging|promoting|pausing|forcing) job`), `capabilities = ["submit-job"] in its namespace's block`},
	{regexp.MustCompile(`reading the log `), `capabilities = ["read-logs"] in its namespace's block`},
	{regexp.MustCompile(`creating host volume`), `capabilities = ["host-volume-create"] in its namespace's block`},
	{regexp.MustCompile(`deleting host volume`), `capabilities = ["host-volume-delete"] in its namespace's block`},
	{regexp.MustCompile(`listing host volumes`), `capabilities = ["host-volume-read"] in its namespace's block`},
	{regexp.MustCompile(`(?:reading|listing) nodes?`), `node { policy = "read" }`},
	{regexp.MustCompile(`locking ([^\s:]+)`), `variables { path "$1" { capabilities = ["read", "write"] } } in the namespace's block`},
	{regexp.MustCompile(`(?:writing|releasing) ((?:drover|nomad)/[^\s:]+)`), `variables { path "$1" { capabilities = ["write"] } } in the namespace's block`},
	{regexp.MustCompile(`deleting ((?:drover|nomad)/[^\s:]+)`), `variables { path "$1" { capabilities = ["destroy"] } } in the namespace's block`},
	{regexp.MustCompile(`(?:reading|listing) ((?:drover|nomad)/[^\s:]+)`), `variables { path "$1" { capabilities = ["read", "list"] } } in the namespace's block`},
	{regexp.MustCompile(`variable of job ([^\s:]+)`), `variables { path "nomad/jobs/$1" { capabilities = ["read", "write", "destroy"] } } in its namespace's block`},
	{regexp.MustCompile(`(?:reading|listing) (?:the )?(?:secrets|lock|services|releases|job specs|schedules?|release).* of stack ([^\s:]+)`), `variables { path "drover/stacks/$1/*" { capabilities = ["read", "list"] } } in the namespace's block`},
	{regexp.MustCompile(`(?:writing|releasing) .* of stack ([^\s:]+)`), `variables { path "drover/stacks/$1/*" { capabilities = ["write"] } } in the namespace's block`},
	{regexp.MustCompile(`deleting .* of stack ([^\s:]+)`), `variables { path "drover/stacks/$1/*" { capabilities = ["destroy"] } } in the namespace's block`},
	{regexp.MustCompile(`(?:reading|listing) .*(?:job|allocation|deployment|evaluation)`), `capabilities = ["list-jobs", "read-job"] in its namespace's block`},
}

// grant is what the token lacks for what the text of an error says was tried,
// "" when that is not known.
func grant(text string) string {
	for _, g := range grants {
		if at := g.tried.FindStringSubmatchIndex(text); at != nil {
			return string(g.tried.ExpandString(nil, g.takes, text, at))
		}
	}
	return ""
}

// lacks is how Consul says what a token may not do.
var lacks = regexp.MustCompile(`lacks permission '(\w+):(\w+)'(?: on "([^"]*)")?`)

// consulGrant is the line of Consul's policy that allows what it refused.
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
