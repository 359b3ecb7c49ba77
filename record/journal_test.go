package record

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// gated accepts each variable that is written, and counts the writes of pages. The
// second and later ones wait until open is closed.
type gated struct {
	open chan struct{}

	mu    sync.Mutex
	pages int
}

func (g *gated) RoundTrip(r *http.Request) (*http.Response, error) {
	var v api.Variable
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return nil, err
	}
	g.mu.Lock()
	if strings.HasSuffix(r.URL.Path, "/00") {
		g.pages++
	}
	n := g.pages
	g.mu.Unlock()
	if n > 1 {
		select {
		case <-g.open:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	v.ModifyIndex = uint64(n)
	text, err := json.Marshal(v)
	header := http.Header{"X-Nomad-Index": {strconv.Itoa(n)}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
}

func (g *gated) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pages
}

// A flush that begins while the last change is being written does not write it again.
func TestJournal_WritesAChangeOnce(t *testing.T) {
	t.Parallel()
	g := &gated{open: make(chan struct{})}
	client, err := api.NewClient(&api.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: g}})
	if err != nil {
		t.Fatal(err)
	}
	j, err := OpenReleases(client, "s", "e").Create(t.Context(), &Release{Number: 1, Owner: "me"}, lines(2))
	if err != nil {
		t.Fatal(err)
	}
	j.Note(0, func(s *Service) { s.Step = StepSubmitted })
	devtest.Until(t, time.Minute, "the change is being written", func() bool { return g.count() == 2 })
	flushed := make(chan error, 1)
	go func() { flushed <- j.Flush(t.Context()) }()
	devtest.Until(t, time.Minute, "the flush has asked for a write", func() bool { return len(j.pages[0].wake) == 1 })
	close(g.open)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	j.Note(1, func(s *Service) { s.Step = StepDone })
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := g.count(); got != 3 {
		t.Errorf("got %d writes for a page with two changes, want 3", got)
	}
}

// held accepts each variable that is written. While hold is set, the writes wait until
// open is closed.
type held struct {
	open   chan struct{}
	hold   atomic.Bool
	writes atomic.Int32
}

func (h *held) RoundTrip(r *http.Request) (*http.Response, error) {
	n := h.writes.Add(1)
	if h.hold.Load() {
		<-h.open
	}
	var v api.Variable
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		return nil, err
	}
	v.ModifyIndex = uint64(n)
	text, err := json.Marshal(v)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
}

// A journal of many pages writes a few of them at once. The others wait without a copy
// of their page: changes that come meanwhile are in the same write.
func TestJournal_WritesFewPagesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pages = 3 * journalWrites
		h := &held{open: make(chan struct{})}
		client, err := api.NewClient(&api.Config{Address: "http://nomad.test", HttpClient: &http.Client{Transport: h}})
		if err != nil {
			t.Fatal(err)
		}
		var services []Service
		for i := range pages {
			services = append(services, Service{Target: "t" + strconv.Itoa(i), Name: "web"})
		}
		j, err := OpenReleases(client, "s", "e").Create(t.Context(), &Release{Number: 1, Owner: "me"}, services)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(j.pages); got != pages {
			t.Fatalf("the journal has %d pages, want %d", got, pages)
		}
		h.hold.Store(true)
		h.writes.Store(0)
		for _, step := range []Step{StepSubmitted, StepDone} {
			for i := range services {
				j.Note(i, func(s *Service) { s.Step = step })
			}
			synctest.Wait()
			if got := h.writes.Load(); got != journalWrites {
				t.Errorf("%s: %d pages are written at once, want %d", step, got, journalWrites)
			}
		}
		close(h.open)
		if err := j.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := h.writes.Load(), int32(pages+journalWrites); got != want {
			t.Errorf("got %d writes, want %d: those of the first pages have only one change", got, want)
		}
	})
}
