package e2e

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// envSoak asks for the soak, and says how long it lasts (1h).
const envSoak = "DROVER_TEST_SOAK"

// taken is what one replica of the controller says it takes.
type taken struct {
	started, goroutines, fds, heap, resident float64
}

// TestSoak redeploys the whole of oCIS and renews its certificate every five
// minutes while a client works, and fails when the controller takes more and
// more.
func TestSoak(t *testing.T) {
	if os.Getenv(envSoak) == "" {
		t.Skip("make soak runs it")
	}
	lasts, err := time.ParseDuration(os.Getenv(envSoak))
	if err != nil {
		t.Fatal(err)
	}
	const every = 5 * time.Minute
	rounds := int(lasts / every)
	if rounds < 4 {
		t.Fatalf("%s: a soak has at least four rounds of %s", lasts, every)
	}
	r := start(t, true)
	r.drover.must(t, "deploy", "ocis", "-e", "dev")
	r.drover.must(t, "check", "ocis", "-e", "dev", "--retry-for", "60s")

	m := &mixed{why: map[string]int{}, good: time.Now(), pause: time.Second}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var client sync.WaitGroup
	r.ocis.must(t, http.StatusCreated, einstein, "MKCOL", "/remote.php/webdav/soak", nil, nil)
	client.Go(func() { m.client(ctx, r.ocis, "/remote.php/webdav/soak") })

	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", heading(t, "make soak SOAK="+lasts.String()))
	b.WriteString("| after | goroutines | file descriptors | live heap, least and most, MB | resident, MB | requests | failed |\n|---|---:|---:|---:|---:|---:|---:|\n")
	began := time.Now()
	var all []taken
	for round := range rounds {
		r.drover.must(t, "redeploy", "ocis", "-e", "dev")
		r.drover.must(t, "cert", "renew", "public", "--force", "--no-check", "--directory", r.ACMEDirectory(), "--ca", r.ACMECA())
		// The most of several looks. Of the heap the least as well: what lives is
		// counted when rubbish is collected, which can be in the midst of work.
		var most taken
		least := math.Inf(1)
		for until := began.Add(time.Duration(round+1) * every); ; {
			now := r.controller(t)
			least = min(least, now.heap)
			most = taken{now.started, max(most.goroutines, now.goroutines), max(most.fds, now.fds), max(most.heap, now.heap), max(most.resident, now.resident)}
			if time.Now().After(until) {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			case <-time.After(10 * time.Second):
			}
		}
		line := fmt.Sprintf("| %s | %.0f | %.0f | %.1f, %.1f |", time.Since(began).Round(time.Minute), most.goroutines, most.fds, least/1e6, most.heap/1e6)
		most.heap = least // what is there without work
		all = append(all, most)
		total, failed, why, _ := m.take()
		line += fmt.Sprintf(" %.1f | %d | %s |\n", most.resident/1e6, total, failures(failed, why))
		b.WriteString(line)
		t.Log(strings.TrimSpace(line))
	}
	stop()
	client.Wait()

	// The first round is left out: there it fills its caches.
	half := all[1 : 1+(rounds-1)/2]
	for _, c := range []struct {
		what  string
		of    func(taken) float64
		slack float64
	}{
		{"goroutines", func(s taken) float64 { return s.goroutines }, 2},
		{"file descriptors", func(s taken) float64 { return s.fds }, 2},
		{"live heap", func(s taken) float64 { return s.heap }, 1e6},
		{"resident memory", func(s taken) float64 { return s.resident }, 1e6},
	} {
		before, after := median(half, c.of), median(all[1+len(half):], c.of)
		if after > before*1.15+c.slack {
			t.Errorf("%s: %.0f in the first half, %.0f in the second", c.what, before, after)
		}
	}
	if slices.ContainsFunc(all, func(s taken) bool { return s.started != all[0].started }) {
		t.Error("the controller has not run all the time")
	}
	renew(t, "soak", b.String())
}

func median(list []taken, of func(taken) float64) float64 {
	var values []float64
	for _, s := range list {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// controller asks the one that works for its metrics.
func (r *running) controller(t testing.TB) taken {
	t.Helper()
	entries, _, err := r.consul.Health().Service("drover-controller", "metrics", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		res, err := http.Get(fmt.Sprintf("http://%s:%d/metrics", e.Service.Address, e.Service.Port))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for line := range strings.Lines(string(body)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				values[name], _ = strconv.ParseFloat(value, 64)
			}
		}
		if values["drover_controller_leader"] == 1 {
			return taken{values["process_start_time_seconds"], values["go_goroutines"], values["process_open_fds"], values["go_gc_heap_live_bytes"], values["process_resident_memory_bytes"]}
		}
	}
	t.Fatalf("none of %d controllers works", len(entries))
	return taken{}
}
