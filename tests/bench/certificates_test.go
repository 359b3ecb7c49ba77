package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
	"github.com/mholt/acmez/v3"
	protocol "github.com/mholt/acmez/v3/acme"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// envBackend makes this test binary a backend, for Nomad to run.
const envBackend = "DROVER_BENCH_BACKEND"

func runBackend(address string) error {
	srv := &http.Server{Addr: address, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, os.Getenv("NOMAD_ALLOC_ID"))
	})}
	return srv.ListenAndServe()
}

// site is a stack of one backend with a certificate and a route.
var site = map[string]string{
	"environments/dev.hcl": "",
	"variables.hcl": `
variable "domain" {
  type = string
}
variable "backend" {
  type = string
}
variable "generation" {
  type    = number
  default = 0
}
`,
	"stack.hcl": `
stack "site" {
  version = "0.1.0"
}
certificate "public" {
  names = [split(":", var.domain)[0]]
}
`,
	"web.nomad.hcl": `
job "web" {
  group "web" {
    update {
      canary           = 1
      auto_promote     = true
      min_healthy_time = "0s"
      healthy_deadline = "30s"
    }
    shutdown_delay = "2s"
    network {
      port "http" {}
    }
    service {
      name     = "web"
      port     = "http"
      provider = "consul"
      tags     = ["drover.route=${split(":", var.domain)[0]}/"]
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }
    task "web" {
      driver = "raw_exec"
      config {
        command = var.backend
      }
      env {
        DROVER_BENCH_BACKEND = "$${NOMAD_ADDR_http}"
        GENERATION           = var.generation
      }
      resources {
        cpu    = 20
        memory = 64
      }
    }
  }
}
`,
}

// entrance is a cluster with the edge, the controller and the site.
type entrance struct {
	*devcluster.Cluster
	dir, binary string
	env         []string
	nomad       *api.Client
	consul      *capi.Client
}

func newEntrance(b *testing.B) *entrance {
	b.Helper()
	e := &entrance{Cluster: devtest.Cluster(b, devcluster.Options{ACME: true}), dir: b.TempDir()}
	var err error
	if e.env, err = e.Env(""); err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	e.binary = devtest.Build(b, e.BinDir())
	e.env = append(e.env, "NOMAD_VAR_drover_binary="+e.binary, "NOMAD_VAR_backend="+exe)
	for name, text := range site {
		path := filepath.Join(e.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if e.nomad, err = api.NewClient(&api.Config{Address: e.NomadAddr()}); err != nil {
		b.Fatal(err)
	}
	if e.consul, err = capi.NewClient(&capi.Config{Address: e.ConsulAddr()}); err != nil {
		b.Fatal(err)
	}
	e.drover(b, "deploy", e.dir, "-e", "dev")
	return e
}

// certEvent is a line of -o json.
type certEvent struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	Kind   string    `json:"kind"`
	Serial string    `json:"serial"`
}

// drover runs drover and returns its events, if -o json is given.
func (e *entrance) drover(b *testing.B, args ...string) []certEvent {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), e.binary, args...)
	cmd.Env = append(os.Environ(), e.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		b.Fatalf("drover %v: %v\n%s%s", args, err, out.String(), errs.String())
	}
	var events []certEvent
	for l := range strings.Lines(out.String()) {
		var t certEvent
		if json.Unmarshal([]byte(l), &t) == nil {
			events = append(events, t)
		}
	}
	return events
}

func when(b *testing.B, events []certEvent, kind string) time.Time {
	b.Helper()
	for _, t := range events {
		if t.Kind == kind {
			return t.Time
		}
	}
	b.Fatalf("nothing was %s: %+v", kind, events)
	return time.Time{}
}

func (e *entrance) https() string { return net.JoinHostPort(e.Loopback(), "9443") }

// until polls, and returns when f was true.
func until(b *testing.B, what string, f func() bool) time.Time {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if f() {
			return time.Now()
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within 30 s", what)
		}
		select {
		case <-b.Context().Done():
			b.Fatal(b.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// BenchmarkCertificate measures how long a first issuance takes from deploy to
// served, against the same order by a bare client with the same account; and
// how long a renewed certificate takes from the store to the wire.
func BenchmarkCertificate(b *testing.B) {
	e := newEntrance(b)
	var first, bare, wire, worst time.Duration
	for b.Loop() {
		bare += e.bare(b)

		// As if it had never been.
		if _, err := e.nomad.Variables().Delete("drover/certs/public", nil); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		first += when(b, e.drover(b, "deploy", e.dir, "-e", "dev", "-o", "json"), "served").Sub(began)

		serial := e.serial(b)
		changed := make(chan time.Time, 1)
		go func() { changed <- until(b, "the renewed certificate", func() bool { return e.serial(b) != serial }) }()
		stored := when(b, e.drover(b, "cert", "renew", "public", "--force", "-o", "json"), "issued")
		took := (<-changed).Sub(stored)
		wire, worst = wire+took, max(worst, took)
	}
	n := float64(b.N)
	b.ReportMetric(first.Seconds()/n, "first-s")
	b.ReportMetric(bare.Seconds()/n, "bare-s")
	b.ReportMetric(wire.Seconds()/n, "wire-s")
	b.ReportMetric(worst.Seconds(), "wire-max-s")
}

func (e *entrance) serial(b *testing.B) string {
	chain, err := acme.Dial(b.Context(), e.https(), e.Loopback(), 5*time.Second)
	if err != nil {
		return "" // a handshake that a reload cut off
	}
	return acme.Serial(chain[0])
}

// answered is what the edge does for HTTP-01 without being certEvent.
type answered struct{}

func (answered) Present(context.Context, protocol.Challenge) error { return nil }
func (answered) CleanUp(context.Context, protocol.Challenge) error { return nil }

// bare is the same order with nothing of drover's but the account.
func (e *entrance) bare(b *testing.B) time.Duration {
	b.Helper()
	account, err := acme.NewStore(acme.NomadVariables(e.nomad)).Account(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	signer, err := pki.ParseKey(account.Key.Reveal())
	if err != nil {
		b.Fatal(err)
	}
	pem, err := os.ReadFile(e.ACMECA())
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		b.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	client := acmez.Client{
		Client:           &protocol.Client{Directory: e.ACMEDirectory(), HTTPClient: &http.Client{Transport: tr}},
		ChallengeSolvers: map[string]acmez.Solver{protocol.ChallengeTypeHTTP01: answered{}},
	}
	began := time.Now()
	key, err := pki.NewKey(pki.P256)
	if err != nil {
		b.Fatal(err)
	}
	chains, err := client.ObtainCertificateForSANs(b.Context(), protocol.Account{
		Status: protocol.StatusValid, Location: account.CAs[e.ACMEDirectory()].Location, PrivateKey: signer,
	}, key, []string{e.Loopback()})
	if err != nil || len(chains) == 0 {
		b.Fatalf("%d chains, %v", len(chains), err)
	}
	return time.Since(began)
}

// BenchmarkMovedBackend measures how long it takes from when a new instance
// passes its check in Consul until a request reaches it through the edge.
func BenchmarkMovedBackend(b *testing.B) {
	e := newEntrance(b)
	pem, err := os.ReadFile(e.CA())
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		b.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 5 * time.Second}
	get := func() string {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+e.https()+"/", nil)
		if err != nil {
			return ""
		}
		resp, err := client.Do(req)
		if err != nil {
			return ""
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
	}
	old := map[string]bool{}
	until(b, "the first backend", func() bool { first := get(); old[first] = first != ""; return first != "" && len(first) == 36 })
	var sum, worst time.Duration
	for i := 1; b.Loop(); i++ {
		passing, used := make(chan time.Time, 1), make(chan time.Time, 1)
		go func() { passing <- e.passing(b, old) }()
		var now string
		go func() {
			used <- until(b, "the new backend", func() bool { now = get(); return len(now) == 36 && !old[now] })
		}()
		e.drover(b, "deploy", e.dir, "-e", "dev", "-var", fmt.Sprint("generation=", i))
		took := (<-used).Sub(<-passing)
		old[now] = true
		sum, worst = sum+took, max(worst, took)
	}
	b.ReportMetric(sum.Seconds()/float64(b.N), "moved-s")
	b.ReportMetric(worst.Seconds(), "moved-max-s")
}

// passing returns when Consul has an instance that passes and is not old.
func (e *entrance) passing(b *testing.B, old map[string]bool) time.Time {
	for index := uint64(0); ; {
		list, meta, err := e.consul.Health().Service("web", "", true, (&capi.QueryOptions{WaitIndex: index, WaitTime: 30 * time.Second}).WithContext(b.Context()))
		if err != nil {
			b.Error(err)
			return time.Now()
		}
		for _, s := range list {
			known := false
			for id := range old {
				known = known || id != "" && strings.Contains(s.Service.ID, id)
			}
			if !known {
				return time.Now()
			}
		}
		index = meta.LastIndex
	}
}
