package compose_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/compose"
	"github.com/drover-nomad/drover/importer/importertest"
)

// project writes files into a directory of its own and imports compose.yaml there.
func project(t *testing.T, files map[string]string, src importer.Source) *importer.Result {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src.Inputs = append([]importer.Input{{Name: filepath.Join(dir, "compose.yaml"), Text: []byte(files["compose.yaml"])}}, src.Inputs...)
	if src.Name == "" {
		src.Name = "shop"
	}
	res, err := importer.Run(t.Context(), "compose", compose.Read, src)
	if err != nil {
		t.Fatal(err)
	}
	if c := res.Counts; c.Values != c.Mapped+c.LeftOut+c.Reported {
		t.Errorf("got %+v, want every value in one count", c)
	}
	return res
}

// TestRead maps small projects. has and not are texts of files of the stack, or of
// the findings, whose name is "findings".
func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		src   importer.Source
		has   map[string][]string
		not   map[string][]string
	}{
		{
			name:  "interpolation becomes variables",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: nginx:${TAG:-1.25}\n    command: run --level ${LEVEL} 'a b'\n    environment:\n      - MODE=${MODE-dev}\n", ".env": "LEVEL=debug\n"},
			has: map[string][]string{
				"web.nomad.hcl": {`image = "nginx:${var.tag}"`, `["run", "--level", var.level, "a b"]`, `MODE = var.mode`},
				"variables.hcl": {"variable \"tag\" {\ntype = string\ndescription = \"TAG of the Compose file.\"\ndefault = \"1.25\"", `default = "debug"`, `default = "dev"`},
			},
		},
		{
			name:  "an unset variable is empty and reported",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: nginx:1\n    environment:\n      HOST: ${HOST_NAME}\n      DB_PASSWORD: ${DB_PASSWORD}\n"},
			has: map[string][]string{
				"web.nomad.hcl": {"HOST = var.host_name", "DB_PASSWORD={{ .db_password.Value | toJSON }}"},
				"findings":      {"compose.yaml:5: warning: the variable HOST_NAME has no value"},
				"IMPORT.md":     {"Write the values of these secrets into `secrets.yaml`: db_password."},
			},
		},
		{
			name:  "secrets are not in job specs",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    command: [serve, --password=hunter2a, --token, hunter2b]\n    environment:\n      DB_PASSWORD: hunter2c\n      URL: postgres://u:${PW}@db:5432/x\n      OAUTH_SECRET: a-${PART}\n      ADDRESS: amqp://u:hunter2d@mq/\n  db:\n    image: postgres:16\n    environment: {POSTGRES_PASSWORD: hunter2c}\n", ".env": "PW=hunter2e\nPART=hunter2f\n"},
			has: map[string][]string{
				"web.nomad.hcl": {`"--password=$${DROVER_PASSWORD}"`, `"$${DROVER_TOKEN}"`, "DB_PASSWORD={{ .postgres_password.Value | toJSON }}", `URL={{ printf "postgres://u:%s@db:5432/x" .pw.Value | toJSON }}`},
				"db.nomad.hcl":  {"POSTGRES_PASSWORD={{ .postgres_password.Value | toJSON }}"},
				"secrets.yaml":  {"hunter2a", "hunter2b", "hunter2c", "hunter2d", "hunter2e", "hunter2f"},
				".gitignore":    {"secrets.yaml"},
			},
			not: map[string][]string{"web.nomad.hcl": {"hunter2"}, "db.nomad.hcl": {"hunter2"}, "variables.hcl": {"hunter2"}, "stack.hcl": {"hunter2"}, "IMPORT.md": {"hunter2"}},
		},
		{
			name:  "ports are published by the mesh, statically, or not",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    ports:\n      - 127.0.0.1:8080:80\n      - '9000'\n      - 5353:53/udp\n      - {target: 70, published: 7070, mode: host}\n"},
			has: map[string][]string{
				"mesh.nomad.hcl": {`"web-published-8080" = { bind = "127.0.0.1:8080", service = "shop-web" }`},
				"web.nomad.hcl":  {"port \"p80\" {\nto = 80\n}", "port \"p53\" {\nstatic = 5353\nto = 53\n}", "port \"p70\" {\nstatic = 7070\nto = 70\n}", "canary = 0"},
				"findings":       {"compose.yaml:6: warning: port 9000 has no number", "compose.yaml:7: warning: UDP port 5353"},
			},
		},
		{
			name:  "two numbers of the node for one port, and an address of the node",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    ports:\n      - 127.0.0.1:5353:53/udp\n      - 53:53/udp\n      - {target: 70, published: 7070, mode: host, host_ip: 10.0.0.1}\n    expose: ['9/sctp']\n"},
			has: map[string][]string{
				"web.nomad.hcl": {"port \"p53\" {\nstatic = 5353\nto = 53\n}", "port \"p53-53\" {\nstatic = 53\nto = 53\n}"},
				"findings":      {"warning: port 5353 of web is one of all addresses of its node, and not of 127.0.0.1 alone", "port 7070 of web is one of all addresses", "port 9 speaks sctp"},
			},
		},
		{
			name: "values with no effect on Nomad are reported",
			files: map[string]string{"compose.yaml": `services:
  web:
    image: app:1
    domainname: example.org
    env_file: [{path: none.env, required: false}]
    ports: [{target: 80, published: 8080, name: http, app_protocol: http}]
    healthcheck: {test: [CMD, ok], retries: 5, start_period: 10s}
    labels: {a: b}
    logging: {driver: json-file, options: {max-size: 50k, compress: 'true'}}
    deploy:
      resources: {limits: {cpus: '2'}, reservations: {cpus: '1'}}
      update_config: {delay: 10s, monitor: 20s}
    networks: [lan]
    volumes: ['data:/data']
  other:
    image: app:1
    cpu_period: 1000
    healthcheck: {interval: 5s}
  third:
    image: app:1
    healthcheck: {test: [CMD, ok], retries: 5, start_period: 10s}
volumes: {data: {name: x, labels: {a: b}}}
networks: {lan: {driver: macvlan}}
`},
			has: map[string][]string{
				"web.nomad.hcl": {"max_file_size = 1\n", "min_healthy_time = \"20s\""},
				"findings": {
					"web has a domain and no host name", "the file does not exist, and is not required", "name describes the port", "app_protocol describes the port", "1 labels of web have no effect",
					"an option of a log driver of Docker", "Nomad reserves as much CPU as it limits", "min_healthy_time is the longer one of delay and monitor", "the network lan of the driver macvlan",
					"the volume has the name of the stack and its key", "labels of a volume have no effect", "cpu_period has no effect without cpu_quota", "the health check of other is that of its image",
					"compose.yaml:21: left-out: Consul has no number of failures for a script", "compose.yaml:21: left-out: a new instance is healthy as soon as its check passes",
				},
			},
		},
		{
			name:  "a service in the network of another one",
			files: map[string]string{"compose.yaml": "services:\n  web: {image: 'app:1', expose: [80]}\n  side:\n    image: app:1\n    network_mode: service:web\n    deploy: {replicas: 2}\n    tmpfs: ['/t:noexec,size=1m']\n"},
			has: map[string][]string{
				"web.nomad.hcl": {`task "side" {`},
				"findings":      {"side has as many instances as web, whose network it shares, and not 2", "the option noexec of the tmpfs at /t has no counterpart"},
			},
		},
		{
			name:  "names are seen on shared networks only",
			files: map[string]string{"compose.yaml": "services:\n  a: {image: 'app:1', networks: [x], expose: [80]}\n  b: {image: 'app:1', networks: {x: {aliases: [bee]}}, expose: [80], container_name: bob}\n  c: {image: 'app:1', networks: [y], expose: [80]}\nnetworks: {x: {}, y: {}}\n"},
			has:   map[string][]string{"a.nomad.hcl": {`"bee:198.18.`, `"bob:198.18.`, `"a:198.18.`}},
			not:   map[string][]string{"a.nomad.hcl": {`"c:198`}, "c.nomad.hcl": {"extra_hosts"}},
		},
		{
			name:  "volumes have owners, binds become files",
			files: map[string]string{"compose.yaml": "services:\n  db:\n    image: postgres:16\n    volumes:\n      - data:/var/lib/postgresql/data\n      - ./init.sql:/docker-entrypoint-initdb.d/init.sql:ro\n      - ./conf:/etc/conf\n      - /srv/x:/x\n      - ./big:/big\n      - /etc/localtime:/etc/localtime:ro\nvolumes: {data: {}}\n", "init.sql": "select '{{ x }}';", "conf/a.conf": "a", "conf/b/c.conf": "c"},
			has: map[string][]string{
				"stack.hcl":                  {"volume \"shop-data\" {\nparameters = { gid = \"999\", uid = \"999\" }"},
				"db.nomad.hcl":               {`source = "shop-data"`, `left_delimiter = "[[["`, `data = file("files/db/docker-entrypoint-initdb.d/init.sql")`, `"local/etc/conf:/etc/conf:ro"`, `"/srv/x:/x"`, "canary = 0"},
				"files/db/etc/conf/b/c.conf": {"c"},
				"findings":                   {"compose.yaml:7: warning: /etc/conf of db comes from the job", "compose.yaml:8: warning: /srv/x of the node", "warning: ", "becomes the volume shop-big", "left-out: /etc/localtime"},
			},
		},
		{
			name:  "health checks become checks",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    healthcheck: {test: 'curl -fsS http://localhost:8080/health?x=1 || exit 1', interval: 5s, retries: 4}\n  db:\n    image: app:1\n    expose: [1]\n    healthcheck: {test: [CMD, pg_isready, -U, u], start_period: 10m}\n  off:\n    image: app:1\n    expose: [1]\n    healthcheck: {disable: true}\n"},
			has: map[string][]string{
				"web.nomad.hcl": {"type = \"http\"\npath = \"/health?x=1\"\ninterval = \"5s\"", "failures_before_critical = 4", "port \"p8080\""},
				"db.nomad.hcl":  {"type = \"script\"\ntask = \"db\"\ncommand = \"pg_isready\"\nargs = [\"-U\", \"u\"]", `healthy_deadline = "13m"`},
				"off.nomad.hcl": {"healthchecks {\ndisable = true"},
			},
			not: map[string][]string{"off.nomad.hcl": {"check {"}},
		},
		{
			name:  "a service in the network of another is a task of its group",
			files: map[string]string{"compose.yaml": "services:\n  vpn: {image: 'vpn:1', expose: [80]}\n  app: {image: 'app:1', network_mode: 'service:vpn', expose: [81]}\n  web: {image: 'app:1', depends_on: [app]}\n"},
			has:   map[string][]string{"vpn.nomad.hcl": {`task "vpn"`, `task "app"`, `port "p81"`}, "stack.hcl": {`depends_on = ["mesh", "vpn"]`}},
		},
		{
			name:  "what another service waits for to end is a batch job",
			files: map[string]string{"compose.yaml": "services:\n  migrate: {image: 'app:1', command: [migrate]}\n  web: {image: 'app:1', depends_on: {migrate: {condition: service_completed_successfully}}}\n"},
			has:   map[string][]string{"migrate.nomad.hcl": {`type = "batch"`, `mode = "fail"`}, "stack.hcl": {`depends_on = ["migrate"]`}, "_base.nomad.hcl": {`job "shop-web" {`}},
		},
		{
			name:  "a job that is not started again waits for the services that it may reach",
			files: map[string]string{"compose.yaml": "services:\n  seed: {image: 'seed:1', restart: 'no'}\n  web: {image: 'app:1', expose: [80]}\n  worker: {image: 'app:1', command: [work], restart: always}\n  other: {image: 'app:1', expose: [80], networks: [x]}\nnetworks: {x: {}}\n"},
			has:   map[string][]string{"stack.hcl": {"service \"seed\" {\ndepends_on = [\"mesh\", \"web\"]"}},
		},
		{
			name:  "a job that another service waits for waits for nothing",
			files: map[string]string{"compose.yaml": "services:\n  migrate: {image: 'seed:1', restart: 'no'}\n  web: {image: 'app:1', expose: [80], depends_on: {migrate: {condition: service_completed_successfully}}}\n"},
			has:   map[string][]string{"stack.hcl": {"service \"migrate\" {\ndepends_on = [\"mesh\"]"}},
		},
		{
			name:  "a service that may run to an end is reported",
			files: map[string]string{"compose.yaml": "services:\n  report: {image: 'app:1'}\n  cache: {image: 'redis:7'}\n  web: {image: 'app:1', expose: [80]}\n  worker: {image: 'app:1', restart: always}\n"},
			has:   map[string][]string{"findings": {"compose.yaml:2: warning: report says nothing about restart", "--kind report=batch"}},
			not:   map[string][]string{"findings": {"cache says nothing", "web says nothing", "worker says nothing"}},
		},
		{
			name:  "deploy keys of Swarm",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    deploy:\n      replicas: 3\n      update_config: {parallelism: 2, order: start-first, failure_action: rollback, delay: 10s}\n      restart_policy: {condition: any, delay: 5s, max_attempts: 3, window: 120s}\n      resources: {limits: {cpus: '0.5', memory: 64M}, reservations: {memory: 32M}}\n      placement: {constraints: [node.labels.zone == a, node.platform.os != windows], max_replicas_per_node: 1}\n  agent: {image: 'app:1', deploy: {mode: global}}\n"},
			has: map[string][]string{
				"web.nomad.hcl":   {"count = 3", "max_parallel = 2\ncanary = 2\nauto_promote = true\nauto_revert = true", `min_healthy_time = "10s"`, "attempts = 3\ninterval = \"2m\"", "memory = 32", "memory_hard_limit = 64", "cpu = max(1, floor(0.5 * var.mhz_per_core))", "cpu_hard_limit = true", `attribute = "$${meta.zone}"`, `operator = "distinct_hosts"`},
				"_base.nomad.hcl": {"job \"shop-agent\" {\ntype = \"system\""},
			},
		},
		{
			name:  "a file of version 1",
			files: map[string]string{"compose.yaml": "web:\n  image: app:1\n  net: host\n  log_driver: syslog\n  links: ['db:database']\ndb:\n  image: postgres:9\n"},
			has:   map[string][]string{"web.nomad.hcl": {`mode = "host"`, `type = "syslog"`}},
		},
		{
			name:  "links make names for one service",
			files: map[string]string{"compose.yaml": "services:\n  web: {image: 'app:1', links: ['db:database']}\n  other: {image: 'app:1'}\n  db: {image: 'postgres:9'}\n"},
			has:   map[string][]string{"web.nomad.hcl": {`"database:198.18.`}},
			not:   map[string][]string{"other.nomad.hcl": {"database"}},
		},
		{
			name:  "extends and include account for the values of their files",
			files: map[string]string{"compose.yaml": "include: [more.yaml]\nservices:\n  web: {extends: {file: base.yaml, service: base}, ports: ['80:80']}\n", "base.yaml": "services:\n  base: {image: 'app:1', environment: {A: b}}\n  unused: {image: 'x:1'}\n", "more.yaml": "services:\n  job: {image: 'app:2'}\n"},
			has:   map[string][]string{"web.nomad.hcl": {`A = "b"`}, "job.nomad.hcl": {`image = "app:2"`}, "findings": {"base.yaml:3: left-out: only extended"}},
			not:   map[string][]string{"findings": {"not-imported"}},
		},
		{
			name:  "services of other profiles are left out",
			files: map[string]string{"compose.yaml": "services:\n  web: {image: 'app:1'}\n  debug: {image: 'app:1', profiles: [debug]}\n"},
			has:   map[string][]string{"findings": {"compose.yaml:3: left-out: service debug is in the profiles debug"}},
			not:   map[string][]string{"debug.nomad.hcl": {"job"}},
		},
		{
			name:  "what is built has a variable for its image",
			files: map[string]string{"compose.yaml": "services:\n  web: {build: ., volumes: ['.:/code']}\n"},
			has:   map[string][]string{"variables.hcl": {"default = \"shop-web\""}, "findings": {"(needs-image)", "(bind-source)"}},
		},
		{
			name:  "what Nomad lacks is reported",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    privileged: true\n    cap_add: [NET_ADMIN]\n    blkio_config: {weight: 300}\n    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n    logging: {driver: gelf, options: {gelf-address: 'udp://x:1'}}\n    labels: {traefik.http.unknown: 'true', a: b}\nx-top: 1\n"},
			has:   map[string][]string{"findings": {"(needs-client)", "blkio_config has no counterpart", "(docker-socket)", "(logging)", "the label traefik.http.unknown of web", "extension fields"}},
		},
		{
			name:  "labels of Traefik 2 become routes, and the proxy is left out",
			files: map[string]string{"compose.yaml": "services:\n  traefik: {image: 'traefik:v2.10', ports: ['80:80', '443:443'], volumes: ['/var/run/docker.sock:/var/run/docker.sock']}\n  web:\n    image: app:1\n    labels:\n      - traefik.enable=true\n      - traefik.http.routers.web.rule=(Host(`${DOMAIN:-example.org}`) || Host(`www.example.org`)) && PathPrefix(`/app`)\n      - traefik.http.routers.web.entrypoints=websecure\n      - traefik.http.routers.web.middlewares=strip,ips@docker\n      - traefik.http.middlewares.strip.stripprefix.prefixes=/app\n      - traefik.http.middlewares.ips.ipwhitelist.sourcerange=10.0.0.0/8\n      - traefik.http.services.web.loadbalancer.server.port=8080\n      - traefik.http.services.web.loadbalancer.sticky.cookie=true\n"},
			has: map[string][]string{
				"web.nomad.hcl": {`"drover.route=${var.domain}/app"`, `"drover.route=www.example.org/app"`, `"drover.strip=/app"`, `"drover.allow=10.0.0.0/8"`, `"drover.sticky=cookie"`, `port = "p8080"`},
				"stack.hcl":     {`names = [var.domain, "www.example.org"]`},
				"findings":      {"the reverse proxy traefik is left out"},
			},
			not: map[string][]string{"findings": {"docker-socket", "not-imported"}, "traefik.nomad.hcl": {"job"}, "web.nomad.hcl": {"drover.http=serve"}},
		},
		{
			name:  "labels of Traefik 1",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    deploy:\n      labels: {traefik.port: '8080', traefik.frontend.rule: 'Host:a.example.org,b.example.org;PathPrefixStrip:/x', traefik.docker.network: n}\n"},
			has:   map[string][]string{"web.nomad.hcl": {`"drover.route=a.example.org/x"`, `"drover.route=b.example.org/x"`, `"drover.strip=/x"`, `"drover.http=serve"`, `port = "p8080"`}},
		},
		{
			name:  "the environment of nginx-proxy and labels of Caddy",
			files: map[string]string{"compose.yaml": "services:\n  proxy: {image: nginxproxy/nginx-proxy}\n  web: {image: 'app:1', environment: {VIRTUAL_HOST: web.example.org, VIRTUAL_PORT: 8080, LETSENCRYPT_HOST: web.example.org}}\n  other: {image: 'app:1', labels: {caddy: other.example.org, caddy.reverse_proxy: '{{upstreams 9000}}'}}\n"},
			has: map[string][]string{
				"web.nomad.hcl":   {`"drover.route=web.example.org/"`, `port = "p8080"`},
				"other.nomad.hcl": {`"drover.route=other.example.org/"`, `port = "p9000"`},
				"stack.hcl":       {`names = ["other.example.org", "web.example.org"]`},
			},
		},
		{
			name:  "rules that the edge lacks are reported",
			files: map[string]string{"compose.yaml": "services:\n  web:\n    image: app:1\n    expose: [80]\n    labels:\n      traefik.http.routers.a.rule: HostRegexp(`{x:.*}`)\n      traefik.http.routers.b.rule: Host(`x.example.org`) && Headers(`A`, `b`)\n      traefik.http.routers.c.rule: PathPrefix(`/x`)\n      traefik.http.routers.d.rule: Host(`d.example.org`)\n      traefik.http.routers.d.middlewares: users\n      traefik.http.middlewares.users.basicauth.users: 'u:$$$$2y$$$$05$$$$abc'\n"},
			has:   map[string][]string{"findings": {"router a has the expression \"{x:.*}\" of HostRegexp", "router b has Headers", "router c has no host", "nomad var put drover/users/shop-web"}, "web.nomad.hcl": {`"drover.auth=shop-web"`}},
			not:   map[string][]string{"web.nomad.hcl": {"x.example.org", "2y"}, "IMPORT.md": {"2y"}},
		},
		{
			name:  "alternatives in profiles may publish one port",
			files: map[string]string{"compose.yaml": "services:\n  cpu: {image: 'app:1', profiles: [cpu], ports: ['80:80']}\n  gpu: {image: 'app:1', profiles: [gpu], ports: ['80:80']}\n"},
			src:   importer.Source{Profiles: []string{"*"}},
			has:   map[string][]string{"findings": {"which are in profiles; cpu has it"}},
		},
		{
			name:  "an empty file is a template with a text",
			files: map[string]string{"compose.yaml": "services:\n  web: {image: 'app:1', volumes: ['./absent.conf:/etc/absent.conf']}\n"},
			has:   map[string][]string{"web.nomad.hcl": {`data = "${file("files/web/etc/absent.conf")}{{ \"\" }}"`}, "findings": {"absent.conf does not exist"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, c.files, c.src)
			if res.Refused() {
				t.Fatalf("refused:\n%s", importertest.Findings(res))
			}
			importertest.Compare(t, res, c.has, c.not)
		})
	}
}

// TestRead_Refusals: each names the place, and nothing is written.
func TestRead_Refusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
		allow string // the rule with which it is imported; "" for none
	}{
		{"a cycle of dependencies", map[string]string{"compose.yaml": "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n"}, "dependency cycle", ""},
		{"a cycle of extends", map[string]string{"compose.yaml": "services:\n  a: {image: x, extends: b}\n  b: {image: x, extends: a}\n"}, "compose.yaml:", ""},
		{"a cycle of include", map[string]string{"compose.yaml": "include: [b.yaml]\nservices:\n  a: {image: x}\n", "b.yaml": "include: [compose.yaml]\nservices:\n  b: {image: x}\n"}, "include cycle", ""},
		{"an unknown key", map[string]string{"compose.yaml": "services:\n  a:\n    image: x\n    imagee: y\n"}, "compose.yaml:4: refusal: Compose refuses the file", ""},
		{"a key twice", map[string]string{"compose.yaml": "services:\n  a: {image: x}\n  a: {image: y}\n"}, `compose.yaml:3: refusal: the key "a" is there twice`, ""},
		{"an empty file", map[string]string{"compose.yaml": ""}, "the file is empty", ""},
		{"no services", map[string]string{"compose.yaml": "services: {}\n"}, "compose.yaml", ""},
		{"a list", map[string]string{"compose.yaml": "- a\n"}, "compose.yaml:1: refusal: a Compose file is a map", ""},
		{"an env_file that does not exist", map[string]string{"compose.yaml": "services:\n  a:\n    image: x\n    env_file: [a.env]\n"}, "compose.yaml:4: refusal: Compose refuses the file: env file", ""},
		{"a port that cannot be read", map[string]string{"compose.yaml": "services:\n  a:\n    image: x\n    ports: ['80']\n  b:\n    image: x\n    ports:\n    - '8002:80:80'\n"}, "compose.yaml:8: refusal: Compose refuses the file: invalid IP address: 8002", ""},
		{"a password and a connection on one port", map[string]string{"compose.yaml": "services:\n  a:\n    image: x\n    expose: [80]\n    labels:\n      traefik.http.routers.a.rule: Host(`a.example.org`)\n      traefik.http.routers.a.middlewares: auth\n      traefik.http.middlewares.auth.basicauth.users: a:b\n      traefik.tcp.routers.a.rule: HostSNI(`b.example.org`)\n      traefik.tcp.routers.a.tls.passthrough: 'true'\n"}, "compose.yaml:2: refusal: requests to port 80 of a need a password or a certificate", "route"},
		{"a network of version 1 that is not there", map[string]string{"compose.yaml": "a:\n  image: x\n  net: container:b\n"}, "compose.yaml:3: refusal: service a uses the network of b, which is not imported", "unsupported"},
		{"an env_file outside the project", map[string]string{"compose.yaml": "services:\n  a: {image: x, env_file: ../../../../etc/passwd}\n"}, "compose.yaml:2: refusal: /etc/passwd is outside the project", ""},
		{"a config outside the project", map[string]string{"compose.yaml": "services:\n  a: {image: x, configs: [c]}\nconfigs:\n  c: {file: /etc/passwd}\n"}, "(outside-project)", ""},
		{"extends outside the project", map[string]string{"compose.yaml": "services:\n  a: {extends: {file: /etc/passwd, service: x}}\n"}, "(outside-project)", ""},
		{"an include that does not exist", map[string]string{"compose.yaml": "include: [no.yaml]\nservices:\n  a: {image: x}\n"}, "compose.yaml:1: refusal: ", ""},
		{"a required variable", map[string]string{"compose.yaml": "services:\n  a: {image: 'x:${TAG:?say it}'}\n"}, "say it", ""},
		{"a name without a port", map[string]string{"compose.yaml": "services:\n  a: {image: x, environment: {API_HOST: b}}\n  b: {image: y}\n"}, "Say --port b=PORT", "unknown-port"},
		{"several writers of a volume", map[string]string{"compose.yaml": "services:\n  a: {image: x, volumes: ['vol:/v'], deploy: {replicas: 2}}\nvolumes: {vol: {}}\n"}, "(volume-shared)", "volume-shared"},
		{"a volume on a server", map[string]string{"compose.yaml": "services:\n  a: {image: x, volumes: ['vol:/v']}\nvolumes: {vol: {driver: local, driver_opts: {type: nfs, o: addr=x, device: ':/x'}}}\n"}, "(volume-driver)", "volume-driver"},
		{"two services on one port", map[string]string{"compose.yaml": "services:\n  a: {image: x, ports: ['80:80']}\n  b: {image: x, ports: ['80:80']}\n"}, "(port-conflict)", "port-conflict"},
		{"names that become equal", map[string]string{"compose.yaml": "services:\n  a_b: {image: x}\n  a-b: {image: x}\n"}, "(name-collision)", ""},
		{"a container of another application", map[string]string{"compose.yaml": "services:\n  a: {image: x, external_links: ['other:o']}\n"}, "--host o=ADDRESS", "network-external"},
		{"a route that another service decides about", map[string]string{"compose.yaml": "services:\n  a: {image: x, labels: {traefik.http.routers.a.rule: 'Host(`a.example.org`)', traefik.http.routers.a.middlewares: auth, traefik.http.middlewares.auth.forwardauth.address: 'http://auth'}}\n"}, "(forward-auth)", "forward-auth"},
		{"a large file", map[string]string{"compose.yaml": "services:\n  a: {image: x, volumes: ['./x.conf:/x.conf']}\n", "x.conf": strings.Repeat("x", 100<<10)}, "(file-too-big)", "file-too-big"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res := project(t, c.files, importer.Source{})
			if !res.Refused() || res.Files != nil {
				t.Fatalf("got no refusal:\n%s", importertest.Findings(res))
			}
			if !strings.Contains(importertest.Findings(res), c.want) {
				t.Errorf("got %s\nwant %q", importertest.Findings(res), c.want)
			}
			for _, f := range res.Findings {
				if f.Severity == importer.Refusal && (f.File == "" || f.Remedy == "") {
					t.Errorf("got a refusal without a place or a remedy: %s", f)
				}
			}
			if c.allow == "" {
				return
			}
			if res := project(t, c.files, importer.Source{Allow: []string{c.allow}}); res.Refused() {
				t.Errorf("with --allow %s: still refused:\n%s", c.allow, importertest.Findings(res))
			}
		})
	}
}

// TestRead_SymbolicLink: a link out of the project is not read.
func TestRead_SymbolicLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "env")); err != nil {
		t.Fatal(err)
	}
	text := "services:\n  a: {image: x, env_file: env}\n"
	res, err := importer.Run(t.Context(), "compose", compose.Read, importer.Source{Inputs: []importer.Input{{Name: filepath.Join(dir, "compose.yaml"), Text: []byte(text)}}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(importertest.Findings(res), "(outside-project)") {
		t.Errorf("got %s, want outside-project", importertest.Findings(res))
	}
}

func FuzzRead(f *testing.F) {
	f.Add("services:\n  web:\n    image: nginx:${TAG:-1}\n    ports: ['80:80']\n    environment: {DB_PASSWORD: x}\n")
	f.Add("web:\n  image: x\n  links: [db]\ndb:\n  image: postgres\n")
	f.Add("")
	f.Add("services:\n  a: {image: x, healthcheck: {test: [CMD, curl, -f, 'http://localhost/']}, deploy: {mode: global}}\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		res, err := importer.Run(t.Context(), "compose", compose.Read, importer.Source{Inputs: []importer.Input{{Name: filepath.Join(dir, "compose.yaml"), Text: []byte(text)}}})
		if err != nil {
			t.Fatal(err)
		}
		if c := res.Counts; c.Values != c.Mapped+c.LeftOut+c.Reported {
			t.Errorf("got %+v, want every value in one count", c)
		}
		if text := importertest.Findings(res); strings.Contains(text, importer.Mistake) || strings.Contains(text, "the stack would not be valid") {
			t.Errorf("got a mistake of the importer:\n%s", text)
		}
	})
}
