package record

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// A lock whose answer was lost is ours: it is held, seen as held, and given back.
func testLockAnswerLost(t *testing.T, c *api.Client, rt *tamper) {
	for name, strike := range map[string]func(){
		"answer lost":           func() { rt.lose = true },
		"500 after it was done": func() { rt.wrong = true },
	} {
		r := OpenReleases(c, "lost lock", "default")
		begun := time.Now()
		rt.mu.Lock()
		strike()
		rt.mu.Unlock()
		l, err := r.Lock(t.Context(), holder("ann"), 0, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if took := time.Since(begun); took > LockTTL {
			t.Errorf("%s: it took %s", name, took)
		}
		if h, err := r.Holder(t.Context()); err != nil || h == nil || h.User != "ann" || !seen(t, r) {
			t.Errorf("%s: the lock is held by %v, %v", name, h, err)
		}
		rt.mu.Lock()
		strike()
		rt.mu.Unlock()
		if err := l.Remove(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		other, err := r.Lock(t.Context(), holder("bob"), 0, nil)
		if err != nil {
			t.Fatalf("%s: it was not given back: %v", name, err)
		}
		if err := other.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Schedules are written once when the answer is lost, and a delete is no error.
func testScheduleAnswerLost(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSchedules(c, "lost schedule", "default")
	for range 2 {
		rt.mu.Lock()
		rt.lose = true
		rt.mu.Unlock()
		if _, err := s.Change(t.Context(), "nightly", func(s *Schedule) { s.Runs = append(s.Runs, Run{Outcome: "deployed"}) }); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Read(t.Context(), "nightly")
	if err != nil || len(got.Runs) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	rt.mu.Lock()
	rt.lose = true
	rt.mu.Unlock()
	if err := s.Remove(t.Context(), "nightly"); err != nil {
		t.Error(err)
	}
}

// wrongAnswer forwards a request and answers it with 500.
func wrongAnswer(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	return &http.Response{StatusCode: http.StatusInternalServerError, Body: http.NoBody, Request: r}, nil
}
