package edge

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The grammar of the options that both edges have in the same words.
const featuresExpr = `|class=` + serviceExpr + `|forward-auth=` + serviceExpr + pathExpr + `(?: [A-Za-z0-9-]+(?:,[A-Za-z0-9-]+)*)?` +
	`|weight=(?:100|[1-9]?[0-9]) ` + targetExpr +
	`|canary=(?:header [A-Za-z0-9-]+|cookie [A-Za-z0-9_]+) [A-Za-z0-9._~-]+ ` + targetExpr +
	`|deny=` + rangeExpr + `(?:,` + rangeExpr + `)*` +
	`|cors=(?:\*|` + originExpr + `(?:,` + originExpr + `)*(?: credentials)?)` +
	`|compress=gzip` +
	`|timeout=(?:connect|response) [1-9][0-9]{0,4}[smh]` +
	`|client-cert=[a-z0-9][a-z0-9-]{0,62}` +
	`|retries=[0-9](?: 50[0234](?:,50[0234])*)?` +
	`|breaker=[1-9][0-9]{0,2} [1-9][0-9]{0,3}[sm]` +
	`|rewrite=(?:/(?:\*|[A-Za-z0-9._~-]+))*(?:/|/\*\*)? /(?:[A-Za-z0-9._~/-]|\{[1-9]\})*`

// serviceExpr is the name of a service in Consul.
const serviceExpr = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`

// targetExpr is where a part of the requests goes: instances with a tag, or another
// service.
const targetExpr = `(?:version|service) ` + serviceExpr

// originExpr is the origin of a website (RFC 6454).
const originExpr = `https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[1-9][0-9]{0,4})?`

// featureForms are the tags of this file.
func featureForms() []Form {
	return []Form{
		{"class", "NAME of the class of edges that take the service, in lower-case letters, digits and dashes", "drover.class=internal"},
		{"forward-auth", "SERVICE/PATH: the name of an authenticator in Consul and a path; or with HEADER,HEADER behind it", "drover.forward-auth=oauth2-proxy/ X-Auth-Request-User,X-Auth-Request-Email"},
		{"weight", "PERCENT version TAG, or PERCENT service NAME", "drover.weight=10 version v2"},
		{"canary", "header NAME VALUE or cookie NAME VALUE, then version TAG or service NAME", "drover.canary=header X-Canary always version v2"},
		{"deny", "ADDRESS or ADDRESS/BITS, several with commas between them", "drover.deny=192.0.2.0/24"},
		{"cors", "ORIGIN,ORIGIN, or ORIGIN,ORIGIN credentials, or *", "drover.cors=https://app.example.org credentials"},
		{"compress", "gzip", "drover.compress=gzip"},
		{"rewrite", "PATTERN PATH: * is one segment of the pattern and ** at its end the rest, {1} in the path is the first of them", "drover.rewrite=/v1/*/** /api/{2}/{1}"},
		{"client-cert", "LIST: the name of a list of CAs, in lower-case letters, digits and dashes", "drover.client-cert=partners"},
		{"timeout", "connect, response or tunnel, then a number with s, m or h behind it", "drover.timeout=response 30s"},
		{"retries", "NUMBER, or NUMBER CODE,CODE: 0 to 9, and codes of 500, 502, 503 and 504", "drover.retries=2 502,503"},
		{"breaker", "ERRORS TIME: a number, and a time in s or m", "drover.breaker=10 30s"},
	}
}

// missing returns what the edge does not have although a tag names it; "" if it
// has everything. settings are not nil.
func missing(service, key, value string, settings *Settings) (message, remedy string) {
	switch key {
	case "auth":
		if !slices.Contains(settings.Users, value) {
			return fmt.Sprintf("The edge has no list of users %q", value), fmt.Sprintf("Add it to the variable users of the stack of the edge, and make the Nomad Variable drover/users/%s.", value)
		}
	case "forward-auth":
		if name, _, _ := strings.Cut(value, "/"); !slices.Contains(settings.Authenticators, name) {
			return fmt.Sprintf("The edge has no authenticator %q", name), "Add the name of its service to the variable authenticators of the stack of the edge."
		}
	case "client-cert":
		if !slices.Contains(settings.ClientCAs, value) {
			return fmt.Sprintf("The edge has no CAs %q", value), fmt.Sprintf("Add them to the variable client_cas of the stack of the edge, and make the Nomad Variable drover/client-ca/%s.", value)
		}
	case "weight", "canary":
		f := strings.Fields(value)
		if f[len(f)-2] != "service" {
			break
		}
		other := f[len(f)-1]
		ours, _ := settings.owner(service)
		if theirs, _ := settings.owner(other); theirs != ours {
			return fmt.Sprintf("The service %s is not of the same tenant", other), "Name a service of the namespace that has this one."
		}
	}
	return "", ""
}

// groups returns a placeholder of a rewrite that its pattern does not fill; "" if
// there is none.
func groups(value string) string {
	pattern, path, _ := strings.Cut(value, " ")
	have := strings.Count(strings.ReplaceAll(pattern, "**", "*"), "*")
	for n := have + 1; n <= 9; n++ {
		if p := fmt.Sprintf("{%d}", n); strings.Contains(path, p) {
			return p
		}
	}
	return ""
}

// weights returns what is wrong with the shares of requests of a service; "" if
// nothing is.
func weights(options []string) (tag, message, remedy string) {
	sum := 0
	for _, o := range options {
		value, is := strings.CutPrefix(o, Prefix+"weight=")
		if !is {
			continue
		}
		percent, _ := strconv.Atoi(strings.Fields(value)[0]) // the grammar says that it is a number
		if sum += percent; sum > 100 && tag == "" {
			tag = o
		}
	}
	if tag == "" {
		return "", "", ""
	}
	return tag, fmt.Sprintf("The shares of %sweight are %d %% together, and the last ones get less", Prefix, sum), "Write shares that are at most 100 together."
}

// reservedHeader returns the header because of which a tag is reserved.
func reservedHeader(key, value string) string {
	fields := strings.Fields(value)
	if key == "header" {
		return fields[2]
	}
	for _, name := range strings.Split(fields[1], ",") {
		if reserved.MatchString(Prefix + "forward-auth=x/ " + name) {
			return name
		}
	}
	return fields[1]
}
