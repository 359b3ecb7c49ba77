package controller

import (
	"testing"
	"time"
)

// Policies that were read at different times are evaluated at the same time.
func TestFollowing_IsSharedByPolicies(t *testing.T) {
	t.Parallel()
	want := time.Unix(1010, 0)
	for _, now := range []time.Time{time.Unix(1000, 0), time.Unix(1003, 5), time.Unix(1009, 999)} {
		if got := following(now, 10*time.Second); !got.Equal(want) {
			t.Errorf("at %s: got %s, want %s", now, got, want)
		}
	}
}
