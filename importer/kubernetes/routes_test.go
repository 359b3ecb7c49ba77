package kubernetes_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
)

const (
	web    = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: web, image: x}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}\n---\n"
	canary = "{apiVersion: v1, kind: Pod, metadata: {name: next, labels: {app: next}}, spec: {containers: [{name: web, image: x}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: next}, spec: {selector: {app: next}, ports: [{port: 80}]}}\n---\n"
	auth   = "{apiVersion: v1, kind: Pod, metadata: {name: auth, labels: {app: auth}}, spec: {containers: [{name: auth, image: x}]}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: auth}, spec: {selector: {app: auth}, ports: [{port: 80, targetPort: 4180}]}}\n---\n"
)

// ingressFor is an Ingress for web.example.org.
func ingressFor(service, annotations, path string) string {
	return "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: " + service + ", annotations: {" + annotations + "}}, spec: {tls: [{hosts: [web.example.org]}], rules: [{host: web.example.org, http: {paths: [{path: '" + path + "', pathType: Prefix, backend: {service: {name: " + service + ", port: {number: 80}}}}]}}]}}\n---\n"
}

// gatewayRoute is an HTTPRoute for web.example.org.
func gatewayRoute(rules string) string {
	return "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {hostnames: [web.example.org], parentRefs: [{name: g}], rules: [" + rules + "]}}\n---\n" +
		"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g}, spec: {gatewayClassName: x, listeners: [{name: l, protocol: HTTPS, port: 443}]}}\n"
}

// TestRead_RouteTags: what annotations and HTTPRoutes ask of their controller becomes tags
// of the edge.
func TestRead_RouteTags(t *testing.T) {
	t.Parallel()
	const nginx = "nginx.ingress.kubernetes.io/"
	const refs = "backendRefs: [{name: web, port: 80}]"
	for _, c := range []struct{ name, text, want string }{
		{"an authenticator", web + auth + ingressFor("web", nginx+"auth-url: 'http://auth.default.svc.cluster.local/check', "+nginx+"auth-response-headers: 'X-User, X-Mail'", "/"),
			"drover.forward-auth=app-auth/check X-User,X-Mail"},
		{"an authenticator by its route", web + auth + ingressFor("web", nginx+"auth-url: 'https://$host/oauth2/auth', "+nginx+"auth-signin: 'https://$host/oauth2/start'", "/") + ingressFor("auth", "", "/oauth2"),
			"drover.forward-auth=app-auth/oauth2/auth"},
		{"CORS", web + ingressFor("web", nginx+"enable-cors: 'true', "+nginx+"cors-allow-origin: 'https://a.example.org'", "/"), "drover.cors=https://a.example.org credentials"},
		{"addresses", web + ingressFor("web", nginx+"denylist-source-range: '192.0.2.0/24'", "/"), "drover.deny=192.0.2.0/24"},
		{"certificates of clients", web + ingressFor("web", nginx+"auth-tls-secret: default/ca, "+nginx+"auth-tls-verify-client: 'on'", "/"), "drover.client-cert=app-web"},
		{"timeouts and retries", web + ingressFor("web", nginx+"proxy-connect-timeout: '5', "+nginx+"proxy-read-timeout: '120', "+nginx+"proxy-next-upstream: 'error timeout http_502', "+nginx+"proxy-next-upstream-tries: '4'", "/"),
			"drover.retries=3 502 drover.timeout=connect 5s drover.timeout=response 120s"},
		{"a new prefix", web + ingressFor("web", nginx+"rewrite-target: /v2/$2", "/api(/|$)(.*)"), "drover.rewrite=/api/** /v2/{1} drover.route=web.example.org/api"},
		{"one path", web + ingressFor("web", nginx+"rewrite-target: /page", "/old"), "drover.rewrite=/old/** /page drover.route=web.example.org/old"},
		{"a redirect", web + ingressFor("web", "", "/") + strings.ReplaceAll(ingressFor("web", nginx+"permanent-redirect: 'https://new.example.org/'", "/old"), "name: web, ann", "name: old, ann"),
			"drover.redirect=web.example.org/old 301 https://new.example.org/"},
		{"www", web + ingressFor("web", nginx+"from-to-www-redirect: 'true'", "/"), "drover.redirect=www.web.example.org/ 308 https://web.example.org/"},
		{"TLS of the service", web + ingressFor("web", nginx+"ssl-passthrough: 'true'", "/"), "drover.sni=web.example.org"},
		{"HTTPS of the service", web + ingressFor("web", nginx+"backend-protocol: HTTPS", "/"), "drover.ca=none drover.protocol=https"},
		{"a canary by weight and header", web + canary + ingressFor("web", "", "/") + ingressFor("next", nginx+"canary: 'true', "+nginx+"canary-weight: '20', "+nginx+"canary-by-header: X-Canary", "/"),
			"drover.canary=header X-Canary always service app-next drover.weight=20 service app-next"},
		{"weights", web + canary + gatewayRoute("{backendRefs: [{name: web, port: 80, weight: 3}, {name: next, port: 80, weight: 1}]}"), "drover.weight=25 service app-next"},
		{"a match of a header", web + canary + gatewayRoute("{"+refs+"}, {matches: [{headers: [{name: X-Next, value: 'yes'}]}], backendRefs: [{name: next, port: 80}]}"), "drover.canary=header X-Next yes service app-next"},
		{"a prefix of an HTTPRoute", web + gatewayRoute("{matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}], "+refs+"}"),
			"drover.rewrite=/a/** /b/{1} drover.route=web.example.org/a"},
		{"the whole path of an HTTPRoute", web + gatewayRoute("{matches: [{path: {value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /b}}}], "+refs+"}"),
			"drover.rewrite=/a/** /b drover.route=web.example.org/a"},
		{"a redirect of an HTTPRoute", web + gatewayRoute("{"+refs+"}, {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.org, statusCode: 301}}]}"),
			"drover.redirect=web.example.org/old/ 301 https://new.example.org/old/"},
		{"a redirect to HTTPS", web + gatewayRoute("{"+refs+"}, {matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}"), ""},
		{"options of an HTTPRoute", web + gatewayRoute("{timeouts: {request: 10s, backendRequest: 2s}, retry: {attempts: 2, codes: [503]}, sessionPersistence: {sessionName: s}, filters: [{type: CORS, cors: {allowOrigins: ['https://a.example.org'], allowCredentials: true}}], "+refs+"}"),
			"drover.cors=https://a.example.org credentials drover.retries=2 503 drover.sticky=cookie drover.timeout=response 10s"},
		{"a GRPCRoute", web + strings.Replace(gatewayRoute("{matches: [{method: {service: shop.Cart, method: Add}}], "+refs+"}"), "kind: HTTPRoute", "kind: GRPCRoute", 1), "drover.route=web.example.org/shop.Cart/Add"},
		{"a wildcard of an Ingress", web + strings.ReplaceAll(ingressFor("web", "", "/"), "web.example.org", "'*.example.org'"), "drover.route=*.example.org/"},
		{"a wildcard of an HTTPRoute", web + strings.Replace(gatewayRoute("{"+refs+"}"), "hostnames: [web.example.org]", "hostnames: ['*.example.org']", 1), "drover.route=*.example.org/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := read(t, c.text, importer.Source{Name: "app"})
			if res.Refused() {
				t.Fatalf("got a refusal:\n%s", importertest.Findings(res))
			}
			var got []string
			for _, j := range res.Jobs {
				for _, s := range j.Job.TaskGroups[0].Services {
					if j.Service == "web" {
						got = append(got, s.Tags...)
					}
				}
			}
			slices.Sort(got)
			got = slices.DeleteFunc(got, func(tag string) bool { return tag == "drover.route=web.example.org/" })
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q\n%s", got, c.want, importertest.Findings(res))
			}
		})
	}
}
