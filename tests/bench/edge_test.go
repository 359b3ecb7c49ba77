package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// scene is a dev cluster with an edge and one service, and beside the edge a floor:
// the same program with the least configuration that does the same by hand.
type scene struct {
	*devcluster.Cluster
	drover  func(args ...string)
	nomad   *api.Client
	consul  *capi.Client
	backend int // port
}

func startSite(b *testing.B) *scene {
	b.Helper()
	cluster := devtest.Cluster(b, devcluster.Options{ACME: true})
	env, err := cluster.Env("")
	if err != nil {
		b.Fatal(err)
	}
	program := devtest.Program{Path: devtest.Build(b, b.TempDir()), Env: env}
	s := &scene{Cluster: cluster, backend: respond(b)}
	s.drover = func(args ...string) {
		b.Helper()
		program.Want(b, 0, args...)
	}
	s.drover("cert", "prepare", "ocis", "-e", "dev", "--directory", cluster.ACMEDirectory(), "--ca", cluster.ACMECA())
	if s.nomad, err = api.NewClient(cluster.NomadConfig()); err != nil {
		b.Fatal(err)
	}
	if s.consul, err = capi.NewClient(cluster.ConsulConfig()); err != nil {
		b.Fatal(err)
	}
	certificate, _, err := s.nomad.Variables().Peek("drover/certs/public", nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, job := range []string{"floor-haproxy", "floor-nginx"} {
		if _, _, err := s.nomad.Variables().Create(&api.Variable{Path: "nomad/jobs/" + job, Items: api.VariableItems{"bundle": certificate.Items["bundle"]}}, nil); err != nil {
			b.Fatal(err)
		}
	}
	s.service(b, "web", "drover.route="+benchHost+"/")
	return s
}

const benchHost = "bench.test"

// service registers a service of the one backend.
func (s *scene) service(b *testing.B, name string, tags ...string) {
	b.Helper()
	if err := s.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{Name: name, Address: "127.0.0.1", Port: s.backend, Tags: tags}); err != nil {
		b.Fatal(err)
	}
}

// deploy brings up an edge with all protection; only the rate of requests of the one
// client, which no client on the internet has, is not limited.
func (s *scene) deploy(stack string, more ...string) {
	s.drover(append([]string{"deploy", stack, "-e", "dev", "-var", "requests_per_source=1000000"}, more...)...)
}

// floor runs a floor and returns its address.
func (s *scene) floor(b *testing.B, configuration string, port int) string {
	b.Helper()
	address := net.JoinHostPort(s.Loopback(), strconv.Itoa(port))
	job, err := s.nomad.Jobs().ParseHCL(fmt.Sprintf(configuration, address, s.backend), true)
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := s.nomad.Jobs().Register(job, nil); err != nil {
		b.Fatal(err)
	}
	reach(b, address)
	return address
}

func (s *scene) edge() string { return s.Loopback() + ":9443" }

// loaded waits until the edge has loaded the tags that are in Consul.
func (s *scene) loaded(b *testing.B) {
	b.Helper()
	devtest.Until(b, 5*time.Minute, "the edge has loaded its routes", func() bool {
		services, _, err := s.consul.Catalog().Services(nil)
		if err != nil {
			return false
		}
		instances, _, err := s.consul.Health().Service(edge.ServiceName, "", true, nil)
		if err != nil || len(instances) != 1 {
			return false
		}
		i := instances[0].Service
		res, err := http.Get("http://" + net.JoinHostPort(i.Address, strconv.Itoa(i.Port)) + "/edge")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		var said struct{ Tags string }
		return json.NewDecoder(res.Body).Decode(&said) == nil && said.Tags == edge.Digest(services)
	})
}

// BenchmarkEdge sends requests over kept-alive TLS connections through each edge with
// all protection and, in turns of a second, through its floor. It reports requests per
// second and the 99th percentile of both, and their ratios.
func BenchmarkEdge(b *testing.B) {
	s := startSite(b)
	for _, e := range []struct {
		stack, floor string
		port         int
	}{{"edge", haproxyByHand, 9444}, {"edge-nginx", nginxByHand, 9445}} {
		if e.stack == "edge-nginx" { // two stacks that have the same job
			s.drover("destroy", "edge", "-e", "dev", "-y")
		}
		s.deploy(e.stack)
		reach(b, s.edge())
		program := strings.TrimPrefix(e.stack, "edge-")
		if e.stack == "edge" {
			program = "haproxy"
		}
		floor := s.floor(b, e.floor, e.port)
		for _, l := range []load{
			{false, []string{benchHost}, "/some/path?with=query", small}, {true, []string{benchHost}, "/some/path?with=query", small},
			{false, []string{benchHost}, "/large", large}, {true, []string{benchHost}, "/large", large},
		} {
			protocol := map[bool]string{false: "http1", true: "h2"}[l.h2]
			b.Run(fmt.Sprintf("%s/%s/%d", e.stack, protocol, l.size), func(b *testing.B) { s.compare(b, floor, "floor-"+program, l) })
		}
	}
}

// compare measures the floor and the edge in turns, and reports the edge as a ratio of
// the floor: the median of the ratios of the turns. The time of a processor that a
// request takes is the least disturbed by what else the machine does.
func (s *scene) compare(b *testing.B, floor, job string, l load) {
	var ours, theirs []sample
	turn := func(job, address string) sample {
		before := devtest.UsageOf(b, s.Cluster, job).Seconds
		x := measure(b, address, l)
		x.cpu = (devtest.UsageOf(b, s.Cluster, job).Seconds - before) / float64(x.requests)
		return x
	}
	for b.Loop() {
		for range 5 {
			theirs = append(theirs, turn(job, floor))
			ours = append(ours, turn(edge.ServiceName, s.edge()))
		}
	}
	var perSecond, p99, cpu []float64
	for i := range ours {
		cpu = append(cpu, ours[i].cpu/theirs[i].cpu)
		perSecond = append(perSecond, ours[i].perSecond/theirs[i].perSecond)
		p99 = append(p99, ours[i].p99/theirs[i].p99)
	}
	b.ReportMetric(median(ours, func(s sample) float64 { return s.perSecond }), "edge-req/s")
	b.ReportMetric(median(theirs, func(s sample) float64 { return s.perSecond }), "floor-req/s")
	b.ReportMetric(median(perSecond, same), "ratio")
	b.ReportMetric(median(ours, func(s sample) float64 { return s.p99 * 1000 }), "edge-p99-ms")
	b.ReportMetric(median(theirs, func(s sample) float64 { return s.p99 * 1000 }), "floor-p99-ms")
	b.ReportMetric(median(p99, same), "p99-ratio")
	b.ReportMetric(median(ours, func(s sample) float64 { return s.cpu * 1e6 }), "edge-cpu-µs")
	b.ReportMetric(median(cpu, same), "cpu-ratio")
}

func same(x float64) float64 { return x }

func median[T any](list []T, of func(T) float64) float64 {
	var v []float64
	for _, x := range list {
		v = append(v, of(x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkEdgeRoutes has 1,000 routes of 200 hosts and as many services, after 10
// routes of 10. It reports the 99th percentile of both, what a reload and a change of
// routes without one cost in seconds of a processor, and the memory of the task.
func BenchmarkEdgeRoutes(b *testing.B) {
	s := startSite(b)
	for _, stack := range []string{"edge", "edge-nginx"} {
		if stack == "edge-nginx" {
			s.drover("destroy", "edge", "-e", "dev", "-y")
		}
		var few, many []sample
		for _, count := range []int{10, 200} {
			l := load{path: "/p3/x?with=query", size: small}
			for i := range count {
				name, host := fmt.Sprintf("many%d", i), fmt.Sprintf("h%d.test", i)
				l.hosts = append(l.hosts, host)
				var tags []string
				for p := range map[int]int{10: 1, 200: 5}[count] {
					tags = append(tags, fmt.Sprintf("drover.route=%s/p%d/", host, p))
				}
				if count == 10 {
					tags = []string{"drover.route=" + host + "/"}
				}
				s.service(b, name, tags...)
			}
			if count == 10 {
				s.deploy(stack, "-var", "memory=1024")
			}
			s.loaded(b)
			for _, host := range l.hosts {
				reachHost(b, s.edge(), host, "/p3/x")
			}
			b.Run(fmt.Sprintf("%s/%d_routes", stack, map[int]int{10: 10, 200: 1000}[count]), func(b *testing.B) {
				var all []sample
				for b.Loop() {
					for range 5 {
						all = append(all, measure(b, s.edge(), l))
					}
				}
				few, many = many, all
				p99 := func(s sample) float64 { return s.p99 * 1000 }
				b.ReportMetric(median(all, func(s sample) float64 { return s.perSecond }), "edge-req/s")
				b.ReportMetric(median(all, p99), "edge-p99-ms")
				if len(few) > 0 {
					b.ReportMetric(median(many, p99)/median(few, p99), "p99-ratio")
				}
				b.ReportMetric(float64(devtest.UsageOf(b, s.Cluster, edge.ServiceName).KB)/1024, "MB")
				// The cost of a change, less the use of the edge in the same time without one.
				cost := func(change func()) float64 {
					const window = 8 * time.Second
					use := func(change func()) float64 {
						before := devtest.UsageOf(b, s.Cluster, edge.ServiceName).Seconds
						began := time.Now()
						change()
						<-time.After(window - time.Since(began))
						return devtest.UsageOf(b, s.Cluster, edge.ServiceName).Seconds - before
					}
					idle := use(func() {})
					return use(change) - idle
				}
				b.ReportMetric(cost(func() {
					s.service(b, "web", "drover.route="+benchHost+"/", fmt.Sprintf("drover.header=response set X-Change %d", time.Now().UnixNano()))
					s.loaded(b)
				}), "reload-cpu-s")
				b.ReportMetric(cost(func() {
					s.service(b, "many0", fmt.Sprintf("drover.route=h0.test/%d/", time.Now().UnixNano()))
					s.loaded(b)
				}), "route-cpu-s")
			})
		}
		for i := range 200 {
			if err := s.consul.Agent().ServiceDeregister(fmt.Sprintf("many%d", i)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// reach waits until there is an answer.
func reach(b *testing.B, address string) {
	b.Helper()
	reachHost(b, address, benchHost, "/")
}

func reachHost(b *testing.B, address, host, path string) {
	b.Helper()
	var last error
	defer func() {
		if b.Failed() {
			b.Logf("%s: %v", host, last)
		}
	}()
	devtest.Until(b, time.Minute, host+" is reached at "+address, func() bool {
		conn, err := dial(b.Context(), address, false)
		if err == nil {
			_, err = conn.exchange(host, path, small)
			conn.close()
		}
		if last = err; errors.Is(err, io.EOF) {
			return false
		}
		return err == nil
	})
}

// haproxyByHand and nginxByHand are jobs with the configuration of a floor: under
// Nomad too, so that it has the same share of the processor and the same way for its
// log.
const haproxyByHand = `
job "floor-haproxy" {
  group "floor" {
    task "haproxy" {
      driver = "raw_exec"
      user   = "nobody"
      config {
        command = "/usr/sbin/haproxy"
        args    = ["-W", "-db", "-f", "${NOMAD_TASK_DIR}/haproxy.cfg"]
      }
      resources {
        cpu    = 200
        memory = 256
      }
      template {
        destination = "secrets/cert.pem"
        perms       = "0600"
        uid         = 65534
        gid         = 65534
        data        = "{{ with nomadVar \"nomad/jobs/floor-haproxy\" }}{{ .bundle }}{{ end }}\n"
      }
      template {
        destination = "local/haproxy.cfg"
        data        = <<EOT
global
  log stdout format raw local0 info
defaults
  mode http
  log global
  option httplog
  timeout connect 2s
  timeout client 1m
  timeout server 1m
frontend https
  bind %s ssl crt {{ env "NOMAD_SECRETS_DIR" }}/cert.pem alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  use_backend web if { hdr(host) bench.test }
backend web
  server web 127.0.0.1:%d
EOT
      }
    }
  }
}`

const nginxByHand = `
job "floor-nginx" {
  group "floor" {
    task "nginx" {
      driver = "raw_exec"
      user   = "nobody"
      config {
        # nginx overwrites its environment, by which its processes are found: the shell stays.
        command = "/bin/sh"
        args    = ["-c", "/usr/sbin/nginx -c ${NOMAD_TASK_DIR}/nginx.conf -p ${NOMAD_TASK_DIR} -e stderr; exit 1"]
      }
      resources {
        cpu    = 200
        memory = 256
      }
      template {
        destination = "secrets/cert.pem"
        perms       = "0600"
        uid         = 65534
        gid         = 65534
        data        = "{{ with nomadVar \"nomad/jobs/floor-nginx\" }}{{ .bundle }}{{ end }}\n"
      }
      template {
        destination = "local/nginx.conf"
        data        = <<EOT
daemon off;
worker_processes auto;
pid {{ env "NOMAD_TASK_DIR" }}/nginx.pid;
error_log stderr;
events {
}
http {
  access_log off;
  client_body_temp_path {{ env "NOMAD_TASK_DIR" }}/body;
  proxy_temp_path {{ env "NOMAD_TASK_DIR" }}/proxy;
  fastcgi_temp_path {{ env "NOMAD_TASK_DIR" }}/fastcgi;
  uwsgi_temp_path {{ env "NOMAD_TASK_DIR" }}/uwsgi;
  scgi_temp_path {{ env "NOMAD_TASK_DIR" }}/scgi;
  server {
    listen %s ssl http2;
    server_name bench.test;
    ssl_certificate {{ env "NOMAD_SECRETS_DIR" }}/cert.pem;
    ssl_certificate_key {{ env "NOMAD_SECRETS_DIR" }}/cert.pem;
    location / {
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_pass http://127.0.0.1:%d;
    }
  }
}
EOT
      }
    }
  }
}`
