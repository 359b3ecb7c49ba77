package nomad

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("connection refused")

func always(error) bool { return true }

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := Backoff{250 * time.Millisecond, 2 * time.Second}
	for n, want := range []time.Duration{250, 500, 1000, 2000, 2000} {
		want *= time.Millisecond
		for range 100 {
			if got := b.Pause(n); got > want || got < want*3/4 {
				t.Errorf("pause %d: got %s, want between three quarters of %s and all of it", n, got, want)
			}
		}
	}
	if got := b.Pause(1000); got > b.Longest || got < b.Longest*3/4 {
		t.Errorf("pause 1000: got %s, want about %s", got, b.Longest)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
	slow := func(context.Context) error { time.Sleep(5 * time.Minute); return errDown }
	fail := func(context.Context) error { return errDown }
	for name, tt := range map[string]struct {
		policy      Policy
		do          func(context.Context) error
		least, most int // attempts
		limit       time.Duration
		want        string
	}{
		// The longest pauses add up to 11.75 s before the 9th attempt, the shortest
		// to 8.81 s before it and 10.31 s before the 10th.
		"retries until the patience is over": {Policy{10 * time.Second, time.Second, always}, fail, 9, 10, 12 * time.Second, errDown.Error()},
		"does not retry a final error":       {Policy{10 * time.Second, time.Second, func(error) bool { return false }}, fail, 1, 1, 0, errDown.Error()},
		"ends an attempt that hangs":         {Policy{10 * time.Second, 30 * time.Second, always}, hang, 1, 1, 30 * time.Second, "no answer within 30s"},
		"retries once after a long attempt":  {Policy{10 * time.Second, 0, always}, slow, 2, 2, 10*time.Minute + time.Second, errDown.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun, attempts := time.Now(), 0
				err := tt.policy.Do(t.Context(), func(ctx context.Context) error { attempts++; return tt.do(ctx) })
				if fmt.Sprint(err) != tt.want {
					t.Errorf("got error %v, want %s", err, tt.want)
				}
				if attempts < tt.least || attempts > tt.most {
					t.Errorf("got %d attempts, want %d to %d", attempts, tt.least, tt.most)
				}
				if took := time.Since(begun); took > tt.limit {
					t.Errorf("took %s, want at most %s", took, tt.limit)
				}
			})
		})
	}
	t.Run("ends with the context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begun := time.Now()
			err := Policy{time.Hour, time.Minute, always}.Do(ctx, fail)
			if took := time.Since(begun); !errors.Is(err, errDown) || took != time.Second {
				t.Errorf("got %v after %s, want %v after 1s", err, took, errDown)
			}
		})
	})
	t.Run("reports at most every 10 s, and lends no patience", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			reports := 0
			ctx := WithPatience(t.Context(), time.Minute, func(error) { reports++ })
			_ = Policy{25 * time.Second, time.Minute, always}.Do(ctx, func(ctx context.Context) error {
				if got := PatienceOf(ctx); got != 0 {
					t.Errorf("patience within an attempt: got %s, want 0", got)
				}
				return errDown
			})
			if reports != 3 {
				t.Errorf("got %d reports in 25 s, want 3", reports)
			}
			if got := PatienceOf(WithoutPatience(ctx)); got != 0 {
				t.Errorf("patience after WithoutPatience: got %s, want 0", got)
			}
		})
	})
}

func TestRetryConflict(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails int
		err   error
		want  int // attempts
	}{
		"retries a conflict":            {3, ErrConflict, 4},
		"does not retry other errors":   {3, errDown, 1},
		"gives up after fifty attempts": {1000, ErrConflict, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				err := RetryConflict(t.Context(), func() error {
					if attempts++; attempts <= tt.fails {
						return tt.err
					}
					return nil
				})
				if attempts != tt.want || (err == nil) != (tt.want > tt.fails) {
					t.Errorf("got %d attempts and %v, want %d", attempts, err, tt.want)
				}
			})
		})
	}
}
