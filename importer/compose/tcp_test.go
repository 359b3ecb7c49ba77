package compose_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRead_TCPRouters: TCP routers of Traefik become ports and names of the edge, and what
// may restrict connections and has no tag is a refusal.
func TestRead_TCPRouters(t *testing.T) {
	t.Parallel()
	const router = "traefik.tcp.routers.db."
	for _, c := range []struct {
		name, labels string
		want         string // tags
		finding      string
	}{
		{"all names", router + "rule: 'HostSNI(`*`)', " + router + "entrypoints: pg, traefik.tcp.services.db.loadbalancer.server.port: '5432'", "drover.tcp=15432", "Add 15432 to the variable tcp_ports"},
		{"an entry point that is not in the input", router + "rule: 'HostSNI(`*`)', " + router + "entrypoints: other", "drover.tcp=5432", "Add 5432"},
		{"TLS that is passed on", router + "rule: 'HostSNI(`DB.example.org`) || HostSNI(`b.example.org`)', " + router + "tls.passthrough: 'true'", "drover.sni=b.example.org drover.sni=db.example.org", ""},
		{"TLS of all names below one", router + "rule: 'HostSNIRegexp(`{x:[a-z]+}.example.org`)', " + router + "tls.passthrough: 'true'", "drover.sni=*.example.org", ""},
		{"TLS of all names", router + "rule: 'HostSNI(`*`)', " + router + "tls.passthrough: 'true', " + router + "entrypoints: pg", "drover.tcp=15432", ""},
		{"TLS that the proxy ends", router + "rule: 'HostSNI(`db.example.org`)', " + router + "tls: 'true'", "", "TLS that the proxy ends"},
		{"another rule", router + "rule: 'ClientIP(`192.0.2.0/24`)'", "", "a rule with ClientIP"},
		{"a list of addresses", router + "rule: 'HostSNI(`*`)', " + router + "entrypoints: pg, " + router + "middlewares: 'ips@docker', traefik.tcp.middlewares.ips.ipallowlist.sourcerange: '192.0.2.0/24, 10.0.0.0/8'",
			"drover.allow=192.0.2.0/24,10.0.0.0/8 drover.tcp=15432", ""},
		{"a list of another service", router + "rule: 'HostSNI(`*`)', " + router + "middlewares: shared", "drover.allow=198.51.100.0/24 drover.tcp=5432", ""},
		{"a middleware that is not there", router + "rule: 'HostSNI(`*`)', " + router + "middlewares: members@file", "refused", "(route)"},
		{"a router without a rule", router + "entrypoints: pg", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, map[string]string{"compose.yaml": "services:\n  db: {image: x, expose: [5432], labels: {" + c.labels + "}}\n" +
				"  a: {image: x, labels: {traefik.tcp.middlewares.shared.ipallowlist.sourcerange: 198.51.100.0/24}}\n" +
				"  proxy: {image: 'traefik:3', command: ['--entryPoints.pg.address=:15432/tcp']}\n"}, importer.Source{})
			if !strings.Contains(importertest.Findings(res), c.finding) {
				t.Errorf("got %s\nwant %q", importertest.Findings(res), c.finding)
			}
			if c.want == "refused" {
				if !res.Refused() {
					t.Error("got no refusal")
				}
				return
			}
			if got := strings.Join(tags(res, "db"), " "); got != c.want || res.Refused() {
				t.Errorf("got %q, want %q\n%s", got, c.want, importertest.Findings(res))
			}
			if strings.Contains(c.want, "198.51") && strings.Contains(importertest.Findings(res), "ipallowlist.sourcerange of a is for a reverse proxy and is not mapped") {
				t.Errorf("got %s\nwant the middleware used", importertest.Findings(res))
			}
		})
	}
}

// TestRead_Kompose: probes, ports of every node and scaling of kompose's labels.
func TestRead_Kompose(t *testing.T) {
	t.Parallel()
	const health = "kompose.service.healthcheck."
	res := project(t, map[string]string{"compose.yaml": "services:\n" +
		"  web:\n    image: x\n    ports: ['8080:80']\n    healthcheck: {test: [CMD, check], interval: 7s, timeout: 3s, retries: 4, start_period: 20s}\n" +
		"    labels: {" + health + "liveness.http_get_path: /live, " + health + "liveness.http_get_port: '80', " + health + "readiness.tcp_port: '81', " + health + "readiness.interval: 9s, " + health + "readiness.retries: '2'}\n" +
		"  ready: {image: x, expose: [80], labels: {" + health + "readiness.test: 'CMD ready --now', " + health + "readiness.timeout: 2s}}\n" +
		"  off: {image: x, expose: [80], labels: {" + health + "readiness.tcp_port: '81', " + health + "readiness.disable: 'true'}}\n" +
		"  node: {image: x, expose: [80], labels: {kompose.service.nodeport.port: '30080', kompose.hpa.replicas.min: '3', kompose.hpa.replicas.max: '9'}}\n"}, importer.Source{})
	importertest.Compare(t, res, map[string][]string{
		"web.nomad.hcl": {
			"check {\ntype = \"http\"\npath = \"/live\"\ninterval = \"7s\"\ntimeout = \"3s\"\nfailures_before_critical = 4\ncheck_restart {\nlimit = 4\ngrace = \"20s\"\n}\n}",
			"port = \"p81\"\nprovider = \"consul\"\n\ncheck {\nname = \"tcp-2\"\ntype = \"tcp\"\ninterval = \"9s\"\ntimeout = \"5s\"\nfailures_before_critical = 2\n}",
		},
		"ready.nomad.hcl": {"type = \"script\"", `command = "ready"`, `timeout = "2s"`},
		"off.nomad.hcl":   {"type = \"tcp\"\ninterval = \"10s\""},
		"node.nomad.hcl":  {"count = 3"},
		"mesh.nomad.hcl":  {`bind = "*:30080"`},
		"findings":        {"the number of instances of node does not follow its load (scaling)"},
	}, map[string][]string{"findings": {"healthcheck"}, "web.nomad.hcl": {"script"}, "off.nomad.hcl": {"p81"}})
}
