package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drover-nomad/drover/edge"
)

func testCanary(t *testing.T, e *entrance) {
	stable, next, other := serve(t, "stable"), serve(t, "next"), serve(t, "other")
	e.register(t, "other", address(other))
	for host, tags := range map[string][]string{
		"none":   {"drover.weight=0 version next"},
		"half":   {"drover.weight=50 version next", "drover.weight=50 service other"},
		"all":    {"drover.weight=100 version next"},
		"client": {"drover.weight=50 version next", "drover.weight=50 version stable", "drover.sticky=cookie"},
		"chosen": {"drover.weight=100 version stable", "drover.canary=header X-Canary always version next", "drover.canary=cookie beta yes service other"},
		"gone":   {"drover.weight=100 service nothing"},
		"inside": {"drover.weight=100 version next", "drover.allow=10.0.0.0/8"},
	} {
		e.register(t, "roll-"+host, address(stable), append(tags, "stable", "drover.route="+host+".test/")...)
		e.register(t, "roll-"+host, address(next), "next")
	}
	e.register(t, "roll-bad", address(stable), "drover.route=bad.test/", "drover.weight=101 version next")
	e.loaded(t)
	counts := func(host string, header http.Header) map[string]int {
		t.Helper()
		out := map[string]int{}
		for range 40 {
			_, a := e.got(t, "GET", "https://"+host+".test/", header, nil)
			out[a.Backend]++
		}
		return out
	}
	for _, c := range []struct {
		host   string
		header http.Header
		want   []string // backends that answer, and no other
	}{
		{"all", nil, []string{"next"}},
		{"half", nil, []string{"next", "other"}},
		{"chosen", nil, []string{"stable"}},
		{"chosen", http.Header{"X-Canary": {"always"}}, []string{"next"}},
		{"chosen", http.Header{"X-Canary": {"alwaysx"}}, []string{"stable"}},
		{"chosen", http.Header{"Cookie": {"a=b; beta=yes"}}, []string{"other"}},
		{"chosen", http.Header{"Cookie": {"beta=no"}}, []string{"stable"}},
		{"none", nil, []string{"next", "stable"}}, // what is left of 100 is of all instances
		{"gone", nil, []string{"next", "stable"}},
	} {
		name := "https://" + c.host + ".test/"
		e.reached(t, name)
		eventually(t, fmt.Sprintf("%s with %v reaches %v", name, c.header, c.want), func() bool {
			got := counts(c.host, c.header)
			return len(got) == len(c.want) && !slices.ContainsFunc(c.want, func(b string) bool { return got[b] == 0 })
		})
	}
	if got := counts("client", nil); len(got) != 1 {
		t.Errorf("one client of a sticky service met %v", got)
	}
	e.do(t, http.StatusForbidden, "GET", "https://inside.test/", nil, nil)
	e.refused(t, "roll-bad", "bad.test", "not drover.weight=PERCENT")
}

func testTimeout(t *testing.T, e *entrance) {
	var tries atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not seen
		if r.URL.Query().Has("hang") {
			<-r.Context().Done()
		}
		if r.URL.Query().Has("fail") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer app.Close()
	second := httptest.NewServer(app.Config.Handler) // nginx tries each instance once
	defer second.Close()
	for name, tags := range map[string][]string{
		"impatient": {"drover.timeout=response 1s"},
		"retried":   {"drover.retries=1 503"},
		"tried":     {"drover.retries=0"},
	} {
		e.register(t, name, address(app), append(tags, "drover.route="+name+".test/")...)
		e.register(t, name, address(second), append(tags, "drover.route="+name+".test/")...)
	}
	e.register(t, "timeout-bad", address(app), "drover.route=timeout-bad.test/", "drover.timeout=response 1")
	e.loaded(t)
	for _, name := range []string{"impatient", "retried", "tried"} {
		e.reached(t, "https://"+name+".test/")
	}
	start := time.Now()
	if _, body := e.do(t, http.StatusGatewayTimeout, "POST", "https://impatient.test/?hang", nil, strings.NewReader("x")); string(body) != "<p>too slow</p>" {
		t.Errorf("after a timeout: got %q, want the page", body)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the timeout of 1s came after %s", took)
	}
	for _, c := range []struct {
		method, host string
		want         int32
	}{{"GET", "retried", 2}, {"POST", "retried", 1}, {"GET", "tried", 1}} {
		tries.Store(0)
		e.do(t, http.StatusServiceUnavailable, c.method, "https://"+c.host+".test/?fail", nil, nil)
		if got := tries.Load(); got != c.want {
			t.Errorf("%s of %s was tried %d times, want %d", c.method, c.host, got, c.want)
		}
	}
	e.refused(t, "timeout-bad", "timeout-bad.test", "not drover.timeout=connect")
}

func testBreaker(t *testing.T, e *entrance) {
	var tries atomic.Int32
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/pay" {
			tries.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer failing.Close()
	good := serve(t, "good")
	for _, a := range []string{address(failing), address(good)} {
		e.register(t, "breaks", a, "drover.route=breaks.test/", "drover.breaker=3 30s")
	}
	e.loaded(t)
	e.reached(t, "https://breaks.test/")
	const requests = 60
	client := e.client(false)
	defer client.CloseIdleConnections()
	for range requests {
		method := http.MethodPost
		if e.kind == edge.Nginx { // it only counts what it may send again
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "https://breaks.test/pay", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	// Each process or thread counts for itself.
	if got := tries.Load(); got == 0 || got > requests/3 {
		t.Errorf("the instance that fails got %d of %d requests, want a few", got, requests)
	}
}
