package rollout

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// streams is a Nomad that has nothing but event streams.
type streams struct {
	*httptest.Server

	mu     sync.Mutex
	asked  []string // queries
	opened map[chan string]bool
}

func newStreams(t *testing.T) (*streams, *api.Client) {
	s := &streams{opened: map[chan string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		events := make(chan string, 10)
		s.mu.Lock()
		s.asked, s.opened[events] = append(s.asked, r.URL.RawQuery), true
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			delete(s.opened, events)
			s.mu.Unlock()
		}()
		for {
			w.(http.Flusher).Flush()
			select {
			case e := <-events:
				_, _ = fmt.Fprintln(w, e)
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	client, err := api.NewClient(&api.Config{Address: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

// open returns how many streams are open, and how many there were.
func (s *streams) open() (now, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.opened), len(s.asked)
}

func (s *streams) wait(t *testing.T, now, all int) {
	t.Helper()
	devtest.Until(t, 30*time.Second, fmt.Sprintf("%d streams open of %d", now, all), func() bool {
		n, a := s.open()
		return n == now && a == all
	})
}

func (s *streams) send(job string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.opened {
		ch <- fmt.Sprintf(`{"Index":7,"Events":[{"Topic":"Allocation","Payload":{"Allocation":{"JobID":%q}}}]}`, job)
	}
}

// The plans of one listing that are applied at the same time have one event stream, and
// each hears of its own jobs.
func TestListing_SharesTheEventStream(t *testing.T) {
	t.Parallel()
	srv, client := newStreams(t)
	a, b := spec{id: "a"}, spec{id: "b"}
	l := &Listing{}
	l.follows([]spec{a})
	l.follows([]spec{b})
	actx, endA := context.WithCancel(t.Context())
	bctx, endB := context.WithCancel(t.Context())
	defer endA()
	defer endB()
	ofA := newHub(actx, client, []spec{a}, l)
	srv.wait(t, 1, 1)
	ofB := newHub(bctx, client, []spec{b}, l)
	stepA, stepB := &step{spec: a}, &step{spec: b}
	for h, s := range map[*hub]*step{ofA: stepA, ofB: stepB} {
		h.opening(t.Context(), s)
		<-h.waiting(s).wake // by the opening
		if !h.live(s) || !h.allLive() {
			t.Errorf("the stream of job %s is not live", s.spec.id)
		}
	}
	srv.send("b")
	<-ofB.waiting(stepB).wake
	select {
	case <-ofA.waiting(stepA).wake:
		t.Error("an event of job b wakes the follower of job a")
	default:
	}
	endA()
	srv.send("b")
	<-ofB.waiting(stepB).wake
	srv.wait(t, 1, 1)
	endB()
	srv.wait(t, 0, 1)

	cctx, endC := context.WithCancel(t.Context())
	defer endC()
	newHub(cctx, client, []spec{a}, l)
	srv.wait(t, 1, 2)
}

func TestHub_WithoutListing(t *testing.T) {
	t.Parallel()
	srv, client := newStreams(t)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	newHub(ctx, client, []spec{{id: "a"}}, nil)
	newHub(ctx, client, []spec{{id: "b"}}, nil)
	newHub(ctx, client, nil, nil)
	srv.wait(t, 2, 2)
	end()
	srv.wait(t, 0, 2)
}
