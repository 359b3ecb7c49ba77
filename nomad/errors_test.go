package nomad

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// answer returns the error of a request that Nomad answers with this status and
// text.
func answer(t *testing.T, code int, body string) error {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, body, code)
	}))
	defer srv.Close()
	client, err := api.NewClient(&api.Config{Address: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = client.Jobs().Info("web", nil)
	return fmt.Errorf("reading job web: %w", err)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	stopped, err := api.NewClient(&api.Config{Address: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	_, _, unreachable := stopped.Jobs().Info("web", nil)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, gaveUp := stopped.Jobs().Info("web", (&api.QueryOptions{}).WithContext(cancelled))
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, _, timedOut := stopped.Jobs().Info("web", (&api.QueryOptions{}).WithContext(late))

	predicates := map[string]func(error) bool{
		"not found": IsNotFound, "forbidden": IsForbidden, "conflict": IsConflict, "internal": IsInternal, "unavailable": IsUnavailable,
	}
	for name, tt := range map[string]struct {
		err  error
		want map[string]bool
	}{
		"no error":                  {nil, nil},
		"an error of another kind":  {errors.New("404"), nil},
		"404":                       {answer(t, 404, "job not found"), map[string]bool{"not found": true}},
		"403":                       {answer(t, 403, "Permission denied"), map[string]bool{"forbidden": true}},
		"409":                       {answer(t, 409, "cas error"), map[string]bool{"conflict": true}},
		"a lost check-and-set":      {fmt.Errorf("writing: %w", ErrConflict), map[string]bool{"conflict": true}},
		"a variable that changed":   {api.ErrCASConflict{Conflict: &api.Variable{}}, map[string]bool{"conflict": true}},
		"a job that changed":        {answer(t, 500, "Enforcing job modify index 7: job exists"), map[string]bool{"conflict": true, "internal": true}},
		"a job that Nomad refuses":  {answer(t, 500, "1 error occurred: invalid job"), map[string]bool{"internal": true}},
		"no leader":                 {answer(t, 500, "No cluster leader"), map[string]bool{"internal": true, "unavailable": true}},
		"too many requests":         {answer(t, 429, ""), map[string]bool{"unavailable": true}},
		"a proxy without a backend": {answer(t, 503, "<html>"), map[string]bool{"unavailable": true}},
		"no connection":             {unreachable, map[string]bool{"unavailable": true}},
		"no answer in time":         {timedOut, map[string]bool{"unavailable": true}},
		"cancelled by the caller":   {gaveUp, nil},
		"one of several": {
			errors.Join(answer(t, 500, "invalid job"), unreachable), map[string]bool{"internal": true, "unavailable": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for predicate, is := range predicates {
				if got := is(tt.err); got != tt.want[predicate] {
					t.Errorf("%s of %v: got %t, want %t", predicate, tt.err, got, tt.want[predicate])
				}
			}
		})
	}
	if got := StatusCode(answer(t, 418, "tea")); got != 418 {
		t.Errorf("status code: got %d, want 418", got)
	}
	if got := Body(answer(t, 418, "tea")); got != "tea" {
		t.Errorf("body: got %q, want %q", got, "tea")
	}
}
