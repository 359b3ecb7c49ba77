package compose_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRead_Middlewares: what labels ask of a proxy becomes tags of the edge, and what may
// restrict requests and has no tag is a refusal; allowed, there is no route.
func TestRead_Middlewares(t *testing.T) {
	t.Parallel()
	const router = "traefik.http.routers.web.rule: 'Host(`web.example.org`)', traefik.http.routers.web.tls: 'true', traefik.http.routers.web.middlewares: m, "
	const m = "traefik.http.middlewares.m."
	for _, c := range []struct {
		name, labels string
		want         string // tags beside the route, or the rule of a refusal
	}{
		{"an authenticator", router + m + "forwardauth.address: 'http://auth:4180/check', " + m + "forwardauth.authresponseheaders: 'X-User, X-Mail', " + m + "forwardauth.trustforwardheader: 'true'",
			"drover.forward-auth=shop-auth/check X-User,X-Mail"},
		{"an authenticator by its container's name, and a query", router + m + "forwardauth.address: 'http://gate:4180/?rd=x'", "drover.forward-auth=shop-auth/"},
		{"an authenticator outside", router + m + "forwardauth.address: 'http://elsewhere/'", "forward-auth"},
		{"an authenticator by HTTPS", router + m + "forwardauth.address: 'https://auth:4180/'", "forward-auth"},
		{"Traefik 1", "traefik.frontend.rule: 'Host:web.example.org', traefik.frontend.entryPoints: https, traefik.frontend.auth.forward.address: 'http://auth:4180/', traefik.frontend.auth.forward.authResponseHeaders: X-User", "drover.forward-auth=shop-auth/ X-User"},
		{"a chain", router + m + "chain.middlewares: 'a@docker,b', traefik.http.middlewares.a.forwardauth.address: 'http://auth:4180', traefik.http.middlewares.b.compress: 'true'",
			"drover.compress=gzip drover.forward-auth=shop-auth/"},
		{"a chain that does not end", router + m + "chain.middlewares: m", "route"},
		{"a middleware of another service", strings.Replace(router, "middlewares: m", "middlewares: shared@docker", 1) + "x: y", "drover.forward-auth=shop-auth/verify"},
		{"a middleware that is not there", strings.Replace(router, "middlewares: m", "middlewares: members@file", 1) + "x: y", "route"},
		{"a middleware that is not there and restricts nothing", strings.Replace(router, "middlewares: m", "middlewares: gzip@file", 1) + "x: y", ""},
		{"a plugin", router + m + "plugin.bouncer.enabled: 'true'", "route"},
		{"TLS options that are not there", "traefik.http.routers.web.rule: 'Host(`web.example.org`)', traefik.http.routers.web.tls.options: 'mtls@file'", "route"},
		{"CORS", router + m + "headers.accesscontrolalloworiginlist: 'https://a.example.org,https://b.example.org', " + m + "headers.accesscontrolallowcredentials: 'true', " + m + "headers.accesscontrolallowmethods: GET",
			"drover.cors=https://a.example.org,https://b.example.org credentials"},
		{"a limit of each minute", router + m + "ratelimit.average: '100', " + m + "ratelimit.period: 1m", "drover.limit=100/m"},
		{"a limit of each second", router + m + "ratelimit.average: '100', " + m + "ratelimit.burst: '50'", "drover.limit=100/s"},
		{"retries", router + m + "retry.attempts: '4', " + m + "retry.initialinterval: 100ms", "drover.retries=4"},
		{"paths", router + m + "replacepathregex.regex: '^/api/(.*)', " + m + "replacepathregex.replacement: '/v2/$1'", "drover.rewrite=/api/** /v2/{1}"},
		{"a prefix", router + m + "addprefix.prefix: /app", "drover.rewrite=/** /app/{1}"},
		{"a redirect of a host", router + m + "redirectregex.regex: '^https?://www.example.org/(.*)', " + m + "redirectregex.replacement: 'https://example.org/$${1}', " + m + "redirectregex.permanent: 'true'",
			"drover.redirect=www.example.org/ 301 https://example.org/"},
		{"HTTPS of the service", router + m + "compress: 'true', traefik.http.services.web.loadbalancer.server.scheme: https", "drover.ca=none drover.compress=gzip drover.protocol=https"},
		{"Caddy with an authenticator", "caddy: web.example.org, caddy.reverse_proxy: '{{upstreams 80}}', caddy.1_forward_auth: 'auth:4180', caddy.1_forward_auth.uri: /check, caddy.1_forward_auth.copy_headers: 'X-User X-Mail', caddy.encode: gzip",
			"drover.compress=gzip drover.forward-auth=shop-auth/check X-User,X-Mail"},
		{"Caddy with users", "caddy: web.example.org, caddy.reverse_proxy: '{{upstreams 80}}', caddy.basic_auth.bob: hash", "drover.auth=shop-web"},
		{"Caddy with a snippet", "caddy: web.example.org, caddy.reverse_proxy: '{{upstreams 80}}', caddy.import: members", "route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"compose.yaml": "services:\n  web: {image: x, ports: ['80'], labels: {" + c.labels + "}}\n" +
				"  auth: {image: x, container_name: gate, labels: {traefik.http.middlewares.shared.forwardauth.address: 'http://auth:4180/verify'}}\n"}
			res := project(t, files, importer.Source{})
			if rule := c.want; rule == "route" || rule == "forward-auth" {
				if !res.Refused() || !strings.Contains(importertest.Findings(res), "refusal: ") || !strings.Contains(importertest.Findings(res), "("+rule+")") {
					t.Errorf("got no refusal of the rule %s:\n%s", rule, importertest.Findings(res))
				}
				res = project(t, files, importer.Source{Allow: []string{rule}})
				if res.Refused() || strings.Contains(importertest.File(res, "web.nomad.hcl"), "drover.route") {
					t.Errorf("allowed, got a route or a refusal:\n%s%s", importertest.Findings(res), importertest.File(res, "web.nomad.hcl"))
				}
				return
			}
			if res.Refused() {
				t.Fatalf("got a refusal:\n%s", importertest.Findings(res))
			}
			if got := tags(res, "web"); strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q\n%s", got, c.want, importertest.Findings(res))
			}
			if strings.Contains(c.want, "forward-auth") && !strings.Contains(importertest.Findings(res), `authenticators=["shop-auth"]`) {
				t.Errorf("got %s\nwant the variable of the edge", importertest.Findings(res))
			}
		})
	}
}

// TestRead_EntryPoint: middlewares that the proxy gives to all routes hold for each.
func TestRead_EntryPoint(t *testing.T) {
	t.Parallel()
	res := project(t, map[string]string{"compose.yaml": "services:\n" +
		"  proxy: {image: 'traefik:3', command: ['--providers.docker', '--entryPoints.web.http.middlewares=members@docker'], labels: {traefik.http.middlewares.members.forwardauth.address: 'http://auth:4180/'}}\n" +
		"  web: {image: x, ports: ['80'], labels: {traefik.http.routers.web.rule: 'Host(`web.example.org`)', traefik.http.routers.web.tls: 'true'}}\n" +
		"  auth: {image: x}\n"}, importer.Source{})
	if got := strings.Join(tags(res, "web"), " "); res.Refused() || got != "drover.forward-auth=shop-auth/" {
		t.Errorf("got %q, want the authenticator\n%s", got, importertest.Findings(res))
	}
}

// TestRead_TwoPorts: routers lead to the ports of their services.
func TestRead_TwoPorts(t *testing.T) {
	t.Parallel()
	res := project(t, map[string]string{"compose.yaml": `services:
  store:
    image: app:1
    labels:
      traefik.http.routers.api.rule: Host(` + "`s3.example.org`" + `)
      traefik.http.routers.api.service: api
      traefik.http.services.api.loadbalancer.server.port: 9000
      traefik.http.routers.console.rule: Host(` + "`console.example.org`" + `)
      traefik.http.routers.console.tls: 'true'
      traefik.http.services.console.loadbalancer.server.port: 9001
      traefik.http.services.unused.loadbalancer.server.port: 9002
      traefik.http.routers.other.rule: Host(` + "`other.example.org`" + `)
      traefik.http.routers.other.service: other@file
      traefik.udp.routers.u.entrypoints: udp
`}, importer.Source{})
	importertest.Compare(t, res, map[string][]string{
		"store.nomad.hcl": {
			"port = \"p9000\"\nprovider = \"consul\"\ntags = [\"drover.route=s3.example.org/\", \"drover.http=serve\"]",
			"port = \"p9001\"\nprovider = \"consul\"\ntags = [\"drover.route=console.example.org/\"]",
		},
		"stack.hcl": {`names = ["console.example.org"]`},
		"findings":  {"the router other leads to other@file", "the label traefik.udp.routers.u.entrypoints of store"},
	}, map[string][]string{"store.nomad.hcl": {"9002", "other.example.org"}})
}

// tags are the tags of a service for the edge, without its routes to web.example.org.
func tags(res *importer.Result, service string) []string {
	var all []string
	for _, j := range res.Jobs {
		for _, g := range j.Job.TaskGroups {
			for _, s := range g.Services {
				if j.Service == service {
					all = append(all, s.Tags...)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(all, func(tag string) bool { return tag == "drover.route=web.example.org/" })
}

// TestRead_Wildcards: hosts that stand for all below a name become those of the edge, and
// their certificate needs a challenge of DNS.
func TestRead_Wildcards(t *testing.T) {
	t.Parallel()
	router := func(rule string) string {
		return "labels: {traefik.http.routers.web.rule: '" + rule + "', traefik.http.routers.web.tls: 'true'}"
	}
	for _, c := range []struct {
		name, labels string
		want         string // host of the only route, "" for none
	}{
		{"Traefik 2", router("HostRegexp(`{sub:[a-z0-9-]+}.example.org`)"), "*.example.org"},
		{"Traefik 2 without an expression", router("HostRegexp(`{sub}.example.org`) && PathPrefix(`/`)"), "*.example.org"},
		{"Traefik 3", router("HostRegexp(`^[a-zA-Z0-9-]+\\.example\\.org$$`)"), "*.example.org"},
		{"Traefik 3 with a group", router("HostRegexp(`^(.+)\\.example\\.org$$`)"), "*.example.org"},
		{"Traefik 3 with a variable", router("HostRegexp(`^.+\\.${DOMAIN:-example.org}$$`)"), "*.example.org"},
		{"Traefik 3 with a named group", router("HostRegexp(`(?P<sub>[^.]+)\\.example\\.org`)"), "*.example.org"},
		{"Traefik 1", "labels: {traefik.frontend.rule: 'HostRegexp:{sub:[a-z]+}.example.org', traefik.frontend.entryPoints: https}", "*.example.org"},
		{"Caddy", "labels: {caddy: '*.example.org', caddy.reverse_proxy: '{{upstreams 80}}'}", "*.example.org"},
		{"nginx-proxy", "environment: {VIRTUAL_HOST: '*.example.org', LETSENCRYPT_HOST: '*.example.org'}", "*.example.org"},
		{"some labels only", router("HostRegexp(`{sub:a|b}.example.org`)"), ""},
		{"a beginning", router("HostRegexp(`^shop-[a-z]+\\.example\\.org$$`)"), ""},
		{"several ends", router("HostRegexp(`^.+\\.example\\.(org|net)$$`)"), ""},
		{"every host", router("HostRegexp(`.+`)"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, map[string]string{"compose.yaml": "services:\n  web: {image: x, ports: ['80'], " + c.labels + "}\n  proxy: {image: nginxproxy/nginx-proxy}\n"}, importer.Source{})
			var want []string
			if c.want != "" {
				want = []string{"drover.route=" + c.want + "/"}
			}
			if got := tags(res, "web"); res.Refused() || !slices.Equal(got, want) {
				t.Errorf("got %q, want %q\n%s", got, want, importertest.Findings(res))
			}
			if warned := strings.Contains(importertest.Findings(res), "needs the challenge dns-01"); warned != (c.want != "") {
				t.Errorf("got %s\nwant the challenge dns-01: %t", importertest.Findings(res), c.want != "")
			}
			if c.want == "" && !strings.Contains(importertest.Findings(res), "the edge cannot match") {
				t.Errorf("got %s\nwant the rule reported", importertest.Findings(res))
			}
		})
	}
}
