package nomad

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/stack"
)

// Reads are retried with the same body, writes only after a 403.
func TestClient_Retries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers  []int // 0 resets the connection
		ask      func(*api.Client) error
		requests int64
		fails    bool
	}{
		"read":                  {[]int{429, 503, 0, 200}, read, 4, false},
		"read of 500":           {[]int{500, 200}, read, 2, false},
		"not for ever":          {[]int{502, 502, 502, 502, 200}, read, 4, true},
		"refused":               {[]int{403, 403, 200}, read, 2, true},
		"refused once":          {[]int{403, 200}, read, 2, false},
		"refused to plan":       {[]int{403, 503, 200}, plan, 3, false},
		"refused to write":      {[]int{403, 200}, write, 2, false},
		"refused, then a write": {[]int{403, 503, 200}, write, 2, true},
		"plan":                  {[]int{503, 200}, plan, 2, false},
		"mistake in plan":       {[]int{500, 200}, plan, 1, true},
		"write":                 {[]int{503, 200}, write, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				status := c.answers[n.Add(1)-1]
				if status == 0 {
					conn, _, err := w.(http.Hijacker).Hijack()
					if err == nil {
						_ = conn.Close()
					}
					return
				}
				if body, err := io.ReadAll(r.Body); r.Method == http.MethodPut && (err != nil || !strings.Contains(string(body), `"one"`)) {
					t.Errorf("the body is %q, %v", body, err)
				}
				w.WriteHeader(status)
				_, _ = w.Write([]byte("{}"))
			}))
			t.Cleanup(srv.Close)
			client, err := NewClient(&api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ask(client); (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			if n.Load() != c.requests {
				t.Errorf("%d requests, want %d", n.Load(), c.requests)
			}
		})
	}
}

func one() *api.Job { return api.NewServiceJob("one", "one", "global", 50) }

func read(c *api.Client) error {
	_, _, err := c.Jobs().Info("one", nil)
	return err
}

func plan(c *api.Client) error {
	_, _, err := c.Jobs().Plan(one(), true, nil)
	return err
}

func write(c *api.Client) error {
	_, _, err := c.Jobs().Register(one(), nil)
	return err
}

// counting is a server that counts its connections, and how many requests it has at
// once. A request for an event stream is answered when it is cancelled.
type counting struct {
	*httptest.Server

	opened, now, most atomic.Int64
	hold              chan struct{} // the other requests wait until it is closed
}

func newCounting(t *testing.T) *counting {
	c := &counting{hold: make(chan struct{})}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/event/stream" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		for n, most := c.now.Add(1), c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
		}
		defer c.now.Add(-1)
		select {
		case <-c.hold:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte("{}"))
	}))
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.opened.Add(1)
		}
	}
	c.Start()
	t.Cleanup(c.Close)
	return c
}

// The clients of the targets of one cluster share their connections.
func TestDialer_SharesConnections(t *testing.T) {
	t.Parallel()
	srv := newCounting(t)
	close(srv.hold)
	dialer := &Dialer{Home: func() *api.Config { return &api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}} }}
	for _, name := range []string{"fra", "ams", "waw"} {
		c, err := dialer.Reach(t.Context(), &stack.Target{Name: name}, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := read(c.Nomad); err != nil {
			t.Fatal(err)
		}
	}
	if got := srv.opened.Load(); got != 1 {
		t.Errorf("three clients opened %d connections, want 1", got)
	}
}

// A crowd of requests has at most 64 connections, and streams keep none of them from
// the other requests.
func TestClient_LimitsConnections(t *testing.T) {
	t.Parallel()
	srv := newCounting(t)
	client, err := NewClient(&api.Config{Address: srv.URL, TLSConfig: &api.TLSConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxConnections {
		stream, err := client.Raw().Response("/v1/event/stream", (&api.QueryOptions{}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() })
	}
	var wg sync.WaitGroup
	for range 4 * maxConnections {
		wg.Go(func() {
			if err := read(client); err != nil {
				t.Error(err)
			}
		})
	}
	for begun := time.Now(); srv.now.Load() < maxConnections && time.Since(begun) < 30*time.Second; {
		runtime.Gosched()
	}
	close(srv.hold)
	wg.Wait()
	if got := srv.most.Load(); got != maxConnections {
		t.Errorf("the server had %d requests at once, want %d", got, maxConnections)
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]bool{
		"/v1/event/stream?topic=Job":                  true,
		"/v1/client/fs/logs/x?follow=true":            true,
		"/v1/job/web/allocations?index=7&wait=2000ms": true,
		"/v1/var/drover/stacks/a?index=0":             false,
		"/v1/jobs?namespace=default":                  false,
		"/v1/jobs?filter=index%3D3":                   false,
	} {
		if got := waits(httptest.NewRequest(http.MethodGet, uri, nil)); got != want {
			t.Errorf("GET %s: waits = %t, want %t", uri, got, want)
		}
	}
}
