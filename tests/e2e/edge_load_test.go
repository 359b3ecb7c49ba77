package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
)

// envBackend makes this test binary a backend of its own, for Nomad to run:
// it has the address to listen on.
const envBackend = "DROVER_E2E_BACKEND"

func runBackend() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &http.Server{Addr: os.Getenv(envBackend), Handler: failing(backend(os.Getenv("NOMAD_ALLOC_ID")), os.Getenv(envErrors)), ReadHeaderTimeout: time.Minute}
	answered := make(chan struct{}) // what had come, before this process ends
	go func() {
		defer close(answered)
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-answered
}

// rolled is a job of two instances of the backend: name, binary, variable, version, and
// the delay between its deregistration and its end.
const rolled = `
job %[1]q {
  group "web" {
    count          = 2
    shutdown_delay = %[5]q
    update {
      max_parallel     = 1
      min_healthy_time = "500ms"
      healthy_deadline = "1m"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    network {
      port "http" {}
    }
    service {
      name = %[1]q
      port = "http"
      tags = ["drover.route=%[1]s.test/"]
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "5s"
      }
    }
    task "web" {
      driver       = "raw_exec"
      kill_timeout = "6s"
      config {
        command = %[2]q
      }
      env {
        %[3]s  = "${NOMAD_ADDR_http}"
        VERSION = "%[4]d"
      }
      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}`

// roll deploys a version of a job of the backend and waits until Nomad calls it
// successful.
func (e *entrance) roll(t *testing.T, name string, version int) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// nginx learns of a stop by a reload, which takes seconds on a busy machine.
	delay := map[edge.Kind]string{edge.HAProxy: "3s", edge.Nginx: "6s"}[e.kind]
	job, err := e.nomad.Jobs().ParseHCL(fmt.Sprintf(rolled, name, exe, envBackend, version, delay), true)
	if err != nil {
		return err
	}
	res, _, err := e.nomad.Jobs().Register(job, nil)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		d, _, err := e.nomad.Jobs().LatestDeployment(name, nil)
		switch {
		case err != nil:
			return err
		case d != nil && d.JobSpecModifyIndex >= res.JobModifyIndex && d.Status == api.DeploymentStatusSuccessful:
			return nil
		case d != nil && d.JobSpecModifyIndex >= res.JobModifyIndex && d.Status == api.DeploymentStatusFailed:
			return fmt.Errorf("%s, version %d: %s", name, version, d.StatusDescription)
		case time.Now().After(deadline):
			return fmt.Errorf("%s: version %d is not deployed after two minutes", name, version)
		}
		select {
		case <-t.Context().Done():
			return t.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tally counts the requests of one kind.
type tally struct {
	total, failed atomic.Int64
	mu            sync.Mutex
	why           map[string]int
}

func (c *tally) fail(why string) {
	c.failed.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = map[string]int{}
	}
	c.why[why]++
}

// post sends requests that are not idempotent, one after the other and at most one
// every 40 ms, until ctx ends. Go's client does not retry them, because it cannot read
// the body twice.
func post(ctx context.Context, client *http.Client, url string, c *tally) {
	body := strings.Repeat("x", 512)
	pace := time.NewTicker(40 * time.Millisecond) // the tests beside this one have the same two cores
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		req, err := http.NewRequest("POST", url, struct{ io.Reader }{strings.NewReader(body)})
		if err != nil {
			panic(err)
		}
		req.ContentLength = int64(len(body))
		res, err := client.Do(req)
		c.total.Add(1)
		if err != nil {
			text := err.Error()
			c.fail(text[strings.LastIndex(text, ": ")+1:])
			continue
		}
		var a arrived
		err = json.NewDecoder(res.Body).Decode(&a)
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		switch {
		case res.StatusCode != http.StatusOK:
			c.fail(res.Status)
			if res.StatusCode == http.StatusBadGateway {
				// It can be an old worker of nginx that has kept the connection: for
				// how long is looked at once, over a connection of its own.
				client.CloseIdleConnections()
			}
		case err != nil || a.Length != int64(len(body)):
			c.fail("the answer is cut off")
		}
	}
}

// slow is n bytes at a rate, the same ones each time, and their digest when
// they are read.
type slow struct {
	left  int64
	pause time.Duration // per MiB
	rnd   *rand.Rand
	sum   interface {
		io.Writer
		Sum([]byte) []byte
	}
	since int64
}

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.left))
	_, _ = s.rnd.Read(p[:n])
	_, _ = s.sum.Write(p[:n])
	s.left -= int64(n)
	if s.since += int64(n); s.since >= 1<<20 {
		s.since = 0
		time.Sleep(s.pause)
	}
	return n, nil
}

// handshake is a connection that is there when nginx ends its workers, and
// whose handshake comes after that: none of them closes it then. The function
// makes the handshake, and returns when the connection is let go of.
func (e *entrance) handshake(t *testing.T, url string) func() {
	t.Helper()
	first, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", e.Loopback()+":9443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	client, dials := e.client(true), 0
	tr := client.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials == 1 {
			return first, nil
		}
		return dial(ctx, network, address)
	}
	return func() {
		eventually(t, "the old worker lets go of a connection", func() bool {
			if res, err := client.Get(url); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			} else if dials == 1 {
				t.Errorf("over the connection of the old worker: %v", err)
			}
			return dials > 1
		})
	}
}

// testLoad renews the certificate twelve times, by the CA, and rolls backends twelve
// times, two at a time, while clients send what cannot be repeated and others hold a
// connection; with nginx, one at a time, and four times unless make load measures. The
// numbers are for docs/reliability.md.
//
// It returns the lines of the table.
func testLoad(t *testing.T, e *entrance) string {
	devtest.NeedsFull(t)
	times := map[edge.Kind]int{edge.HAProxy: 12, edge.Nginx: 4}[e.kind]
	if os.Getenv(envLoad) != "" {
		times = 12
	}
	defer devtest.HoldCalm(t)()
	jobs := map[edge.Kind][]string{edge.HAProxy: {"rolled", "rolling"}, edge.Nginx: {"rolled"}}[e.kind]
	rolled := func(version int) (wait func()) {
		var rolls sync.WaitGroup
		for _, job := range jobs {
			rolls.Go(func() {
				if err := e.roll(t, job, version); err != nil {
					t.Error(err)
				}
			})
		}
		return rolls.Wait
	}
	for _, job := range jobs {
		t.Cleanup(func() { _, _, _ = e.nomad.Jobs().Deregister(job, true, nil) })
	}
	rolled(0)()
	if t.Failed() {
		return ""
	}
	e.register(t, "steady", address(serve(t, "steady")), "drover.route=steady.test/")
	e.loaded(t)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wait sync.WaitGroup
	run := func(f func()) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			f()
		}()
	}
	var kept, fresh, h2 tally
	for i := range 2 {
		url := "https://" + jobs[i%len(jobs)] + ".test/"
		for range 3 {
			run(func() { post(ctx, e.client(false), url, &kept) })
		}
		client := e.client(false)
		client.Transport.(*http.Transport).DisableKeepAlives = true
		run(func() { post(ctx, client, url, &fresh) })
		run(func() { post(ctx, e.client(true), url, &h2) })
	}

	// An event stream in which no number may be missing.
	var events atomic.Int64
	req, err := http.NewRequestWithContext(ctx, "GET", "https://steady.test/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := e.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	run(func() {
		for lines := bufio.NewScanner(stream.Body); ; {
			more := lines.Scan()
			if ctx.Err() != nil {
				return
			}
			if !more {
				t.Errorf("the event stream ended after %d events: %v", events.Load(), lines.Err())
				return
			}
			if text := lines.Text(); text != "" {
				if want := fmt.Sprintf("data: %d", events.Load()); text != want {
					t.Errorf("the event stream says %q, want %q", text, want)
					return
				}
				events.Add(1)
			}
		}
	})
	ping := e.socket(t, "steady.test")

	// An upload that lasts through most of the reloads.
	const size = 400 << 20
	uploaded := make(chan time.Duration, 1)
	run(func() {
		defer close(uploaded)
		began := time.Now()
		body := &slow{left: size, pause: time.Duration(times/len(jobs)) * 20 * time.Millisecond, rnd: rand.New(rand.NewSource(1)), sum: sha256.New()}
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "https://steady.test/upload", body)
		if err != nil {
			t.Error(err)
			return
		}
		req.ContentLength = size
		res, err := e.client(false).Do(req)
		if err != nil {
			t.Errorf("the upload: %v", err)
			return
		}
		defer res.Body.Close()
		var a arrived
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil || a.Length != size || a.SHA256 != hex.EncodeToString(body.sum.Sum(nil)) {
			t.Errorf("of the upload %d bytes arrived: %v", a.Length, err)
		}
		uploaded <- time.Since(began)
	})

	late := func() {}
	if e.kind == edge.Nginx {
		late = e.handshake(t, "https://steady.test/")
	}
	began := time.Now()
	rolls := func() {}
	for i := range times {
		last := i%len(jobs) == len(jobs)-1 // renewal of these rolls
		if i%len(jobs) == 0 {
			rolls = rolled(i/len(jobs) + 1)
		}
		e.drover.must(t, "cert", "renew", "public", "--force", "--no-check", "--directory", e.ACMEDirectory(), "--ca", e.ACMECA())
		if last {
			rolls()
		}
		if err := ping(fmt.Sprint("renewal ", i)); err != nil {
			t.Errorf("the websocket after %d renewals: %v", i+1, err)
		}
		if last && i < len(jobs) { // a reload has ended the first workers
			run(late)
		}
	}
	took := time.Since(began)
	lasted := <-uploaded
	eventually(t, "500 requests of each kind", func() bool {
		return min(kept.total.Load(), fresh.total.Load(), h2.total.Load()) >= 500
	})
	stop()
	wait.Wait()
	if least := int64(took / (200 * time.Millisecond)); events.Load() < least {
		t.Errorf("only %d events", events.Load())
	}
	t.Logf("%d events; 400 MB in %s", events.Load(), lasted.Round(time.Second))
	var lines strings.Builder
	for _, c := range []struct {
		name string
		*tally
		most float64 // failed, as a share
	}{
		{"HTTP/1.1, kept-alive", &kept, map[edge.Kind]float64{edge.HAProxy: 0, edge.Nginx: 0.01}[e.kind]},
		{"HTTP/1.1, new connection each", &fresh, map[edge.Kind]float64{edge.HAProxy: 0, edge.Nginx: 0.01}[e.kind]},
		{"HTTP/2", &h2, 0.01},
	} {
		fmt.Fprintf(&lines, "| %s | %d and %d in %s | %s | %d | %s |\n", e.kind, times, times, took.Round(time.Second), c.name, c.total.Load(), failures(c.failed.Load(), c.why))
		if share := float64(c.failed.Load()) / float64(c.total.Load()); share > c.most {
			t.Errorf("%s: %d of %d failed: %v", c.name, c.failed.Load(), c.total.Load(), c.why)
		}
	}
	t.Log(lines.String())
	return lines.String()
}
