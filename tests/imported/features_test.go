package imported

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// features is an application with what Compose files often ask of a container.
const features = `
x-server: &server
  image: composespec/conformance-tests-server
services:
  entry:
    <<: *server
    ports: ["8082:8080"]
    env_file: [entry.env]
    environment:
      ODD: 'a$${b}%{c} {{d}} "e" \n$$f'
      DB_PASSWORD: 'p$$w"x'' \ {{y}} #z'
      LINES: "one\ntwo"
    depends_on:
      server: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  server:
    <<: *server
    expose: ["8080"]
    healthcheck:
      test: ["CMD", "/server", "check", "http://127.0.0.1:8080/ping"]
      interval: 2s
      timeout: 2s
      retries: 3
      start_period: 5s
  migrate:
    image: composespec/conformance-tests-client
    depends_on:
      server: {condition: service_healthy}
    restart: "no"
  user:
    <<: *server
    user: "1000:1000"
    expose: ["8080"]
    secrets:
      - {source: file_secret, target: /volumes/secret}
      - {source: env_secret, target: /volumes/env, mode: 0440, uid: "1000", gid: "1000"}
    configs:
      - {source: inline, target: /volumes/inline}
      - {source: inline, target: /volumes/mode, mode: 0400, uid: "1000"}
    volumes:
      - ./conf/one.conf:/volumes/one:ro
  strict:
    <<: *server
    read_only: true
    hostname: strict-host
    working_dir: /tmp
    entrypoint: ["/server"]
    command: ["--ignored"]
    tmpfs: ["/volumes:size=1m,mode=1777"]
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    environment: {HTTP_PORT: 80}
    expose: ["80"]
    mem_limit: 64m
    cpus: 0.5
    init: true
    ulimits: {nofile: {soft: 1024, hard: 2048}}
    shm_size: 8m
    stop_signal: SIGTERM
    stop_grace_period: 3s
    security_opt: ["no-new-privileges:true"]
    sysctls: {net.core.somaxconn: 512}
    pids_limit: 100
    extra_hosts: ["outside:127.0.0.1"]
    labels: {a.b: c}
    logging: {driver: json-file, options: {max-size: 1m, max-file: "2"}}
  writer:
    <<: *server
    expose: ["8080"]
    volumes: ["shared:/volumes"]
  reader:
    <<: *server
    expose: ["8080"]
    volumes: ["shared:/volumes:ro"]
    links: ["writer:alias"]
  beside:
    <<: *server
    network_mode: "service:writer"
    environment: {HTTP_PORT: 9090, UDP_PORT: 9090}
volumes:
  shared:
configs:
  inline: {content: "a {{b}} $${c}"}
secrets:
  file_secret: {file: ./secret.txt}
  env_secret: {environment: ENV_SECRET}
`

// testFeatures runs an application and asks its services, through one of them, what
// they see.
func testFeatures(t *testing.T, w *world) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"compose.yaml": features, "entry.env": "FROM_FILE=value of a file\n", "secret.txt": "of a file", "conf/one.conf": "listen {{ port }};\n", ".env": "ENV_SECRET=of the environment\n",
	} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	dir := w.Import(t, "features", filepath.Join(folder, "compose.yaml"))
	w.Deploy(t, dir, on(w.Nodes[:2]...)...)
	const web = "http://127.0.0.1:8082"
	n := w.Nodes[0]
	for _, c := range []struct{ ask, want string }{
		{"/env?name=FROM_FILE", "value of a file"},
		{"/env?name=ODD", `a${b}%{c} {{d}} "e" \n$f`},
		{"/env?name=DB_PASSWORD", `p$w"x' \ {{y}} #z`},
		{"/env?name=LINES", "one\ntwo"},
		{"server:8080/scalechecker", "1"}, // migrate called it
		{"user:8080/volumefile?filename=secret", "of a file"},
		{"user:8080/volumefile?filename=env", "of the environment"},
		{"user:8080/volumefile?filename=inline", "a {{b}} ${c}"},
		{"user:8080/volumefile?filename=mode", "a {{b}} ${c}"},
		{"user:8080/volumefile?filename=one", "listen {{ port }};\n"},
		{"strict/env?name=HOSTNAME", "strict-host"},
		{"strict/write?filename=x&text=y", "written"},
		{"strict/ping?address=outside/ping", "PONG FROM TARGET"},
		{"writer:8080/write?filename=row&text=shared", "written"},
		{"reader:8080/volumefile?filename=row", "shared"},
		{"reader:8080/ping?address=alias:8080/ping", "PONG FROM TARGET"},
		{"writer:8080/ping?address=127.0.0.1:9090/ping", "PONG FROM TARGET"},
	} {
		ask := c.ask
		if ask[0] != '/' {
			// On a busy machine the mesh may need longer to know a service than the
			// program would wait.
			ask = "/ping?timeout=30s&address=" + url.QueryEscape(ask)
		}
		n.answersWithin(t, web+ask, c.want, 40*time.Second)
	}
}
