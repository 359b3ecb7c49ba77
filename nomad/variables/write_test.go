package variables

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-nomad/drover/nomad"
)

var errAway = errors.New("connection refused")

func TestRetryWrite(t *testing.T) {
	t.Parallel()
	t.Run("retries for as long as the context allows", func(t *testing.T) {
		t.Parallel()
		for _, test := range []struct{ patience, want time.Duration }{{0, writePatience}, {time.Second, writePatience}, {2 * time.Minute, 2 * time.Minute}} {
			synctest.Test(t, func(t *testing.T) {
				begun, attempts := time.Now(), 0
				err := retryWrite(nomad.WithPatience(t.Context(), test.patience, nil), func(context.Context) error { attempts++; return errAway })
				if took := time.Since(begun); !errors.Is(err, errAway) || took < test.want || took > test.want+5*time.Second || attempts < 5 {
					t.Errorf("%v after %s and %d attempts, want %s", err, took, attempts, test.want)
				}
			})
		}
	})
	t.Run("does not retry a conflict", func(t *testing.T) {
		t.Parallel()
		attempts := 0
		err := retryWrite(t.Context(), func(context.Context) error { attempts++; return &ConflictError{"x"} })
		if attempts != 1 || err == nil {
			t.Errorf("%d attempts, %v", attempts, err)
		}
	})
	t.Run("a request that hangs ends soon after Ctrl-C", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			begun := time.Now()
			err := retryWrite(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			if took := time.Since(begun); err == nil || took != time.Second+cancelGrace {
				t.Errorf("%v after %s", err, took)
			}
		})
	})
	t.Run("a request that is answered after Ctrl-C counts", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := retryWrite(ctx, func(ctx context.Context) error {
				select {
				case <-time.After(3 * time.Second):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	})
}
