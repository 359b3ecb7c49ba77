package nomad

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/nomad/api"
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
