package devtest

import (
	"testing"
	"time"
)

// Until calls ok every 50 ms until it returns true, and ends the test if it does not
// within limit. what describes the condition. Let limit be far longer than the
// condition takes on an idle machine, so that load alone cannot fail the test.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("timed out after %s, want: %s", limit, what)
		case <-t.Context().Done():
			t.Fatalf("want: %s: %v", what, t.Context().Err())
		}
	}
}
