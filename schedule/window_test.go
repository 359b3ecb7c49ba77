package schedule

import (
	"testing"
	"time"

	"github.com/drover-nomad/drover/stack"
)

func TestInWindow(t *testing.T) {
	t.Parallel()
	night := &stack.Schedule{Name: "n", TimeZone: "Europe/Berlin", WindowFrom: 23 * time.Hour, WindowFor: 3 * time.Hour}
	for at, want := range map[string]bool{
		"2026-01-10T21:59:59Z": false, // 22:59 in Berlin
		"2026-01-10T22:00:00Z": true,
		"2026-01-11T00:59:59Z": true, // past midnight
		"2026-01-11T01:00:00Z": false,
		"2026-07-10T20:59:59Z": false, // summer: 22:59 there
		"2026-07-10T21:00:00Z": true,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := InWindow(night, now); err != nil || got != want {
			t.Errorf("%s: %v, %v", at, got, err)
		}
	}
	if got := Window(night); got != "23:00-02:00" {
		t.Errorf("the window reads %s", got)
	}
	if got, err := InWindow(&stack.Schedule{TimeZone: "UTC"}, time.Now()); !got || err != nil || Window(&stack.Schedule{}) != "" {
		t.Errorf("no window: %v, %v", got, err)
	}
	if _, err := InWindow(&stack.Schedule{TimeZone: "Nowhere/Land", WindowFor: 1}, time.Now()); err == nil {
		t.Error("an unknown time zone passed")
	}
}
