package controller

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// lists answers Nomad's lists of n jobs, and holds blocking queries until the test ends.
type lists struct {
	n int

	mu      sync.Mutex
	asked   int
	held    map[string]string // query by path
	release chan struct{}
}

func (l *lists) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.asked++
	blocks := r.URL.Query().Get("index") != ""
	if blocks {
		l.held[r.URL.Path] = r.URL.RawQuery
	}
	l.mu.Unlock()
	if blocks {
		select {
		case <-r.Context().Done():
		case <-l.release:
		}
	}
	w.Header().Set("X-Nomad-Index", "17")
	if strings.HasPrefix(r.URL.Path, "/v1/var") {
		fmt.Fprint(w, "[]")
		return
	}
	var list []string
	for i := range l.n {
		list = append(list, fmt.Sprintf(`{"ID":"%d","JobID":"%d","Namespace":"default","ClientStatus":"running"}`, i, i))
	}
	fmt.Fprint(w, "["+strings.Join(list, ",")+"]")
}

// counts returns how many requests came, and how many of them are held.
func (l *lists) counts() (asked, held int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked, len(l.held)
}

func TestObserve_RequestsDoNotGrowWithServices(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 60} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			l := &lists{n: n, held: map[string]string{}, release: make(chan struct{})}
			srv := httptest.NewServer(l)
			defer srv.Close()
			defer close(l.release)
			client, err := api.NewClient(&api.Config{Address: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			c := &controller{c: Config{Nomad: client, LookEvery: 10 * time.Millisecond}, clock: acme.SystemClock{}}
			c.metrics = newMetrics(c)
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { c.observe(ctx) })
			devtest.Until(t, time.Minute, "all lists are held", func() bool { _, held := l.counts(); return held == 4 })
			asked, _ := l.counts()
			if asked != 8 {
				t.Errorf("%d jobs: got %d requests, want 8: each list once, and the query that waits", n, asked)
			}
			l.mu.Lock()
			held := maps.Clone(l.held)
			l.mu.Unlock()
			for path, query := range held {
				if path != "/v1/vars" && !strings.Contains(query, "namespace=%2A") || !strings.Contains(query, "index=17") {
					t.Errorf("%s?%s does not wait for a change in all namespaces", path, query)
				}
			}
			o := c.metrics.observing()
			o.mu.Lock()
			got := len(o.jobs)
			o.mu.Unlock()
			if got != n {
				t.Errorf("got %d jobs, want %d", got, n)
			}
			stop()
			wg.Wait()
			c.metrics.forget()
			if c.metrics.observing() != nil {
				t.Error("a standby still knows the stacks")
			}
		})
	}
}

// counted counts the jobs that are read.
type counted struct {
	release.Cluster
	read []string
}

func (c *counted) Job(_ context.Context, l record.Service) (*api.Job, error) {
	c.read = append(c.read, l.Name)
	return nil, nil
}

func TestListed_ReadsChangedJobsOnly(t *testing.T) {
	t.Parallel()
	o := newObserved(nomad.Defaults{Region: "global"})
	o.setJobs(list[jobEntry](t, `[
		{"ID":"same","Namespace":"default","JobModifyIndex":5}, {"ID":"changed","Namespace":"default","JobModifyIndex":6},
		{"ID":"stopped","Namespace":"default","JobModifyIndex":5,"Stop":true}, {"ID":"elsewhere","Namespace":"default","JobModifyIndex":5}]`))
	inner := &counted{}
	for _, l := range []record.Service{
		{Name: "same", JobID: "same", Index: 5}, {Name: "changed", JobID: "changed", Index: 5}, {Name: "stopped", JobID: "stopped", Index: 5},
		{Name: "purged", JobID: "purged", Index: 5}, {Name: "elsewhere", JobID: "elsewhere", Region: "eu", Index: 5}, {Name: "not known", JobID: "same"},
	} {
		job, err := listed{inner, o}.Job(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if l.Name == "same" && (job == nil || *job.JobModifyIndex != 5) {
			t.Errorf("got job %+v, want index 5", job)
		}
	}
	o.jobsAreOld(true)
	if _, err := (listed{inner, o}).Job(t.Context(), record.Service{Name: "an old list", JobID: "same", Index: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := (listed{inner, nil}).Job(t.Context(), record.Service{Name: "without a list", JobID: "same", Index: 5}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"changed", "stopped", "purged", "elsewhere", "not known", "an old list", "without a list"}; !slices.Equal(inner.read, want) {
		t.Errorf("got reads of %q, want %q", inner.read, want)
	}
}
