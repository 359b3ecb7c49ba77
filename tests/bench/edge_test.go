package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// BenchmarkEdge sends requests over kept-alive TLS connections through the
// edge and, in turns of a second, through the floor: the same HAProxy with the
// least configuration that does the same by hand, and an access log. It
// reports requests per second and the 99th percentile of both, and their
// ratios.
func BenchmarkEdge(b *testing.B) {
	cluster := devtest.Cluster(b, devcluster.Options{ACME: true})
	env, err := cluster.Env("")
	if err != nil {
		b.Fatal(err)
	}
	program := devtest.Program{Path: devtest.Build(b, b.TempDir()), Env: env}
	drover := func(args ...string) {
		b.Helper()
		program.Want(b, 0, args...)
	}
	drover("cert", "prepare", "ocis", "-e", "dev", "--directory", cluster.ACMEDirectory(), "--ca", cluster.ACMECA())
	nomad, err := api.NewClient(&api.Config{Address: cluster.NomadAddr()})
	if err != nil {
		b.Fatal(err)
	}
	certificate, _, err := nomad.Variables().Peek("drover/certs/public", nil)
	if err != nil {
		b.Fatal(err)
	}
	backend := respond(b)
	consul, err := capi.NewClient(&capi.Config{Address: cluster.ConsulAddr()})
	if err != nil {
		b.Fatal(err)
	}
	if err := consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{Name: "web", Address: "127.0.0.1", Port: backend, Tags: []string{"drover.route=bench.test/"}}); err != nil {
		b.Fatal(err)
	}
	if _, _, err := nomad.Variables().Create(&api.Variable{Path: "nomad/jobs/floor", Items: api.VariableItems{"bundle": certificate.Items["bundle"]}}, nil); err != nil {
		b.Fatal(err)
	}
	floor := cluster.Loopback() + ":9444"
	job, err := nomad.Jobs().ParseHCL(fmt.Sprintf(byHand, floor, backend), true)
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := nomad.Jobs().Register(job, nil); err != nil {
		b.Fatal(err)
	}
	edge := cluster.Loopback() + ":9443"
	for _, stack := range []string{"edge", "edge-nginx"} {
		if stack == "edge-nginx" { // two stacks that have the same job
			drover("destroy", "edge", "-e", "dev", "-y")
		}
		drover("deploy", stack, "-e", "dev", "-var", "requests_per_source=1000000")
		for _, address := range []string{edge, floor} {
			reach(b, address)
		}
		b.Run(stack, func(b *testing.B) {
			var ours, theirs []sample
			for b.Loop() {
				for range 5 {
					theirs = append(theirs, measure(b, floor))
					ours = append(ours, measure(b, edge))
				}
			}
			var perSecond, p99 []float64
			for i := range ours {
				perSecond = append(perSecond, ours[i].perSecond/theirs[i].perSecond)
				p99 = append(p99, ours[i].p99/theirs[i].p99)
			}
			median := func(v []float64) float64 {
				slices.Sort(v)
				return v[len(v)/2]
			}
			of := func(s []sample, f func(sample) float64) float64 {
				var v []float64
				for _, x := range s {
					v = append(v, f(x))
				}
				return median(v)
			}
			rate, tail := func(s sample) float64 { return s.perSecond }, func(s sample) float64 { return s.p99 * 1000 }
			b.ReportMetric(of(ours, rate), "edge-req/s")
			b.ReportMetric(of(theirs, rate), "floor-req/s")
			b.ReportMetric(median(perSecond), "ratio")
			b.ReportMetric(of(ours, tail), "edge-p99-ms")
			b.ReportMetric(of(theirs, tail), "floor-p99-ms")
			b.ReportMetric(median(p99), "p99-ratio")
		})
	}
}

// byHand is a job with the floor's configuration: under Nomad too, so that it
// has the same share of the processor and the same way for its log.
const byHand = `
job "floor" {
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
        data        = "{{ with nomadVar \"nomad/jobs/floor\" }}{{ .bundle }}{{ end }}\n"
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

// respond answers every request with the same, at no more cost than that.
func respond(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 512\r\n\r\n" + strings.Repeat("x", 512))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := conn.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

const request = "GET /some/path?with=query HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"

// exchange sends one request and reads the whole answer; last says that the
// connection takes no other, as nginx does after a thousand.
func exchange(conn net.Conn, r *bufio.Reader) (last bool, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != 512 || res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s with %d bytes: %w", res.Status, n, err)
	}
	return res.Close, nil
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	return d.DialContext(ctx, "tcp", address)
}

// reach waits until there is an answer.
func reach(b *testing.B, address string) {
	b.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := dial(b.Context(), address)
		if err == nil {
			_, err = exchange(conn, bufio.NewReader(conn))
			conn.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", address, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

type sample struct{ perSecond, p99 float64 } // p99 in seconds

// measure sends requests for a second on 16 connections.
func measure(b *testing.B, address string) sample {
	b.Helper()
	const clients = 16
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		start = make(chan struct{})
	)
	for range clients {
		conn, err := dial(b.Context(), address)
		if err != nil {
			b.Fatal(err)
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer func() { conn.Close() }()
			r := bufio.NewReader(conn)
			var took []time.Duration
			<-start
			for end := time.Now().Add(time.Second); ; {
				began := time.Now()
				if began.After(end) {
					break
				}
				last, err := exchange(conn, r)
				if err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(began))
				if last {
					conn.Close()
					if conn, err = dial(b.Context(), address); err != nil {
						b.Error(err)
						return
					}
					r.Reset(conn)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		}()
	}
	began := time.Now()
	close(start)
	wait.Wait()
	elapsed := time.Since(began)
	if len(all) == 0 {
		b.Fatal("no request was answered")
	}
	slices.Sort(all)
	return sample{float64(len(all)) / elapsed.Seconds(), all[len(all)*99/100].Seconds()}
}
