package compose_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRead_Network: services reach one another in each of the ways of --network. has and
// not are texts of files of the stack, or of the findings.
func TestRead_Network(t *testing.T) {
	t.Parallel()
	const shop = "services:\n  web: {image: 'app:1', ports: ['8080:80'], environment: {DB: 'db:5432'}, deploy: {replicas: 2}}\n  db: {image: 'app:1', expose: [5432], container_name: shop_db, user: '1000', volumes: ['data:/x']}\nvolumes: {data: {}}\n"
	for _, c := range []struct {
		name, network, compose string
		has, not               map[string][]string
	}{
		{"the gateway", importer.NetworkGateway, shop,
			map[string][]string{
				"_base.nomad.hcl": {`"db:172.26.64.1"`, `"web:172.26.64.1"`},
				"mesh.nomad.hcl":  {`bind = "172.26.64.1:5432 transparent"`, `bind = "*:8080"`},
				"IMPORT.md":       {"Nomad's bridge with the address 172.26.64.1"},
			},
			map[string][]string{"mesh.nomad.hcl": {"mesh_prepare", "198.18"}, "variables.hcl": {"mesh_cidr", "mesh_prepare"}},
		},
		{"two services on one port of the gateway", importer.NetworkGateway, strings.Replace(shop, "expose: [5432]", "expose: [80]", 1),
			map[string][]string{"findings": {"refusal: db-80 and web-80 need one port of the address 172.26.64.1"}}, nil,
		},
		{"Consul's DNS", importer.NetworkConsulDNS, shop,
			map[string][]string{
				"db.nomad.hcl":   {"port \"p5432\" {\nstatic = 5432\nto = 5432\n}", `name = "names-shop"`, `tags = ["db", "shop_db"]`, `servers = var.mesh_dns`, `searches = ["names-shop.service.consul"]`},
				"web.nomad.hcl":  {"static = 80\n", `tags = ["web"]`},
				"mesh.nomad.hcl": {`bind = "*:8080"`},
				"variables.hcl":  {"variable \"mesh_dns\" {\ntype = list(string)"},
				"findings":       {"port 80 is one of the node that runs web, so that they need 2 nodes"},
				"IMPORT.md":      {"Consul's DNS on port 53", "compose.yaml:3 | service | app:1 | 5432 (on the node: 5432) | db shop_db |"},
			},
			map[string][]string{"db.nomad.hcl": {"extra_hosts"}, "_base.nomad.hcl": {"hosts"}, "mesh.nomad.hcl": {"198.18", "mesh_prepare"}},
		},
		{"two services on one port of the nodes", importer.NetworkConsulDNS, strings.Replace(shop, "expose: [5432]", "expose: [80]", 1),
			map[string][]string{"findings": {"refusal: port 80 of the node is needed by db (port 80) and by web (port 80) (port-conflict)"}}, nil,
		},
		{"two services on one port of the node by their own choice", importer.NetworkMesh, "services:\n  a: {image: x, ports: ['53:53/udp', '53:54/udp', '5353:53/udp']}\n  b:\n    image: x\n    ports:\n      - {target: 5, published: '5353', mode: host}\n",
			map[string][]string{"findings": {"compose.yaml:2: refusal: port 53 of the node is needed by a (port 53) and by a (port 54)", "compose.yaml:6: refusal: port 5353 of the node is needed by a (port 53) and by b (port 5)"}}, nil,
		},
		{"the network of the nodes", importer.NetworkHost, strings.Replace(shop, "8080:80", "80:80", 1),
			map[string][]string{
				"db.nomad.hcl": {`mode = "host"`, `network_mode = "host"`, "static = 5432\n}", `searches = ["names-shop.service.consul"]`},
				"findings":     {"port 80 is one of the nodes that run web only"},
			},
			map[string][]string{"stack.hcl": {"mesh"}, "db.nomad.hcl": {"to = 5432"}},
		},
		{"resolvers of the input", importer.NetworkConsulDNS, strings.Replace(shop, "container_name: shop_db", "dns: [192.0.2.1]", 1),
			map[string][]string{"db.nomad.hcl": {`servers = concat(var.mesh_dns, ["192.0.2.1"])`}}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, map[string]string{"compose.yaml": c.compose}, importer.Source{Network: c.network})
			importertest.Compare(t, res, c.has, c.not)
		})
	}
}

// TestRead_Publish: the operator decides how published ports are published.
func TestRead_Publish(t *testing.T) {
	t.Parallel()
	const shop = "services:\n  web: {image: 'app:1', ports: ['8080:80', '8081:80'], labels: {traefik.http.routers.w.rule: 'Host(`web.example.org`)'}}\n  db: {image: 'app:1', ports: ['127.0.0.1:5433:5432']}\n"
	for _, c := range []struct {
		name     string
		publish  map[string]string
		has, not map[string][]string
	}{
		{"static ports", map[string]string{"": importer.PublishStatic},
			map[string][]string{
				"web.nomad.hcl": {"port \"p80\" {\nstatic = 8080\nto = 80\n}", "port \"p80-8081\" {\nstatic = 8081\nto = 80\n}", "canary = 0"},
				"db.nomad.hcl":  {"static = 5433\nto = 5432"},
				"findings":      {"port 5433 of db is one of all addresses of its nodes, and not of 127.0.0.1 alone"},
			},
			map[string][]string{"mesh.nomad.hcl": {"-published-"}},
		},
		{"the edge", map[string]string{"": importer.PublishEdge},
			map[string][]string{
				"db.nomad.hcl": {`tags = ["drover.tcp=5433"]`},
				"findings":     {"Add 5433 to the variable tcp_ports", "port 8080 of every node is not published: web has a route of the edge"},
			},
			map[string][]string{"mesh.nomad.hcl": {"-published-"}, "web.nomad.hcl": {"drover.tcp"}},
		},
		{"one service", map[string]string{"db": importer.PublishEdge, "": importer.PublishMesh},
			map[string][]string{"db.nomad.hcl": {"drover.tcp=5433"}, "mesh.nomad.hcl": {`bind = "*:8080"`}}, nil,
		},
		{"a service that publishes nothing", map[string]string{"cache": importer.PublishEdge},
			map[string][]string{"findings": {"refusal: --publish cache=edge is for cache, which publishes no port"}}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, map[string]string{"compose.yaml": shop}, importer.Source{Publish: c.publish})
			importertest.Compare(t, res, c.has, c.not)
		})
	}
}
